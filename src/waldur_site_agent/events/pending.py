"""The queue between the listening thread and the worker: messages in, batches of scopes out."""

from __future__ import annotations

import enum
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from waldur_site_agent.events.broker import (
    Connection,
    ConnectionLostError,
    Delivery,
    OccasionalWarning,
)
from waldur_site_agent.events.messages import Announcement, Event, Message, Unusable, read_message
from waldur_site_agent.model.backend import Everything, ImportScope, OrderScope, Scope
from waldur_site_agent.model.events import WaldurSnapshot

READ_AGAIN_AFTER = (1.0, 5.0, 30.0)
"""Seconds until Waldur is read again if it does not show an announced change yet."""
FIRST_DELAY = 1.0
"""Seconds before the first retry; every further delay is twice as long."""
LONGEST_DELAY = 300.0
"""The longest delay between retries, in seconds: the period of the polling modes."""
LONGEST_REST = 60.0
"""Seconds between two passes of a kind while Waldur or the backend cannot be read."""
HOLD_SECONDS = 600.0
"""How long a message stays unacknowledged while its scope keeps failing.

Brokers close a connection whose messages are unacknowledged for half an hour. The scope stays
pending, and after a crash the full pass at start covers it.
"""
MOST_HELD = 5
"""How many messages are held while Waldur does not show what they announced.

RabbitMQ delivers ten by MQTT before it waits for an acknowledgement: whoever can publish could hold
up everybody else with changes that never happen. The scopes stay pending all the same.
"""
MOST_PENDING = 20_000
"""How many scopes wait for passes of their own; what is announced beyond that is for a full pass.

Brokers let anybody publish without end where nothing has to be acknowledged (MQTT, quality 0).
"""
SECONDS_UNTIL_ALL = 60.0
_LONGEST_EXPONENT = 16
_EVERYBODY = 0


class Kind(enum.Enum):
    """The kinds of passes."""

    EVERYTHING = "everything"
    ORDERS = "orders"
    MEMBERS = "members"
    IMPORT = "import"


def kind_of(scope: Scope) -> Kind:
    """The kind of pass that covers a scope; one pass covers several scopes of its kind."""
    match scope:
        case Everything():
            return Kind.EVERYTHING
        case OrderScope():
            return Kind.ORDERS
        case ImportScope():
            return Kind.IMPORT
        case _:
            return Kind.MEMBERS


@dataclass(slots=True)
class PendingScope:
    """A scope that waits for a pass."""

    scope: Scope
    since: float
    """When it became due."""
    due: float
    tickets: list[object] = field(default_factory=list)
    """Its unacknowledged messages; usually one."""
    announced: dict[Hashable, Announcement] = field(default_factory=dict)
    failures: int = 0
    group: int = _EVERYBODY
    """The scopes that share its passes, after a pass failed because of one of several."""
    readings: int = 0
    """How many times Waldur was read without showing the announced change."""
    early: bool = False
    """Whether a pass took it along before it was due."""


@dataclass(slots=True)
class Rest:
    """The pause of one kind of pass because one side could not be read."""

    cut_short: int = 0
    """How many failures in a row."""
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """The scopes that one pass covers."""

    kind: Kind
    entries: tuple[PendingScope, ...]

    @property
    def scopes(self) -> frozenset[Scope]:
        """Where the pass looks."""
        return frozenset(entry.scope for entry in self.entries)


