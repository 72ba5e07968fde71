"""Runs the crew in the foreground and answers signals: stop, and read the configuration again."""

from __future__ import annotations

import queue
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from waldur_site_agent.config import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from waldur_site_agent.service.agent import Crew

STOP_WITHIN_SECONDS = 30.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.5


def serve(make_crew: Callable[[], Crew]) -> int:
    """Work until a signal says stop; return the exit code.

    SIGTERM and SIGINT finish the object in hand, then stop, within 30 seconds; what is not
    finished then is finished by the next start. SIGHUP makes a new crew from a fresh reading of
    the configuration; a configuration with errors is reported and the old crew goes on.
    """
    log = structlog.get_logger()
    with _signals() as received:
        crew = make_crew()
        crew.start()
        while crew.is_alive:
            try:
                number = received.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if number != signal.SIGHUP:
                log.info("stopping", signal=signal.Signals(number).name)
                return 0 if crew.finish(STOP_WITHIN_SECONDS) else _gave_up()
            crew = _reloaded(crew, make_crew)
    log.error("nothing is left to do; every offering was refused")
    return 1


def _gave_up() -> int:
    structlog.get_logger().error(
        "stopped with work in hand; the next start finishes it", waited_seconds=STOP_WITHIN_SECONDS
    )
    return 1


def _reloaded(crew: Crew, make_crew: Callable[[], Crew]) -> Crew:
    log = structlog.get_logger()
    try:
        successor = make_crew()
    except (ConfigurationError, ValueError) as error:
        log.error("configuration not read again; the old one stays in force", reason=str(error))
        return crew
    crew.finish(STOP_WITHIN_SECONDS)
    successor.start()
    log.info("configuration read again", offerings=len(successor.workers))
    return successor


@contextmanager
def _signals() -> Iterator[queue.SimpleQueue[int]]:
    received: queue.SimpleQueue[int] = queue.SimpleQueue()
    numbers = (*_STOP_SIGNALS, signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, _frame: received.put(number)) for n in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
