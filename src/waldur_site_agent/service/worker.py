"""The workers of a service: one for each offering, each with its own schedule."""

from __future__ import annotations

import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from waldur_site_agent.config import ConfigurationError, Offering
from waldur_site_agent.cycles.site import CycleReport, Site
from waldur_site_agent.events.listener import EventStatus, Listener, Presence, Watchdog
from waldur_site_agent.events.messages import OFFERING_RESOURCES_SYNC
from waldur_site_agent.events.pending import EventQueue, Kind
from waldur_site_agent.events.registration import Registration, object_types_of
from waldur_site_agent.model.backend import Everything
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.health import WorkerHealth
from waldur_site_agent.service.modes import AnyMode, EventMode, Mode
from waldur_site_agent.service.monitoring import Monitoring
from waldur_site_agent.service.passes import EventSession, Passes, check_token, run_cycle
from waldur_site_agent.service.process import Stop
from waldur_site_agent.service.session import Runtime, only_copy, open_site, open_transport
from waldur_site_agent.waldur.concurrency import in_background

SECONDS_FOR_THE_FIRST_CONNECTION = 5.0
"""How long the first full pass waits for a subscription, so that no event falls in between."""
_IDLE_SECONDS = 0.5
_LONGEST_PAUSE = 60.0


@dataclass(slots=True)
class _Reception:
    """What listens while a worker works: the event queue, the connection, and who watches both."""

    event_queue: EventQueue
    listener: Listener
    watchdog: Watchdog
    presence: Presence

    def start(self) -> None:
        self.listener.start()
        self.watchdog.start()
        self.presence.start()

    def stop(self) -> None:
        """Watch no more first: a thread that ends on purpose is not to be started again."""
        self.watchdog.stop()
        self.presence.stop()
        self.listener.stop()

    def status(self) -> EventStatus:
        waited = self.event_queue.waited_seconds()
        return EventStatus(
            connection=self.listener.status,
            scopes_waiting=len(waited),
            oldest_waiting_seconds=max(waited, default=0.0),
            counts=self.event_queue.counts,
            hangs=self.watchdog.hung,
        )


@dataclass(slots=True)
class EventWorker:
    """Serves one offering until it is told to stop; trouble never ends it."""

    runtime: Runtime
    offering: Offering
    mode: EventMode
    stop: Stop
    patience: float = 35.0
    """How long to wait for another process that serves the offering, in seconds."""
    _reception: _Reception | None = None
    _working: bool = False
    _log: FilteringBoundLogger = field(init=False)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)

    @property
    def status(self) -> EventStatus:
        """How the events stand now; any thread may ask."""
        reception = self._reception
        return EventStatus() if reception is None else reception.status()

    def _describe(self) -> dict[str, Any]:
        return self.status.describe()

    def run(self) -> None:
        """The body of the worker's thread."""
        log, failures = self._log, 0
        while not self.stop.requested():
            began = time.monotonic()
            try:
                self._work()
            except (SiteAgentError, ConfigurationError) as error:
                if not self.stop.requested():
                    self._duty().fail(str(error))
                    log.error("not started; tried again", reason=str(error))
            except Exception as error:
                self._duty().fail(f"a defect: {type(error).__name__}: {error}")
                log.exception(
                    "worker failed because of a defect in the agent or a plugin; tried again"
                )
            failures = 1 if time.monotonic() - began > _LONGEST_PAUSE else failures + 1
            self._pause(failures)
        log.info("stopped")

    def _pause(self, failures: int) -> None:
        longest = min(_LONGEST_PAUSE, 2.0 ** min(failures, 10))
        seconds = random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing
        self._duty().rest(seconds)
        self.stop.wait(seconds)

    def _work(self) -> None:
        """Everything from the locks to the last pass.

        The locks are those of the modes whose jobs are done here: no polling copy of them may
        serve the offering at the same time, whatever configuration it has read.
        """
        with ExitStack() as stack:
            for part in self.mode.parts_of(self.offering):
                stack.enter_context(
                    only_copy(self.offering, part, self.patience, self.stop.requested)
                )
            event_session = EventSession.open(
                stack, self.runtime, self.offering, self.mode, self.stop
            )
            self._duty().begin()
            event_session.start()
            self._duty().start()
            reception = self._reception = self._receive(event_session)
            health = self.runtime.monitoring.health
            health.watch_events(self.offering.name, self._describe, self.mode.name)
            stack.callback(reception.stop)
            reception.start()
            self._serve(Passes(event_session, reception.event_queue), reception.event_queue)

    def _receive(self, event_session: EventSession) -> _Reception:
        types = (*object_types_of(self.offering), OFFERING_RESOURCES_SYNC)
        event_queue = EventQueue(self.offering.waldur_offering_uuid, types, self._log)
        registration = Registration(event_session.site.waldur, self.offering, self._log)
        listener = Listener(open_transport(self.offering), registration, event_queue, self._log)
        watchdog = Watchdog(
            listener, lambda: event_session.progress() if self._working else None, self._log
        )
        presence = Presence(registration.ping, self.mode.ping_seconds, self._log)
        return _Reception(event_queue, listener, watchdog, presence)

    def _serve(self, passes: Passes, event_queue: EventQueue) -> None:
        """Make passes until the agent is asked to stop; the one in hand is finished."""
        event_queue.want(Everything(), seconds=SECONDS_FOR_THE_FIRST_CONNECTION)
        next_full_pass = self._next_full_pass()
        while not self.stop.requested():
            self._duty().rest(2 * _IDLE_SECONDS)
            if time.monotonic() >= next_full_pass:
                event_queue.want(Everything())
            batch = event_queue.take(_IDLE_SECONDS)
            if batch is None:
                continue
            if batch.kind is Kind.EVERYTHING:
                next_full_pass = self._next_full_pass()
            self._working = True
            try:
                passes.carry_out(batch)
            finally:
                self._working = False

    def _next_full_pass(self) -> float:
        """When the next full pass is due; a little uneven, so that agents do not march in step."""
        jitter = random.uniform(-_JITTER, _JITTER)  # noqa: S311 - spreads load, guards nothing
        minutes = self.runtime.configuration.events.full_pass_minutes
        return time.monotonic() + minutes * 60 * (1 + jitter)

    def _duty(self) -> WorkerHealth:
        return self.runtime.monitoring.health.worker_health(self.offering.name, self.mode.name)