class PendingScopes:
    """All entries, by scope."""

    def __init__(self) -> None:
        self._entries: dict[Scope, PendingScope] = {}
        self._held: set[Scope] = set()
        self._rests: dict[Kind, Rest] = {}
        self._groups = itertools.count(_EVERYBODY + 1)
        self._last_group = _EVERYBODY

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, scope: Scope) -> bool:
        return scope in self._entries

    def waited(self, now: float) -> list[float]:
        """For how many seconds each due entry has been waiting."""
        return [now - entry.since for entry in self._entries.values() if entry.since <= now]

    def scopes(self) -> frozenset[Scope]:
        """What waits."""
        return frozenset(self._entries)

    def add(
        self,
        scope: Scope,
        now: float,
        *,
        announcement: Announcement | None = None,
        ticket: object | None = None,
        due: float | None = None,
    ) -> list[object]:
        """Add a scope, merged with a pending one; return the messages to acknowledge.

        A scope that failed before keeps its delay: further news does not fix the failure. A full
        pass is only requested when events may have been lost, so it does not wait.
        """
        due = now if due is None else due
        entry = self._entries.get(scope)
        if entry is None:
            entry = self._entries[scope] = PendingScope(scope, max(now, due), due)
        entry.since = min(entry.since, max(now, due))
        if not entry.failures or scope == Everything():
            entry.due = min(entry.due, due)
        if announcement is not None:
            entry.announced[announcement.subject] = announcement
            entry.readings = 0
        if ticket is None:
            self._note_held(entry)
            return []
        superseded, entry.tickets = entry.tickets, [ticket]
        self._note_held(entry)
        return superseded

    def _note_held(self, entry: PendingScope) -> None:
        """Keep count of the entries whose messages are held although Waldur was read."""
        if entry.readings and entry.tickets:
            self._held.add(entry.scope)
        else:
            self._held.discard(entry.scope)

    def next_due(self) -> float | None:
        """When the next entry is due; ``None`` without entries."""
        return min(map(self._due, self._entries.values()), default=None)

    def _due(self, entry: PendingScope) -> float:
        rest = self._rests.get(kind_of(entry.scope))
        return entry.due if rest is None else max(entry.due, rest.until)

    def take(self, now: float) -> Batch | None:
        """Remove and return the scopes of the next pass; ``None`` while nothing is due.

        The scope that has been due longest decides, but every other time one that made a pass fail
        lets others go first. A full pass takes everything along.
        """
        due = sorted((e for e in self._entries.values() if self._due(e) <= now), key=self._due)
        if not due:
            return None
        if self._last_group != _EVERYBODY:
            due.sort(key=lambda entry: entry.group != _EVERYBODY)
        first = due[0]
        kind = kind_of(first.scope)
        if Everything() in {entry.scope for entry in due}:
            kind, chosen = Kind.EVERYTHING, list(self._entries.values())
        elif kind is Kind.IMPORT:
            chosen = [first]
        else:
            chosen = [e for e in due if kind_of(e.scope) is kind and e.group == first.group]
        self._last_group = first.group
        for entry in chosen:
            entry.early = entry.due > now
            del self._entries[entry.scope]
            self._held.discard(entry.scope)
        return Batch(kind, tuple(chosen))

    def failed(self, entry: PendingScope, now: float) -> list[object]:
        """Schedule a retry of an entry; return the messages to acknowledge."""
        self._rests.pop(kind_of(entry.scope), None)
        entry.failures += 1
        growth = 2 ** min(entry.failures - 1, _LONGEST_EXPONENT)
        entry.due = now + min(FIRST_DELAY * growth, LONGEST_DELAY)
        return self._put_back(entry, now)

    def spoiled(self, entries: Sequence[PendingScope], now: float) -> list[object]:
        """Note that a pass failed for one of its scopes; return the messages to acknowledge.

        Each half is retried separately, until the failing scope is alone and holds up no other.
        """
        if len(entries) == 1:
            entries[0].group = next(self._groups)
            return self.failed(entries[0], now)
        done: list[object] = []
        middle = len(entries) // 2
        for half in (entries[:middle], entries[middle:]):
            group = next(self._groups)
            for entry in half:
                entry.failures, entry.group = 0, group
                done += self.failed(entry, now)
        return done

    def cut_short(self, kind: Kind, entries: Iterable[PendingScope], now: float) -> list[object]:
        """Note that one side could not be read at all; return the messages to acknowledge.

        No scope in particular is to blame: all passes of the kind pause, longer each time, and the
        next one also covers what came in meanwhile.
        """
        rest = self._rests.setdefault(kind, Rest())
        growth = 2 ** min(rest.cut_short, _LONGEST_EXPONENT)
        rest.until = now + min(FIRST_DELAY * growth, LONGEST_REST)
        rest.cut_short += 1
        done: list[object] = []
        for entry in entries:
            entry.due = max(entry.due, now)
            done += self._put_back(entry, now)
        return done

    def passed(self, entry: PendingScope, snapshot: WaldurSnapshot, now: float) -> list[object]:
        """Note a successful pass; return the messages to acknowledge.

        If Waldur does not show an announced change, the entry waits for another pass, up to three
        times; after that it was changed back, or the event was wrong.
        """
        if entry.scope == Everything():
            self._rests.clear()
        self._rests.pop(kind_of(entry.scope), None)
        entry.failures, entry.group = 0, _EVERYBODY
        missing = {s: a for s, a in entry.announced.items() if not a.is_shown(snapshot)}
        if not missing:
            return entry.tickets
        entry.announced = missing
        if entry.early and entry.due > now:  # a pass that was not due yet does not count
            return self._put_back(entry, now)
        if entry.readings >= len(READ_AGAIN_AFTER):
            return entry.tickets
        entry.due = now + READ_AGAIN_AFTER[entry.readings]
        entry.readings += 1
        superseded = self._put_back(entry, now)
        if len(self._held) > MOST_HELD:
            superseded += entry.tickets
            entry.tickets = []
            self._note_held(entry)
        return superseded

    def _put_back(self, entry: PendingScope, now: float) -> list[object]:
        """Put an entry back, merged with what has come in about its scope meanwhile."""
        younger = self._entries.get(entry.scope)
        superseded: list[object] = []
        if younger is not None:
            entry.announced |= younger.announced
            if not entry.failures or entry.scope == Everything():
                entry.due, entry.readings = min(entry.due, younger.due), 0
            if younger.tickets:
                superseded, entry.tickets = entry.tickets, younger.tickets
        self._entries[entry.scope] = entry
        if now - entry.since >= HOLD_SECONDS:
            superseded += entry.tickets
            entry.tickets = []
        self._note_held(entry)
        return superseded


_OTHER = "other"
"""The label for all unknown types, so that their number stays bounded."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A message to acknowledge, and its connection."""

    connection: Connection
    delivery: Delivery


