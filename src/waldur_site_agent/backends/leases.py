"""Leases: which of several agents does what, by the session locks of a database.

Every agent has one session. The database frees its locks when the session ends, whoever ends it, so
there is nothing to clean up, and no clock is compared. Who holds a lease asks the database before
each write, and begins none when the session is gone.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from waldur_site_agent.backends.database_session import (
    DatabaseError,
    DatabaseSession,
    open_session,
)
from waldur_site_agent.backends.locking import HeldLock, LockHeldError, Mark
from waldur_site_agent.config.database_url import DatabaseUrl
from waldur_site_agent.model.errors import TemporaryError

LOOK_SECONDS = 2.0
"""How often an agent shows that it lives, and looks who holds what."""
GRACE_SECONDS = 10.0
"""How long a free lease is left to agents that hold less than their share."""
SECONDS_BETWEEN_HANDOVERS = 5.0
WITHDRAWN_SECONDS = 300.0
"""How long an agent that could not start its work does not count among those that share it."""
_POLL_SECONDS = 0.2
_MOST_AGENTS = 32
_REPEAT_SECONDS = 600.0

Unit = tuple[str, ...]
"""The names of the leases that an agent takes together to serve one offering in one mode."""


class LeaseLostError(TemporaryError):
    """The session that held the lease is gone: another agent may have it, so nothing is written."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease, for as long as the session lives in which it was taken."""

    name: str
    session: int
    leases: Leases = field(repr=False)

    def ask(self) -> None:
        """Hear from the database that this agent still holds the lease.

        Raises:
            LeaseLostError: it does not, or the database does not answer.
        """
        self.leases.ask(self)

    @property
    def is_lost(self) -> bool:
        """Whether the session is known to be gone; does not ask."""
        return not self.leases.is_current(self)


