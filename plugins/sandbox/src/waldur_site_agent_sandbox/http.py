"""What the server sends back, and how a rule says no."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID

from pydantic import JsonValue

from waldur_site_agent_sandbox.records import JsonObject, User
from waldur_site_agent_sandbox.store import Transaction


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    content: bytes = b""
    media_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(
    body: JsonValue, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Answer:
    """Answer with JSON."""
    return Answer(int(status), json.dumps(body).encode(), "application/json", dict(headers or {}))


def empty_answer(status: int = HTTPStatus.OK) -> Answer:
    """Answer with no body."""
    return Answer(int(status))


def html_answer(status: int) -> Answer:
    """Answer as a web server does that knows nothing of the API."""
    phrase = HTTPStatus(status).phrase
    head = f"<head><title>{phrase}</title></head>"
    page = f"<!doctype html>\n<html>{head}<body><h1>{phrase}</h1></body></html>\n"
    return Answer(int(status), page.encode(), "text/html")


class RefusedError(Exception):
    """A rule said no. ``body`` is what the server tells the client, ``None`` an HTML page."""

    def __init__(self, status: int, body: JsonValue) -> None:
        super().__init__(f"{int(status)}: {body}")
        self.status = int(status)
        self.body = body

    @property
    def answer(self) -> Answer:
        """The refusal as an answer."""
        return (
            html_answer(self.status) if self.body is None else json_answer(self.body, self.status)
        )


def invalid(body: JsonValue) -> RefusedError:
    """400: what was sent breaks a rule."""
    return RefusedError(HTTPStatus.BAD_REQUEST, body)


def not_authenticated(detail: str) -> RefusedError:
    """401: no token, or none that opens anything."""
    return RefusedError(HTTPStatus.UNAUTHORIZED, {"detail": detail})


def denied() -> RefusedError:
    """403: visible, but not yours to change."""
    detail = "You do not have permission to perform this action."
    return RefusedError(HTTPStatus.FORBIDDEN, {"detail": detail})


def all_fields(*readers: Callable[[], Any]) -> tuple[Any, ...]:
    """Read every field of a body; what is wrong with each stands in one answer, by field.

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
    """404: not there, or not for these eyes."""
    return RefusedError(HTTPStatus.NOT_FOUND, {"detail": "Not found."})


def method_not_allowed(method: str) -> RefusedError:
    """405: the path exists, this way to call it does not."""
    return RefusedError(
        HTTPStatus.METHOD_NOT_ALLOWED, {"detail": f'Method "{method}" not allowed.'}
    )


def wrong_state(*valid: str) -> RefusedError:
    """409: the object must be in one of these states first."""
    detail = f"Valid states for operation: {', '.join(valid)}."
    return RefusedError(HTTPStatus.CONFLICT, {"detail": detail})


def server_bug() -> RefusedError:
    """500: an error in the server that nobody caught; nothing has changed."""
    return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, None)


@dataclass(frozen=True, slots=True)
class Query:
    """The part of the URL after the question mark; a name may stand there more than once."""

    pairs: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Give every non-empty value of a name."""
        return [value for key, value in self.pairs if key == name and value]

    def last(self, name: str) -> str:
        """Give the last value of a name, or nothing: how a filter for one value reads."""
        values = self.all(name)
        return values[-1] if values else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated request, as a rule sees it."""

    tx: Transaction
    user: User
    """The user who calls."""
    path: Mapping[str, str]
    query: Query
    body: JsonValue
    url: str
    """Scheme, host and path of the request, without its query."""
    api: str
    """Where the API begins, such as ``http://127.0.0.1:8080/api/``."""

    def uuid(self, name: str = "uuid") -> str:
        """Give the UUID in the path.

        Raises:
            RefusedError: 404, where it is none.
        """
        found = as_uuid(self.path[name])
        if found is None:
            raise not_found()
        return found

    @property
    def fields(self) -> JsonObject:
        """The body as an object; a missing body is an empty one.

        Raises:
            RefusedError: 400, where it is something else.
        """
        if isinstance(self.body, dict):
            return self.body
        kind = type(self.body).__name__
        message = f"Invalid data. Expected a dictionary, but got {kind}."
        raise invalid({"non_field_errors": [message]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A call that the server offers. ``name`` is its operationId in the API's description."""

    name: str
    method: str
    path: str
    """Below ``/api/``, with a slash at the end."""
    run: Callable[[Call], Answer]
    since: tuple[int, ...] = ()
    """The first release that has it; older ones do not know the path."""


def as_uuid(text: str) -> str | None:
    """Give 32 hex digits for a UUID with or without dashes, ``None`` for anything else."""
    try:
        return UUID(text).hex
    except ValueError:
        return None
