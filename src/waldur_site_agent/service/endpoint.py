"""The HTTP endpoint for ``/metrics``, ``/health`` and the pages of ``pages.py``.

It is imported only if ``metrics_listen`` is set.

Anybody who reaches it may send anything, so it costs the agent little whatever comes: one thread,
at most sixteen connections, eight kilobytes and ten seconds for each request, and a fifth of a core
for all answers.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from waldur_site_agent.backends.permissions import directory_of_others
from waldur_site_agent.service.health import Health
from waldur_site_agent.service.pages import HEADERS, HTML, Pages

UNIX_PREFIX = "unix:"
"""Begins an address that is the path of a unix socket."""
MAX_CONNECTIONS: Final = 16
MAX_REQUEST_BYTES: Final = 8192
REQUEST_SECONDS: Final = 10.0
"""How long a client may take to send its request, and then to read the answer."""
_ACCEPT_PAUSE_SECONDS = 1.0
_REST = 4
"""How much longer than it took to make an answer the thread leaves the interpreter to the agent."""
_LONGEST_REST_SECONDS = 1.0
_CHUNK = 65536
_OWNER_AND_GROUP = 0o660
_TEXT = "text/plain; charset=utf-8"
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_JSON = "application/json"
_METHODS = (b"GET", b"HEAD")
_WORDS_OF_A_REQUEST_LINE = 3
_REASONS: Final = {
    HTTPStatus.BAD_REQUEST: b"this is not an HTTP request\n",
    HTTPStatus.METHOD_NOT_ALLOWED: b"only GET and HEAD are served\n",
    HTTPStatus.NOT_FOUND: b"there are /, /health and /metrics\n",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: b"the request is too long\n",
    HTTPStatus.INTERNAL_SERVER_ERROR: b"see the agent's log\n",
}


@dataclass(slots=True, eq=False)
class _Client:
    """One connection: first its request arrives, then the answer is sent."""

    socket: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None


class Endpoint:
    """Serves requests in one daemon thread."""

    def __init__(
        self,
        address: str,
        health: Health,
        exposition: Callable[[], bytes],
        pages: Pages | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """Bind and listen.

        Raises:
            OSError: the address is taken or not one of this machine.
        """
        self.address = address
        self._health = health
        self._exposition = exposition
        self.pages = pages
        self._monotonic = monotonic
        self._cpu = cpu
        self._listener = _listen(address)
        self._clients: dict[int, _Client] = {}
        self._accepts_again: float | None = None
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name=f"endpoint {address}", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on, also if port 0 was asked for."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Stop listening."""
        self._wake.close()
        self._thread.join()
        for client in [*self._clients.values()]:
            self._drop(client)
        self._selector.close()
        self._woken.close()
        self._listener.close()
        if self.address.startswith(UNIX_PREFIX):
            Path(self.address.removeprefix(UNIX_PREFIX)).unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select(self._pause()):
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fd in self._clients:  # not dropped for a newer one in this round
                    self._proceed(self._clients[key.fd])
            self._end_overdue()

    def _pause(self) -> float | None:
        """Seconds until the next deadline."""
        moments = [client.deadline for client in self._clients.values()]
        if self._accepts_again is not None:
            moments.append(self._accepts_again)
        return max(0.0, min(moments) - self._monotonic()) if moments else None

    def _end_overdue(self) -> None:
        now = self._monotonic()
        for client in [*self._clients.values()]:
            if client.deadline <= now:
                self._drop(client)
        if self._accepts_again is not None and self._accepts_again <= now:
            self._accepts_again = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # the client has gone again
            return
        except OSError as error:  # without a pause, the waiting connection would keep a core busy
            structlog.get_logger().warning(
                "endpoint cannot accept connections; pausing", reason=str(error)
            )
            self._selector.unregister(self._listener)
            self._accepts_again = self._monotonic() + _ACCEPT_PAUSE_SECONDS
            return
        if len(self._clients) >= MAX_CONNECTIONS:
            # a scrape sends its request at once: the one that is slowest to do so has to go
            self._drop(min(self._clients.values(), key=lambda c: (bool(c.answer), c.deadline)))
        connection.setblocking(False)
        client = _Client(connection, self._monotonic() + REQUEST_SECONDS)
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ)

    def _proceed(self, client: _Client) -> None:
        try:
            if client.answer is None:
                self._receive(client)
            else:
                client.answer = client.answer[client.socket.send(client.answer[:_CHUNK]) :]
                if not client.answer:
                    self._drop(client)
        except BlockingIOError:
            pass
        except OSError:  # the client has gone
            self._drop(client)

    def _receive(self, client: _Client) -> None:
        chunk = client.socket.recv(MAX_REQUEST_BYTES)
        client.received += chunk
        if b"\r\n\r\n" in client.received or len(client.received) > MAX_REQUEST_BYTES:
            began = self._cpu()
            client.answer = memoryview(self._answer(bytes(client.received)))
            self._rest(min(_REST * (self._cpu() - began), _LONGEST_REST_SECONDS))
            client.deadline = self._monotonic() + REQUEST_SECONDS
            self._selector.modify(client.socket, selectors.EVENT_WRITE)
        elif not chunk:
            self._drop(client)

    def _rest(self, seconds: float) -> None:
        """Wait, unless the endpoint is closed."""
        select.select([self._woken], [], [], seconds)

    def _drop(self, client: _Client) -> None:
        self._selector.unregister(client.socket)
        del self._clients[client.socket.fileno()]
        client.socket.close()

    def _answer(self, request: bytes) -> bytes:
        method, path = _read(request)
        status, kind, body = HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b""
        try:
            if isinstance(path, str):
                status, kind, body = self._report(path, request)
            else:
                status = path
        except Exception as error:  # noqa: BLE001 - a bug must not end the endpoint
            structlog.get_logger().error("endpoint failed because of a bug", exc_info=error)
        body = body or _REASONS.get(status, b"")
        fields = {
            "Server": "waldur-site-agent",
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Connection": "close",
            **(HEADERS if kind == HTML else {}),
            **({"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n"
        return head.encode() + (b"" if method == b"HEAD" else body)

    def _report(self, path: str, request: bytes) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            return HTTPStatus.OK, _EXPOSITION, self._exposition()
        if path == "/health":
            alive = self._health.status().alive
            status = HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE
            return status, _JSON, json.dumps(self._health.report(), default=str).encode()
        page = self.pages.answer(path, _fields(request)) if self.pages is not None else None
        if page is None:
            return HTTPStatus.NOT_FOUND, _TEXT, b""
        status, body = page
        return status, HTML if status is HTTPStatus.OK else _TEXT, body


def _fields(request: bytes) -> dict[str, str]:
    """The header fields of a request, by name in lower case; of several with a name the first."""
    found: dict[str, str] = {}
    head = request.partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        found.setdefault(name.strip().lower(), value.strip())
    return found


def _read(request: bytes) -> tuple[bytes, str | HTTPStatus]:
    """The method and the path of a request, or the status that refuses it."""
    line, ending, _ = request.partition(b"\r\n")
    if not ending or len(request) > MAX_REQUEST_BYTES:
        return b"", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    words = line.split(b" ")
    is_http = len(words) == _WORDS_OF_A_REQUEST_LINE and words[2].startswith(b"HTTP/1.")
    if not is_http or not line.isascii() or not line.decode().isprintable():
        return b"", HTTPStatus.BAD_REQUEST
    method, target = words[0], words[1].decode()
    if method not in _METHODS:
        return method, HTTPStatus.METHOD_NOT_ALLOWED
    try:
        path = target if target.startswith("/") else urlsplit(target).path
    except ValueError:
        return method, HTTPStatus.BAD_REQUEST
    return method, path.partition("?")[0].rstrip("/")


def _listen(address: str) -> socket.socket:
    if address.startswith(UNIX_PREFIX):
        listener = _listen_on_unix_socket(Path(address.removeprefix(UNIX_PREFIX)))
    else:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, int(port)), family=family)
    listener.setblocking(False)
    return listener


def _listen_on_unix_socket(path: Path) -> socket.socket:
    """A socket for the owner and the group, in place of one that nobody listens on."""
    others = directory_of_others(path)
    if others is not None:
        raise OSError(f"somebody else owns {others}, or everybody can write to it")
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(f"{path} exists and is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise OSError(f"{path} is in use")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        _let_group_connect(path)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _let_group_connect(path: Path) -> None:
    """Set the mode of the socket, and of nothing that a member of the group puts in its place."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(f"something else was put in place of {path}")
        Path(f"/proc/self/fd/{descriptor}").chmod(_OWNER_AND_GROUP)
    finally:
        os.close(descriptor)
