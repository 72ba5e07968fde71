"""Lists: filters, order, pages and the choice of fields, with their treatment of bad values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlencode
from zlib import crc32

from waldur_site_agent_sandbox.http import (
    Answer,
    Call,
    Query,
    RefusedError,
    as_uuid,
    invalid,
    json_answer,
)
from waldur_site_agent_sandbox.records import JsonObject

DEFAULT_PAGE_SIZE = 10
LARGEST_PAGE_SIZE = 300

T = TypeVar("T")
Test = Callable[[T], bool]
Filter = Callable[[Query], Test[T] | None]
"""Reads its parameter: the test that rows must pass, or ``None`` where it was not given."""
Orderings = Mapping[str, Callable[[T], str]]


def by_uuid(name: str, get: Callable[[T], str]) -> Filter[T]:
    """One UUID; anything else is a bad value."""

    def read(query: Query) -> Test[T] | None:
        text = query.last(name)
        if not text:
            return None
        wanted = as_uuid(text)
        if wanted is None:
            raise invalid({name: ["Enter a valid UUID."]})
        return lambda row: get(row) == wanted

    return read


def by_uuids(name: str, get: Callable[[T], str]) -> Filter[T]:
    """UUIDs joined with commas; of a repeated parameter only the last counts."""

    def read(query: Query) -> Test[T] | None:
        text = query.last(name)
        if not text:
            return None
        wanted = {as_uuid(part.strip()) for part in text.split(",")}
        if None in wanted:
            raise invalid({name: ["Enter a valid UUID."]})
        return lambda row: get(row) in wanted

    return read


def by_choice(name: str, choices: Sequence[str], get: Callable[[T], str]) -> Filter[T]:
    """Any of some fixed words, the parameter repeated; case counts, commas do not split."""

    def read(query: Query) -> Test[T] | None:
        wanted = query.all(name)
        if not wanted:
            return None
        for word in wanted:
            if word not in choices:
                raise invalid({name: [_no_choice(word)]})
        return lambda row: get(row) in wanted

    return read


def by_text(name: str, matches: Callable[[T, str], bool]) -> Filter[T]:
    """Free text."""

    def read(query: Query) -> Test[T] | None:
        text = query.last(name)
        return (lambda row: matches(row, text)) if text else None

    return read


def by_flag(name: str, get: Callable[[T], bool]) -> Filter[T]:
    """True or false; other words are as good as nothing."""
    words = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}

    def read(query: Query) -> Test[T] | None:
        wanted = words.get(query.last(name))
        return None if wanted is None else (lambda row: get(row) is wanted)

    return read


def by_time(name: str, get: Callable[[T], datetime]) -> Filter[T]:
    """At that time or later."""

    def read(query: Query) -> Test[T] | None:
        text = query.last(name)
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

    def read(query: Query) -> Test[T] | None:
        text = query.last(name)
        if not text:
            return None
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise invalid({name: ["Enter a valid date."]}) from None
        return lambda row: matches(row, day)

    return read


def scattered(query: Query, uuid: str) -> str:
    """Give rows that are alike another order on every page, as the database may."""
    page = query.last("page") or "1"
    return f"\0{crc32((page + uuid).encode()):08x}"


def select(query: Query, rows: Sequence[T], filters: Sequence[Filter[T]]) -> list[T]:
    """Give the rows that pass every filter; parameters that no filter reads change nothing.

    Raises:
        RefusedError: 400 that names the parameter with a bad value.
    """
    tests = [test for read in filters if (test := read(query)) is not None]
    return [row for row in rows if all(test(row) for test in tests)]


def arrange(query: Query, rows: Sequence[T], orderings: Orderings[T], default: str) -> list[T]:
    """Sort by ``o``: names joined with commas, a minus sign for the reverse.

    Raises:
        RefusedError: 400 for a name that the list cannot be sorted by.
    """
    arranged = list(rows)
    for name in reversed((query.last("o") or default).split(",")):
        key = orderings.get(name.removeprefix("-"))
        if key is None:
            raise invalid({"o": [_no_choice(name)]})
        arranged.sort(key=key, reverse=name.startswith("-"))
    return arranged


def requested_page_size(query: Query) -> int:
    """Give the page size in force: nonsense means the default, too much means the largest."""
    text = query.last("page_size")
    wanted = int(text) if text.isdecimal() else 0
    return min(wanted, LARGEST_PAGE_SIZE) if wanted else DEFAULT_PAGE_SIZE


def page_answer(
    call: Call,
    rows: Sequence[T],
    render: Callable[[T], JsonObject],
    *,
    offers_fields: bool = True,
) -> Answer:
    """Answer with one page: a bare array, its place among the others in the headers.

    Without ``offers_fields``, the list is one of those that print every field in any case.

    Raises:
        RefusedError: 404 for a page that is not there.
    """
    size = requested_page_size(call.query)
    last = max(1, -(-len(rows) // size))
    text = call.query.last("page") or "1"
    number = last if text == "last" else int(text) if text.isdecimal() else 0
    if not 1 <= number <= last:
        raise RefusedError(HTTPStatus.NOT_FOUND, {"detail": "Invalid page."})
    headers = {
        "X-Result-Count": str(len(rows)),
        "Link": _links(call, number, last),
    }
    page = rows[(number - 1) * size : number * size]
    whole = map(render, page)
    shown = (choose_fields(call.query, row) for row in whole) if offers_fields else whole
    return json_answer([*shown], headers=headers)


def wants(query: Query, name: str) -> bool:
    """Tell whether the client wants a field that is dear to make."""
    chosen = query.all("field")
    return not chosen or name in chosen


def choose_fields(query: Query, whole: JsonObject) -> JsonObject:
    """Leave the fields asked for; unknown names are ignored, and all of them give everything."""
    chosen = {name for name in query.all("field") if name in whole}
    return {name: value for name, value in whole.items() if name in chosen} if chosen else whole


def _links(call: Call, number: int, last: int) -> str:
    pages = {"first": 1, "prev": number - 1, "next": number + 1, "last": last}
    rest = [(key, value) for key, value in call.query.pairs if key != "page"]
    return ", ".join(
        f'<{call.url}?{urlencode([*rest, ("page", str(page))])}>; rel="{name}"'
        for name, page in pages.items()
        if 1 <= page <= last
    )


def _no_choice(word: str) -> str:
    return f"Select a valid choice. {word} is not one of the available choices."
