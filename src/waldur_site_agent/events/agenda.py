"""Where the thread that listens and the thread that works meet: messages in, passes out."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from waldur_site_agent.events.messages import Event, Unusable, read_message
from waldur_site_agent.events.transport import ConnectionLostError
from waldur_site_agent.events.waiting import WaitingList

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from uuid import UUID

    from structlog.typing import FilteringBoundLogger

    from waldur_site_agent.cycles.scoping import Seen
    from waldur_site_agent.events.messages import Message
    from waldur_site_agent.events.transport import Connection, Delivery
    from waldur_site_agent.events.waiting import Batch, Kind, Waiting
    from waldur_site_agent.model.scopes import Scope

_OTHER = "other"
"""Counts for types that the agent does not know: others may make as many up as they like."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A message that is to be acknowledged, and where."""

    connection: Connection
    delivery: Delivery


class Agenda:
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
        self._waiting = WaitingList()
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

    def passed(self, entries: Iterable[Waiting], seen: Seen) -> None:
        """The pass over these went well: acknowledge them, or read again what is not shown yet."""
        with self._news:
            now = self._clock()
            done = [t for entry in entries for t in self._waiting.passed(entry, seen, now)]
        self._acknowledge(done)

    def failed(self, entries: Iterable[Waiting]) -> None:
        """These did not go well: they are tried again, after a growing delay."""
        with self._news:
            now = self._clock()
            done = [ticket for entry in entries for ticket in self._waiting.failed(entry, now)]
        self._acknowledge(done)

    def spoiled(self, entries: Sequence[Waiting]) -> None:
        """Some of these did not go well, and it is not known which: they are tried apart."""
        with self._news:
            done = self._waiting.spoiled(entries, self._clock())
        self._acknowledge(done)

    def cut_short(self, kind: Kind, entries: Iterable[Waiting]) -> None:
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
