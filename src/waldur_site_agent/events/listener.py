"""Keeps the subscription at the broker alive for as long as the process runs.

One thread connects, receives and reconnects forever. After an error it waits for a random time (see
:func:`longest_pause`) before it reconnects; each new subscription is followed by a full pass,
because events may have been lost in between.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from waldur_site_agent.events.broker import (
    SECONDS_BETWEEN_WARNINGS,
    Connection,
    ConnectionLostError,
    Subscription,
    Transport,
)
from waldur_site_agent.events.pending import EventQueue
from waldur_site_agent.model.backend import Everything
from waldur_site_agent.model.errors import DefectError, PermanentError, SiteAgentError

FIRST_PAUSE = 1.0
"""Seconds: the longest pause before the second attempt; it doubles with each further one."""
LONGEST_PAUSE = 60.0
LONGEST_PAUSE_WHEN_REFUSED = 900.0
"""The same if Waldur sends no events until an administrator changes something."""
STEADY_SECONDS = 10.0
"""A shorter subscription is followed by a pause, to avoid a busy loop."""
TRIES_AFTER_A_SHORT_ONE = 4
"""Attempts to count after a short subscription: the longest pause is then eight seconds."""
SECONDS_BETWEEN_CATCH_UPS = 30.0
"""The minimum time between full passes caused by new connections."""
"""The minimum time between two warnings of the same error without a connection in between."""
TRIES_BEFORE_REGISTERING_AGAIN = 4
_RECEIVE_SECONDS = 1.0
_LONGEST_EXPONENT = 10


def longest_pause(tries: int, trouble: SiteAgentError) -> float:
    """The upper bound, in seconds, of the random pause after some failed attempts.

    It doubles with each attempt. A refusal by Waldur (no event support, a missing permission) lasts
    until somebody changes something, so it is retried less and less often.
    """
    refused = isinstance(trouble, PermanentError)
    limit = LONGEST_PAUSE_WHEN_REFUSED if refused else LONGEST_PAUSE
    doublings = min(max(tries - 1, 0), _LONGEST_EXPONENT)
    return min(limit, FIRST_PAUSE * 2.0**doublings)


class Registrar(Protocol):
    """Registers with Waldur for events."""

    def subscribe(self, after: SiteAgentError | None = None) -> Subscription:
        """Register, or register again."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A snapshot of the connection."""

    connected_since: datetime | None = None
    """When the subscription was confirmed; ``None`` if not connected."""
    heard_seconds_ago: float | None = None
    """Seconds since the last data or heart-beat from the broker; ``None`` if not connected."""
    connections: int = 0
    """The number of confirmed subscriptions since the start."""
    trouble: str = ""
    """Why there is no connection."""