class Leases:
    """The leases of this process. Threads share it; nothing is connected before the first use."""

    def __init__(
        self,
        url: DatabaseUrl,
        label: str = "",
        connect: Callable[[DatabaseUrl, str], DatabaseSession] = open_session,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.label = label or f"{socket.gethostname()} (pid {os.getpid()})"
        self._open = connect
        self._clock = clock
        self._mutex = threading.RLock()
        self._session: DatabaseSession | None = None
        self._number = 0
        self._held: dict[str, Lease] = {}
        self._sharing = _Sharing(clock)
        self._trouble = ""
        self._next_attempt = 0.0
        self._next_complaint = 0.0
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None

    # Holding

    @contextmanager
    def hold(
        self, name: str, wait_seconds: float, purpose: str, stopping: Callable[[], bool] = bool
    ) -> Iterator[Lease]:
        """Hold a lease while the body runs.

        Args:
            name: what is leased; the same on all hosts.
            wait_seconds: how long to wait for another holder.
            purpose: what the lease protects and what to do about a holder, for the message.
            stopping: whether to give up waiting before the time is over.

        Raises:
            LockHeldError: another agent held it all the time.
            DatabaseError: the database cannot be reached.
        """
        lease = self._take(name, wait_seconds, purpose, stopping)
        try:
            yield lease
        finally:
            self._release(lease)

    @contextmanager
    def writer(
        self, name: str, wait_seconds: float, purpose: str
    ) -> Iterator[tuple[Lease, HeldLock]]:
        """Hold the lease of a cluster's only writer, as a lock that commands inherit.

        Raises:
            LockHeldError: another agent held it all the time.
            DatabaseError: the database cannot be reached.
        """
        with self.hold(f"writer {name}", wait_seconds, purpose) as lease:
            # a mark like no other: writers on other hosts leave none here, so nothing that was
            # read before is relied on
            yield lease, HeldLock(self._descriptor(), Mark(-1, time.time_ns()))

    def ask(self, lease: Lease) -> None:
        """See :meth:`Lease.ask`."""
        with self._mutex:
            if not self.is_current(lease) or self._session is None:
                raise self._lost(lease.name)
            try:
                self._session.ask()
            except DatabaseError as error:
                self._lose(error)
                raise self._lost(lease.name) from error

    def is_current(self, lease: Lease) -> bool:
        """Whether the lease was taken in the present session."""
        return self._session is not None and lease.session == self._number

    def _take(
        self, name: str, wait_seconds: float, purpose: str, stopping: Callable[[], bool]
    ) -> Lease:
        deadline = self._clock() + wait_seconds
        while True:
            taken = self._try(name)
            if isinstance(taken, Lease):
                return taken
            if self._clock() >= deadline or stopping():
                waited = f" for more than {wait_seconds:g} seconds" if wait_seconds else ""
                raise LockHeldError(f"{taken} holds its lease in {self.url}{waited}; {purpose}")
            time.sleep(_POLL_SECONDS)

    def _try(self, name: str) -> Lease | str:
        """The lease, or who holds it."""
        with self._mutex:
            if name in self._held:  # to the database both would be the same session
                return "this agent"
            try:
                session = self._connected()
                if session.try_lock(name):
                    lease = self._held[name] = Lease(name, self._number, self)
                    return lease
                return session.holders([name]).get(name, "another agent")
            except DatabaseError as error:
                self._lose(error)
                raise

    def _release(self, lease: Lease) -> None:
        with self._mutex:
            if not self.is_current(lease) or self._session is None:
                return
            self._held.pop(lease.name, None)
            self._sharing.freed(lease.name)
            try:
                self._session.unlock(lease.name)
            except DatabaseError as error:
                self._lose(error)

    def _descriptor(self) -> int:
        with self._mutex:
            if self._session is None:
                raise self._lost("writing")
            return self._session.descriptor

    def _lost(self, name: str) -> LeaseLostError:
        reason = self._trouble or "its session of the database is over"
        return LeaseLostError(
            f'nothing more is written: the lease "{name}" is lost: {reason}',
            remedy="whoever takes it over, this agent or another, finishes the work",
        )

    # Sharing the work

    def serve(self, units: Iterable[tuple[Unit, str]]) -> None:
        """Announce what this agent can work on, each with a name for people, and begin to look."""
        with self._mutex:
            self._sharing.units = dict(units)
            self._look_after_it()

    def why_not(self, unit: Unit) -> str:
        """Why this agent cannot work on a unit now; empty when it should try to take it."""
        with self._mutex:
            self._look_after_it()
            if self._session is None:
                return self._trouble or f"connecting to {self.url}"
            return self._sharing.why_not(unit, self._held)

    def should_hand_over(self) -> bool:
        """Whether to let go of a unit now, because others hold less than their share.

        ``True`` at most once in a few seconds: whoever asks, lets go.
        """
        with self._mutex:
            return self._session is not None and self._sharing.should_hand_over(self._held)

    def withdraw(self) -> None:
        """Leave the work to the others for a while, because this agent could not start some of it.

        It still takes what nobody else takes.
        """
        with self._mutex:
            slot = self._sharing.withdraw()
            if slot and (lease := self._held.get(slot)):
                self._release(lease)

    def status(self) -> dict[str, Any]:
        """Who holds what, as JSON values; never waits."""
        is_connected = self._session is not None
        held = dict(self._held)
        return {
            "database": str(self.url),
            "connected": is_connected,
            "agent": self.label,
            "agents": self._sharing.agents if is_connected else 0,
            "held": self._sharing.names_of(held) if is_connected else [],
            "held_by_others": self._sharing.held_by_others(held) if is_connected else {},
            "trouble": self._trouble,
        }

    @property
    def trouble(self) -> str:
        """Why there is no session; empty if there is one, or none was needed yet."""
        return self._trouble

    def close(self) -> None:
        """Give back all leases."""
        self._closed.set()
        with self._mutex:
            if self._session is not None:
                self._session.close()
            self._session = None
            self._held.clear()

    # The session

    def _connected(self) -> DatabaseSession:
        if self._session is not None:
            return self._session
        if self._closed.is_set():
            raise DatabaseError("the agent is stopping; the next start continues")
        if self._clock() < self._next_attempt:
            raise DatabaseError(self._trouble)
        try:
            session = self._open(self.url, self.label)
        except DatabaseError as error:
            self._next_attempt = self._clock() + LOOK_SECONDS / 2
            self._complain(error)
            raise
        if self._trouble:
            structlog.get_logger().info("connected to the database again", database=str(self.url))
        self._session, self._trouble, self._next_complaint = session, "", 0.0
        self._number += 1
        self._look()
        self._look_after_it()
        return session

    def _look_after_it(self) -> None:
        """Have a thread that keeps the session alive: the server ends silent ones."""
        if self._keeper is None and not self._closed.is_set():
            self._keeper = threading.Thread(target=self._keep, name="leases", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        while not self._closed.is_set():
            with self._mutex:
                try:
                    self._connected().ask()
                    self._look()
                except DatabaseError as error:
                    self._lose(error)
            self._closed.wait(LOOK_SECONDS)

    def _look(self) -> None:
        """Count the agents, see who holds what, and take a place among them."""
        session = self._session
        if session is None or not self._sharing.units:
            return
        seen = session.holders(self._sharing.interesting())
        slot = self._sharing.slot_to_take(seen)
        if slot and session.try_lock(slot):
            self._held[slot] = Lease(slot, self._number, self)
            self._sharing.slot = slot
            seen = {**seen, slot: self.label}
        self._sharing.look(seen)

    def _lose(self, error: DatabaseError) -> None:
        if self._session is None:
            return
        held = self._sharing.names_of(self._held)
        self._session.close()
        self._session = None
        self._held.clear()
        self._sharing.lost()
        self._next_attempt = 0.0
        self._trouble = str(error)
        structlog.get_logger().error(
            "the session of the coordinating database is over; nothing is written until there is "
            "another",
            reason=str(error),
            held=held,
        )

    def _complain(self, error: DatabaseError) -> None:
        """Log why there is no session: when it is new, and now and then."""
        text = str(error)
        if text != self._trouble or self._clock() >= self._next_complaint:
            self._next_complaint = self._clock() + _REPEAT_SECONDS
            structlog.get_logger().error(
                "no work until the coordinating database can be used; will retry", reason=text
            )
        self._trouble = text


class _Sharing:
    """Which part of the work this agent takes; its owner guards it against other threads.

    Each agent holds one lock of a numbered row, so that their number is that of the locks held.
    Agents that can serve the same units share them; others have rows of their own.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.units: dict[Unit, str] = {}
        self.slot = ""
        self.agents = 0
        self._holders: dict[str, str] = {}
        self._free_since: dict[str, float] = {}
        self._withdrawn_until = 0.0
        self._next_handover = 0.0

    def interesting(self) -> list[str]:
        """The names of all locks to look at."""
        return [*self._slots(), *dict.fromkeys(name for unit in self.units for name in unit)]

    def _slots(self) -> list[str]:
        group = hashlib.sha256("\n".join(sorted(map("+".join, self.units))).encode()).hexdigest()
        return [f"agent {number} of {group}" for number in range(_MOST_AGENTS)]

    def slot_to_take(self, seen: Collection[str]) -> str:
        """A place that is free; none if this agent has one, or is withdrawn."""
        if self.slot or self._clock() < self._withdrawn_until:
            return ""
        return next((slot for slot in self._slots() if slot not in seen), "")

    def look(self, seen: Mapping[str, str]) -> None:
        """Remember who holds what now."""
        now = self._clock()
        slots = set(self._slots())
        self.agents = len(slots & seen.keys())
        self._holders = {name: who for name, who in seen.items() if name not in slots}
        free = {name for unit in self.units for name in unit} - seen.keys()
        self._free_since = {name: self._free_since.get(name, now) for name in free}

    def lost(self) -> None:
        """The session is over: nothing is known any more."""
        self.slot = ""
        self.agents = 0
        self._holders, self._free_since = {}, {}

    def freed(self, name: str) -> None:
        """This agent gave a lease back."""
        self._holders.pop(name, None)
        self._free_since[name] = self._clock()

    def share(self) -> int:
        """How many units this agent should hold."""
        if not self.slot and self.agents:
            return 0
        return math.ceil(len(self.units) / max(1, self.agents))

    def why_not(self, unit: Unit, held: Collection[str]) -> str:
        """See :meth:`Leases.why_not`."""
        if holder := self._other_holder(unit, held):
            return f"standing by: {holder} works on it"
        now = self._clock()
        free = min((now - self._free_since.get(name, now) for name in unit), default=0.0)
        if self._number_held(held) < self.share() or free >= GRACE_SECONDS:
            return ""
        return "standing by: other agents have less work"

    def should_hand_over(self, held: Collection[str]) -> bool:
        """See :meth:`Leases.should_hand_over`."""
        now = self._clock()
        is_due = now >= self._next_handover and bool(self.slot) and self.agents > 1
        if not is_due or self._number_held(held) <= self.share():
            return False
        self._next_handover = now + SECONDS_BETWEEN_HANDOVERS
        return True

    def withdraw(self) -> str:
        """Do not count among the agents for a while; returns the place to give back."""
        self._withdrawn_until = self._clock() + WITHDRAWN_SECONDS
        slot, self.slot = self.slot, ""
        return slot

    def names_of(self, held: Collection[str]) -> list[str]:
        """The units that are held, as people call them."""
        return [name for unit, name in self.units.items() if all(part in held for part in unit)]

    def held_by_others(self, held: Collection[str]) -> dict[str, str]:
        """Who holds the other units, as people call them."""
        found = {name: self._other_holder(unit, held) for unit, name in self.units.items()}
        return {name: holder for name, holder in found.items() if holder}

    def _other_holder(self, unit: Unit, held: Collection[str]) -> str:
        """Who holds a part of a unit that this agent does not; empty if nobody does."""
        parts = (part for part in unit if part not in held)
        return next((self._holders[part] for part in parts if part in self._holders), "")

    def _number_held(self, held: Collection[str]) -> int:
        return len(self.names_of(held))
