"""Waldur's API as a Starlette application, served in a thread, in the foreground or in process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Coroutine, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from email.utils import format_datetime
from functools import cache
from http import HTTPStatus
from typing import Any

import httpx
import uvicorn
from pydantic import JsonValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable
from uvicorn._types import Scope as UvicornScope
from uvicorn.protocols.http.h11_impl import H11Protocol

from waldur_site_agent_sandbox.api import (
    agents,
    events,
    imports,
    offerings,
    orders,
    people,
    policies,
    providers,
    resources,
    usage,
)
from waldur_site_agent_sandbox.faults import Fault, Faults
from waldur_site_agent_sandbox.http import (
    Call,
    JsonResponse,
    Operation,
    RefusedError,
    html_response,
    invalid,
    method_not_allowed,
)
from waldur_site_agent_sandbox.rules import Sessions
from waldur_site_agent_sandbox.store import Clock, Journal, Store
from waldur_site_agent_sandbox.store import Request as JournalEntry

OPERATIONS: tuple[Operation, ...] = (
    *people.OPERATIONS,
    *offerings.OPERATIONS,
    *providers.OPERATIONS,
    *orders.OPERATIONS,
    *resources.OPERATIONS,
    *policies.OPERATIONS,
    *usage.OPERATIONS,
    *agents.OPERATIONS,
    *events.OPERATIONS,
    *imports.OPERATIONS,
)
"""Every call of Waldur's API that the sandbox answers, in any generation."""

CUT_EXTENSION = "sandbox.cut"
"""The key in a request's ASGI extensions under which the server leaves a way to cut it off."""