class EventQueue:
    """The scopes that events ask to look at, and their unacknowledged messages. Thread-safe."""

    def __init__(
        self,
        offering: UUID,
        object_types: Collection[str],
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offering = offering
        self._object_types = frozenset(object_types)
        self._log = log
        self._clock = clock
        self._waiting = PendingScopes()
        self._news = threading.Condition()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._warn_of_unusable = OccasionalWarning("cannot parse message", log, clock)
        self._warn_of_flood = OccasionalWarning(
            "too many messages at once; a full pass follows instead", log, clock
        )

    def receive(self, delivery: Delivery, connection: Connection) -> None:
        """Accept a message; if it needs no pass, it is acknowledged at once."""
        message = read_message(delivery.body, delivery.queue, self._offering)
        ticket = Ticket(connection, delivery)
        if isinstance(message, Event) and message.object_type in self._object_types:
            self._acknowledge(self._put_down(message, ticket, delivery.queue))
        else:
            self._leave_out(message, delivery.queue)
            self._acknowledge([ticket])

    def want(self, scope: Scope, *, seconds: float = 0.0) -> None:
        """Add a scope without a message, due in some seconds."""
        with self._news:
            now = self._clock()
            self._waiting.add(scope, now, due=now + seconds)
            self._news.notify_all()

    def take(self, timeout_seconds: float) -> Batch | None:
        """The scopes of the next pass; ``None`` if nothing becomes due before the timeout."""
        with self._news:
            batch = self._waiting.take(self._clock())
            if batch is None:
                due = self._waiting.next_due()
                pause = (
                    timeout_seconds if due is None else min(timeout_seconds, due - self._clock())
                )
                self._news.wait(max(0.0, pause))
                batch = self._waiting.take(self._clock())
            return batch

    def passed(self, entries: Iterable[PendingScope], snapshot: WaldurSnapshot) -> None:
        """Note a successful pass: acknowledge, or look again if a change is not visible yet."""
        with self._news:
            now = self._clock()
            done = [t for entry in entries for t in self._waiting.passed(entry, snapshot, now)]
        self._acknowledge(done)

    def failed(self, entries: Iterable[PendingScope]) -> None:
        """Note failed scopes: they are retried after a growing delay."""
        with self._news:
            now = self._clock()
            done = [ticket for entry in entries for ticket in self._waiting.failed(entry, now)]
        self._acknowledge(done)

    def spoiled(self, entries: Sequence[PendingScope]) -> None:
        """Note that some of these scopes failed: they are retried in smaller groups."""
        with self._news:
            done = self._waiting.spoiled(entries, self._clock())
        self._acknowledge(done)

    def cut_short(self, kind: Kind, entries: Iterable[PendingScope]) -> None:
        """Note that one side could not be read: passes of this kind pause for a while."""
        with self._news:
            done = self._waiting.cut_short(kind, entries, self._clock())
        self._acknowledge(done)

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """The number of messages by object type and outcome.

        Outcomes: ``waiting`` (a pass was scheduled), ``merged`` (one was pending already),
        ``ignored``, ``foreign`` (another offering's), ``unusable``.
        """
        with self._news:
            return dict(self._counts)

    def waited_seconds(self) -> list[float]:
        """How long each due scope has been waiting for a pass."""
        with self._news:
            return self._waiting.waited(self._clock())

    def _put_down(self, event: Event, ticket: Ticket, queue: str) -> list[object]:
        with self._news:
            now, merged = self._clock(), event.scope in self._waiting
            crowded = not merged and len(self._waiting) >= MOST_PENDING
            outcome = "merged" if merged or crowded else "waiting"
            self._counts[event.object_type, outcome] += 1
            if crowded:
                self._waiting.add(Everything(), now, due=now + SECONDS_UNTIL_ALL)
                superseded: list[object] = [ticket]
            else:
                superseded = self._waiting.add(
                    event.scope, now, announcement=event.announcement, ticket=ticket
                )
            self._news.notify_all()
        if crowded:
            self._warn_of_flood(queue=queue, waiting=MOST_PENDING)
        return superseded

    def _leave_out(self, message: Message, queue: str) -> None:
        if isinstance(message, Unusable):
            self._count(_OTHER, "unusable")
            self._warn_of_unusable(queue=queue, reason=message.reason)
            return
        why = "ignored" if isinstance(message, Event) else message.why
        known = message.object_type in self._object_types
        self._count(message.object_type if known else _OTHER, why)
        self._log.debug("message ignored", about=message.object_type, reason=why)

    def _count(self, object_type: str, outcome: str) -> None:
        with self._news:
            self._counts[object_type, outcome] += 1

    def _acknowledge(self, tickets: Iterable[object]) -> None:
        """Acknowledge messages; without the connection they are redelivered, harmlessly."""
        for ticket in tickets:
            if isinstance(ticket, Ticket):
                try:
                    ticket.connection.acknowledge(ticket.delivery)
                except ConnectionLostError as error:
                    self._log.debug(
                        "message not acknowledged; it will be redelivered", reason=str(error)
                    )
