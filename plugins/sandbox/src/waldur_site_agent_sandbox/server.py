"""Serves the sandbox: in a thread, in the foreground, or to a client in the same process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from email.utils import format_datetime
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from waldur_site_agent_sandbox.asgi import CUT_EXTENSION
from waldur_site_agent_sandbox.store import Clock

_LONGEST_START_SECONDS = 10.0
_STOP_CHECK_SECONDS = 0.01
_KEEP_ALIVE_SECONDS = 75


class _CuttableConnection(H11Protocol):
    """A connection that the application can abort without a response."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        inner = self.app

        async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            if scope["type"] == "http":
                scope["extensions"] = {CUT_EXTENSION: {"abort": transport.abort}}
            await inner(scope, receive, send)

        self.app = app


class _ThreadServer(uvicorn.Server):
    """A server that stops as soon as ``stop`` is called."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Stop the server; thread-safe."""
        self._stopped.set()

    async def main_loop(self) -> None:
        """Serve until ``stop`` is called."""
        await self.on_tick(0)
        while not self._stopped.is_set():
            await asyncio.sleep(_STOP_CHECK_SECONDS)


def bound_socket(host: str, port: int) -> socket.socket:
    """Bind a listening socket; port 0 takes any free one.

    Raises:
        OSError: The address is taken, or not of this machine.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def server_for(app: Starlette) -> uvicorn.Server:
    """Create a server for the foreground."""
    return uvicorn.Server(_config(app))


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_CuttableConnection,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """Serve in a thread on a free port; yields the address, such as ``http://127.0.0.1:40123/``.

    Raises:
        RuntimeError: The server's thread did not end.
    """
    listener = bound_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = _ThreadServer(_config(app))
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.stop()
        thread.join(_LONGEST_START_SECONDS)
        if thread.is_alive():
            message = "the sandbox did not stop"
            raise RuntimeError(message)


_Message = MutableMapping[str, Any]

ADDRESS = "http://waldur.invalid/api/"
"""The base URL for clients that use ``InProcessTransport``."""


class InProcessTransport(httpx.BaseTransport):
    """Calls the application in the caller's thread, without a network."""

    def __init__(self, app: Starlette, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request.

        Raises:
            httpx.RemoteProtocolError: The connection is cut.
        """
        exchange = _Exchange(request)
        _run_at_once(self._app(exchange.scope(), exchange.receive, exchange.send))
        if exchange.is_cut:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        date = format_datetime(self._clock.now(), usegmt=True).encode()
        headers = [*exchange.headers, (b"date", date)]
        return httpx.Response(exchange.status, headers=headers, content=bytes(exchange.content))


class _Exchange:
    """One request and its response in ASGI terms."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._body_is_read = False
        self.is_cut = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content = bytearray()

    def scope(self) -> dict[str, Any]:
        url = self._request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "server": (url.host, url.port or 80),
            "client": ("127.0.0.1", 0),
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "root_path": "",
            "query_string": url.query,
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "extensions": {CUT_EXTENSION: {"abort": self._cut}},
        }

    async def receive(self) -> _Message:
        if self._body_is_read:
            return {"type": "http.disconnect"}
        self._body_is_read = True
        return {"type": "http.request", "body": self._request.read(), "more_body": False}

    async def send(self, message: _Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.content += message.get("body", b"")

    def _cut(self) -> None:
        self.is_cut = True


def _run_at_once(answering: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never has to wait."""
    try:
        answering.send(None)
    except StopIteration:
        return
    answering.close()
    message = "the sandbox cannot wait in process; serve it for faults with latency"
    raise RuntimeError(message)
