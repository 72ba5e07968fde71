"""Where the thread that listens and the thread that works meet: messages in, passes out."""

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

from waldur_site_agent.cycles.site import WaldurSnapshot
from waldur_site_agent.events.broker import Connection, ConnectionLostError, Delivery
from waldur_site_agent.events.messages import Announcement, Event, Message, Unusable, read_message
from waldur_site_agent.model.backend import Everything, ImportScope, OrderScope, Scope

READ_AGAIN_AFTER = (1.0, 5.0, 30.0)
"""Seconds after which Waldur is read again when it does not show what was announced."""
FIRST_DELAY = 1.0
"""Seconds before the second try of what failed; every further delay is twice as long."""
LONGEST_DELAY = 300.0
"""Seconds between two tries of what keeps failing: as often as the polling modes try."""
LONGEST_REST = 60.0
"""Seconds between two passes of a kind while Waldur or the backend cannot be read at all."""
HOLD_SECONDS = 600.0
"""How long a message stays unacknowledged because its scope keeps failing.

Brokers close a connection whose messages wait for half an hour. The scope itself waits on, and
after a crash the full pass at the start covers it.
"""
_LONGEST_EXPONENT = 16
_EVERYBODY = 0


class Kind(enum.Enum):
    """What does a pass over a scope."""

    EVERYTHING = "everything"
    ORDERS = "orders"
    MEMBERS = "members"
    IMPORT = "import"


def kind_of(scope: Scope) -> Kind:
    """Which pass covers a scope; passes of one kind cover several scopes at once."""
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
    """One scope and what is known about it."""

    scope: Scope
    since: float
    """Since when it should have been looked at."""
    due: float
    tickets: list[object] = field(default_factory=list)
    """The messages that are not acknowledged yet; usually one."""
    announced: dict[Hashable, Announcement] = field(default_factory=dict)
    failures: int = 0
    group: int = _EVERYBODY
    """With whom it shares a pass: it may be what spoiled the pass of others."""
    readings: int = 0
    """How often Waldur was read and did not show what was announced."""
    early: bool = False
    """Whether the pass that has it took it along before its time."""


@dataclass(slots=True)
class Rest:
    """How passes of a kind rest because one side could not be read."""

    cut_short: int = 0
    """How many in a row."""
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
        self._rests: dict[Kind, Rest] = {}
        self._groups = itertools.count(_EVERYBODY + 1)
        self._last_group = _EVERYBODY

    def __len__(self) -> int:
        return len(self._entries)

    def waited(self, now: float) -> list[float]:
        """For how many seconds each entry has waited; what is planned for later does not count."""
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
        """Let a scope wait, merged with what waits there; return the messages to acknowledge.

        What failed before keeps its delay: news about it do not mend what failed. A full pass is
        asked for only where something may have been missed, so it does not wait.
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
            return []
        superseded, entry.tickets = entry.tickets, [ticket]
        return superseded

    def next_due(self) -> float | None:
        """When the next entry is due; ``None`` without entries."""
        return min(map(self._due, self._entries.values()), default=None)

    def _due(self, entry: PendingScope) -> float:
        rest = self._rests.get(kind_of(entry.scope))
        return entry.due if rest is None else max(entry.due, rest.until)

    def take(self, now: float) -> Batch | None:
        """The scopes of the next pass, taken out of the list; ``None`` while nothing is due.

        The one that is due for the longest time decides, but what spoiled a pass lets others go
        first every other time. A full pass takes everything along.
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
        return Batch(kind, tuple(chosen))

    def failed(self, entry: PendingScope, now: float) -> list[object]:
        """Let an entry wait for another try; return the messages to acknowledge."""
        self._rests.pop(kind_of(entry.scope), None)
        entry.failures += 1
        growth = 2 ** min(entry.failures - 1, _LONGEST_EXPONENT)
        entry.due = now + min(FIRST_DELAY * growth, LONGEST_DELAY)
        return self._put_back(entry, now)

    def spoiled(self, entries: Sequence[PendingScope], now: float) -> list[object]:
        """Some part of a pass failed, and it is not known which; return what to acknowledge.

        Each half is tried by itself, until what fails is alone and keeps nobody else from passing.
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
        """One side could not be read at all; return the messages to acknowledge.

        That is nobody's fault in particular: all passes of the kind rest, for longer each time,
        and what came meanwhile goes with the next.
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
        """Take note of a pass that went well; return the messages to acknowledge.

        Where Waldur does not show what was announced the entry waits for another reading, three
        times; then somebody has changed it back, or the event was wrong.
        """
        if entry.scope == Everything():
            self._rests.clear()
        self._rests.pop(kind_of(entry.scope), None)
        entry.failures, entry.group = 0, _EVERYBODY
        missing = {s: a for s, a in entry.announced.items() if not a.is_shown(snapshot)}
        if not missing:
            return entry.tickets
        entry.announced = missing
        if entry.early and entry.due > now:  # a reading that was not due yet does not count
            return self._put_back(entry, now)
        if entry.readings >= len(READ_AGAIN_AFTER):
            return entry.tickets
        entry.due = now + READ_AGAIN_AFTER[entry.readings]
        entry.readings += 1
        return self._put_back(entry, now)

    def _put_back(self, entry: PendingScope, now: float) -> list[object]:
        """Merge with what has come about the scope in the meantime."""
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
        return superseded