def full_pass_once(
    runtime: Runtime, offering: Offering, mode: EventMode, *, dry_run: bool, stop: Stop
) -> list[CycleReport]:
    """One full pass without listening to events, for ``--once`` and dry runs."""
    log = structlog.get_logger().bind(offering=offering.name, mode=mode.name)
    try:
        with ExitStack() as stack:
            if not dry_run:
                for part in mode.parts_of(offering):
                    stack.enter_context(only_copy(offering, part, 0))
            event_session = EventSession.open(stack, runtime, offering, mode, stop)
            event_session.start(dry_run=dry_run)
            return event_session.full_pass(dry_run=dry_run)
    except (SiteAgentError, ConfigurationError) as error:
        if not dry_run:  # a dry run prints the reason in place of the plan
            log.error("not started", reason=str(error))
        return [CycleReport(offering=offering.name, trouble=str(error))]
    except Exception as error:  # a bug, often a plugin's: the other offerings have their turn
        log.exception("not started because of a defect in the agent or a plugin")
        trouble = f"a defect: {type(error).__name__}: {error}"
        return [CycleReport(offering=offering.name, trouble=trouble)]


SECONDS_FOR_A_PREDECESSOR_TO_STOP = 35.0
"""How long a worker waits for another process that serves its offering, before it says so."""
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Worker:
    """Serves one offering in one mode until it is told to stop; trouble never ends it."""

    runtime: Runtime
    offering: Offering
    mode: Mode
    stop: Stop

    def run(self) -> None:
        """The body of the worker's thread."""
        log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)
        while not self.stop.requested():
            began = time.monotonic()
            try:
                self._work()
            except (SiteAgentError, ConfigurationError) as error:
                if not self.stop.requested():
                    self._duty().fail(str(error))
                    log.error("not started; tried again next time", reason=str(error))
            except Exception as error:
                self._duty().fail(f"a defect: {type(error).__name__}: {error}")
                log.exception(
                    "worker failed because of a defect in the agent or a plugin; tried again "
                    "next time"
                )
            self._rest(began)
        log.info("stopped")

    def _work(self) -> None:
        patience, stopping = SECONDS_FOR_A_PREDECESSOR_TO_STOP, self.stop.requested
        with (
            only_copy(self.offering, self.mode, patience, stopping),
            open_site(self.runtime, self.offering, self.mode, stopping, self.stop.pause) as site,
        ):
            self._serve(site)

    def _serve(self, site: Site) -> None:
        started = False
        while not self.stop.requested():
            began = time.monotonic()
            if not started:
                started = self._start(site)
            if started:
                run_cycle(site, self.mode)
            self._rest(began)

    def _start(self, site: Site) -> bool:
        worker_health = self._duty()
        worker_health.begin()
        try:
            check_token(site, self.mode)
            self.mode.start(site)
        except SiteAgentError as error:
            worker_health.fail(str(error))
            if not self.stop.requested():
                site.log.warning("not started yet; tried again next time", reason=str(error))
            return False
        except Exception as error:
            worker_health.fail(f"a defect: {type(error).__name__}: {error}")
            site.log.exception("start failed because of a defect in the agent or a plugin")
            return False
        worker_health.start()
        return True

    def _rest(self, began: float) -> None:
        """Wait for the next turn; a little uneven, so that agents do not march in step."""
        jitter = random.uniform(-_JITTER, _JITTER)  # noqa: S311 - spreads load, guards nothing
        turn = began + self.mode.period_seconds() * (1 + jitter)
        until_then = max(0.0, turn - time.monotonic())
        seconds = self.mode.seconds_to_rest(until_then, datetime.now(UTC))
        self._duty().rest(seconds)
        self.stop.wait(seconds)

    def _duty(self) -> WorkerHealth:
        return self.runtime.monitoring.health.worker_health(self.offering.name, self.mode.name)


