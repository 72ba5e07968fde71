"""The worker pool of the process: signals, reload and shutdown."""

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
from waldur_site_agent.service.monitoring import Monitoring
from waldur_site_agent.service.process import Stop
from waldur_site_agent.service.session import AnyMode, Runtime, lease_names
from waldur_site_agent.service.worker import worker_for
from waldur_site_agent.waldur.concurrency import in_background

Value = TypeVar("Value")

STOP_WITHIN_SECONDS = 30.0
"""How long the current work may take after a signal before the process exits anyway."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.2
_WORK_ENDED = 0
"""Put into the queue of signals to wake the main thread; no signal has the number 0."""


def serve(
    pool: WorkerPool, make_pool: Callable[[], WorkerPool], monitoring: Monitoring | None = None
) -> int:
    """Run the workers until a signal stops them; return the exit code.

    SIGTERM and SIGINT let the workers finish their current object, within
    ``STOP_WITHIN_SECONDS``; a second signal stops at once. The next start takes up unfinished
    work. SIGHUP reloads the configuration and replaces the worker pool once the current work is
    finished; if the configuration is invalid, that is logged and the old pool goes on.
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
                successor = _read_again(make_pool) or successor
            if successor is not None:
                pool.stop_all()
                if pool.at_work():
                    successor.explain_the_wait()
                else:
                    pool.close()
                    pool, successor = successor.started(), None
    log.error("all workers have ended; see the errors above")
    return 1


def run_interruptible(work: Callable[[Stop], Value]) -> Value:
    """Run ``work``; SIGTERM and SIGINT ask it to stop, as in :func:`serve`."""
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
    """An offering that a mode cannot serve because of its configuration."""

    offering: str
    mode: str
    reason: str

    def log(self) -> None:
        """Log it with every problem of the configuration."""
        structlog.get_logger().error(
            "offering not served: its configuration is invalid",
            offering=self.offering,
            mode=self.mode,
            reason=self.reason,
            remedy="correct the file, then reload (SIGHUP) or restart the agent",
        )


class WorkerPool:
    """All workers of the process; replaced as a whole on reload."""

    def __init__(
        self,
        runtime: Runtime,
        work: Sequence[tuple[Offering, AnyMode]],
        unserved: Sequence[Unserved],
    ) -> None:
        """Health and metrics show ``unserved`` as failing, beside the workers."""
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
        """Start all workers."""
        health, leases = self._runtime.monitoring.health, self._runtime.leases
        health.watch_coordination(None if leases is None else leases.status)
        if leases is not None:
            leases.serve(
                (lease_names(w.offering, w.mode), f"{w.mode.name} of {w.offering.name}")
                for w in self.workers
            )
        for worker, thread in zip(self.workers, self._threads, strict=True):
            health.take_over(worker.offering.name, worker.mode.name, thread)
            thread.start()
        for unserved in self._unserved:
            health.cannot_serve(unserved.offering, unserved.mode, unserved.reason)
            unserved.log()
        health.forget_retired()

    def stop_all(self) -> None:
        """Ask all workers to finish their current object and start nothing new."""
        self._runtime.monitoring.health.retire()
        self.stop.request()

    def close(self) -> None:
        """Release shared resources, after all workers have ended."""
        self._runtime.journal.close()
        if self._runtime.leases is not None:
            self._runtime.leases.close()

    def at_work(self) -> bool:
        """Whether any worker is still running."""
        return any(thread.is_alive() for thread in self._threads)


@dataclass(slots=True)
class _Successor:
    """A worker pool that starts when the old one has ended."""

    pool: WorkerPool
    next_explanation: float = 0.0

    def explain_the_wait(self) -> None:
        if time.monotonic() >= self.next_explanation:
            self.next_explanation = time.monotonic() + STOP_WITHIN_SECONDS
            structlog.get_logger().info("reload waits until the current work is finished")

    def started(self) -> WorkerPool:
        self.pool.start()
        structlog.get_logger().info(
            "configuration reloaded",
            offerings=len({worker.offering.name for worker in self.pool.workers}),
        )
        return self.pool


def _read_again(make_pool: Callable[[], WorkerPool]) -> _Successor | None:
    try:
        return _Successor(make_pool())
    except (ConfigurationError, SiteAgentError, ValueError, OSError) as error:
        structlog.get_logger().error(
            "configuration not reloaded; the old one stays in force", reason=str(error)
        )
        return None


def _wait_or_end(at_work: Callable[[], bool], received: queue.SimpleQueue[int]) -> None:
    """Wait until the work ends; exit if it takes too long or a second signal arrives."""
    deadline = time.monotonic() + STOP_WITHIN_SECONDS
    while at_work():
        if _next(received) in _STOP_SIGNALS:
            _end_process("a second stop signal was received")
        if time.monotonic() >= deadline:
            _end_process(f"the current work took longer than {STOP_WITHIN_SECONDS:g} s")


def _end_process(reason: str) -> NoReturn:
    """Exit at once, whatever the threads are doing; the next start takes up the unfinished work.

    A running backend command is not killed: it may be in the middle of a write, and the lock that
    it holds keeps other writers away until it has ended.
    """
    structlog.get_logger().error(
        "stopped with unfinished work; the next start takes it up",
        reason=reason,
        commands="a running backend command is left to finish",
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
