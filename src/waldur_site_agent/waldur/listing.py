"""Lists in pages, and whether they are complete: nobody is removed because of a partial list."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeAlias, TypeVar
from uuid import UUID

import httpx
import structlog

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import uuid_from_url
from waldur_site_agent.waldur.concurrency import concurrently
from waldur_site_agent.waldur.errors import NotFoundError, OrderingRefusedError
from waldur_site_agent.waldur.http import Call, Connection, QueryValue
from waldur_site_agent.waldur.memory import available_memory
from waldur_site_agent.waldur.operation import (
    Operation,
    Row,
    bad_answer,
    decode,
    read_json,
    read_rows,
    uuid_text,
)

Item_co = TypeVar("Item_co", covariant=True)
Other = TypeVar("Other")
Answer = TypeVar("Answer")

PAGE_SIZE = 300
"""The largest page size that Waldur supports."""
_PAGES_AT_ONCE = 4
MAX_SHORT_PAGES = 1000
MAX_UNREADABLE = 10_000
MAX_SECONDS = 1800.0
"""The most that is read of one list, so that a server cannot keep the agent reading for ever.

Short pages have fewer rows than were asked for.
"""
_SHARE_OF_MEMORY = 16
_LEAST_BYTES, _MOST_BYTES = 128 << 20, 1 << 30
_BYTES_OF_A_ROW = 512
"""Rows of Waldur have at least as many; a list may have one row for each."""

_LONGEST_COUNT = 18
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item_co]):
    """The rows of a list that match the filters, and whether all of them arrived."""

    items: tuple[Item_co, ...]
    total: int | None
    """How many rows the server counts; ``None`` if it does not say."""
    complete: bool
    """Every page was fetched, no row is duplicated or missing, and the server's count agrees."""
    received: int | None = None
    """How many different rows arrived; ``items`` has fewer if a server ignores a filter."""
    unreadable: tuple[UnreadableRow, ...] = ()
    """Rows that cannot be decoded; they are not among the items."""

    def with_items(self, items: Iterable[Other]) -> Listing[Other]:
        """A listing of selected or converted items, as complete as this one."""
        received = len(self.items) if self.received is None else self.received
        return Listing(
            items=tuple(items),
            total=self.total,
            complete=self.complete,
            received=received,
            unreadable=self.unreadable,
        )

    def require_complete(self, what: str) -> tuple[Item_co, ...]:
        """The items, if the list is complete.

        Args:
            what: What the items are, in the plural, for the message.

        Raises:
            TemporaryError: Some may be missing, or cannot be decoded.
        """
        if self.unreadable:
            raise self.unreadable[0].error
        return self.require_every_page(what)

    def require_every_page(self, what: str) -> tuple[Item_co, ...]:
        """The items, if all rows arrived; those in ``unreadable`` are not among them.

        The caller must not remove anything that an unreadable row could concern.

        Args:
            what: What the items are, in the plural, for the message.

        Raises:
            TemporaryError: Some may be missing.
        """
        if self.complete:
            return self.items
        received = len(self.items) if self.received is None else self.received
        arrived = (
            f"{received} {what} arrived and Waldur did not say how many there are"
            if self.total is None
            else f"{received} of {self.total} {what} arrived"
            if received != self.total
            else f"the list of {what} changed while it was read"
        )
        raise TemporaryError(f"{arrived}; an incomplete list is not used, it will be read again")


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that cannot be decoded; its readable fields show what it may concern."""

    error: TemporaryError
    """Which field, and why."""
    row: Row

    def __str__(self) -> str:
        return str(self.error)

    def text(self, field: str) -> str | None:
        """The text of a field, empty if it is absent; ``None`` if it is not a string."""
        value = self.row.get(field)
        return "" if value is None else value if isinstance(value, str) else None

    def uuid(self, field: str) -> UUID | None:
        """The UUID in a field, or at the end of its URL; ``None`` if there is none."""
        return uuid_from_url(self.text(field) or "")


class ApiClient:
    """Carries out declared operations over one connection; the base of the APIs per subject."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._refused_orders: set[tuple[str, str]] = set()
        """The values of ``o`` that this server refused, with the operation."""

    def _read(self, operation: Operation[Answer], uuid: UUID | str | None = None) -> Answer:
        query: dict[str, QueryValue] = {}
        if operation.asked_fields:
            query["field"] = operation.asked_fields
        call = Call.of(operation, uuid="" if uuid is None else uuid_text(uuid), query=query)
        response = self._connection.send(call)
        return decode(operation, read_json(response), response)

    def _list(
        self,
        operation: Operation[Answer],
        uuid: str = "",
        needed: Callable[[Row], Row] | None = None,
        kept: Callable[[Answer], Answer | None] | None = None,
        /,
        *,
        without: Collection[str] = (),
        **filters: QueryValue,
    ) -> Listing[Answer]:
        """Read a list; ``without`` are fields not to ask for, ``needed`` drops some of a row.

        ``kept`` returns what is kept of a decoded row; ``None``: nothing.
        """
        query: dict[str, QueryValue] = {
            **filters,
            "page_size": PAGE_SIZE,
        }
        if operation.asked_fields:
            query["field"] = [name for name in operation.asked_fields if name not in without]

        def fetch(order: str | None, page: int) -> httpx.Response:
            ordering: dict[str, QueryValue] = {"o": order} if order is not None else {}
            return self._connection.send(
                Call.of(operation, uuid=uuid, query={**query, **ordering, "page": page})
            )

        wanted = {
            name: {value} if isinstance(value, str) else {*value}
            for name, value in filters.items()
            if not isinstance(value, int)
        }
        take = _Decoder(operation, wanted, needed, kept)
        return _listing(self._read_in_orders(operation, fetch, take))

    def _read_in_orders(
        self,
        operation: Operation[Answer],
        fetch: Callable[[str | None, int], httpx.Response],
        take: Take[Other],
    ) -> Pages[Other]:
        """Read a list in the orders that the server knows, or in its own.

        An order is only a precaution: if the server refuses it, the list is read without.
        """

        def fetch_ordered(order: str | None, page: int) -> httpx.Response:
            try:
                return fetch(order, page)
            except OrderingRefusedError as error:
                if order is None:
                    raise
                self._refused_orders.add((operation.id, order))
                _log.info("Waldur cannot sort a list by the requested field", reason=str(error))
                raise

        orders = self._known_orders(operation)
        try:
            return read_in_orders(fetch_ordered, orders, take, self._connection.monotonic)
        except OrderingRefusedError:
            if orders == (None,):
                raise
            return self._read_in_orders(operation, fetch, take)

    def _known_orders(self, operation: Operation[Answer]) -> tuple[str | None, ...]:
        known = tuple(
            order
            for order in operation.orders
            if order is None or (operation.id, order) not in self._refused_orders
        )
        return known or (None,)

    def _count(self, operation: Operation[Answer], uuid: str = "", **filters: QueryValue) -> int:
        """How many rows a list has, without reading them."""
        query: dict[str, QueryValue] = {**filters, "page": 1, "page_size": 1}
        if "field" in operation.query:
            query["field"] = "uuid"
        response = self._connection.send(Call.of(operation, uuid=uuid, query=query))
        total = total_rows(response)
        if total is None:
            raise bad_answer(response, "it does not say how many rows there are")
        return total

    def _write(
        self,
        operation: Operation[None],
        uuid: UUID | str,
        body: Mapping[str, object] | None = None,
        *,
        once: bool = False,
    ) -> None:
        self._connection.send(Call.of(operation, uuid=uuid_text(uuid), body=body), once=once)

    def _change(
        self, operation: Operation[Answer], uuid: UUID | str, body: Mapping[str, object]
    ) -> Answer:
        """Write, and decode the response; ``uuid`` is the object or its parent, for messages."""
        call = Call.of(operation, uuid=uuid_text(uuid), body=body)
        response = self._connection.send(call)
        return decode(operation, read_json(response), response)