class Listener:
    """One offering's connection to the broker, and the thread that maintains it."""

    def __init__(
        self,
        transport: Transport,
        registrar: Registrar,
        event_queue: EventQueue,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._registrar = registrar
        self._event_queue = event_queue
        self._log = log
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._since: datetime | None = None
        self._confirmed = 0
        self._trouble = ""
        self._subscription: Subscription | None = None
        self._last_catch_up: float | None = None
        self._warn_after: float | None = None
        self._lasted: float | None = None

    def start(self) -> None:
        """Start the thread, also as a replacement for one that died or hangs."""
        self._stop = stop = threading.Event()
        self._thread = threading.Thread(
            target=self._listen, args=(stop,), name="events", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the connection; unacknowledged messages stay in the queue."""
        self._stop.set()
        self.drop_connection()

    def drop_connection(self) -> None:
        """Drop the current connection; the thread then reconnects."""
        connection = self._connection
        if connection is not None:
            connection.close()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def status(self) -> ConnectionStatus:
        """The current state of the connection."""
        connection = self._connection
        return ConnectionStatus(
            connected_since=self._since if connection is not None else None,
            heard_seconds_ago=connection.heard_seconds_ago() if connection is not None else None,
            connections=self._confirmed,
            trouble="" if connection is not None else self._trouble,
        )

    def _listen(self, stop: threading.Event) -> None:
        """The body of the thread; each thread has a ``stop`` of its own."""
        log, tries = self._log, 0
        trouble: SiteAgentError | None = None
        while not stop.is_set():
            try:
                self._receive(stop, tries, trouble)
            except SiteAgentError as error:
                trouble = error
            except Exception as error:  # a bug must not end the thread
                if stop.is_set():  # the site may be closed already
                    return
                log.exception("listening failed because of a bug in the agent or a plugin")
                trouble = DefectError(
                    f"bug in the agent or a plugin: {type(error).__name__}: {error}"
                )
            if stop.is_set() or trouble is None:
                return
            tries = self._tries_after(tries)
            self._rest(tries, trouble, stop)

    def _tries_after(self, tries: int) -> int:
        """Count attempts from zero after a subscription, or from a few if it was short."""
        confirmed, self._lasted = self._lasted, None
        if confirmed is None:
            return tries + 1
        return 1 if confirmed >= STEADY_SECONDS else min(tries + 1, TRIES_AFTER_A_SHORT_ONE)

    def _receive(self, stop: threading.Event, tries: int, trouble: SiteAgentError | None) -> None:
        """Connect and receive messages until the connection ends or the agent stops."""
        connection = self._connect(tries, trouble)
        try:
            if stop.is_set():  # another thread may own the connection by now
                return
            self._begin(connection)
            confirmed, self._lasted = self._clock(), 0.0
            while not stop.is_set():
                delivery = connection.receive(_RECEIVE_SECONDS)
                if delivery is not None:
                    self._event_queue.receive(delivery, connection)
                self._lasted = self._clock() - confirmed
        finally:
            self._end(connection)

    def _connect(self, tries: int, trouble: SiteAgentError | None) -> Connection:
        """Connect with the last registration, or register again if that may help."""
        known = self._subscription
        lost = isinstance(trouble, ConnectionLostError)
        if known is None or not lost or tries % TRIES_BEFORE_REGISTERING_AGAIN == 0:
            self._subscription = known = self._registrar.subscribe(trouble)
        return self._transport.connect(known)

    def _begin(self, connection: Connection) -> None:
        self._event_queue.want(Everything(), seconds=self._until_the_next_catch_up())
        self._connection, self._since = connection, datetime.now(UTC)
        self._confirmed += 1
        self._warn_after = None
        self._log.info("listening to events", connections=self._confirmed)

    def _until_the_next_catch_up(self) -> float:
        """Seconds until the next full pass; one that is already due also covers this connection."""
        now, last = self._clock(), self._last_catch_up
        if last is None:
            last = now
        elif last <= now:
            last = max(now, last + SECONDS_BETWEEN_CATCH_UPS)
        self._last_catch_up = last
        return last - now

    def _end(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = self._since = None
        connection.close()

    def _rest(self, tries: int, trouble: SiteAgentError, stop: threading.Event) -> None:
        pause = random.uniform(0, longest_pause(tries, trouble))  # noqa: S311 - spreads load, guards nothing
        self._complain(str(trouble), pause)
        stop.wait(pause)

    def _complain(self, trouble: str, pause: float) -> None:
        """Warn of a new error at once, and of a lasting one now and then."""
        now, news = self._clock(), trouble != self._trouble or self._warn_after is None
        warn = self._log.debug
        if news or now >= (self._warn_after or now):
            warn, self._warn_after = self._log.warning, now + SECONDS_BETWEEN_WARNINGS
        self._trouble = trouble
        warn("not listening to events; will retry", reason=trouble, seconds=round(pause, 1))


LOOK_EVERY_SECONDS = 5.0
SILENT_AFTER_SECONDS = 40.0
"""Heart-beats come every ten seconds; the connection should time out before this."""
HUNG_AFTER_SECONDS = 50.0
"""A pass counts as hung after this time without a request, command or message."""


class Listening(Protocol):
    """The part of a listener that the watchdog uses."""

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        ...

    @property
    def status(self) -> ConnectionStatus:
        """The state of the connection."""
        ...

    def start(self) -> None:
        """Start a new thread."""
        ...

    def stop(self) -> None:
        """Stop thread and connection."""
        ...

    def drop_connection(self) -> None:
        """Drop the connection; the thread reconnects."""
        ...


@dataclass(slots=True)
class Movement:
    """When the progress counter last changed."""

    counter: int
    at: float


class Watchdog:
    """Checks the listening thread and the current pass every few seconds."""

    def __init__(
        self,
        listening: Listening,
        progress: Callable[[], int | None],
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a watchdog; it does not run yet.

        Args:
            listening: the listener to watch and restart.
            progress: a counter that grows during a pass; ``None`` between passes.
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
        """Whether the current pass makes no progress."""

    def start(self) -> None:
        """Start checking, in a thread of its own."""
        threading.Thread(target=self._watch, name="events watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop checking; nothing is restarted from now on."""
        with self._starting:
            self._stop.set()

    def look(self) -> None:
        """Check once, and restart what has failed."""
        self._look_at_the_thread()
        self._look_at_the_pass()

    def _watch(self) -> None:
        log = self._log
        while not self._stop.wait(LOOK_EVERY_SECONDS):
            try:
                self.look()
            except Exception:  # a bug must not end the watchdog
                log.exception("watchdog failed because of a bug in the agent")

    def _look_at_the_thread(self) -> None:
        if not self._listening.is_alive:
            self._start_again("the event listener thread died; restarted")
            return
        silent = self._listening.status.heard_seconds_ago
        if silent is None or silent < SILENT_AFTER_SECONDS:
            self._dropped = False
        elif not self._dropped:
            self._dropped = True
            self._log.error("no data from the broker; reconnecting", seconds=int(silent))
            self._listening.drop_connection()
        else:
            self._dropped = False
            self._listening.stop()
            self._start_again("the event listener thread hangs; replaced")

    def _start_again(self, why: str) -> None:
        """Unless the watchdog was stopped meanwhile: then nobody would stop the new thread."""
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
                "no progress in the current cycle",
                seconds=int(now - self._movement.at),
                remedy="every request and command has a timeout and ends by itself; if this "
                "lasts, look at the backend, then restart the agent",
            )


class Presence:
    """Sends health pings to Waldur at a fixed interval, in a thread of its own."""

    def __init__(
        self, ping: Callable[[], None], every_seconds: float, log: FilteringBoundLogger
    ) -> None:
        self._ping = ping
        self._every_seconds = every_seconds
        self._log = log
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the thread; the first ping follows after one interval."""
        threading.Thread(target=self._keep_pinging, name="events presence", daemon=True).start()

    def stop(self) -> None:
        """Stop pinging."""
        self._stop.set()

    def _keep_pinging(self) -> None:
        log = self._log
        while not self._stop.wait(self._every_seconds):
            try:
                self._ping()
            except SiteAgentError as error:
                log.warning("health ping to Waldur failed", reason=str(error))
            except Exception:  # the next ping may succeed
                if self._stop.is_set():  # the site may be closed already
                    return
                log.exception("health ping failed because of a bug in the agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatus:
    """A snapshot; counters start with the worker."""

    connection: ConnectionStatus = field(default_factory=ConnectionStatus)
    scopes_waiting: int = 0
    """How many scopes are due for a pass, first attempt or retry."""
    oldest_waiting_seconds: float = 0.0
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Messages by object type and outcome (:attr:`EventQueue.counts`)."""
    hangs: bool = False
    """Whether the current pass makes no progress."""

    def describe(self) -> dict[str, object]:
        """All of it, as JSON values."""
        connection = self.connection
        since, heard = connection.connected_since, connection.heard_seconds_ago
        return {
            "connected": since is not None,
            "connected_since": since.isoformat(timespec="seconds") if since else None,
            "heard_seconds_ago": None if heard is None else round(heard, 1),
            "connections": connection.connections,
            "trouble": connection.trouble,
            "waiting": self.scopes_waiting,
            "oldest_waiting_seconds": round(self.oldest_waiting_seconds, 1),
            "messages": {" ".join(key): count for key, count in sorted(self.counts.items())},
            "hangs": self.hangs,
        }
