"""Requests and answers of Waldur's API on top of Starlette, and how a rule refuses a request."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from waldur_site_agent_sandbox.records import JsonObject, User
from waldur_site_agent_sandbox.store import Transaction


class JsonResponse(JSONResponse):
    """JSON in ASCII, which also encodes values that strict JSON does not have."""

    def render(self, content: JsonValue) -> bytes:
        """Encode NaN and lone surrogates too."""
        return json.dumps(content).encode()


def empty_response(status: int = HTTPStatus.OK) -> Response:
    """Answer without a body."""
    return Response(status_code=int(status))


def html_response(status: int) -> Response:
    """Respond like a web server that does not know the API."""
    phrase = HTTPStatus(status).phrase
    head = f"<head><title>{phrase}</title></head>"
    page = f"<!doctype html>\n<html>{head}<body><h1>{phrase}</h1></body></html>\n"
    return HTMLResponse(page, int(status))


class RefusedError(Exception):
    """A rule refuses a request. ``body`` is sent as JSON, or an HTML page if it is ``None``."""

    def __init__(self, status: int, body: JsonValue) -> None:
        super().__init__(f"{int(status)}: {body}")
        self.status = int(status)
        self.body = body

    def response(self) -> Response:
        """Return the answer that the client gets."""
        if self.body is None:
            return html_response(self.status)
        return JsonResponse(self.body, self.status)


def invalid(body: JsonValue) -> RefusedError:
    """400: the request is invalid."""
    return RefusedError(HTTPStatus.BAD_REQUEST, body)


def not_authenticated(detail: str) -> RefusedError:
    """401: no token, or an invalid one."""
    return RefusedError(HTTPStatus.UNAUTHORIZED, {"detail": detail})


def denied() -> RefusedError:
    """403: visible, but the user may not change it."""
    detail = "You do not have permission to perform this action."
    return RefusedError(HTTPStatus.FORBIDDEN, {"detail": detail})


def all_fields(*readers: Callable[[], Any]) -> tuple[Any, ...]:
    """Read all fields of a body; errors of all fields are in one response.

    Raises:
        RefusedError: 400.
    """
    values: list[Any] = []
    errors: dict[str, JsonValue] = {}
    for read in readers:
        try:
            values.append(read())
        except RefusedError as refusal:
            if not isinstance(refusal.body, dict):
                raise
            errors.update(refusal.body)
    if errors:
        raise invalid(errors)
    return tuple(values)


def not_found() -> RefusedError:
    """404: it does not exist, or the user may not see it."""
    return RefusedError(HTTPStatus.NOT_FOUND, {"detail": "Not found."})


def method_not_allowed(method: str) -> RefusedError:
    """405: the path exists, but not with this method."""
    return RefusedError(
        HTTPStatus.METHOD_NOT_ALLOWED, {"detail": f'Method "{method}" not allowed.'}
    )


def wrong_state(*valid: str) -> RefusedError:
    """409: the object must be in one of these states first."""
    detail = f"Valid states for operation: {', '.join(valid)}."
    return RefusedError(HTTPStatus.CONFLICT, {"detail": detail})


def server_bug() -> RefusedError:
    """500: an unhandled error in the server; nothing has changed."""
    return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, None)


class Call(Request):
    """One authenticated request, with the transaction that it reads or changes."""

    def __init__(self, request: Request, sent: JsonValue, tx: Transaction, user: User) -> None:
        request.scope["user"] = user
        super().__init__(request.scope)
        self.tx = tx
        self.sent = sent
        """The body; ``{}`` if there is none."""
        self.api = f"{request.base_url}api/"
        """The root of the API, such as ``http://127.0.0.1:8080/api/``."""

    @property
    def user(self) -> User:
        """The user whose token the request has."""
        user: User = self.scope["user"]
        return user

    def uuid(self, name: str = "uuid") -> str:
        """Return the UUID in the path.

        Raises:
            RefusedError: 404 if it is not a UUID.
        """
        found = as_uuid(self.path_params[name])
        if found is None:
            raise not_found()
        return found

    @property
    def fields(self) -> JsonObject:
        """The body as an object.

        Raises:
            RefusedError: 400 if it is anything else.
        """
        if isinstance(self.sent, dict):
            return self.sent
        kind = type(self.sent).__name__
        message = f"Invalid data. Expected a dictionary, but got {kind}."
        raise invalid({"non_field_errors": [message]})


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the API. ``name`` is its operationId in the API description."""

    name: str
    method: str
    path: str
    """Below ``/api/``, with a slash at the end."""
    run: Callable[[Call], Response]
    since: tuple[int, ...] = ()
    """The first release that has the path."""


def as_uuid(text: str) -> str | None:
    """Return a UUID as 32 hex digits, ``None`` if the text is not one."""
    try:
        return UUID(text).hex
    except ValueError:
        return None
