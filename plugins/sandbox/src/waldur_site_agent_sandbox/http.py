"""Requests, refusals, and lists with filters, order, pages and fields, on top of Starlette."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID
from zlib import crc32

from pydantic import JsonValue
from starlette.datastructures import QueryParams
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


DEFAULT_PAGE_SIZE = 10
LARGEST_PAGE_SIZE = 300

T = TypeVar("T")
Test = Callable[[T], bool]
Filter = Callable[[QueryParams], Test[T] | None]
"""Reads its parameter and returns the test for rows, or ``None`` if it was not given."""
Orderings = Mapping[str, Callable[[T], str]]


def values(query: QueryParams, name: str) -> list[str]:
    """Give all non-empty values of a parameter."""
    return [value for value in query.getlist(name) if value]


def last(query: QueryParams, name: str) -> str:
    """Return the last non-empty value of a parameter, which is the one that counts; or nothing."""
    return next(iter(values(query, name)[::-1]), "")


def by_uuid(name: str, get: Callable[[T], str]) -> Filter[T]:
    """One UUID; anything else is invalid."""

    def read(query: QueryParams) -> Test[T] | None:
        text = last(query, name)
        if not text:
            return None
        wanted = as_uuid(text)
        if wanted is None:
            raise invalid({name: ["Enter a valid UUID."]})
        return lambda row: get(row) == wanted

    return read


def by_uuids(name: str, get: Callable[[T], str]) -> Filter[T]:
    """UUIDs joined with commas; of a repeated parameter only the last counts."""

    def read(query: QueryParams) -> Test[T] | None:
        text = last(query, name)
        if not text:
            return None
        wanted = {as_uuid(part.strip()) for part in text.split(",")}
        if None in wanted:
            raise invalid({name: ["Enter a valid UUID."]})
        return lambda row: get(row) in wanted

    return read


def by_choice(name: str, choices: Sequence[str], get: Callable[[T], str]) -> Filter[T]:
    """One of some fixed words; repeatable, case-sensitive, not comma-separated."""

    def read(query: QueryParams) -> Test[T] | None:
        wanted = values(query, name)
        if not wanted:
            return None
        for word in wanted:
            if word not in choices:
                raise invalid({name: [_no_choice(word)]})
        return lambda row: get(row) in wanted

    return read


def by_text(name: str, matches: Callable[[T, str], bool]) -> Filter[T]:
    """Free text."""

    def read(query: QueryParams) -> Test[T] | None:
        text = last(query, name)
        return (lambda row: matches(row, text)) if text else None

    return read


def by_flag(name: str, get: Callable[[T], bool]) -> Filter[T]:
    """True or false; other words are ignored."""
    words = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}

    def read(query: QueryParams) -> Test[T] | None:
        wanted = words.get(last(query, name))
        return None if wanted is None else (lambda row: get(row) is wanted)

    return read


def by_time(name: str, get: Callable[[T], datetime]) -> Filter[T]:
    """A time or later."""

    def read(query: QueryParams) -> Test[T] | None:
        text = last(query, name)
        if not text:
            return None
        try:
            since = datetime.fromisoformat(text)
        except ValueError:
            raise invalid({name: ["Enter a valid date/time."]}) from None
        aware = since if since.tzinfo else since.replace(tzinfo=UTC)
        return lambda row: get(row) >= aware

    return read


def by_day(name: str, matches: Callable[[T, date], bool]) -> Filter[T]:
    """A day such as ``2026-11-01``."""

    def read(query: QueryParams) -> Test[T] | None:
        text = last(query, name)
        if not text:
            return None
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise invalid({name: ["Enter a valid date."]}) from None
        return lambda row: matches(row, day)

    return read


def scattered(call: Call, uuid: str) -> str:
    """Order equal rows differently on every page, as the database may."""
    page = last(call.query_params, "page") or "1"
    return f"\0{crc32((page + uuid).encode()):08x}"


def select(call: Call, rows: Sequence[T], filters: Sequence[Filter[T]]) -> list[T]:
    """Return the rows that pass all filters; unknown parameters are ignored.

    Raises:
        RefusedError: 400 with the name of the invalid parameter.
    """
    tests = [test for read in filters if (test := read(call.query_params)) is not None]
    return [row for row in rows if all(test(row) for test in tests)]


def arrange(call: Call, rows: Sequence[T], orderings: Orderings[T], default: str) -> list[T]:
    """Sort by ``o``: names joined with commas, a minus sign for the reverse.

    Raises:
        RefusedError: 400 if the list cannot be sorted by a name.
    """
    arranged = list(rows)
    for name in reversed((last(call.query_params, "o") or default).split(",")):
        key = orderings.get(name.removeprefix("-"))
        if key is None:
            raise invalid({"o": [_no_choice(name)]})
        arranged.sort(key=key, reverse=name.startswith("-"))
    return arranged


def requested_page_size(call: Call) -> int:
    """Return the page size: the default if it is invalid, the maximum if it is too large."""
    text = last(call.query_params, "page_size")
    wanted = int(text) if text.isdecimal() else 0
    return min(wanted, LARGEST_PAGE_SIZE) if wanted else DEFAULT_PAGE_SIZE


def page_answer(
    call: Call,
    rows: Sequence[T],
    render: Callable[[T], JsonObject],
    *,
    offers_fields: bool = True,
) -> Response:
    """Respond with one page: a bare array, with links to the other pages in the headers.

    Without ``offers_fields``, all fields are sent whatever the client asks for.

    Raises:
        RefusedError: 404 if the page does not exist.
    """
    size = requested_page_size(call)
    pages = max(1, -(-len(rows) // size))
    text = last(call.query_params, "page") or "1"
    number = pages if text == "last" else int(text) if text.isdecimal() else 0
    if not 1 <= number <= pages:
        raise RefusedError(HTTPStatus.NOT_FOUND, {"detail": "Invalid page."})
    headers = {
        "X-Result-Count": str(len(rows)),
        "Link": _links(call, number, pages),
    }
    page = rows[(number - 1) * size : number * size]
    asked = values(call.query_params, "field") if offers_fields else []
    return JsonResponse([_with_fields(render(row), asked) for row in page], headers=headers)


def wants(call: Call, name: str) -> bool:
    """Return whether the client wants a field that is expensive to compute."""
    chosen = values(call.query_params, "field")
    return not chosen or name in chosen


def choose_fields(call: Call, whole: JsonObject) -> JsonObject:
    """Keep only the requested fields; unknown names are ignored, and only those mean all fields."""
    return _with_fields(whole, values(call.query_params, "field"))


def _with_fields(whole: JsonObject, asked: Sequence[str]) -> JsonObject:
    chosen = {name for name in asked if name in whole}
    return {name: value for name, value in whole.items() if name in chosen} if chosen else whole


def _links(call: Call, number: int, count: int) -> str:
    url = call.url.replace(query="")
    pages = {"first": 1, "prev": number - 1, "next": number + 1, "last": count}
    rest = urlencode([each for each in call.query_params.multi_items() if each[0] != "page"])
    query = f"{rest}&" if rest else ""
    return ", ".join(
        f'<{url}?{query}page={page}>; rel="{name}"'
        for name, page in pages.items()
        if 1 <= page <= count
    )


def _no_choice(word: str) -> str:
    return f"Select a valid choice. {word} is not one of the available choices."
