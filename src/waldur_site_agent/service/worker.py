"""Workers: each serves one offering in one mode, by the clock or by events, and survives errors."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from waldur_site_agent.config import ConfigurationError, Offering
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.events.listener import EventStatus, Listener, Presence, Watchdog
from waldur_site_agent.events.messages import OFFERING_RESOURCES_SYNC
from waldur_site_agent.events.pending import EventQueue, Kind
from waldur_site_agent.events.registration import Registration, object_types_of
from waldur_site_agent.model.backend import Everything
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.health import WorkerHealth
from waldur_site_agent.service.modes import AnyMode, EventMode, Mode
from waldur_site_agent.service.passes import Passes, Session, bug_text
from waldur_site_agent.service.process import Stop
from waldur_site_agent.service.session import Runtime, open_transport

SECONDS_FOR_A_PREDECESSOR_TO_STOP = 35.0
"""How long a worker waits for another process to release its offering, before it reports it."""
SECONDS_FOR_THE_FIRST_CONNECTION = 5.0
"""How long the first full pass waits for the subscription, so that no event is missed."""
_IDLE_SECONDS = 0.5
_LONGEST_PAUSE = 60.0
_JITTER = 0.1


def once(
    runtime: Runtime,
    offering: Offering,
    mode: AnyMode,
    *,
    dry_run: bool = False,
    stop: Stop | None = None,
) -> list[CycleReport]:
    """Run one cycle of each job of the mode; an error never affects the next offering."""
    stop = stop or Stop()
    log = structlog.get_logger().bind(offering=offering.name, mode=mode.name)
    if stop.requested():
        reason = "the agent was asked to stop before it reached this offering"
        log.warning("could not start", reason=reason)
        return [CycleReport(offering=offering.name, trouble=reason)]
    try:
        with ExitStack() as stack:
            lock_wait = None if dry_run else 0.0
            session = Session.open(stack, runtime, offering, mode, stop, lock_wait=lock_wait)
            session.start(dry_run=dry_run)
            return session.full_pass(dry_run=dry_run)
    except (SiteAgentError, ConfigurationError) as error:
        if not dry_run:  # a dry run prints the reason instead of the plan
            log.error("could not start", reason=str(error))
        return [CycleReport(offering=offering.name, trouble=str(error))]
    except Exception as error:  # a bug, often a plugin's: go on with the other offerings
        log.exception("could not start because of a bug in the agent or a plugin")
        return [CycleReport(offering=offering.name, trouble=bug_text(error))]


class Schedule(Protocol):
    """Decides when a worker runs its cycles."""

    def serve(self, session: Session) -> None:
        """Run cycles until the worker is asked to stop; a cycle in progress is finished."""

    def seconds_to_retry(self, began: float) -> float:
        """How long to wait after a failed start that ``began`` then, by the monotonic clock."""


@dataclass(slots=True)
class Worker:
    """Serves one offering in one mode until it is asked to stop; no error ends it."""

    runtime: Runtime
    offering: Offering
    mode: AnyMode
    stop: Stop
    schedule: Schedule
    _log: FilteringBoundLogger = field(init=False)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)

    def run(self) -> None:
        """The body of the worker's thread."""
        log = self._log
        while not self.stop.requested():
            began = time.monotonic()
            try:
                self._open_and_serve()
            except (SiteAgentError, ConfigurationError) as error:
                if not self.stop.requested():
                    self._health().fail(str(error))
                    log.error("could not start; will retry", reason=str(error))
            except Exception as error:
                self._health().fail(bug_text(error))
                log.exception("worker failed because of a bug in the agent or a plugin; will retry")
            self._wait_to_retry(began)
        log.info("stopped")

    def _open_and_serve(self) -> None:
        with ExitStack() as stack:
            session = Session.open(
                stack,
                self.runtime,
                self.offering,
                self.mode,
                self.stop,
                lock_wait=SECONDS_FOR_A_PREDECESSOR_TO_STOP,
            )
            while not self.stop.requested():
                began = time.monotonic()
                if self._start(session):
                    self.schedule.serve(session)
                else:
                    self._wait_to_retry(began)

    def _start(self, session: Session) -> bool:
        """Whether the session could be started; the locks are kept until the next attempt."""
        health, log = self._health(), self._log
        health.begin()
        try:
            session.start()
        except SiteAgentError as error:
            health.fail(str(error))
            if not self.stop.requested():
                log.warning("could not start; will retry", reason=str(error))
            return False
        except Exception as error:
            health.fail(bug_text(error))
            log.exception("could not start because of a bug in the agent or a plugin; will retry")
            return False
        health.start()
        return True

    def _wait_to_retry(self, began: float) -> None:
        seconds = self.schedule.seconds_to_retry(began)
        self._health().rest(seconds)
        self.stop.wait(seconds)

    def _health(self) -> WorkerHealth:
        return _health_of(self.runtime, self.offering, self.mode)


