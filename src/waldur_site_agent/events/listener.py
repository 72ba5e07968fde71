"""Keeps a confirmed subscription at the broker, for as long as the process lives.

One thread connects, receives and connects again, without end. Whatever goes wrong, it waits a
random time (see :func:`longest_pause`) and starts over; after each new subscription everything is
compared once, because the broker may have lost what came in between.
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

from waldur_site_agent.events.broker import Connection, ConnectionLostError, Subscription, Transport
from waldur_site_agent.events.pending import EventQueue
from waldur_site_agent.model.backend import Everything
from waldur_site_agent.model.errors import DefectError, PermanentError, SiteAgentError

FIRST_PAUSE = 1.0
"""Seconds: the longest pause before the second try; it doubles with each further one."""
LONGEST_PAUSE = 60.0
LONGEST_PAUSE_WHEN_REFUSED = 900.0
"""The same where Waldur has no events for this agent until somebody changes something."""
STEADY_SECONDS = 10.0
"""A subscription that lasts shorter is followed by a pause, or it would be a loop without one."""
TRIES_AFTER_A_SHORT_ONE = 4
"""The longest pause is then eight seconds."""
SECONDS_BETWEEN_CATCH_UPS = 30.0
"""Full passes because of new connections are at least so far apart."""
SECONDS_BETWEEN_WARNINGS = 600.0
"""Warnings of the same trouble are at least so far apart, unless there was a connection between."""
TRIES_BEFORE_REGISTERING_AGAIN = 4
_RECEIVE_SECONDS = 1.0
_LONGEST_EXPONENT = 10


def longest_pause(tries: int, trouble: SiteAgentError) -> float:
    """The upper bound, in seconds, of the random pause after so many failed tries.

    It doubles with each try. A refusal by Waldur (a server without events, a missing right) lasts
    until somebody changes something, so it is asked about less and less often.
    """
    refused = isinstance(trouble, PermanentError)
    limit = LONGEST_PAUSE_WHEN_REFUSED if refused else LONGEST_PAUSE
    doublings = min(max(tries - 1, 0), _LONGEST_EXPONENT)
    return min(limit, FIRST_PAUSE * 2.0**doublings)


class Registrar(Protocol):
    """Gets a subscription from Waldur."""

    def subscribe(self, after: SiteAgentError | None = None) -> Subscription:
        """Register, or register again."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """How the connection stands at one moment."""

    connected_since: datetime | None = None
    """When the subscription was confirmed, aware; ``None`` while there is none."""
    heard_seconds_ago: float | None = None
    """How long nothing came from the broker, heart-beats included; ``None`` when not connected."""
    connections: int = 0
    """How many subscriptions were confirmed since the start."""
    trouble: str = ""
    """Why there is no connection."""


class Listener:
    """One offering's connection to the broker, and the thread that keeps it."""

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
        self._agenda = event_queue
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
        """Begin to listen; also when an earlier thread died, or hangs and is given up."""
        self._stop = stop = threading.Event()
        self._thread = threading.Thread(
            target=self._listen, args=(stop,), name="events", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the connection; what was not acknowledged stays in the queue."""
        self._stop.set()
        self.drop_connection()

    def drop_connection(self) -> None:
        """Give the present connection up; another one is made."""
        connection = self._connection
        if connection is not None:
            connection.close()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def status(self) -> ConnectionStatus:
        """How the connection stands now."""
        connection = self._connection
        return ConnectionStatus(
            connected_since=self._since if connection is not None else None,
            heard_seconds_ago=connection.heard_seconds_ago() if connection is not None else None,
            connections=self._confirmed,
            trouble="" if connection is not None else self._trouble,
        )

    def _listen(self, stop: threading.Event) -> None:
        """The body of the thread; ``stop`` is its own: a thread that was given up has another."""
        log, tries = self._log, 0
        trouble: SiteAgentError | None = None
        while not stop.is_set():
            try:
                self._receive(stop, tries, trouble)
            except SiteAgentError as error:
                trouble = error
            except Exception as error:  # a defect must not make the agent deaf
                if stop.is_set():  # what it works with may be closed already
                    return
                log.exception("listening failed because of a defect")
                trouble = DefectError(
                    f"bug in the agent or a plugin: {type(error).__name__}: {error}"
                )
            if stop.is_set() or trouble is None:
                return
            tries = self._tries_after(tries)
            self._rest(tries, trouble, stop)

    def _tries_after(self, tries: int) -> int:
        """Start anew after a subscription; one that was short keeps a little of its delay."""
        confirmed, self._lasted = self._lasted, None
        if confirmed is None:
            return tries + 1
        return 1 if confirmed >= STEADY_SECONDS else min(tries + 1, TRIES_AFTER_A_SHORT_ONE)

    def _receive(self, stop: threading.Event, tries: int, trouble: SiteAgentError | None) -> None:
        """Connect and take messages in until the connection ends or the agent stops."""
        connection = self._connect(tries, trouble)
        try:
            if stop.is_set():  # the connection that counts may be another thread's by now
                return
            self._begin(connection)
            confirmed, self._lasted = self._clock(), 0.0
            while not stop.is_set():
                delivery = connection.receive(_RECEIVE_SECONDS)
                if delivery is not None:
                    self._agenda.receive(delivery, connection)
                self._lasted = self._clock() - confirmed
        finally:
            self._end(connection)

    def _connect(self, tries: int, trouble: SiteAgentError | None) -> Connection:
        """Connect as registered before, or register again where that may be the remedy."""
        known = self._subscription
        lost = isinstance(trouble, ConnectionLostError)
        if known is None or not lost or tries % TRIES_BEFORE_REGISTERING_AGAIN == 0:
            self._subscription = known = self._registrar.subscribe(trouble)
        return self._transport.connect(known)

    def _begin(self, connection: Connection) -> None:
        self._agenda.want(Everything(), seconds=self._until_the_next_catch_up())
        self._connection, self._since = connection, datetime.now(UTC)
        self._confirmed += 1
        self._warn_after = None
        self._log.info("listening to events", connections=self._confirmed)

    def _until_the_next_catch_up(self) -> float:
        """Seconds; one that is still to come makes up for this connection, too."""
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
        """Warn of what is new, and of what lasts only now and then: tries may go on for days."""
        now, news = self._clock(), trouble != self._trouble or self._warn_after is None
        warn = self._log.debug
        if news or now >= (self._warn_after or now):
            warn, self._warn_after = self._log.warning, now + SECONDS_BETWEEN_WARNINGS
        self._trouble = trouble
        warn("not listening to events; tried again", reason=trouble, seconds=round(pause, 1))


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


class Presence:
    """A sign of life at a steady pace, from a thread of its own."""

    def __init__(
        self, ping: Callable[[], None], every_seconds: float, log: FilteringBoundLogger
    ) -> None:
        self._ping = ping
        self._every_seconds = every_seconds
        self._log = log
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin; the first sign comes after one period, registering was one."""
        threading.Thread(target=self._keep_pinging, name="events presence", daemon=True).start()

    def stop(self) -> None:
        """Give no more signs."""
        self._stop.set()

    def _keep_pinging(self) -> None:
        log = self._log
        while not self._stop.wait(self._every_seconds):
            try:
                self._ping()
            except SiteAgentError as error:
                log.warning("Waldur did not take the sign of life", reason=str(error))
            except Exception:  # the next sign may get through
                if self._stop.is_set():  # what it works with may be closed already
                    return
                log.exception("the sign of life failed because of a defect")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatus:
    """One moment; numbers count from the start of the worker."""

    connection: ConnectionStatus = field(default_factory=ConnectionStatus)
    scopes_waiting: int = 0
    """How many parts of the offering should be looked at, or looked at again after a failure."""
    oldest_waiting_seconds: float = 0.0
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Messages by type of object and what was made of them (:attr:`EventQueue.counts`)."""
    hangs: bool = False
    """Whether the pass in hand does not move."""

    def describe(self) -> dict[str, object]:
        """All of it as values that JSON knows."""
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
