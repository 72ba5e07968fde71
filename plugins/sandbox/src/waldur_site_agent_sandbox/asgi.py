"""The HTTP face of the sandbox: routes, tokens, faults and the request log around the rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from pydantic import JsonValue
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from waldur_site_agent_sandbox.api import (
    account,
    agents,
    events,
    imports,
    limits,
    offering_users,
    offerings,
    orders,
    projects,
    providers,
    resources,
    usage,
)
from waldur_site_agent_sandbox.faults import Fault, Faults
from waldur_site_agent_sandbox.http import (
    Answer,
    Call,
    Operation,
    Query,
    RefusedError,
    html_answer,
    invalid,
    json_answer,
    method_not_allowed,
)
from waldur_site_agent_sandbox.portal import Sessions
from waldur_site_agent_sandbox.records import User
from waldur_site_agent_sandbox.store import Journal, Request, Store, Transaction

OPERATIONS: tuple[Operation, ...] = (
    *account.OPERATIONS,
    *offerings.OPERATIONS,
    *providers.OPERATIONS,
    *orders.OPERATIONS,
    *resources.OPERATIONS,
    *offering_users.OPERATIONS,
    *limits.OPERATIONS,
    *usage.OPERATIONS,
    *agents.OPERATIONS,
    *events.OPERATIONS,
    *imports.OPERATIONS,
    *projects.OPERATIONS,
)
"""Every call of Waldur's API that the sandbox answers, in any generation."""

CUT_EXTENSION = "sandbox.cut"
"""Where the server leaves the means to cut a connection, in the request's extensions."""

_NOBODY = ""


class WaldurSurface:
    """Answers Waldur's API from a store, with the faults in force, and writes down what it did."""

    def __init__(self, store: Store, sessions: Sessions, faults: Faults, journal: Journal) -> None:
        self._store = store
        self._sessions = sessions
        self._faults = faults
        self._journal = journal
        self._in_a_hurry = False

    def application(self, more_routes: Sequence[Route]) -> Starlette:
        """Give the ASGI application, with the routes of the customer's side beside Waldur's."""
        served = [each for each in OPERATIONS if self._store.generation.reached(*each.since)]
        routes = [
            Route(f"/api/{each.path}", self._endpoint(each), methods=[each.method])
            for each in served
        ]
        app = Starlette(
            routes=[*routes, *more_routes],
            exception_handlers={
                HTTPStatus.NOT_FOUND: self._no_route,
                HTTPStatus.METHOD_NOT_ALLOWED: self._no_method,
            },
        )
        app.router.redirect_slashes = False
        self._routes = routes
        return app

    def hurry(self, *, hurried: bool = True) -> None:
        """Let nobody wait for a slow answer any more: the server is about to stop."""
        self._in_a_hurry = hurried

    def _endpoint(self, operation: Operation) -> Callable[[HttpRequest], Awaitable[Response]]:
        async def endpoint(request: HttpRequest) -> Response:
            content = await request.body()
            faults = self._faults.strike(operation.name)
            if "latency" in faults:
                await self._linger(faults["latency"].seconds)
            if "cut" in faults:
                self._write_down(request, operation.name, None, content, answered=False)
                return _Cut()
            answer = _instead(faults) or self._perform(operation, request, content, faults)
            if "short_page" in faults:
                answer = _shortened(answer, faults["short_page"].rows)
            lost = "lost_answer" in faults
            self._write_down(request, operation.name, answer.status, content, answered=not lost)
            return _Cut() if lost else _response(answer)

        return endpoint

    def _perform(
        self, operation: Operation, request: HttpRequest, content: bytes, faults: dict[str, Fault]
    ) -> Answer:
        try:
            if operation.method == "GET":
                back = faults["stale"].changes_ago if "stale" in faults else 0
                user = self._user(request)
                return operation.run(
                    _call(self._store.read_committed(back), user, request, content)
                )
            with self._store.change(at_once=True) as tx:
                user = self._user(request)
                return operation.run(_call(tx, user, request, content))
        except RefusedError as refusal:
            return refusal.answer

    def _user(self, request: HttpRequest) -> User:
        header = request.headers.get("authorization", "")
        return self._sessions.authenticate(self._store.read(), header)

    async def _linger(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until and not self._in_a_hurry:
            await asyncio.sleep(min(0.02, max(0.0, until - loop.time())))

    async def _no_route(self, request: HttpRequest, _error: Exception) -> Response:
        path = request.url.path
        slashed = {**request.scope, "path": f"{path}/"}
        missing_slash = not path.endswith("/") and any(
            route.matches(slashed)[0] != Match.NONE for route in self._routes
        )
        if missing_slash:
            target = str(request.url.replace(path=f"{path}/"))
            answer = Answer(int(HTTPStatus.MOVED_PERMANENTLY), headers={"Location": target})
        else:
            answer = html_answer(HTTPStatus.NOT_FOUND)
        self._write_down(request, _NOBODY, answer.status, await request.body(), answered=True)
        return _response(answer)

    async def _no_method(self, request: HttpRequest, _error: Exception) -> Response:
        answer = method_not_allowed(request.method).answer
        self._write_down(request, _NOBODY, answer.status, await request.body(), answered=True)
        return _response(answer)

    def _write_down(
        self,
        request: HttpRequest,
        operation: str,
        status: int | None,
        content: bytes,
        *,
        answered: bool,
    ) -> None:
        try:
            body = _parsed(content)
        except RefusedError:
            body = content.decode(errors="replace")
        self._journal.add(
            Request(
                method=request.method,
                operation=operation,
                path=request.url.path,
                query=request.url.query,
                status=status,
                body=body,
                answered=answered,
                user_agent=request.headers.get("user-agent", ""),
                time=self._store.clock.now(),
            )
        )


def _call(tx: Transaction, user: User, request: HttpRequest, content: bytes) -> Call:
    return Call(
        tx=tx,
        user=user,
        path={name: str(value) for name, value in request.path_params.items()},
        query=Query(tuple(request.query_params.multi_items())),
        body=_parsed(content),
        url=str(request.url.replace(query="")),
        api=f"{request.base_url}api/",
    )


def _parsed(content: bytes) -> JsonValue:
    if not content:
        return {}
    try:
        parsed: JsonValue = json.loads(content)
    except ValueError as error:
        raise invalid({"detail": f"JSON parse error - {error}"}) from None
    return parsed


def _instead(faults: dict[str, Fault]) -> Answer | None:
    """Give the answer that takes the place of the true one, where there is such a fault."""
    if "status" in faults:
        fault = faults["status"]
        after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        status = fault.status or HTTPStatus.SERVICE_UNAVAILABLE
        return json_answer({"detail": HTTPStatus(status).phrase}, status, after)
    if "html" in faults:
        return html_answer(faults["html"].status or HTTPStatus.OK)
    return None


def _shortened(answer: Answer, rows: int) -> Answer:
    try:
        page = json.loads(answer.content)
    except ValueError:
        return answer
    if not isinstance(page, list):
        return answer
    return json_answer(page[: max(0, len(page) - rows)], answer.status, answer.headers)


def _response(answer: Answer) -> Response:
    return Response(answer.content, answer.status, dict(answer.headers), answer.media_type)


class _Cut(Response):
    """No response: the connection breaks."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # nothing is sent
        """Break the connection, and stay until the server has noticed: it would answer 500."""
        scope["extensions"][CUT_EXTENSION]["abort"]()
        while (await receive())["type"] != "http.disconnect":
            pass
