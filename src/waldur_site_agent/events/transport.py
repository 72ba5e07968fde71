"""What the agent needs of a message broker, whatever protocol it speaks.

A transport connects and subscribes; a connection delivers and acknowledges. Neither reconnects,
retries or remembers: a connection that fails once is of no further use, and whoever owns it decides
when to try again. Nothing here knows what a message means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from waldur_site_agent.model.errors import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Mapping


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
