"""A session of a database and its locks: what PostgreSQL and MariaDB call the same things.

The server frees all locks of a session when it ends. It is told to end one that is silent for
``SILENCE_SECONDS``, so that an agent that is frozen, or cut off by the network, does not keep its
locks; the agent gives up a server that does not answer within half of that.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from waldur_site_agent.backends.database_connection import (
    AnswerLimit,
    connected,
    postgresql_transport,
    tls_context,
)
from waldur_site_agent.config.database_url import DatabaseUrl
from waldur_site_agent.model.errors import TemporaryError

SILENCE_SECONDS = 8.0
"""How long a session may be silent before the server ends it."""
_ANSWER_SHARE = 0.5
"""The share of that within which the server has to answer."""
_OLDEST_POSTGRESQL, _OLDEST_MYSQL, _OLDEST_MARIADB = (14,), (5, 7), (10, 2)
_LONGEST_REASON = 200
_OF_ODD_ANSWERS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What drivers raise besides their own errors: of TLS, of connections that are closed, and when an
answer is not what the protocol says."""
_PLAIN_VALUES = (str, int, type(None))
_ASKS_IN_CLEAR_TEXT = (
    "the server asks for the password in clear text on a connection without TLS; use another "
    "method of authentication there, or sslmode=verify-full"
)


class DatabaseError(TemporaryError):
    """The database could not be reached, refused, or ended the session."""


