"""The network below a session of a database: what a server may take of the agent's time and memory.

A server that is broken, or somebody in between, may send anything at any speed. The drivers wait
for each piece of an answer by itself and believe every length, so the limits are here: one deadline
and one number of bytes for a whole answer.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from typing import Any

from waldur_site_agent.config.database_url import DatabaseUrl

MAX_ANSWER_BYTES = 4 << 20
"""The most that is read for one statement, or for logging in."""
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")


class AnswerLimit:
    """What one answer may still take; sockets that share it read no further."""

    def __init__(self) -> None:
        self._end = math.inf
        self._bytes_left = MAX_ANSWER_BYTES

    def begin(self, seconds: float) -> None:
        """Start to count for another answer."""
        self._end = time.monotonic() + seconds
        self._bytes_left = MAX_ANSWER_BYTES

    def seconds_left(self) -> float:
        """The time until the answer has to be complete.

        Raises:
            TimeoutError: it is over.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        return left

    def spend(self, received: int) -> None:
        """Account for what has come.

        Raises:
            ConnectionError: it is more than any answer has.
        """
        self._bytes_left -= received
        if self._bytes_left < 0:
            raise ConnectionError(f"the answer is longer than {MAX_ANSWER_BYTES >> 20} MiB")


class _PlainSocket(socket.socket):
    limit: AnswerLimit

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        self.settimeout(self.limit.seconds_left())
        received = super().recv_into(buffer, nbytes, flags)
        self.limit.spend(received)
        return received


class _TlsSocket(ssl.SSLSocket):
    limit: AnswerLimit

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(self.limit.seconds_left())
        received = super().recv_into(buffer, nbytes, flags)
        self.limit.spend(received)
        return received


def connected(url: DatabaseUrl, limit: AnswerLimit, seconds: float) -> socket.socket:
    """A TCP connection whose reading is limited; all addresses of the host share the time.

    Raises:
        OSError: the server cannot be reached.
    """
    limit.begin(seconds)
    failure: OSError = ConnectionError("the name of the host has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        url.host, url.port, type=socket.SOCK_STREAM
    ):
        connection = _PlainSocket(family, kind, protocol)
        connection.limit = limit
        try:
            connection.settimeout(limit.seconds_left())
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def tls_context(url: DatabaseUrl, limit: AnswerLimit) -> ssl.SSLContext:
    """A context as ``sslmode`` asks for, whose sockets are limited.

    Raises:
        OSError: the file of certificate authorities cannot be read.
    """
    context = ssl.create_default_context(cafile=url.ca_file or None)
    if url.tls != "verify-full":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = type("LimitedTlsSocket", (_TlsSocket,), {"limit": limit})
    return context


def postgresql_transport(
    connection: socket.socket, url: DatabaseUrl, limit: AnswerLimit
) -> socket.socket:
    """Ask a PostgreSQL for TLS, before anything else is said.

    Raises:
        OSError: it has none where the URL asks for it, or its certificate is not accepted.
    """
    if url.tls == "disable":
        return connection
    connection.settimeout(limit.seconds_left())
    connection.sendall(_SSL_REQUEST)
    answer = connection.recv(1)
    if answer == b"S":
        return tls_context(url, limit).wrap_socket(connection, server_hostname=url.host)
    if answer == b"N" and url.tls == "prefer":
        return connection
    raise ConnectionError(
        "the server has no TLS" if answer == b"N" else "the answer is not that of a PostgreSQL"
    )