def _worker(
    runtime: Runtime, offering: Offering, mode: AnyMode, stop: Stop
) -> Worker | EventWorker:
    if isinstance(mode, EventMode):
        return EventWorker(runtime, offering, mode, stop, SECONDS_FOR_A_PREDECESSOR_TO_STOP)
    return Worker(runtime, offering, mode, stop)


@dataclass(frozen=True, slots=True)
class Unserved:
    """An offering in a mode whose configuration cannot be used."""

    offering: str
    mode: str
    reason: str

    def log(self) -> None:
        """Say so, with every problem of the file."""
        structlog.get_logger().error(
            "offering not served: its configuration cannot be used",
            offering=self.offering,
            mode=self.mode,
            reason=self.reason,
            remedy="correct the file, then reload (SIGHUP) or restart the agent",
        )


class WorkerPool:
    """All workers of the process; replaced as a whole when the configuration is read again."""

    def __init__(
        self,
        runtime: Runtime,
        work: Sequence[tuple[Offering, AnyMode]],
        unserved: Sequence[Unserved] = (),
    ) -> None:
        """``unserved`` are those that health and metrics show as failing, beside the workers."""
        self.stop = Stop()
        self._unserved = unserved
        self._situation = runtime
        self.workers = [_worker(runtime, offering, mode, self.stop) for offering, mode in work]
        self._threads = [
            threading.Thread(
                target=worker.run, name=f"{worker.mode.name}:{worker.offering.name}", daemon=True
            )
            for worker in self.workers
        ]

    def start(self) -> None:
        """Begin to work."""
        health = self._situation.monitoring.health
        for worker, thread in zip(self.workers, self._threads, strict=True):
            health.take_over(worker.offering.name, worker.mode.name, thread)
            thread.start()
        for unserved in self._unserved:
            health.cannot_serve(unserved.offering, unserved.mode, unserved.reason)
            unserved.log()
        health.forget_relieved()

    def stop_all(self) -> None:
        """Ask all workers to finish what they have in hand and to begin nothing new."""
        self._situation.monitoring.health.retire()
        self.stop.request()

    def close(self) -> None:
        """Give back what the workers shared; only when none is at work any more."""
        self._situation.journal.close()

    def at_work(self) -> bool:
        """Whether any worker has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)


Value = TypeVar("Value")

STOP_WITHIN_SECONDS = 30.0
"""How long work in hand may take after a signal; then the process ends all the same."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.2
_WORK_ENDED = 0
"""Stands in the queue of signals, so that nobody waits for the next poll; no signal is 0."""