def worker_for(runtime: Runtime, offering: Offering, mode: AnyMode, stop: Stop) -> Worker:
    """A worker with the schedule that the mode calls for."""
    schedule: Schedule
    if isinstance(mode, EventMode):
        schedule = OnEvents(runtime, offering, mode, stop)
    else:
        schedule = Polling(runtime, offering, mode, stop)
    return Worker(runtime, offering, mode, stop, schedule)


@dataclass(frozen=True, slots=True)
class Polling:
    """A cycle every period."""

    runtime: Runtime
    offering: Offering
    mode: Mode
    stop: Stop

    def serve(self, session: Session) -> None:
        """Run a cycle every period until the worker is asked to stop."""
        while not self.stop.requested():
            began = time.monotonic()
            session.full_pass()
            seconds = self.seconds_to_retry(began)
            _health_of(self.runtime, self.offering, self.mode).rest(seconds)
            self.stop.wait(seconds)

    def seconds_to_retry(self, began: float) -> float:
        """The time until the next period begins, with jitter so that agents do not synchronize."""
        turn = began + self.mode.period_seconds() * _jitter()
        until_then = max(0.0, turn - time.monotonic())
        return self.mode.seconds_to_rest(until_then, datetime.now(UTC))


@dataclass(slots=True)
class OnEvents:
    """A cycle when an event asks for it, and a full pass now and then."""

    runtime: Runtime
    offering: Offering
    mode: EventMode
    stop: Stop
    _failures: int = 0
    _reception: _Reception | None = None
    _working: bool = False
    _log: FilteringBoundLogger = field(init=False)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)

    @property
    def status(self) -> EventStatus:
        """The current state of connection and queue; any thread may ask."""
        reception = self._reception
        return EventStatus() if reception is None else reception.status()

    def serve(self, session: Session) -> None:
        """Listen, and run the passes that events ask for, until the worker is asked to stop."""
        reception = self._reception = self._receive(session)
        health = self.runtime.monitoring.health
        health.watch_events(self.offering.name, self._describe, self.mode.name)
        try:
            reception.start()
            self._serve(Passes(session, reception.event_queue), reception.event_queue)
        finally:
            reception.stop()

    def seconds_to_retry(self, began: float) -> float:
        """A delay that doubles with each failure in a row, with jitter."""
        lasted = time.monotonic() - began
        self._failures = 1 if lasted > _LONGEST_PAUSE else self._failures + 1
        longest = min(_LONGEST_PAUSE, 2.0 ** min(self._failures, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing

    def _describe(self) -> dict[str, Any]:
        return self.status.describe()

    def _receive(self, session: Session) -> _Reception:
        types = (*object_types_of(self.offering), OFFERING_RESOURCES_SYNC)
        event_queue = EventQueue(self.offering.waldur_offering_uuid, types, self._log)
        registration = Registration(session.site.waldur, self.offering, self._log)
        listener = Listener(open_transport(self.offering), registration, event_queue, self._log)
        watchdog = Watchdog(
            listener, lambda: session.progress() if self._working else None, self._log
        )
        presence = Presence(registration.ping, self.mode.ping_seconds, self._log)
        return _Reception(event_queue, listener, watchdog, presence)

    def _serve(self, passes: Passes, event_queue: EventQueue) -> None:
        event_queue.want(Everything(), seconds=SECONDS_FOR_THE_FIRST_CONNECTION)
        next_full_pass = self._next_full_pass()
        while not self.stop.requested():
            _health_of(self.runtime, self.offering, self.mode).rest(2 * _IDLE_SECONDS)
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
        minutes = self.runtime.configuration.events.full_pass_minutes
        return time.monotonic() + minutes * 60 * _jitter()


@dataclass(slots=True)
class _Reception:
    """What receives events while a worker works, and what watches over the connection."""

    event_queue: EventQueue
    listener: Listener
    watchdog: Watchdog
    presence: Presence

    def start(self) -> None:
        self.listener.start()
        self.watchdog.start()
        self.presence.start()

    def stop(self) -> None:
        """Stop the watchdog first, or it would restart a listener that ends on purpose."""
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


def _health_of(runtime: Runtime, offering: Offering, mode: AnyMode) -> WorkerHealth:
    return runtime.monitoring.health.worker_health(offering.name, mode.name)


def _jitter() -> float:
    """A factor near 1, so that agents do not synchronize."""
    return 1 + random.uniform(-_JITTER, _JITTER)  # noqa: S311 - spreads load, guards nothing
