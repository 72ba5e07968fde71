"""The customer's side over HTTP, for people with curl: everything below ``/sandbox/``.

No token is asked for: whoever reaches the sandbox may do everything.
"""

from __future__ import annotations

import inspect
from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic import ValidationError, validate_call
from pydantic_core import to_jsonable_python
from starlette.responses import JSONResponse
from starlette.routing import Route

from waldur_site_agent.sandbox import records
from waldur_site_agent.sandbox.answers import RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from waldur_site_agent.sandbox.sandbox import Sandbox

    Endpoint = Callable[[Request], Awaitable[Response]]

_PYTHON_ONLY = {"current", "edit", "world"}


def routes(sandbox: Sandbox) -> list[Route]:
    """Give the routes of the customer's side."""
    actions: dict[str, Callable[..., object]] = {
        name: method
        for name, method in inspect.getmembers(sandbox.customer, inspect.ismethod)
        if not name.startswith("_") and name not in _PYTHON_ONLY
    }
    actions |= {
        "run_worker": sandbox.worker.run,
        "pause_worker": sandbox.worker.pause,
        "resume_worker": sandbox.worker.resume,
        "add_fault": sandbox.faults.add,
        "clear_faults": sandbox.faults.clear,
        "clear_requests": sandbox.requests.clear,
        "advance_clock": sandbox.clock.advance,
        "publish_event": sandbox.events.publish,
        "disturb_events": sandbox.events.disturb,
        "calm_events": sandbox.events.calm,
        "hold_events": sandbox.events.hold,
        "release_events": sandbox.events.release,
        "lag_behind_events": sandbox.events.lag_behind,
    }
    views: dict[str, Callable[[], object]] = {
        "": lambda: _overview(list(views), actions),
        "world": lambda: sandbox.customer.world,
        "orders": lambda: list(sandbox.customer.world.orders.values()),
        "resources": lambda: list(sandbox.customer.world.resources.values()),
        "requests": sandbox.requests.snapshot,
        "faults": lambda: sandbox.faults.pending,
        "tasks": lambda: sandbox.worker.waiting,
        "events": lambda: list(sandbox.events.published),
    }
    endpoints = [(name, _view(view), "GET") for name, view in views.items()]
    endpoints += [(name, _action(action), "POST") for name, action in actions.items()]
    return [
        Route(f"/sandbox/{path}", endpoint, methods=[method])
        for name, endpoint, method in endpoints
        for path in ({name, f"{name}/"} if name else {""})
    ]


def _view(view: Callable[[], object]) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        return JSONResponse(_without_tokens(view()))

    return endpoint


def _action(action: Callable[..., object]) -> Endpoint:
    checked = validate_call(action)

    async def endpoint(request: Request) -> Response:
        try:
            arguments = await request.json() if await request.body() else {}
            return JSONResponse(_without_tokens(checked(**arguments)))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            return _sorry(HTTPStatus.BAD_REQUEST, problems)
        except RefusedError as refusal:
            return _sorry(refusal.status, refusal.body)
        except (LookupError, ValueError, TypeError) as error:
            return _sorry(HTTPStatus.BAD_REQUEST, str(error))

    return endpoint


def _sorry(status: int, reason: object) -> Response:
    return JSONResponse({"refused": to_jsonable_python(reason)}, int(status))


def _overview(
    views: Iterable[str], actions: Mapping[str, Callable[..., object]]
) -> dict[str, object]:
    return {
        "about": "the customer's side of the sandbox; POST a JSON object of arguments",
        "look": [f"/sandbox/{name}/" for name in views if name],
        "actions": {
            f"/sandbox/{name}/": {
                "does": inspect.getdoc(action),
                "arguments": str(inspect.signature(action)).replace(f"{records.__name__}.", ""),
            }
            for name, action in sorted(actions.items())
        },
    }


def _without_tokens(value: object) -> object:
    """Give plain JSON; tokens are printed once, at the start, and nowhere else."""
    plain: object = to_jsonable_python(value)
    return _blotted(plain)


def _blotted(plain: object) -> object:
    if isinstance(plain, dict):
        return {key: "***" if key == "token" else _blotted(each) for key, each in plain.items()}
    return [_blotted(each) for each in plain] if isinstance(plain, list) else plain
