"""Leases on a database that tests can take away, and how agents share the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from waldur_site_agent.backends import leases as module
from waldur_site_agent.backends.database_session import DatabaseError, DatabaseSession
from waldur_site_agent.backends.leases import LeaseLostError, Leases, Unit
from waldur_site_agent.backends.locking import LockHeldError
from waldur_site_agent.config.database_url import DatabaseUrl

URL = DatabaseUrl.parse("postgresql://agent:s3cret@db/waldur")


@dataclass
class Database:
    """Session locks in memory."""

    locks: dict[str, FakeSession] = field(default_factory=dict)
    is_away: bool = False

    def connect(self, _url: DatabaseUrl, label: str) -> DatabaseSession:
        if self.is_away:
            raise DatabaseError(f"{URL}: cannot be reached: Connection refused")
        return FakeSession(self, label)

    def end_session_of(self, label: str) -> None:
        """As the server does when nothing is heard, or an administrator."""
        for session in [s for s in self.locks.values() if s.label == label]:
            session.close()


class FakeSession(DatabaseSession):
    def __init__(self, database: Database, label: str) -> None:
        self.database, self.label, self.is_over, self.descriptor = database, label, False, -1

    def _check(self) -> None:
        if self.is_over or self.database.is_away:
            raise DatabaseError(f"{URL}: the session is over")

    def ask(self) -> None:
        self._check()

    def try_lock(self, name: str) -> bool:
        self._check()
        return self.database.locks.setdefault(name, self) is self

    def unlock(self, name: str) -> None:
        self._check()
        del self.database.locks[name]

    def holders(self, names: Sequence[str]) -> Mapping[str, str]:
        self._check()
        return {n: self.database.locks[n].label for n in names if n in self.database.locks}

    def close(self) -> None:
        self.is_over = True
        for name in [n for n, session in self.database.locks.items() if session is self]:
            del self.database.locks[name]

    def _log_in(self, *_: object) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        raise NotImplementedError

    def _query(self, *_: object) -> Sequence[Sequence[object]]:
        raise NotImplementedError


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Party:
    """Some agents that can all do the same."""

    database: Database
    clock: Clock
    units: list[Unit]
    agents: list[Leases] = field(default_factory=list)
    held: dict[str, dict[Unit, ExitStack]] = field(default_factory=dict)

    def join(self, name: str) -> Leases:
        agent = Leases(URL, name, self.database.connect, self.clock)
        agent._look_after_it = lambda: None  # type: ignore[method-assign]  # no thread: look() does
        self.agents.append(agent)
        self.held[name] = {}
        agent.serve((unit, unit[0]) for unit in self.units)
        agent._connected()
        return agent

    def look(self, seconds: float = 1.0) -> None:
        """Let time pass, every agent look, and take or hand over what it may."""
        self.clock.now += seconds
        for agent in self.agents:
            agent._connected()
            agent._look()
        for agent in self.agents:
            mine = self.held[agent.label]
            if mine and agent.should_hand_over():
                mine.pop(next(iter(mine))).close()
            for unit in self.units:
                if unit not in mine and not agent.why_not(unit):
                    self.take(agent, unit)

    def take(self, agent: Leases, unit: Unit) -> None:
        stack = ExitStack()
        try:
            for name in unit:
                stack.enter_context(agent.hold(name, 0, "stop one"))
        except LockHeldError:
            stack.close()
        else:
            self.held[agent.label][unit] = stack

    def numbers(self) -> list[int]:
        return [len(self.held[agent.label]) for agent in self.agents]

    def leave(self, agent: Leases) -> None:
        self.database.end_session_of(agent.label)
        self.agents.remove(agent)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def party(database: Database) -> Iterator[Party]:
    found = Party(database, Clock(), [(f"{n} orders", f"{n} members") for n in range(6)])
    yield found
    for agent in found.agents:
        agent.close()


@pytest.fixture
def make(database: Database) -> Iterator[Callable[[str], Leases]]:
    made: list[Leases] = []

    def make(name: str) -> Leases:
        made.append(Leases(URL, name, database.connect, Clock()))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_one_holds_and_the_other_is_told_who(make: Callable[[str], Leases]) -> None:
    one, other = make("node1 (pid 1)"), make("node2 (pid 2)")
    with one.hold("orders", 0, "stop one of them") as lease:
        lease.ask()
        with pytest.raises(LockHeldError) as caught, other.hold("orders", 0, "stop one of them"):
            pytest.fail("two hold the same lease")
        assert "node1 (pid 1) holds its lease" in str(caught.value)
        assert "s3cret" not in str(caught.value)
        with pytest.raises(LockHeldError, match="this agent"), one.hold("orders", 0, "x"):
            pytest.fail("two threads of an agent hold the same lease")
    with other.hold("orders", 0, "stop one of them") as lease:
        lease.ask()


@pytest.mark.guarantee("With several agents one works")
def test_a_lease_of_a_session_that_is_over_is_lost_for_good(
    make: Callable[[str], Leases], database: Database
) -> None:
    agent = make("node1")
    with agent.hold("orders", 0, "x") as lease:
        database.end_session_of("node1")
        with pytest.raises(LeaseLostError, match="nothing more is written"):
            lease.ask()
        with agent.hold("orders", 0, "x") as again:  # in another session
            again.ask()
            assert lease.is_lost
            with pytest.raises(LeaseLostError):
                lease.ask()
        assert not database.locks


def test_a_database_that_is_away_is_a_temporary_error_and_said(
    make: Callable[[str], Leases], database: Database
) -> None:
    agent = make("node1")
    database.is_away = True
    with pytest.raises(DatabaseError, match="Connection refused"), agent.hold("orders", 0, "x"):
        pytest.fail("a lease without a database")
    assert agent.status()["connected"] is False
    assert "Connection refused" in agent.status()["trouble"]


@pytest.mark.guarantee("high-availability: How it works")
def test_agents_hold_their_shares_as_others_come_and_go(party: Party) -> None:
    first = party.join("one")
    party.look()
    assert party.numbers() == [6]
    party.join("two")
    for _ in range(40):
        party.look()
    assert party.numbers() == [3, 3]
    party.join("three")
    for _ in range(40):
        party.look()
    assert party.numbers() == [2, 2, 2]
    party.leave(first)
    party.look()
    party.look()
    assert sorted(party.numbers()) == [3, 3]
    assert len(party.database.locks) == 12 + 2


def test_what_its_share_leaves_over_is_taken_after_a_while(party: Party) -> None:
    one = party.join("one")
    two = party.join("two")
    two.why_not = lambda unit: f"it works on nothing, not on {unit}"  # type: ignore[method-assign]
    party.look()
    assert party.numbers() == [3, 0]
    party.look(module.GRACE_SECONDS)
    assert party.numbers()[0] > 3
    assert one.status()["agents"] == 2


def test_an_agent_that_cannot_start_leaves_the_work_to_others(party: Party) -> None:
    one, two = party.join("one"), party.join("two")
    for _ in range(40):
        party.look()
    assert party.numbers() == [3, 3]
    (unit, stack), *_ = party.held["two"].items()
    two.withdraw()
    del party.held["two"][unit]
    stack.close()
    assert two.why_not(unit)
    party.look()
    party.look()
    assert unit in party.held["one"]
    assert one.status()["agents"] == 1
    party.look(module.WITHDRAWN_SECONDS)
    party.look()
    assert one.status()["agents"] == 2


def test_who_holds_what_is_told(party: Party) -> None:
    one, two = party.join("one"), party.join("two")
    for _ in range(40):
        party.look()
    assert len(one.status()["held"]) == 3
    assert one.status()["held_by_others"] == dict.fromkeys(two.status()["held"], "two")
    assert "s3cret" not in str(one.status())