Take: TypeAlias = Callable[[Row, httpx.Response, int], Other]
"""Makes something of a row, with the response that it came in and its number, from 1."""


@dataclass(frozen=True, slots=True)
class Pages(Generic[Item_co]):
    """All pages of a list, with what was made of the rows as they came."""

    rows: Mapping[int, Item_co]
    """By what tells a row from the others, in the order in which they came."""
    total: int | None
    complete: bool
    stable: bool
    """Whether the server's count is known and was the same on every page."""
    received: int


def read_in_orders(
    fetch: Callable[[str | None, int], httpx.Response],
    orders: Sequence[str | None],
    take: Take[Other],
    monotonic: Callable[[], float] = time.monotonic,
) -> Pages[Other]:
    """Read a list in one order, then in others while rows that sort equally are missing.

    A database may sort equal rows differently for each page: some come twice and others not at
    all. Another order misses other rows; combined they are complete once there are as many as the
    server counts. If the count changes, other orders are not tried.

    Args:
        fetch: Requests a page by order (``None``: the server's own) and number.
        orders: The orders to try, one after the other.
        take: Makes something of each row; the row itself is not kept.
        monotonic: Seconds of a clock that is never set.
    """
    pages = read_pages(partial(fetch, orders[0]), take, monotonic)
    for order in orders[1:]:
        if pages.complete or not pages.stable:
            break
        reread = read_pages(partial(fetch, order), take, monotonic)
        if reread.complete:
            return reread
        combined = {**pages.rows, **reread.rows}
        stable = reread.stable and reread.total == pages.total
        pages = replace(
            reread,
            rows=combined,
            complete=stable and len(combined) == reread.total,
            stable=stable,
            received=len(combined),
        )
    return pages


