"""A database of leases that is broken or hostile, or somebody between it and the agent."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from harness.hostile_databases import (
    PROCESS,
    Answers,
    Behaviour,
    HostileServer,
    Rows,
    a_hostile_server,
    mariadb,
    pg_answer,
    postgresql,
)
from waldur_site_agent.backends import database_session
from waldur_site_agent.backends.database_connection import MAX_ANSWER_BYTES
from waldur_site_agent.backends.database_session import DatabaseError, DatabaseSession, open_session
from waldur_site_agent.backends.leases import LeaseLostError, Leases
from waldur_site_agent.config.database_url import DatabaseUrl

PASSWORD = "s3cret-pass-word"
DIALECTS = {"postgresql": postgresql, "mysql": mariadb}
pytestmark = pytest.mark.parametrize("dialect", DIALECTS)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a server answer within a second instead of four."""
    monkeypatch.setattr(database_session, "SILENCE_SECONDS", 2.0)


def url_of(dialect: str, server: HostileServer, options: str = "") -> DatabaseUrl:
    return DatabaseUrl.parse(f"{dialect}://agent:{PASSWORD}@127.0.0.1:{server.port}/agent{options}")


def connections_to(port: int) -> int:
    """How many connections this process still has as a client."""
    mine = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            mine.add(str(descriptor.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and f"socket:[{row[9]}]" in mine for row in rows)


def noise(server: HostileServer, connection: socket.socket) -> None:
    while True:
        server.send(connection, os.urandom(4096))


def silence(_server: HostileServer, connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def goodbye(_server: HostileServer, connection: socket.socket) -> None:
    connection.recv(1)


def one_byte_at_a_time(server: HostileServer, connection: socket.socket) -> None:
    """A PostgreSQL's notice of 64 KiB or a MariaDB's greeting of 16 MiB, which never end."""
    connection.settimeout(0.05)
    for byte in b"N" + b"N\0\1\0\0" + b"x" * 65_536:
        with suppress(TimeoutError):
            connection.recv(4096)
        server.send(connection, bytes([byte]))


def without_end(server: HostileServer, connection: socket.socket) -> None:
    """An answer without end: notices, or a greeting that claims 16 MiB."""
    connection.recv(1)
    server.send(connection, b"N")
    while True:
        server.send(connection, (b"N" + struct.pack("!i", 60_004) + b"x" * 60_000) * 10)


def longer_than_memory(server: HostileServer, connection: socket.socket) -> None:
    connection.recv(1)
    server.send(connection, b"NN\x7f\xff\xff\xff")
    while True:
        server.send(connection, b"\xff" * 65_536)


def tls_that_is_none(server: HostileServer, connection: socket.socket) -> None:
    connection.recv(8)
    server.send(connection, b"S" + os.urandom(4096))
    silence(server, connection)


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize(
    "behave",
    [
        noise,
        silence,
        goodbye,
        one_byte_at_a_time,
        without_end,
        longer_than_memory,
        tls_that_is_none,
    ],
    ids=lambda behave: behave.__name__,
)
def test_whatever_comes_is_a_database_that_cannot_be_used(dialect: str, behave: Behaviour) -> None:
    with a_hostile_server(behave) as server:
        with pytest.raises(DatabaseError) as caught:
            open_session(url_of(dialect, server), "one")
        assert connections_to(server.port) == 0
    assert PASSWORD not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert PASSWORD.encode() not in server.received


PLAIN = {
    "postgresql": [b"R" + struct.pack("!ii", 8, 3)],
    "mysql": [b"\xfemysql_clear_password\0", b"\xfedialog\0\4Password: \0"],
}
"""How each asks for the password itself."""


@pytest.mark.guarantee("security: Threat model")
def test_the_password_itself_is_not_sent_without_tls(dialect: str) -> None:
    for login in PLAIN[dialect]:
        behave = DIALECTS[dialect](lambda _: [], login=login)
        with a_hostile_server(behave) as server, pytest.raises(DatabaseError) as caught:
            open_session(url_of(dialect, server), "one")
        assert "in clear text" in str(caught.value)
        assert PASSWORD.encode() not in server.received


def test_a_file_that_the_server_asks_for_is_not_sent(dialect: str) -> None:
    """``LOAD DATA LOCAL``: a server may ask any client for a file. PostgreSQL: COPY from us."""
    login = {"mysql": b"\0\0\0\2\0\0\0", "postgresql": b""}[dialect]
    asks = {"mysql": b"\x0c\0\0\1\xfb/etc/passwd", "postgresql": b"G\0\0\0\7\0\0\0"}[dialect]

    def behave(server: HostileServer, connection: socket.socket) -> None:
        def answers(_: str) -> Rows:
            server.send(connection, asks)
            return []

        DIALECTS[dialect](answers, login=login)(server, connection)

    with a_hostile_server(behave) as server, pytest.raises(DatabaseError):
        open_session(url_of(dialect, server), "one")
    assert b"root:" not in server.received


def test_without_tls_there_is_no_session_where_the_url_asks_for_it(dialect: str) -> None:
    behave = DIALECTS[dialect](honest)
    for options in ("?sslmode=require", "?sslmode=verify-full"):
        with a_hostile_server(behave) as server, pytest.raises(DatabaseError, match=r"TLS|SSL"):
            open_session(url_of(dialect, server, options), "one")
        assert b"agent" not in server.received


ANSWERS: dict[str, Callable[[str], Rows]] = {
    r"server_version_num": lambda _: [[15, False, PROCESS]],
    r"VERSION\(\)": lambda _: [["10.11.6-MariaDB", PROCESS, 0]],
    r"read_only": lambda _: [[PROCESS, 0]],
    r"pg_try_advisory_lock\((-?\d+)\)": lambda number: [[True, int(number), PROCESS]],
    r"GET_LOCK\('([^']*)', 0\)": lambda name: [[1, name, PROCESS]],
    r"^SELECT (?:pid|pg_backend_pid|IS_USED_LOCK)": lambda _: [[PROCESS]],
}
"""What a server answers that keeps locks, for one session; the argument is what a group found."""


def honest(sql: str) -> Rows:
    for pattern, answer in ANSWERS.items():
        if found := re.search(pattern, sql):
            return answer(found[found.re.groups])
    return []


@dataclass
class Answering:
    """Answers that may be others from now on."""

    answers: Answers = honest

    def __call__(self, sql: str) -> Rows:
        return self.answers(sql)


@pytest.fixture
def session_of(dialect: str) -> Iterator[Callable[[Answers], DatabaseSession]]:
    """A session of a server whose answers may be others from then on."""
    answering = Answering()
    with a_hostile_server(DIALECTS[dialect](answering)) as server:
        sessions: list[DatabaseSession] = []

        def begin(answers: Answers) -> DatabaseSession:
            answering.answers = honest
            sessions.append(open_session(url_of(dialect, server), "one"))
            answering.answers = answers
            return sessions[-1]

        yield begin
        for session in sessions:
            session.close()


ODD: list[Rows] = [
    [],
    [[]],
    [["t"]],
    [[1]],
    [["yes", "yes", "yes"]],
    [[True, 0, PROCESS]],
    [[None, None, None]],
    [[True, True, True]],
    [[True, 0, PROCESS], [True, 0, PROCESS]],
    [["\x1b[2J" * 100] * 3],
]


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("rows", ODD, ids=str)
def test_an_odd_answer_is_never_a_lock(
    session_of: Callable[[Answers], DatabaseSession], rows: Rows
) -> None:
    assert session_of(honest).try_lock("orders")
    session = session_of(lambda _: rows)
    with pytest.raises(DatabaseError):
        session.try_lock("orders")
    with pytest.raises(DatabaseError, match="over"):
        session.ask()
    with suppress(DatabaseError):  # nobody, or somebody: it is no bug
        session_of(lambda _: rows).holders(["a", "b"])
    with suppress(DatabaseError):
        session_of(lambda _: rows).ask()


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("listed", [[], [[7]], [[PROCESS], [7]], [[None]]], ids=str)
def test_a_lock_that_the_database_does_not_list_is_not_held(
    session_of: Callable[[Answers], DatabaseSession], listed: Rows
) -> None:
    def keeps_no_locks(sql: str) -> Rows:
        return listed if sql.startswith(("SELECT pid", "SELECT IS_USED")) else honest(sql)

    with pytest.raises(DatabaseError, match="contradict"):
        session_of(keeps_no_locks).try_lock("orders")


def test_the_answer_to_another_question_is_not_believed(
    session_of: Callable[[Answers], DatabaseSession],
) -> None:
    late: list[Rows] = [[[True, 1, PROCESS]]]

    def one_behind(sql: str) -> Rows:
        late.append(honest(sql))
        return late[-2]

    session = session_of(one_behind)
    with pytest.raises(DatabaseError, match="contradict"):
        session.try_lock("orders")


ASKED = ("SELECT pg_backend_pid()", "SELECT CONNECTION_ID(), @@global.read_only")


def test_answers_that_come_too_late_or_too_long_end_the_session(dialect: str) -> None:
    for after in (noise, silence, one_byte_at_a_time, without_end):

        def behave(
            server: HostileServer, connection: socket.socket, after: Behaviour = after
        ) -> None:
            def answers(sql: str) -> Rows:
                if sql in ASKED:
                    after(server, connection)
                return honest(sql)

            DIALECTS[dialect](answers)(server, connection)

        with a_hostile_server(behave) as server:
            session = open_session(url_of(dialect, server), "one")
            with pytest.raises(DatabaseError) as caught:
                session.ask()
            assert PASSWORD not in str(caught.value)
            buffers = 16 << 20
            assert server.sent < MAX_ANSWER_BYTES + buffers


def test_an_agent_with_such_a_database_holds_nothing_and_its_log_has_no_password(
    dialect: str,
) -> None:
    answering = Answering()
    with (
        a_hostile_server(DIALECTS[dialect](answering)) as server,
        structlog.testing.capture_logs() as log,
    ):
        leases = Leases(url_of(dialect, server), "one")
        with leases.hold("orders", 0, "stop one of them") as lease:
            lease.ask()
            answering.answers = lambda _: [[f"{PASSWORD}\x1b[2J", PASSWORD]]
            with pytest.raises(LeaseLostError):
                lease.ask()
        assert lease.is_lost
        assert leases.status()["held"] == []
        leases.close()
    assert PASSWORD not in f"{log} {leases.status()}"


def test_answers_are_read_as_they_are_sent(dialect: str) -> None:
    """The fakes speak the protocol: what an honest one says is understood."""
    assert pg_answer([[1]])[:1] == b"T"
    with a_hostile_server(DIALECTS[dialect](honest)) as server:
        session = open_session(url_of(dialect, server), "one")
        session.ask()
        assert session.try_lock("orders")
        session.close()
