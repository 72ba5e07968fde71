"""What both transports share: messages on their way from the network to the consumer."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import structlog

from waldur_site_agent.events.transport import ConnectionLostError, Delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = structlog.get_logger(__name__)

LARGEST_BODY = 16 * 1024 * 1024
"""Bytes of a body that are kept; Waldur's events have a few thousand."""


class Mailbox:
    """The messages of one connection, and its end; threads may share it.

    The broker bounds how many messages wait here: it gives out no more than it was told to before
    some are acknowledged.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Delivery] = deque()
        self._unacknowledged: dict[int, Delivery] = {}
        self._end: ConnectionLostError | None = None
        self._heard = time.monotonic()

    @property
    def end(self) -> ConnectionLostError | None:
        """Why the connection is over, or nothing while it lives."""
        return self._end

    def hear(self) -> None:
        """Note that something came from the broker."""
        self._heard = time.monotonic()

    def heard_seconds_ago(self) -> float:
        """How long nothing came from the broker."""
        return time.monotonic() - self._heard

    def put(
        self, body: bytes, queue: str, headers: Mapping[str, str], redelivered: bool, ack: object
    ) -> None:
        """Keep a message for the consumer."""
        delivery = Delivery(body, queue, headers, redelivered, ack)
        with self._changed:
            self._unacknowledged[id(delivery)] = delivery
            self._waiting.append(delivery)
            self._changed.notify_all()

    def receive(self, timeout_seconds: float) -> Delivery | None:
        """Return the next message; see :class:`transport.Connection`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._end, timeout_seconds)
            self.raise_if_over()
            return self._waiting.popleft() if self._waiting else None

    def settle(self, delivery: Delivery) -> bool:
        """Return whether this message is still to be acknowledged; from now on it is not."""
        with self._changed:
            self.raise_if_over()
            return self._unacknowledged.pop(id(delivery), None) is not None

    def finish(self, end: ConnectionLostError) -> None:
        """End the connection for everybody who waits; the first reason stays."""
        with self._changed:
            if self._end is None:
                self._end = end
                self._waiting.clear()
                self._unacknowledged.clear()
            self._changed.notify_all()

    def raise_if_over(self) -> None:
        """Raise why the connection is over, if it is."""
        if self._end is not None:
            # a new one each time: a traceback grows with every raise of the same object
            raise ConnectionLostError(str(self._end)) from self._end


def warn_of_dropped_body(queue: str, size: int) -> None:
    """Say that a message is handed on without its body, because that is too large."""
    _log.warning(
        "a message is far larger than any event of Waldur; its body is dropped",
        queue=queue,
        bytes=size,
        limit=LARGEST_BODY,
    )
