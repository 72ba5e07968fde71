"""The message broker, independent of the protocol.

A transport connects and subscribes; a connection delivers and acknowledges. Neither reconnects or
retries: a connection that fails once is useless, and its owner decides when to connect again.
Nothing here depends on the content of messages.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.waldur.address import certificate_remedy, trusted_authorities


class ConnectionLostError(TemporaryError):
    """The connection ended or could not be made: closed, timed out, or not trusted."""


class LoginRefusedError(TemporaryError):
    """The broker refuses login, password or virtual host: register again for a fresh login."""


class QueueRefusedError(TemporaryError):
    """A queue is missing, has different properties, or access is denied: register again."""


@dataclass(frozen=True)
class Address:
    """Where the WebSocket of a broker listens."""

    host: str
    port: int
    path: str
    tls: bool = True
    """Use ``wss://``; without it everything, passwords included, is sent in clear text."""
    verify: bool = True
    """Whether to verify the broker's certificate and host name."""
    ca_file: str = ""
    """A file of certificate authorities trusted in addition to the system's."""
    proxy: str = field(default="", repr=False)
    """The proxy of the configuration; without it those of the environment are used."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}/{self.path.lstrip('/')}"


@dataclass(frozen=True)
class Subscription:
    """The login and queues that a registration with Waldur returned."""

    vhost: str
    """The virtual host of the broker; Waldur has one per user."""
    login: str
    password: str = field(repr=False)
    queues: tuple[str, ...]
    """Full names of queues; with MQTT, topics."""
    declared: bool
    """Whether the server created the queues; if not, subscribing creates them."""


@dataclass(frozen=True)
class Delivery:
    """One message, delivered to this connection only until it is acknowledged."""

    body: bytes
    queue: str
    """The queue as the subscription names it; with MQTT, the topic."""
    headers: Mapping[str, str]
    redelivered: bool
    """The broker's redelivery flag; it may also be set on messages never seen before."""
    ack: object
    """What the connection needs to acknowledge it; invalid on any other connection."""


class Connection(Protocol):
    """A confirmed subscription.

    Unacknowledged messages are redelivered to some consumer when the connection ends. After a
    ``ConnectionLostError`` every further call except ``close`` and ``heard_seconds_ago`` raises it.
    """

    def receive(self, timeout_seconds: float) -> Delivery | None:
        """Return the next message, or ``None`` on timeout; called by one thread only.

        Raises:
            ConnectionLostError: The connection has ended, for whatever reason.
        """
        ...

    def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge a message, from any thread; a second call does nothing.

        The broker does not confirm it: if the connection breaks, the message may be redelivered.

        Raises:
            ConnectionLostError: The connection has ended; the message will be redelivered.
        """
        ...

    def close(self) -> None:
        """Close the connection; a second call does nothing, and no error is raised."""
        ...

    def heard_seconds_ago(self) -> float:
        """Seconds since anything, heart-beats included, came from the broker."""
        ...


class Transport(Protocol):
    """Connects to one broker."""

    def connect(self, subscription: Subscription) -> Connection:
        """Log in and subscribe to every queue; return when the broker has confirmed them all.

        Raises:
            LoginRefusedError: Login, password or virtual host are not accepted.
            QueueRefusedError: A queue does not exist, or has different properties.
            ConnectionLostError: Anything else: unreachable, certificate not trusted, timeout.
        """
        ...


_log = structlog.get_logger(__name__)

LARGEST_BODY = 16 * 1024 * 1024
"""Larger bodies are dropped; Waldur's events have a few thousand bytes."""


MOST_WAITING_BYTES = 64 * 1024 * 1024
MOST_WAITING = 1000


