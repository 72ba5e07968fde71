"""Servers that speak just enough of PostgreSQL's and MariaDB's protocol to mislead an agent."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Value = str | int | bool | None
Rows = Sequence[Sequence[Value]]
Answers = Callable[[str], Rows]
"""What to answer to a statement."""
PROCESS = 42


@dataclass
class HostileServer:
    """Where it listens, and what it was sent and could send."""

    port: int
    sent: int = 0
    received: bytearray = field(default_factory=bytearray)

    def send(self, connection: socket.socket, data: bytes) -> None:
        """Send, as far as the other side takes it."""
        for start in range(0, len(data), 65_536):
            self.sent += connection.send(data[start : start + 65_536])

    def receive(self, connection: socket.socket, length: int) -> bytes:
        """Receive exactly so many bytes."""
        data = b""
        while len(data) < length:
            piece = connection.recv(length - len(data))
            if not piece:
                raise ConnectionError("the other side has gone")
            data += piece
        self.received += data
        return data


Behaviour = Callable[[HostileServer, socket.socket], None]


@contextmanager
def a_hostile_server(behave: Behaviour) -> Iterator[HostileServer]:
    """A server on a port of its own; ``behave`` is called for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HostileServer(listener.getsockname()[1])
        connections: list[socket.socket] = []
        threads: list[threading.Thread] = []

        def meet(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                behave(server, connection)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(connection)
                threads.append(threading.Thread(target=meet, args=(connection,), daemon=True))
                threads[-1].start()

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in (serving, *threads):
                thread.join()


def postgresql(answers: Answers, *, login: bytes = b"") -> Behaviour:
    """A PostgreSQL without TLS; ``login`` is sent instead of believing every password."""

    def behave(server: HostileServer, connection: socket.socket) -> None:
        length = struct.unpack("!i", server.receive(connection, 4))[0]
        if struct.unpack("!i", server.receive(connection, length - 4)[:4])[0] == 80_877_103:
            server.send(connection, b"N")  # no TLS
            length = struct.unpack("!i", server.receive(connection, 4))[0]
            server.receive(connection, length - 4)
        server.send(connection, login or _pg(b"R", struct.pack("!i", 0)) + _pg(b"Z", b"I"))
        while True:
            kind, length = server.receive(connection, 1), server.receive(connection, 4)
            body = server.receive(connection, struct.unpack("!i", length)[0] - 4)
            if kind == b"Q":
                rows = answers(body[:-1].decode())
                server.send(connection, pg_answer(rows))

    return behave


def _pg(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def pg_answer(rows: Rows) -> bytes:
    """Rows as PostgreSQL sends them."""
    if not rows:
        return _pg(b"C", b"SET\0") + _pg(b"Z", b"I")
    columns = b"".join(
        b"c\0" + struct.pack("!ihihih", 0, 0, _oid(value), -1, -1, 0) for value in rows[0]
    )
    found = _pg(b"T", struct.pack("!h", len(rows[0])) + columns)
    for row in rows:
        values = b"".join(map(_pg_value, row))
        found += _pg(b"D", struct.pack("!h", len(row)) + values)
    return found + _pg(b"C", b"SELECT 1\0") + _pg(b"Z", b"I")


def _oid(value: Value) -> int:
    return 16 if isinstance(value, bool) else 20 if isinstance(value, int) else 25


def _pg_value(value: Value) -> bytes:
    if value is None:
        return struct.pack("!i", -1)
    text = ("t" if value else "f") if isinstance(value, bool) else str(value)
    return struct.pack("!i", len(text.encode())) + text.encode()


def mariadb(answers: Answers, *, login: bytes = b"") -> Behaviour:
    """A MariaDB without TLS; ``login`` is the packet sent instead of believing every password."""

    def behave(server: HostileServer, connection: socket.socket) -> None:
        greeting = b"\x0a5.5.5-10.11.6-MariaDB\0" + struct.pack("<I", PROCESS) + b"x" * 8 + b"\0"
        greeting += struct.pack("<HBHHB", 0xA200, 33, 2, 0x0008, 21) + bytes(10) + b"x" * 12 + b"\0"
        server.send(connection, _my(0, greeting + b"mysql_native_password\0"))
        number = _my_packet(server, connection)[0]
        server.send(connection, _my(number + 1, login or _MY_OK))
        while True:
            number, body = _my_packet(server, connection)
            if body[:1] != b"\x03":
                server.send(connection, _my(number + 1, _MY_OK))
                continue
            server.send(connection, my_answer(answers(body[1:].decode())))

    return behave


_MY_OK = b"\0\0\0\2\0\0\0"
_MY_EOF = b"\xfe\0\0\2\0"


def _my(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number % 256]) + body


def _my_packet(server: HostileServer, connection: socket.socket) -> tuple[int, bytes]:
    head = server.receive(connection, 4)
    return head[3], server.receive(connection, int.from_bytes(head[:3], "little"))


def my_answer(rows: Rows) -> bytes:
    """Rows as MariaDB sends them."""
    if not rows:
        return _my(1, _MY_OK)
    packets = [bytes([len(rows[0])])]
    for value in rows[0]:
        kind = 8 if isinstance(value, int) else 253
        packets.append(
            b"\x03def\0\0\0\x01c\0\x0c" + struct.pack("<HIBHB", 33, 99, kind, 0, 0) + b"\0\0"
        )
    packets.append(_MY_EOF)
    packets += [b"".join(map(_my_value, row)) for row in rows]
    packets.append(_MY_EOF)
    return b"".join(_my(number, packet) for number, packet in enumerate(packets, 1))


def _my_value(value: Value) -> bytes:
    if value is None:
        return b"\xfb"
    text = str(int(value) if isinstance(value, bool) else value).encode()
    return (
        bytes([len(text)]) if len(text) < 251 else b"\xfd" + struct.pack("<I", len(text))[:3]
    ) + text
