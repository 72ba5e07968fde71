"""Sends messages in the background, each when its time has come."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from waldur_site_agent.sandbox.events.occurrences import Destination


class Outbox:
    """One thread that sends one message after the other. ``send`` must not raise."""

    def __init__(self, send: Callable[[Destination], None]) -> None:
        self._send = send
        self._waiting: list[tuple[float, int, Destination]] = []
        self._number = itertools.count()
        self._sending = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="sandbox-events", daemon=True)
        self._thread.start()

    def put(self, message: Destination, delay_seconds: float = 0.0) -> None:
        """Send a message, now or some seconds later; those of one moment keep their order."""
        with self._changed:
            due = time.monotonic() + delay_seconds
            heapq.heappush(self._waiting, (due, next(self._number), message))
            self._changed.notify_all()

    def settle(self, timeout_seconds: float) -> bool:
        """Wait until everything is sent, delayed messages too; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._sending, timeout_seconds
            )

    def close(self) -> None:
        """Stop; what waits is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while (message := self._next()) is not None:
            self._send(message)
            with self._changed:
                self._sending = False
                self._changed.notify_all()

    def _next(self) -> Destination | None:
        with self._changed:
            while not self._closed:
                due = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if due is not None and due <= 0:
                    self._sending = True
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(due)
            return None