_OTHER = "other"
"""Counts for types that the agent does not know: others may make as many up as they like."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A message that is to be acknowledged, and where."""

    connection: Connection
    delivery: Delivery


class EventQueue:
    """What is to be looked at, and what for; threads may share it."""

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

    def receive(self, delivery: Delivery, connection: Connection) -> None:
        """Take a message in; what needs no pass is acknowledged at once."""
        message = read_message(delivery.body, delivery.queue, self._offering)
        ticket = Ticket(connection, delivery)
        if isinstance(message, Event) and message.object_type in self._object_types:
            self._acknowledge(self._put_down(message, ticket))
        else:
            self._leave_out(message, delivery.queue)
            self._acknowledge([ticket])

    def want(self, scope: Scope, *, seconds: float = 0.0) -> None:
        """Let a scope wait without a message, to be looked at in so many seconds."""
        with self._news:
            now = self._clock()
            self._waiting.add(scope, now, due=now + seconds)
            self._news.notify_all()

    def take(self, timeout_seconds: float) -> Batch | None:
        """What the next pass covers; ``None`` when nothing is due in time."""
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
        """The pass over these went well: acknowledge them, or read again what is not shown yet."""
        with self._news:
            now = self._clock()
            done = [t for entry in entries for t in self._waiting.passed(entry, snapshot, now)]
        self._acknowledge(done)

    def failed(self, entries: Iterable[PendingScope]) -> None:
        """These did not go well: they are tried again, after a growing delay."""
        with self._news:
            now = self._clock()
            done = [ticket for entry in entries for ticket in self._waiting.failed(entry, now)]
        self._acknowledge(done)

    def spoiled(self, entries: Sequence[PendingScope]) -> None:
        """Some of these did not go well, and it is not known which: they are tried apart."""
        with self._news:
            done = self._waiting.spoiled(entries, self._clock())
        self._acknowledge(done)

    def cut_short(self, kind: Kind, entries: Iterable[PendingScope]) -> None:
        """The pass over these could not read one side: passes of its kind rest for a while."""
        with self._news:
            done = self._waiting.cut_short(kind, entries, self._clock())
        self._acknowledge(done)

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many messages came, by type of object and what was made of them.

        ``waiting`` (a pass was asked for), ``merged`` (one waited already), ``ignored``,
        ``foreign`` (another offering's), ``unusable``.
        """
        with self._news:
            return dict(self._counts)

    def waited_seconds(self) -> list[float]:
        """For how long each scope has waited for a pass that should have come by now."""
        with self._news:
            return self._waiting.waited(self._clock())

    def _put_down(self, event: Event, ticket: Ticket) -> list[object]:
        with self._news:
            merged = event.scope in self._waiting.scopes()
            self._counts[event.object_type, "merged" if merged else "waiting"] += 1
            superseded = self._waiting.add(
                event.scope, self._clock(), announcement=event.announcement, ticket=ticket
            )
            self._news.notify_all()
        return superseded

    def _leave_out(self, message: Message, queue: str) -> None:
        if isinstance(message, Unusable):
            self._count(_OTHER, "unusable")
            self._log.warning("message not understood", queue=queue, reason=message.reason)
            return
        why = "ignored" if isinstance(message, Event) else message.why
        known = message.object_type in self._object_types
        self._count(message.object_type if known else _OTHER, why)
        self._log.debug("message left out", about=message.object_type, reason=why)

    def _count(self, object_type: str, outcome: str) -> None:
        with self._news:
            self._counts[object_type, outcome] += 1

    def _acknowledge(self, tickets: Iterable[object]) -> None:
        """Tell the broker; where the connection is gone, the message comes again, harmlessly."""
        for ticket in tickets:
            if isinstance(ticket, Ticket):
                try:
                    ticket.connection.acknowledge(ticket.delivery)
                except ConnectionLostError as error:
                    self._log.debug("message not acknowledged; it comes again", reason=str(error))