def serve(
    pool: WorkerPool, make_crew: Callable[[], WorkerPool], monitoring: Monitoring | None = None
) -> int:
    """Work until a signal says stop; return the exit code.

    SIGTERM and SIGINT finish the object in hand, then stop, within ``STOP_WITHIN_SECONDS``; a
    second one stops at once. What is not finished then is finished by the next start. SIGHUP
    starts a new worker pool from a fresh reading of the configuration once the old one has finished
    what it had begun; a configuration with errors is reported and the old pool goes on.
    """
    log = structlog.get_logger()
    monitoring = monitoring or Monitoring()
    successor: _Successor | None = None
    with _received((*_STOP_SIGNALS, signal.SIGHUP)) as received:
        pool.start()
        while pool.at_work() or successor is not None:
            number = _next(received)
            monitoring.beat()
            if number in _STOP_SIGNALS:
                log.info("stopping", signal=signal.Signals(number).name)
                monitoring.stopping()
                pool.stop_all()
                _wait_or_end(pool.at_work, received)
                return 0
            if number == signal.SIGHUP:
                successor = _read_again(make_crew) or successor
            if successor is not None:
                pool.stop_all()
                if pool.at_work():
                    successor.explain_the_wait()
                else:
                    pool.close()
                    pool, successor = successor.started(), None
    log.error("every worker has ended; see above why")
    return 1


def run_interruptible(work: Callable[[Stop], Value]) -> Value:
    """Do one piece of work, which SIGTERM and SIGINT ask to stop as :func:`serve` has it."""
    stop = Stop()
    with _received(_STOP_SIGNALS) as received:
        task = in_background(lambda: work(stop), "once")
        task.add_done_callback(lambda _: received.put(_WORK_ENDED))
        while not task.done():
            number = _next(received)
            if number in _STOP_SIGNALS:
                structlog.get_logger().info("stopping", signal=signal.Signals(number).name)
                stop.request()
                _wait_or_end(lambda: not task.done(), received)
    return task.result()


@dataclass(slots=True)
class _Successor:
    """A worker pool that begins when the one before it has ended."""

    pool: WorkerPool
    next_explanation: float = 0.0

    def explain_the_wait(self) -> None:
        if time.monotonic() >= self.next_explanation:
            self.next_explanation = time.monotonic() + STOP_WITHIN_SECONDS
            structlog.get_logger().info(
                "the new configuration waits until the work in hand is finished"
            )

    def started(self) -> WorkerPool:
        self.pool.start()
        structlog.get_logger().info(
            "configuration read again",
            offerings=len({worker.offering.name for worker in self.pool.workers}),
        )
        return self.pool


def _read_again(make_crew: Callable[[], WorkerPool]) -> _Successor | None:
    try:
        return _Successor(make_crew())
    except (ConfigurationError, SiteAgentError, ValueError, OSError) as error:
        structlog.get_logger().error(
            "configuration not read again; the old one stays in force", reason=str(error)
        )
        return None


def _wait_or_end(at_work: Callable[[], bool], received: queue.SimpleQueue[int]) -> None:
    """Wait until the work ends; end the process when it takes too long or is asked for again."""
    deadline = time.monotonic() + STOP_WITHIN_SECONDS
    while at_work():
        if _next(received) in _STOP_SIGNALS:
            _end_process("asked to stop a second time")
        if time.monotonic() >= deadline:
            _end_process(f"the work in hand took longer than {STOP_WITHIN_SECONDS:g} s")


def _end_process(reason: str) -> NoReturn:
    """End at once, whatever the threads are doing; the next start finds what is left to do.

    A command of the backend that is under way is not killed: half a write helps nobody, and the
    lock that it holds keeps other writers away until it has ended.
    """
    structlog.get_logger().error(
        "stopped with work in hand; the next start finishes it",
        reason=reason,
        commands="a backend command that still runs is left to end by itself",
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _next(received: queue.SimpleQueue[int]) -> int | None:
    try:
        return received.get(timeout=_POLL_SECONDS)
    except queue.Empty:
        return None


@contextmanager
def _received(numbers: tuple[signal.Signals, ...]) -> Iterator[queue.SimpleQueue[int]]:
    received: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = {n: signal.signal(n, lambda number, _frame: received.put(number)) for n in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
