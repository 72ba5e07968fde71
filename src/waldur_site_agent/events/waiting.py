"""The scopes that wait for a pass, merged, each with the message that stands for it.

Messages about one scope are one entry, and only the youngest of them stays unacknowledged: it
brings the scope back after a crash as well as all of them would, it lives longest in the queue, and
a thousand messages about one project never fill the broker's window of unacknowledged ones.

No clock, no thread and no I/O of its own: every call says what time it is (seconds of a monotonic
clock), and what is to be acknowledged is given back.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waldur_site_agent.model.scopes import Everything, ImportScope, OrderScope

if TYPE_CHECKING:
    from collections.abc import Hashable

    from waldur_site_agent.cycles.scoping import Seen
    from waldur_site_agent.events.announcements import Announcement
    from waldur_site_agent.model.scopes import Scope

READ_AGAIN_AFTER = (1.0, 5.0, 30.0)
"""Seconds after which Waldur is read again when it does not show what was announced."""
FIRST_DELAY = 1.0
"""Seconds before the second try of what failed; every further delay is twice as long."""
LONGEST_DELAY = 300.0
"""Seconds between two tries of what keeps failing: as often as the polling modes try."""
HOLD_SECONDS = 600.0
"""How long a message stays unacknowledged because its scope keeps failing.

Brokers close a connection whose messages wait for half an hour. The scope itself waits on, and
after a crash the full pass at the start covers it.
"""
_LONGEST_EXPONENT = 16


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
class Waiting:
    """One scope and what is known about it."""

    scope: Scope
    since: float
    """Since when it should have been looked at."""
    due: float
    tickets: list[object] = field(default_factory=list)
    """The messages that are not acknowledged yet; usually one."""
    announced: dict[Hashable, Announcement] = field(default_factory=dict)
    failures: int = 0
    alone: bool = False
    """Whether it is tried by itself, because it may be what spoiled the pass of others."""
    readings: int = 0
    """How often Waldur was read and did not show what was announced."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The scopes that one pass covers."""

    kind: Kind
    entries: tuple[Waiting, ...]

    @property
    def scopes(self) -> frozenset[Scope]:
        """Where the pass looks."""
        return frozenset(entry.scope for entry in self.entries)


class WaitingList:
    """All entries, by scope."""

    def __init__(self) -> None:
        self._entries: dict[Scope, Waiting] = {}

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
            entry = self._entries[scope] = Waiting(scope, max(now, due), due)
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
        return min((entry.due for entry in self._entries.values()), default=None)

    def take(self, now: float) -> Batch | None:
        """The scopes of the next pass, taken out of the list; ``None`` while nothing is due.

        The one that is due for the longest time decides. A full pass takes everything along.
        """
        due = [entry for entry in self._entries.values() if entry.due <= now]
        if not due:
            return None
        first = min(due, key=lambda entry: entry.due)
        kind = kind_of(first.scope)
        if Everything() in {entry.scope for entry in due}:
            kind, chosen = Kind.EVERYTHING, list(self._entries.values())
        elif kind is Kind.IMPORT or first.alone:
            chosen = [first]
        else:
            chosen = [e for e in due if kind_of(e.scope) is kind and not e.alone]
        for entry in chosen:
            del self._entries[entry.scope]
        return Batch(kind, tuple(chosen))

    def failed(self, entry: Waiting, now: float, *, alone: bool = False) -> list[object]:
        """Let an entry wait for another try; return the messages to acknowledge.

        Args:
            entry: what was tried.
            now: the time.
            alone: whether some part of the pass failed and it is not known which: then each of
                its scopes is tried by itself, so that it cannot spoil the pass of others again.
        """
        entry.failures += 1
        entry.alone = alone
        growth = 2 ** min(entry.failures - 1, _LONGEST_EXPONENT)
        entry.due = now + min(FIRST_DELAY * growth, LONGEST_DELAY)
        return self._put_back(entry, now)

    def passed(self, entry: Waiting, seen: Seen, now: float) -> list[object]:
        """Take note of a pass that went well; return the messages to acknowledge.

        Where Waldur does not show what was announced the entry waits for another reading, three
        times; then somebody has changed it back, or the event was wrong.
        """
        entry.failures, entry.alone = 0, False
        missing = {s: a for s, a in entry.announced.items() if not a.is_shown(seen)}
        if not missing or entry.readings >= len(READ_AGAIN_AFTER):
            return entry.tickets
        entry.announced = missing
        entry.due = now + READ_AGAIN_AFTER[entry.readings]
        entry.readings += 1
        return self._put_back(entry, now)

    def _put_back(self, entry: Waiting, now: float) -> list[object]:
        """Merge with what has come about the scope in the meantime."""
        younger = self._entries.get(entry.scope)
        superseded: list[object] = []
        if younger is not None:
            entry.announced |= younger.announced
            if not entry.failures:
                entry.due, entry.readings = min(entry.due, younger.due), 0
            if younger.tickets:
                superseded, entry.tickets = entry.tickets, younger.tickets
        self._entries[entry.scope] = entry
        if now - entry.since >= HOLD_SECONDS:
            superseded += entry.tickets
            entry.tickets = []
        return superseded