class WaldurApi:
    """Answers Waldur's API from a store, with the faults in force, and logs each request."""

    def __init__(self, store: Store, sessions: Sessions, faults: Faults, journal: Journal) -> None:
        self._store = store
        self._sessions = sessions
        self._faults = faults
        self._journal = journal
        self._stopping = False

    def application(self, more_routes: Sequence[Route]) -> Starlette:
        """Return the ASGI application, with the routes of the customer's side beside Waldur's."""
        offered = [each for each in OPERATIONS if self._store.generation.reached(*each.since)]
        self._routes = [_route(each) for each in offered]
        app = Starlette(
            routes=[*self._routes, *more_routes],
            exception_handlers={
                RefusedError: self._refused,
                HTTPStatus.NOT_FOUND: self._no_route,
                HTTPStatus.METHOD_NOT_ALLOWED: self._no_method,
            },
        )
        app.router.redirect_slashes = False  # Waldur answers 301, Starlette 307
        app.state.waldur = self
        return app

    def skip_latency(self, *, skip: bool = True) -> None:
        """Send slow answers at once: the server is about to stop."""
        self._stopping = skip

    async def answer(self, operation: Operation, request: Request) -> Response:
        """Answer a request."""
        content = await request.body()
        faults = self._faults.strike(operation.name)
        request.state.operation, request.state.faults = operation.name, faults
        if "latency" in faults:
            await self._linger(faults["latency"].seconds)
        if "cut" in faults:
            self._log(request, content, None, answered=False)
            return _Cut()
        response = _instead(faults) or self._perform(operation, request, content, faults)
        return await self._finish(request, response)

    def _perform(
        self, operation: Operation, request: Request, content: bytes, faults: dict[str, Fault]
    ) -> Response:
        header = request.headers.get("authorization", "")
        user = self._sessions.authenticate(self._store.read(), header)
        if operation.method == "GET":
            back = faults["stale"].changes_ago if "stale" in faults else 0
            tx = self._store.read_committed(back)
            return operation.run(Call(request, _parsed(content), tx, user))
        with self._store.change(at_once=True) as tx:
            return operation.run(Call(request, _parsed(content), tx, user))

    async def _finish(self, request: Request, response: Response) -> Response:
        """Log an answer and send it, unless a fault shortens or loses it."""
        faults: dict[str, Fault] = getattr(request.state, "faults", {})
        if "short_page" in faults:
            _shorten(response, faults["short_page"].rows)
        lost = "lost_answer" in faults
        self._log(request, await request.body(), response.status_code, answered=not lost)
        return _Cut() if lost else response

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)  # noqa: S101  # Starlette hands over what it is registered for
        return await self._finish(request, error.response())

    async def _no_route(self, request: Request, _error: Exception) -> Response:
        path = request.url.path
        slashed = {**request.scope, "path": f"{path}/"}
        missing_slash = not path.endswith("/") and any(
            route.matches(slashed)[0] != Match.NONE for route in self._routes
        )
        if not missing_slash:
            return await self._finish(request, html_response(HTTPStatus.NOT_FOUND))
        target = str(request.url.replace(path=f"{path}/"))
        moved = Response(status_code=HTTPStatus.MOVED_PERMANENTLY, headers={"Location": target})
        return await self._finish(request, moved)

    async def _no_method(self, request: Request, _error: Exception) -> Response:
        return await self._finish(request, method_not_allowed(request.method).response())

    async def _linger(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until and not self._stopping:
            await asyncio.sleep(min(0.02, max(0.0, until - loop.time())))

    def _log(self, request: Request, content: bytes, status: int | None, *, answered: bool) -> None:
        try:
            body = _parsed(content)
        except RefusedError:
            body = content.decode(errors="replace")
        self._journal.add(
            JournalEntry(
                method=request.method,
                operation=getattr(request.state, "operation", ""),
                path=request.scope["path"],
                query=request.scope["query_string"].decode(),
                status=status,
                body=body,
                answered=answered,
                user_agent=request.headers.get("user-agent", ""),
                time=self._store.clock.now(),
            )
        )


@cache
def _route(operation: Operation) -> Route:
    """The route of an operation, for all sandboxes: making them all takes milliseconds."""

    async def endpoint(request: Request) -> Response:
        waldur: WaldurApi = request.app.state.waldur
        return await waldur.answer(operation, request)

    path = f"/api/{operation.path}"
    return Route(path, endpoint, methods=[operation.method], name=operation.name)


def _parsed(content: bytes) -> JsonValue:
    if not content:
        return {}
    try:
        parsed: JsonValue = json.loads(content)
    except ValueError as error:
        raise invalid({"detail": f"JSON parse error - {error}"}) from None
    return parsed


def _instead(faults: dict[str, Fault]) -> Response | None:
    """Return the answer that replaces the real one, if a fault asks for it."""
    if "status" in faults:
        fault = faults["status"]
        after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        status = fault.status or HTTPStatus.SERVICE_UNAVAILABLE
        return JsonResponse({"detail": HTTPStatus(status).phrase}, int(status), after)
    if "html" in faults:
        return html_response(faults["html"].status or HTTPStatus.OK)
    return None


def _shorten(response: Response, rows: int) -> None:
    """Remove the last rows of a page."""
    page = json.loads(bytes(response.body)) if isinstance(response, JSONResponse) else None
    if isinstance(page, list):
        response.body = response.render(page[: max(0, len(page) - rows)])
        response.headers["content-length"] = str(len(response.body))


class _Cut(Response):
    """No response: the connection breaks."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # nothing is sent
        """Break the connection and wait until the server has noticed: it would answer 500."""
        scope["extensions"][CUT_EXTENSION]["abort"]()
        while (await receive())["type"] != "http.disconnect":
            pass


_LONGEST_START_SECONDS = 10.0
_STOP_CHECK_SECONDS = 0.01
_KEEP_ALIVE_SECONDS = 75


class _CuttableConnection(H11Protocol):
    """A connection that the application can abort without a response."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        inner = self.app

        async def app(
            scope: UvicornScope, receive: ASGIReceiveCallable, send: ASGISendCallable
        ) -> None:
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
    """Calls the application in the caller's thread, without a network.

    One request at a time, like the thread that serves it over HTTP: ``turn`` is shared by all
    transports of a sandbox.
    """

    def __init__(self, app: Starlette, clock: Clock, turn: threading.Lock) -> None:
        self._app = app
        self._clock = clock
        self._turn = turn

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request.

        Raises:
            httpx.RemoteProtocolError: The connection is cut.
        """
        exchange = _Exchange(request)
        with self._turn:
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