class Mailbox:
    """The messages received on one connection, and how it ended. Thread-safe.

    Brokers count only messages that have to be acknowledged, which those of MQTT need not be. So it
    is bounded here: the thread that reads from the network waits until others are taken.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Delivery] = deque()
        self._waiting_bytes = 0
        self._unacknowledged: dict[int, Delivery] = {}
        self._end: ConnectionLostError | None = None
        self._heard = time.monotonic()

    @property
    def end(self) -> ConnectionLostError | None:
        """Why the connection ended; ``None`` while it is open."""
        return self._end

    def hear(self) -> None:
        """Note that data came from the broker."""
        self._heard = time.monotonic()

    def heard_seconds_ago(self) -> float:
        """Seconds since data came from the broker."""
        return time.monotonic() - self._heard

    def put(
        self, body: bytes, queue: str, headers: Mapping[str, str], redelivered: bool, ack: object
    ) -> None:
        """Keep a message for the consumer; wait while too much waits for it already."""
        delivery = Delivery(body, queue, headers, redelivered, ack)
        with self._changed:
            self._changed.wait_for(lambda: self._end or self._has_room(len(body)))
            self.hear()  # whatever else has arrived meanwhile could not be read
            if self._end is None:
                self._unacknowledged[id(delivery)] = delivery
                self._waiting.append(delivery)
                self._waiting_bytes += len(body)
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        fits = self._waiting_bytes + size <= MOST_WAITING_BYTES
        return not self._waiting or (fits and len(self._waiting) < MOST_WAITING)

    def receive(self, timeout_seconds: float) -> Delivery | None:
        """Return the next message; see :class:`transport.Connection`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._end, timeout_seconds)
            self.raise_if_over()
            if not self._waiting:
                return None
            delivery = self._waiting.popleft()
            self._waiting_bytes -= len(delivery.body)
            self._changed.notify_all()
            return delivery

    def settle(self, delivery: Delivery) -> bool:
        """Mark a message as acknowledged; return whether it was unacknowledged until now."""
        with self._changed:
            self.raise_if_over()
            return self._unacknowledged.pop(id(delivery), None) is not None

    def finish(self, end: ConnectionLostError) -> None:
        """Mark the connection as ended and wake all waiting threads; the first reason counts."""
        with self._changed:
            if self._end is None:
                self._end = end
                self._waiting.clear()
                self._waiting_bytes = 0
                self._unacknowledged.clear()
            self._changed.notify_all()

    def raise_if_over(self) -> None:
        """Raise the reason why the connection ended, if it has."""
        if self._end is not None:
            # a new one each time: a traceback grows with every raise of the same object
            raise ConnectionLostError(str(self._end)) from self._end


SECONDS_BETWEEN_WARNINGS = 600.0


class OccasionalWarning:
    """Warns of what anybody who can publish may repeat: at once, then now and then with a count."""

    def __init__(
        self,
        event: str,
        log: FilteringBoundLogger = _log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._event = event
        self._log = log
        self._clock = clock
        self._again_at = 0.0
        self._unsaid = 0
        self._lock = threading.Lock()

    def __call__(self, **fields: object) -> None:
        """Log it at once, or only count it."""
        with self._lock:
            now = self._clock()
            if self._unsaid and now < self._again_at:
                self._unsaid += 1
                return
            if self._unsaid > 1:
                fields["more_like_this"] = self._unsaid - 1
            self._unsaid, self._again_at = 1, now + SECONDS_BETWEEN_WARNINGS
        self._log.warning(self._event, **fields)


class DroppedBodies:
    """Warns that the bodies of messages are dropped because they are too large."""

    def __init__(self) -> None:
        self._warn = OccasionalWarning("message larger than any event of Waldur; dropping its body")

    def note(self, queue: str, size: int) -> None:
        """Note one of them."""
        self._warn(queue=queue, bytes=size, limit=LARGEST_BODY)


def tls_context(address: Address) -> ssl.SSLContext | None:
    """Return the TLS context for the broker, or ``None`` for a connection without TLS.

    The certificate authorities are those trusted for Waldur's API.

    Raises:
        ConnectionLostError: ``ca_file`` or the system's authorities cannot be read.
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
    """Describe a failure to connect, with a remedy."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"certificate not trusted ({error.verify_message})"
        remedy = certificate_remedy(error)
    elif isinstance(error, ssl.SSLError):
        reason = f"TLS failed ({error.reason or error})"
        remedy = "check the port and websocket_use_tls"
    elif isinstance(error, TimeoutError):
        reason, remedy = "timed out", "check host, port and the firewall"
    else:
        reason = f"{error or type(error).__name__}"
        remedy = "check host and port, and that it is running"
    return ConnectionLostError(f"{address}: {reason}", remedy=remedy)
