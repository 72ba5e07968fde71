"""Sessions of real databases: locks, TLS, logins, and servers that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import eventually
from harness.patience import patience
from integration.databases import RealDatabase
from waldur_site_agent.backends.database_session import (
    DatabaseError,
    DatabaseSession,
    MysqlSession,
    PostgresqlSession,
    open_session,
)
from waldur_site_agent.config.database_url import DatabaseUrl

pytestmark = pytest.mark.database


@pytest.fixture(autouse=True)
def _sessions_that_live_through_pauses_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waldur_site_agent.backends.database_session.SILENCE_SECONDS", patience())


def url_of(database: RealDatabase, options: str = "", **changes: str) -> DatabaseUrl:
    text = database.start() + options
    for old, new in changes.items():
        text = text.replace(old, new)
    return DatabaseUrl.parse(text)


def refusal(url: DatabaseUrl) -> str:
    with pytest.raises(DatabaseError) as caught:
        open_session(url, "one")
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


def test_a_lock_is_that_of_one_session_until_it_ends(database: RealDatabase) -> None:
    url = url_of(database)
    one, other = open_session(url, "node1 (pid 1)"), open_session(url, "node2 (pid 2)")
    assert (one.try_lock("a"), other.try_lock("a"), other.try_lock("b")) == (True, False, True)
    assert set(one.holders(["a", "b", "c"])) == {"a", "b"}
    one.unlock("a")
    assert other.try_lock("a")
    other.close()
    eventually(lambda: one.try_lock("a"), "the lock of a session that ended")
    with pytest.raises(DatabaseError, match="the session is over"):
        other.ask()
    one.ask()
    one.close()


def test_a_certificate_is_verified_where_the_url_says_so(
    database: RealDatabase, tmp_path: Path
) -> None:
    trusted = f"?sslmode=verify-full&sslrootcert={database.certificate}"
    for options in ("?sslmode=disable", "?sslmode=prefer", "?sslmode=require", trusted):
        session = open_session(url_of(database, options), "one")
        assert uses_tls(session) is ("disable" not in options)
        session.close()
    assert "verify failed" in refusal(url_of(database, "?sslmode=verify-full"))
    missing = f"?sslmode=verify-full&sslrootcert={tmp_path / 'none.pem'}"
    assert "No such file" in refusal(url_of(database, missing))


def uses_tls(session: DatabaseSession) -> bool:
    """What the server says of the connection."""
    if isinstance(session, PostgresqlSession):
        return bool(session.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")[0][0])
    return bool(session.query("SHOW STATUS LIKE 'Ssl_cipher'")[0][1])


@pytest.mark.guarantee("Secrets are in no log")
def test_what_is_wrong_is_said_without_the_password(database: RealDatabase) -> None:
    assert "cannot log in" in refusal(url_of(database, s3cret="wr0ngs3cret"))
    nobody = DatabaseUrl("postgresql", "127.0.0.1", 1, "agent", "agent", "s3cret")
    assert "cannot be reached: Connection refused" in refusal(nobody)


UNFIT: dict[str, list[tuple[list[object], str]]] = {
    "postgresql": [
        ([15, True, 1], "it is a standby"),
        ([13, False, 1], "PostgreSQL 13 never ends a silent session"),
    ],
    "mariadb": [
        (["10.11.6-MariaDB", 1, 1], "it is read-only"),
        (["5.6.50", 1, 0], "version 5.6.50 keeps only one lock"),
    ],
}
"""What a server answers to the first question, and why it is refused."""


def test_a_copy_or_an_old_server_is_refused(
    database: RealDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(database)
    kind = PostgresqlSession if url.dialect == "postgresql" else MysqlSession
    for row, why in UNFIT[database.name]:
        monkeypatch.setattr(kind, "_query", lambda *_, row=row: [row])
        assert why in refusal(url)


def test_a_session_that_is_handed_to_another_server_is_noticed(database: RealDatabase) -> None:
    session = open_session(url_of(database), "one")
    session._process = -1  # type: ignore[attr-defined]  # as after a pooler's switch
    with pytest.raises(DatabaseError, match="hands this session from server to server"):
        session.ask()
    with pytest.raises(DatabaseError, match="the session is over"):
        session.ask()
