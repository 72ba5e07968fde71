"""What the agent needs of a message broker, whatever protocol it speaks.

A transport connects and subscribes; a connection delivers and acknowledges. Neither reconnects,
retries or remembers: a connection that fails once is of no further use, and whoever owns it decides
when to try again. Nothing here knows what a message means.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.waldur.address import certificate_remedy, trusted_authorities


class ConnectionLostError(TemporaryError):
    """The connection is over, or could not be made: closed, silent for too long, not verified."""


class LoginRefusedError(TemporaryError):
    """The broker refuses login, password or virtual host: register again for a fresh login."""


class QueueRefusedError(TemporaryError):
    """A queue is missing, has other properties, or may not be read: register again."""


@dataclass(frozen=True)
class Address:
    """Where the WebSocket of a broker listens."""

    host: str
    port: int
    path: str
    tls: bool = True
    """``wss://``; without it everything, passwords too, is readable on the way."""
    verify: bool = True
    """Whether the broker's certificate must be valid and bear its name."""
    ca_file: str = ""
    """A file of certificate authorities trusted besides the system's."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}/{self.path.lstrip('/')}"


@dataclass(frozen=True)
class Subscription:
    """Who reads which queues: what a registration with Waldur gave."""

    vhost: str
    """The virtual host of the broker; Waldur has one per user."""
    login: str
    password: str = field(repr=False)
    queues: tuple[str, ...]
    """Full names of queues; with MQTT, topics."""
    declared: bool
    """Whether the server made the queues; if not, the subscription makes them."""


@dataclass(frozen=True)
class Delivery:
    """One message, given to this connection and to no other until it is acknowledged."""

    body: bytes
    queue: str
    """The queue as the subscription names it; with MQTT, the topic."""
    headers: Mapping[str, str]
    redelivered: bool
    """A hint that it may have been seen before; brokers say it of unseen messages too."""
    ack: object
    """What the connection needs to acknowledge it; of no use with another connection."""


class Connection(Protocol):
    """A confirmed subscription.

    Messages that are not acknowledged come back to some consumer when the connection ends. After a
    ``ConnectionLostError`` every further call except ``close`` and ``heard_seconds_ago`` raises it.
    """

    def receive(self, timeout_seconds: float) -> Delivery | None:
        """Return the next message, or ``None`` if none came in time; called by one thread only.

        Raises:
            ConnectionLostError: The connection is over, for whatever reason.
        """
        ...

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a message is dealt with; any thread, a second time does nothing.

        The broker does not confirm it: if the connection breaks now, the message may come again.

        Raises:
            ConnectionLostError: The connection is over; the message will come again.
        """
        ...

    def close(self) -> None:
        """End the connection; a second time does nothing, and nothing is raised."""
        ...

    def heard_seconds_ago(self) -> float:
        """How long nothing came from the broker, heart-beats included, by a monotonic clock."""
        ...


class Transport(Protocol):
    """A way to one broker."""

    def connect(self, subscription: Subscription) -> Connection:
        """Log in and subscribe to every queue; return when the broker confirmed them all.

        Raises:
            LoginRefusedError: Login, password or virtual host are not accepted.
            QueueRefusedError: A queue does not exist, or is not as the subscription expects it.
            ConnectionLostError: Anything else: unreachable, certificate not trusted, no answer.
        """
        ...


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


def tls_context(address: Address) -> ssl.SSLContext | None:
    """Return how to check the broker's certificate, or nothing for a connection without TLS.

    The same authorities as for Waldur's API are trusted.

    Raises:
        ConnectionLostError: ``ca_file`` or the authorities of the machine cannot be read.
    """
    if not address.tls:
        return None
    try:
        context = trusted_authorities(address.ca_file)
    except PermanentError as error:
        raise ConnectionLostError(f"{address}: {error.problem}", remedy=error.remedy) from error
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def unreachable(address: Address, error: Exception) -> ConnectionLostError:
    """Say what went wrong before the two sides spoke, and what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted ({error.verify_message})"
        remedy = certificate_remedy(error)
    elif isinstance(error, ssl.SSLError):
        reason = f"TLS fails ({error.reason or error})"
        remedy = "check the port and websocket_use_tls"
    elif isinstance(error, TimeoutError):
        reason, remedy = "no answer in time", "check host, port and the firewall"
    else:
        reason = f"{error or type(error).__name__}"
        remedy = "check host and port, and that it runs"
    return ConnectionLostError(f"{address}: {reason}", remedy=remedy)
