"""Notices what looks alive and is not: a dead thread, a silent connection, a pass that hangs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from waldur_site_agent.events.listening import ConnectionStatus

LOOK_EVERY_SECONDS = 5.0
SILENT_AFTER_SECONDS = 40.0
"""Heart-beats come every ten seconds, and the connection itself should give up before this."""
HUNG_AFTER_SECONDS = 50.0
"""A pass in which no request, command or message has moved for so long."""


class Listening(Protocol):
    """What is watched of the thread that listens."""

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        ...

    @property
    def status(self) -> ConnectionStatus:
        """How the connection stands."""
        ...

    def start(self) -> None:
        """Begin to listen anew, in a thread of its own."""
        ...

    def stop(self) -> None:
        """Give thread and connection up."""
        ...

    def drop_connection(self) -> None:
        """Give the connection up; the thread makes another."""
        ...


@dataclass(slots=True)
class Movement:
    """When the work last moved, as far as its counters show."""

    counter: int
    at: float


class Watchdog:
    """Looks at the listening thread and at the pass in hand, every few seconds."""

    def __init__(
        self,
        listening: Listening,
        progress: Callable[[], int | None],
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to watch.

        Args:
            listening: whom to watch and mend.
            progress: a number that grows while a pass moves; ``None`` between passes.
            log: bound to the offering.
            clock: monotonic seconds.
        """
        self._listening = listening
        self._progress = progress
        self._log = log
        self._clock = clock
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._dropped = False
        self._movement: Movement | None = None
        self.hung = False
        """Whether the pass in hand does not move."""

    def start(self) -> None:
        """Begin to look, in a thread of its own."""
        threading.Thread(target=self._watch, name="events watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more; from now on nothing is started again."""
        with self._starting:
            self._stop.set()

    def look(self) -> None:
        """Look once, and mend what can be mended."""
        self._look_at_the_thread()
        self._look_at_the_pass()

    def _watch(self) -> None:
        log = self._log
        while not self._stop.wait(LOOK_EVERY_SECONDS):
            try:
                self.look()
            except Exception:  # whoever watches must not fall asleep
                log.exception("watching failed because of a defect")

    def _look_at_the_thread(self) -> None:
        if not self._listening.is_alive:
            self._start_again("the thread that listens to events has died; started again")
            return
        silent = self._listening.status.heard_seconds_ago
        if silent is None or silent < SILENT_AFTER_SECONDS:
            self._dropped = False
        elif not self._dropped:
            self._dropped = True
            self._log.error("the connection to the broker is silent; replaced", seconds=int(silent))
            self._listening.drop_connection()
        else:
            self._dropped = False
            self._listening.stop()
            self._start_again("the thread that listens to events hangs; given up, started again")

    def _start_again(self, why: str) -> None:
        """Unless the watch ended meanwhile: then nobody would end the new thread."""
        with self._starting:
            if not self._stop.is_set():
                self._log.error(why)
                self._listening.start()

    def _look_at_the_pass(self) -> None:
        now, counter = self._clock(), self._progress()
        if counter is None:
            self._movement, self.hung = None, False
        elif self._movement is None or self._movement.counter != counter:
            self._movement, self.hung = Movement(counter, now), False
        elif not self.hung and now - self._movement.at >= HUNG_AFTER_SECONDS:
            self.hung = True
            self._log.error(
                "the pass in hand does not move",
                seconds=int(now - self._movement.at),
                remedy="every request and command has a timeout and ends by itself; if this "
                "lasts, look at the backend, then restart the agent",
            )
