"""The agent as a process: its workers, the signals it obeys, and how it ends."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import structlog

from waldur_site_agent.config import ConfigurationError, Offering
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.modes import AnyMode
from waldur_site_agent.service.monitoring import Monitoring
from waldur_site_agent.service.process import Stop
from waldur_site_agent.service.session import Runtime
from waldur_site_agent.service.worker import worker_for
from waldur_site_agent.waldur.concurrency import in_background

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
        self._runtime = runtime
        self.workers = [worker_for(runtime, offering, mode, self.stop) for offering, mode in work]
        self._threads = [
            threading.Thread(
                target=worker.run, name=f"{worker.mode.name}:{worker.offering.name}", daemon=True
            )
            for worker in self.workers
        ]

    def start(self) -> None:
        """Begin to work."""
        health = self._runtime.monitoring.health
        for worker, thread in zip(self.workers, self._threads, strict=True):
            health.take_over(worker.offering.name, worker.mode.name, thread)
            thread.start()
        for unserved in self._unserved:
            health.cannot_serve(unserved.offering, unserved.mode, unserved.reason)
            unserved.log()
        health.forget_relieved()

    def stop_all(self) -> None:
        """Ask all workers to finish what they have in hand and to begin nothing new."""
        self._runtime.monitoring.health.retire()
        self.stop.request()

    def close(self) -> None:
        """Give back what the workers shared; only when none is at work any more."""
        self._runtime.journal.close()

    def at_work(self) -> bool:
        """Whether any worker has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)


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
