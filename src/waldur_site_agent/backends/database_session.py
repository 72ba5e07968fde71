"""A session of a database and its locks: what PostgreSQL and MariaDB call the same things.

The server frees all locks of a session when it ends. It is told to end one that is silent for
``SILENCE_SECONDS``, so that an agent that is frozen, or cut off by the network, does not keep its
locks; the agent gives up a server that does not answer within half of that.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from waldur_site_agent.config.database_url import DatabaseUrl
from waldur_site_agent.model.errors import TemporaryError

SILENCE_SECONDS = 8.0
"""How long a session may be silent before the server ends it."""
_ANSWER_SHARE = 0.5
"""The share of that within which the server has to answer."""
_OLDEST_POSTGRESQL, _OLDEST_MYSQL, _OLDEST_MARIADB = (14,), (5, 7), (10, 2)
_LONGEST_REASON = 200
_OF_A_CLOSED_CONNECTION = (OSError, ValueError, AttributeError)
"""What drivers raise besides their own errors, of TLS and of connections that are closed."""


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
        connection = self._socket = self._connected()
        self.descriptor = os.dup(connection.fileno())
        """The connection, for commands to inherit: until they have ended, it is not closed."""
        try:
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

        Raises:
            DatabaseError: the session is over.
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

    def query(self, sql: str, *values: object) -> Sequence[Sequence[Any]]:
        """Run a statement and return the rows.

        Raises:
            DatabaseError: it failed; the session is over.
        """
        if self.descriptor < 0:
            raise DatabaseError(f"{self.url}: the session is over")
        try:
            return self._query(sql, *values)
        except self.problems as error:
            self.close()
            raise self._failure("the session is over", error) from error

    def _connected(self) -> socket.socket:
        seconds = SILENCE_SECONDS * _ANSWER_SHARE
        try:
            connection = socket.create_connection((self.url.host, self.url.port), seconds)
        except OSError as error:
            raise self._failure("cannot be reached", error) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
        return connection

    def _tls(self) -> ssl.SSLContext | None:
        if self.url.tls == "disable":
            return None
        context = ssl.create_default_context(cafile=self.url.ca_file or None)
        if self.url.tls != "verify-full":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

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

        self.problems = (exceptions.Error, *_OF_A_CLOSED_CONNECTION)
        self._process = 0
        super().__init__(url, label)

    def _log_in(self, connection: socket.socket, label: str) -> None:
        from pg8000.native import (  # type: ignore[import-untyped]  # noqa: PLC0415
            Connection,
        )

        context: ssl.SSLContext | bool | None = self._tls() or False
        if self.url.tls == "prefer":
            context = None  # the driver's own way to take TLS where the server has it
        self._connection = Connection(
            self.url.user,
            host=self.url.host,
            database=self.url.database,
            password=self.url.password,
            ssl_context=context,
            application_name=label,
            sock=connection,
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
        if self.query("SELECT pg_backend_pid()")[0][0] != self._process:
            self.close()
            raise self._unfit(
                "a connection pooler hands this session from server to server",
                "name the server itself, or a pool in session mode",
            )

    def try_lock(self, name: str) -> bool:
        """See :meth:`DatabaseSession.try_lock`."""
        return bool(self.query(f"SELECT pg_try_advisory_lock({_number_of(name)})")[0][0])

    def unlock(self, name: str) -> None:
        """See :meth:`DatabaseSession.unlock`."""
        self.query(f"SELECT pg_advisory_unlock({_number_of(name)})")

    def holders(self, names: Sequence[str]) -> Mapping[str, str]:
        """See :meth:`DatabaseSession.holders`."""
        rows = self.query(
            "SELECT (classid::bigint << 32) | objid::bigint, application_name, pid "
            "FROM pg_locks LEFT JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        found = {number: who or f"session {pid}" for number, who, pid in rows}
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
        self.problems = (pymysql.Error, *_OF_A_CLOSED_CONNECTION)
        self._process = 0
        super().__init__(url, label)

    def _log_in(self, connection: socket.socket, label: str) -> None:
        import pymysql  # noqa: PLC0415 - an extra

        seconds = SILENCE_SECONDS * _ANSWER_SHARE
        context = self._tls()
        self._connection = pymysql.Connection(
            user=self.url.user,
            password=self.url.password,
            host=self.url.host,
            database=self.url.database,
            ssl=None if self.url.tls == "prefer" else context,
            ssl_disabled=self.url.tls == "disable",  # with neither, the driver prefers TLS
            program_name=label,
            autocommit=True,
            read_timeout=seconds,
            write_timeout=seconds,
            defer_connect=True,
        )
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
        process, is_read_only = self.query("SELECT CONNECTION_ID(), @@global.read_only")[0]
        if process != self._process:
            self.close()
            raise self._unfit(
                "a proxy hands this session from server to server", "name the server itself"
            )
        self._check_writable(is_read_only)

    def try_lock(self, name: str) -> bool:
        """See :meth:`DatabaseSession.try_lock`."""
        return bool(self.query("SELECT GET_LOCK(%s, 0)", self._key(name))[0][0] == 1)

    def unlock(self, name: str) -> None:
        """See :meth:`DatabaseSession.unlock`."""
        self.query("SELECT RELEASE_LOCK(%s)", self._key(name))

    def holders(self, names: Sequence[str]) -> Mapping[str, str]:
        """See :meth:`DatabaseSession.holders`."""
        if not names:
            return {}
        columns = ", ".join(["IS_USED_LOCK(%s)"] * len(names))
        sessions = self.query(f"SELECT {columns}", *map(self._key, names))[0]
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
        rows = self.query("SELECT ID, HOST FROM information_schema.PROCESSLIST") if wanted else ()
        return {number: host.rpartition(":")[0] or host for number, host in rows}

    def _key(self, name: str) -> str:
        """A name of at most 64 letters; names are those of the whole server, not of a database."""
        digest = hashlib.sha256(f"{self.url.database} {name}".encode()).hexdigest()
        return f"waldur-site-agent {digest[:40]}"

    def _drop(self) -> None:
        if self._connection is not None and self._connection.open:
            self._connection.close()

    def _query(self, sql: str, *values: object) -> Sequence[Sequence[Any]]:
        if self._connection is None:
            raise DatabaseError(f"{self.url}: not connected")
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
            return rows


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