def most_bytes() -> int:
    """The most that one list may have: in memory it takes two to four times as much."""
    return max(_LEAST_BYTES, min(_MOST_BYTES, available_memory() // _SHARE_OF_MEMORY))


class _Budget:
    """What one list may still take."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + MAX_SECONDS
        self._short_pages = self._rows = self._bytes = 0
        self._most_bytes = most_bytes()
        self._most_rows = self._most_bytes // _BYTES_OF_A_ROW

    def spend(self, response: httpx.Response, rows: Sequence[Row]) -> None:
        """Account for a page.

        Raises:
            TemporaryError: The list is longer than any that Waldur has.
        """
        self._short_pages += len(rows) < PAGE_SIZE
        self._rows += len(rows)
        self._bytes += len(response.content)
        reached = (
            f"{MAX_SHORT_PAGES} pages"
            if self._short_pages >= MAX_SHORT_PAGES
            else f"{self._most_rows} rows, which this machine's memory allows"
            if self._rows > self._most_rows
            else f"{self._most_bytes >> 20} MiB, which this machine's memory allows"
            if self._bytes > self._most_bytes
            else f"{MAX_SECONDS / 60:g} minutes"
            if self._monotonic() > self._end
            else ""
        )
        if reached:
            raise bad_answer(response, f"the list does not end after {reached}")


def read_pages(
    fetch: Callable[[int], httpx.Response],
    take: Take[Other],
    monotonic: Callable[[], float] = time.monotonic,
) -> Pages[Other]:
    """Fetch pages until there are as many rows as the server counts.

    Once the first page has said how many there are, up to four are fetched at a time; they are
    counted in their order all the same.

    Args:
        fetch: Requests a page by number, from 1.
        take: Makes something of each row; the row itself is not kept.
        monotonic: Seconds of a clock that is never set.

    Raises:
        TemporaryError: There is no end to them.
    """
    rows: dict[int, Other] = {}
    arrived = accounted = 0
    totals: list[int | None] = []
    budget = _Budget(monotonic)
    for response in _pages(fetch):
        page_rows = read_rows(response)
        budget.spend(response, page_rows)
        totals.append(total_rows(response))
        arrived += len(page_rows)
        known = [_identity(row) for row in page_rows]
        fresh = [identity for identity in known if identity not in rows]
        accounted += len(fresh)
        for identity, row in zip(known, page_rows, strict=True):
            if identity not in rows:
                rows[identity] = take(row, response, len(rows) + 1)
        if not fresh or _is_last(response, page_rows, arrived, totals[-1]):
            break
    total = totals[-1]
    stable = total is not None and len({*totals}) == 1
    return Pages(
        rows=rows,
        total=total,
        complete=stable and accounted == total,
        stable=stable,
        received=accounted,
    )


def _is_wanted(row: Row, wanted: Mapping[str, Collection[str]]) -> bool:
    """Whether the fields of a row have wanted values.

    Servers ignore filters that they do not know and send everything. A field that is absent or
    not a string cannot be checked and counts as a match.
    """
    for field, values in wanted.items():
        value = row.get(field)
        is_another = isinstance(value, str) and value not in values
        if is_another and _comparable(field, value) not in values:
            return False
    return True


def total_rows(response: httpx.Response) -> int | None:
    """How many rows the list has on the server, in all pages; ``None`` if it does not say."""
    header = response.headers.get("x-result-count", "").strip()
    is_count = header.isascii() and header.isdigit() and len(header) <= _LONGEST_COUNT
    return int(header) if is_count else None


def _identity(row: Row) -> int:
    """What identifies a row: its UUID, or all of its fields if it has none.

    A hash, to save memory: if two were ever the same, the list would seem incomplete.
    """
    if uuid := row.get("uuid"):
        return hash(str(uuid))
    try:
        return hash(tuple(sorted(row.items())))
    except TypeError:  # a list or an object in it, or a field of several types
        return hash(repr(sorted(row.items(), key=str)))


def _comparable(field: str, value: object) -> str:
    text = str(value)
    return text.replace("-", "").lower() if field.endswith("uuid") else text


def _is_last(response: httpx.Response, rows: list[Row], arrived: int, total: int | None) -> bool:
    if total is not None:
        return arrived >= total
    if "link" in response.headers:
        return "next" not in response.links
    return len(rows) < PAGE_SIZE


def _pages(fetch: Callable[[int], httpx.Response]) -> Iterator[httpx.Response]:
    """The pages in order, as long as they are asked for and the server has them."""
    first = fetch(1)
    total = total_rows(first)
    last = -(-total // PAGE_SIZE) if total and len(read_rows(first)) == PAGE_SIZE else 0
    yield first
    page = 2
    while True:
        window = range(page, min(page + _PAGES_AT_ONCE, last + 1)) or (page,)
        for attempt in concurrently(fetch, window, workers=_PAGES_AT_ONCE):
            if isinstance(attempt.error, NotFoundError):
                return  # "Invalid page.": there are fewer rows than the first page promised
            if attempt.error is not None:
                raise attempt.error
            if attempt.value is not None:
                yield attempt.value
        page += len(window)


class _Decoder(Generic[Answer]):
    """Makes of each row the operation's model, or says why not; ``None`` if it was not asked for.

    Raises:
        TemporaryError: More rows are unusable than are kept.
    """

    def __init__(
        self,
        operation: Operation[Answer],
        wanted: Mapping[str, Collection[str]],
        needed: Callable[[Row], Row] | None = None,
        kept: Callable[[Answer], Answer | None] | None = None,
    ) -> None:
        self._operation = operation
        self._wanted = wanted
        self._needed = needed
        self._kept = kept
        self._unreadable = 0

    def __call__(
        self, row: Row, response: httpx.Response, number: int
    ) -> Answer | UnreadableRow | None:
        if not _is_wanted(row, self._wanted):
            return None
        try:
            needed = row if self._needed is None else self._needed(row)
            answer = decode(self._operation, needed, response, f"row {number}")
        except TemporaryError as error:
            self._unreadable += 1
            if self._unreadable > MAX_UNREADABLE:
                raise
            # the traceback would keep the whole response, and several KB for each row
            error.__cause__ = error.__context__ = None
            return UnreadableRow(error.with_traceback(None), row)
        return answer if self._kept is None else self._kept(answer)


def _listing(pages: Pages[Answer | UnreadableRow | None]) -> Listing[Answer]:
    return Listing(
        items=tuple(
            row
            for row in pages.rows.values()
            if row is not None and not isinstance(row, UnreadableRow)
        ),
        total=pages.total,
        complete=pages.complete,
        received=pages.received,
        unreadable=tuple(row for row in pages.rows.values() if isinstance(row, UnreadableRow)),
    )
