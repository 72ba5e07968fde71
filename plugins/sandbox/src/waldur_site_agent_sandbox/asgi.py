"""Waldur's API as a Starlette application: routes, tokens, faults and the request log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from pydantic import JsonValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from waldur_site_agent_sandbox.api import (
    agents,
    events,
    imports,
    offerings,
    orders,
    people,
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
from waldur_site_agent_sandbox.permissions import Sessions
from waldur_site_agent_sandbox.store import Journal, Store
from waldur_site_agent_sandbox.store import Request as JournalEntry

OPERATIONS: tuple[Operation, ...] = (
    *people.OPERATIONS,
    *offerings.OPERATIONS,
    *providers.OPERATIONS,
    *orders.OPERATIONS,
    *resources.OPERATIONS,
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
        self._routes = [
            Route(f"/api/{each.path}", self._endpoint(each), methods=[each.method], name=each.name)
            for each in offered
        ]
        app = Starlette(
            routes=[*self._routes, *more_routes],
            exception_handlers={
                RefusedError: self._refused,
                HTTPStatus.NOT_FOUND: self._no_route,
                HTTPStatus.METHOD_NOT_ALLOWED: self._no_method,
            },
        )
        app.router.redirect_slashes = False  # Waldur answers 301, Starlette 307
        return app

    def skip_latency(self, *, skip: bool = True) -> None:
        """Send slow answers at once: the server is about to stop."""
        self._stopping = skip

    def _endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
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

        return endpoint

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