class DatabaseSession(ABC):
    """One connection. Not thread-safe; after an error it is closed, and its locks are free."""

    problems: tuple[type[Exception], ...]
    """What the driver raises; set before the connection is made."""

    def __init__(self, url: DatabaseUrl, label: str) -> None:
        """Connect.

        Args:
            url: where, and as whom.
            label: what other agents see of this one: host and process.

        Raises:
            DatabaseError: it cannot be reached, refuses, or is not fit for leases.
        """
        self.url = url
        self._limit = AnswerLimit()
        connection = self._socket = self._connected()
        self.descriptor = os.dup(connection.fileno())
        """The connection, for commands to inherit: until they have ended, it is not closed."""
        try:
            self._limit.begin(SILENCE_SECONDS * _ANSWER_SHARE)
            self._log_in(connection, label)
        except self.problems as error:
            self.close()
            raise self._failure("cannot log in", error) from error
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def ask(self) -> None:
        """Hear from the server that the session lives, and is still with the same server.

        Raises:
            DatabaseError: it does not.
        """

    @abstractmethod
    def try_lock(self, name: str) -> bool:
        """Take a lock unless another session has it; one that this session has is taken again.

        It is taken only once the database also lists it as this session's: some that speak the
        same protocol answer that a lock is taken and keep none.

        Raises:
            DatabaseError: the session is over, or the answers do not agree.
        """

    @abstractmethod
    def unlock(self, name: str) -> None:
        """Free a lock.

        Raises:
            DatabaseError: the session is over.
        """

    @abstractmethod
    def holders(self, names: Sequence[str]) -> Mapping[str, str]:
        """Who holds which of these locks at the moment; locks that are free are left out.

        Raises:
            DatabaseError: the session is over.
        """

    @abstractmethod
    def _log_in(self, connection: socket.socket, label: str) -> None: ...

    @abstractmethod
    def _drop(self) -> None:
        """Have the driver let go of the connection, which is cut already."""

    @abstractmethod
    def _query(self, sql: str, *values: object) -> Sequence[Sequence[Any]]: ...

    def close(self) -> None:
        """End the session; the connection is cut even where commands have inherited it."""
        if self.descriptor < 0:
            return
        with suppress(OSError), socket.socket(fileno=os.dup(self.descriptor)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
        os.close(self.descriptor)
        self.descriptor = -1
        with suppress(*self.problems):
            self._drop()
        self._socket.close()
        if self._socket.fileno() >= 0:  # a driver that failed to log in still has a file on it
            os.close(self._socket.detach())

    def query(self, sql: str, *values: object) -> Sequence[Sequence[Any]]:
        """Run a statement and return the rows.

        Raises:
            DatabaseError: it failed; the session is over.
        """
        if self.descriptor < 0:
            raise DatabaseError(f"{self.url}: the session is over")
        try:
            self._limit.begin(SILENCE_SECONDS * _ANSWER_SHARE)
            return self._query(sql, *values)
        except self.problems as error:
            self.close()
            raise self._failure("the session is over", error) from error

    def rows(self, columns: int, sql: str, *values: object) -> Sequence[Sequence[Any]]:
        """Run a statement whose rows have this many plain values.

        Raises:
            DatabaseError: it failed, or the answer is another one.
        """
        rows = self.query(sql, *values)
        for row in rows:
            if len(row) != columns or not all(isinstance(value, _PLAIN_VALUES) for value in row):
                self.refuse_answer()
        return rows

    def row(self, columns: int, sql: str, *values: object) -> Sequence[Any]:
        """Run a statement that has one row.

        Raises:
            DatabaseError: it failed, or the answer is another one.
        """
        rows = self.rows(columns, sql, *values)
        if len(rows) != 1:
            self.refuse_answer()
        return rows[0]

    def refuse_answer(self) -> NoReturn:
        """End the session: an answer is to another question, or contradicts an earlier one.

        Raises:
            DatabaseError: always.
        """
        self.close()
        raise self._unfit(
            "its answers contradict each other",
            "name a PostgreSQL, MariaDB or MySQL itself, not something that speaks its protocol",
        )

    def _connected(self) -> socket.socket:
        try:
            return connected(self.url, self._limit, SILENCE_SECONDS * _ANSWER_SHARE)
        except (OSError, UnicodeError) as error:
            raise self._failure("cannot be reached", error) from error

    def _failure(self, what: str, error: BaseException) -> DatabaseError:
        reason = _reason(error)
        if self.url.password:
            reason = reason.replace(self.url.password, "********")
        return DatabaseError(f"{self.url}: {what}: {reason[:_LONGEST_REASON]}")

    def _unfit(self, why: str, remedy: str) -> DatabaseError:
        return DatabaseError(f"{self.url} cannot be used for coordination: {why}", remedy=remedy)


def open_session(url: DatabaseUrl, label: str) -> DatabaseSession:
    """Connect to a database of either kind.

    Raises:
        DatabaseError: it cannot be reached, refuses, or is not fit for leases.
    """
    return (PostgresqlSession if url.dialect == "postgresql" else MysqlSession)(url, label)


class PostgresqlSession(DatabaseSession):
    """PostgreSQL 14 or newer, with advisory locks."""

    def __init__(self, url: DatabaseUrl, label: str) -> None:
        self._connection: Any = None
        from pg8000 import exceptions  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra

        self.problems = (exceptions.Error, *_OF_ODD_ANSWERS)
        self._process = 0
        super().__init__(url, label)

    def _log_in(self, connection: socket.socket, label: str) -> None:
        transport = self._socket = postgresql_transport(connection, self.url, self._limit)
        self._connection = _postgresql_driver(is_plain=transport is connection)(
            self.url.user,
            host=self.url.host,
            database=self.url.database,
            password=self.url.password,
            ssl_context=False,
            application_name=label,
            sock=transport,
        )
        version, is_standby, self._process = self._query(
            "SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(), "
            "pg_backend_pid()"
        )[0]
        if (version,) < _OLDEST_POSTGRESQL:
            raise self._unfit(
                f"PostgreSQL {version} never ends a silent session", "use 14 or newer"
            )
        if is_standby:
            raise self._unfit("it is a standby, and locks are not replicated", "name the primary")
        milliseconds = int(SILENCE_SECONDS * 1000)
        for setting in ("idle_session_timeout", "tcp_user_timeout", "statement_timeout"):
            self._query(f"SET {setting} = {milliseconds}")
        self._query("SET tcp_keepalives_idle = 2")
        self._query("SET tcp_keepalives_interval = 2")
        self._query("SET tcp_keepalives_count = 3")

    def ask(self) -> None:
        """See :meth:`DatabaseSession.ask`."""
        if self.row(1, "SELECT pg_backend_pid()")[0] != self._process:
            self.close()
            raise self._unfit(
                "a connection pooler hands this session from server to server",
                "name the server itself, or a pool in session mode",
            )

    def try_lock(self, name: str) -> bool:
        """See :meth:`DatabaseSession.try_lock`."""
        number = _number_of(name)
        taken, about, process = self.row(
            3, f"SELECT pg_try_advisory_lock({number}), {number}::bigint, pg_backend_pid()"
        )
        if (about, process) != (number, self._process) or not isinstance(taken, bool):
            self.refuse_answer()
        if taken and self._granted(number) != [self._process]:
            self.refuse_answer()
        return taken

    def _granted(self, number: int) -> list[int]:
        """The processes of the server that hold a lock, as it lists them."""
        rows = self.rows(
            1,
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted "  # noqa: S608 - a number
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            f"AND (classid::bigint << 32) | objid::bigint = {number}",
        )
        return [process for (process,) in rows]

    def unlock(self, name: str) -> None:
        """See :meth:`DatabaseSession.unlock`."""
        self.query(f"SELECT pg_advisory_unlock({_number_of(name)})")

    def holders(self, names: Sequence[str]) -> Mapping[str, str]:
        """See :meth:`DatabaseSession.holders`."""
        rows = self.rows(
            3,
            "SELECT (classid::bigint << 32) | objid::bigint, application_name, pid "
            "FROM pg_locks LEFT JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        found = {number: _label(who, f"session {pid}") for number, who, pid in rows}
        by_name = ((name, found.get(_number_of(name))) for name in names)
        return {name: who for name, who in by_name if who is not None}

    def _drop(self) -> None:
        if self._connection is not None and self._connection._sock is not None:  # noqa: SLF001
            # its own close() would leave a buffer that cannot be flushed
            stream, connection = self._connection._sock, self._connection._usock  # noqa: SLF001
            self._connection._sock = self._connection._usock = None  # noqa: SLF001
            connection.close()
            stream.close()

    def _query(self, sql: str, *_values: object) -> Sequence[Sequence[Any]]:
        return self._connection.run(sql) or ()


class MysqlSession(DatabaseSession):
    """MariaDB, or MySQL 5.7 and newer, with ``GET_LOCK``."""

    def __init__(self, url: DatabaseUrl, label: str) -> None:
        import pymysql  # noqa: PLC0415 - an extra

        self._connection: pymysql.Connection[Any] | None = None
        self.problems = (pymysql.Error, *_OF_ODD_ANSWERS)
        self._process = 0
        super().__init__(url, label)

    def _log_in(self, connection: socket.socket, label: str) -> None:
        import pymysql  # noqa: PLC0415 - an extra

        seconds = SILENCE_SECONDS * _ANSWER_SHARE
        has_tls = self.url.tls != "disable"
        self._connection = pymysql.Connection(
            user=self.url.user,
            password=self.url.password,
            host=self.url.host,
            database=self.url.database,
            ssl=tls_context(self.url, self._limit) if has_tls else None,
            ssl_disabled=not has_tls,
            auth_plugin_map=dict.fromkeys(_PLAIN_METHODS, _EncryptedPassword),
            program_name=label,
            autocommit=True,
            read_timeout=seconds,
            write_timeout=seconds,
            defer_connect=True,
        )
        if self.url.tls == "prefer":
            self._connection._ssl_required = False  # type: ignore[attr-defined]  # noqa: SLF001
        self._connection.connect(connection)
        version, self._process, is_replica = self._query(
            "SELECT VERSION(), CONNECTION_ID(), @@global.read_only"
        )[0]
        self._check_version(version)
        self._check_writable(is_replica)
        whole = max(1, int(SILENCE_SECONDS))
        for setting in ("wait_timeout", "net_read_timeout", "net_write_timeout"):
            self._query(f"SET SESSION {setting} = {whole}")

    def _check_version(self, text: str) -> None:
        numbers = tuple(int(part) for part in text.split("-", maxsplit=1)[0].split(".")[:2])
        is_mariadb = "mariadb" in text.lower()
        if numbers < (_OLDEST_MARIADB if is_mariadb else _OLDEST_MYSQL):
            remedy = "use MariaDB 10.2 or MySQL 5.7, or newer"
            raise self._unfit(f"version {text} keeps only one lock for a session", remedy)

    def _check_writable(self, is_read_only: object) -> None:
        if is_read_only not in (0, "0", "OFF"):
            self.close()
            raise self._unfit(
                "it is read-only, probably a replica, and locks are not replicated",
                "name the primary",
            )

    def ask(self) -> None:
        """See :meth:`DatabaseSession.ask`."""
        process, is_read_only = self.row(2, "SELECT CONNECTION_ID(), @@global.read_only")
        if process != self._process:
            self.close()
            raise self._unfit(
                "a proxy hands this session from server to server", "name the server itself"
            )
        self._check_writable(is_read_only)

    def try_lock(self, name: str) -> bool:
        """See :meth:`DatabaseSession.try_lock`."""
        key = self._key(name)
        taken, about, process = self.row(3, "SELECT GET_LOCK(%s, 0), %s, CONNECTION_ID()", key, key)
        if (about, process) != (key, self._process) or taken not in (0, 1, None):
            self.refuse_answer()
        if taken and self.row(1, "SELECT IS_USED_LOCK(%s)", key)[0] != self._process:
            self.refuse_answer()
        return bool(taken)

    def unlock(self, name: str) -> None:
        """See :meth:`DatabaseSession.unlock`."""
        self.query("SELECT RELEASE_LOCK(%s)", self._key(name))

    def holders(self, names: Sequence[str]) -> Mapping[str, str]:
        """See :meth:`DatabaseSession.holders`."""
        if not names:
            return {}
        columns = ", ".join(["IS_USED_LOCK(%s)"] * len(names))
        sessions = self.row(len(names), f"SELECT {columns}", *map(self._key, names))
        held = {
            name: session
            for name, session in zip(names, sessions, strict=True)
            if session is not None
        }
        hosts = self._hosts(held.values())
        return {
            name: f"{hosts.get(session, 'another host')} (session {session})"
            for name, session in held.items()
        }

    def _hosts(self, sessions: Iterable[int]) -> Mapping[int, str]:
        wanted = set(sessions)
        sql = "SELECT ID, HOST FROM information_schema.PROCESSLIST"
        rows = self.rows(2, sql) if wanted else ()
        return {number: _label(str(host).rpartition(":")[0] or host) for number, host in rows}

    def _key(self, name: str) -> str:
        """A name of at most 64 letters; names are those of the whole server, not of a database."""
        digest = hashlib.sha256(f"{self.url.database} {name}".encode()).hexdigest()
        return f"waldur-site-agent {digest[:40]}"

    def _drop(self) -> None:
        if self._connection is not None and self._connection.open:
            # its close() would write first: with Python 3.13, the next TLS connection that this
            # thread reads from would fail with the error of writing to the one that is cut
            self._connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001

    def _query(self, sql: str, *values: object) -> Sequence[Sequence[Any]]:
        if self._connection is None:
            raise DatabaseError(f"{self.url}: not connected")
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
            return rows


_PLAIN_METHODS = ("mysql_clear_password", "dialog")
"""The plugins by which a MySQL or MariaDB asks for the password itself."""


class _EncryptedPassword:
    """Sends the password itself, but never on a connection that others can read."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def authenticate(self, packet: Any) -> Any:
        """Answer the server's question, as the driver does.

        Raises:
            RuntimeError: there is no TLS.
        """
        connection = self._connection
        if not connection._secure:  # noqa: SLF001 - the driver has no other way to say
            raise RuntimeError(_ASKS_IN_CLEAR_TEXT)
        del packet  # a question for people; the only answer is the password
        connection.write_packet(connection.password + b"\0")
        answer = connection._read_packet()  # noqa: SLF001
        answer.check_error()
        return answer


def _postgresql_driver(*, is_plain: bool) -> Any:
    """The driver's connection; one without TLS does not send the password itself."""
    from pg8000.exceptions import (  # type: ignore[import-untyped]  # noqa: PLC0415
        InterfaceError,
    )
    from pg8000.native import (  # type: ignore[import-untyped]  # noqa: PLC0415
        Connection,
    )

    class PlainConnection(Connection):  # type: ignore[misc]  # the driver has no types
        def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802
            if data[:4] == _CLEAR_TEXT:
                raise InterfaceError(_ASKS_IN_CLEAR_TEXT)
            super().handle_AUTHENTICATION_REQUEST(data, context)

    return PlainConnection if is_plain else Connection


_CLEAR_TEXT = struct.pack("!i", 3)
"""How a PostgreSQL asks for the password itself."""


def _label(who: object, otherwise: str = "") -> str:
    """What the database calls another agent, at most as long as it can be."""
    return str(who)[:_LONGEST_REASON] if who else otherwise


def _number_of(name: str) -> int:
    """The key of an advisory lock: 64 bits, signed."""
    digest = hashlib.sha256(f"waldur-site-agent {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _reason(error: BaseException) -> str:
    """What the driver says, on one line, with the cause where it says only 'network error'."""
    arguments = error.args[0] if error.args else ""
    if isinstance(arguments, dict):  # the fields of PostgreSQL's message
        return str(arguments.get("M", arguments))
    text = " ".join(str(error.args[-1] if error.args else error).split())
    cause = error.__cause__ or error.__context__
    if cause is not None and not text.count(str(cause)):
        text = f"{text} ({' '.join(str(cause).split())})"
    return text or type(error).__name__
