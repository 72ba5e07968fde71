"""Lists that know whether they are complete: nothing is taken away on the word of half a list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar
from uuid import UUID

import httpx
import structlog

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.references import uuid_from_url
from waldur_site_agent.waldur.codec import Row, bad_answer, decode, read_json, read_rows, uuid_text
from waldur_site_agent.waldur.errors import NotFoundError, OrderingRefusedError
from waldur_site_agent.waldur.http import Call, Connection, QueryValue
from waldur_site_agent.waldur.operation import Operation

Item_co = TypeVar("Item_co", covariant=True)
Other = TypeVar("Other")

PAGE_SIZE = 300
"""The most that Waldur sends; it cuts larger wishes to this."""


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that cannot be understood; what of it can be tells whom it may concern."""

    error: TemporaryError
    """The field, and why."""
    row: Row

    def __str__(self) -> str:
        return str(self.error)

    def text(self, field: str) -> str | None:
        """The text of a field, empty where there is none; ``None`` if it is something else."""
        value = self.row.get(field)
        return "" if value is None else value if isinstance(value, str) else None

    def uuid(self, field: str) -> UUID | None:
        """The UUID that a field is, or that its URL ends in; ``None`` if there is none."""
        return uuid_from_url(self.text(field) or "")


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item_co]):
    """The rows of a list that answer the question, and whether all of them arrived."""

    items: tuple[Item_co, ...]
    total: int | None
    """How many rows the server says there are; ``None`` if it does not say."""
    complete: bool
    """Every page was fetched, no row came twice or got lost, and the count is the server's."""
    received: int | None = None
    """How many different rows came; ``items`` are fewer where a server ignores a filter."""
    unreadable: tuple[UnreadableRow, ...] = ()
    """Rows that cannot be understood; they are not among the items."""

    def with_items(self, items: Iterable[Other]) -> Listing[Other]:
        """What was made of the items, chosen or translated, as complete as they were."""
        received = len(self.items) if self.received is None else self.received
        return Listing(
            items=tuple(items),
            total=self.total,
            complete=self.complete,
            received=received,
            unreadable=self.unreadable,
        )

    def require_complete(self, what: str) -> tuple[Item_co, ...]:
        """The items, if they are all.

        Args:
            what: What they are, in the plural, for the message.

        Raises:
            TemporaryError: Some may be missing, or cannot be understood.
        """
        if self.unreadable:
            raise self.unreadable[0].error
        return self.require_every_page(what)

    def require_every_page(self, what: str) -> tuple[Item_co, ...]:
        """The items, if all rows arrived; those in ``unreadable`` are not among them.

        Whoever asks so takes nothing away from what an unreadable row could concern.

        Args:
            what: What they are, in the plural, for the message.

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
        raise TemporaryError(
            f"{arrived}; nothing is concluded from an incomplete list, it is read again later"
        )


@dataclass(frozen=True, slots=True)
class RawListing:
    """All pages of a list, rows undecoded, with one of the answers for error messages."""

    rows: tuple[Row, ...]
    total: int | None
    complete: bool
    steady: bool
    """Whether the server's count is known and was the same on every page."""
    received: int
    answer: httpx.Response


def read_in_orders(
    fetch: Callable[[str | None, int], httpx.Response], orders: Sequence[str | None]
) -> RawListing:
    """Read a list in one order, and in others as long as rows of equal rank hide behind each other.

    A database may sort rows that are alike differently for each page: some come twice and others
    not at all. Another order hides other rows; together they are all of them as soon as they are
    as many as the server counts. A list whose count moves is not waited for.

    Args:
        fetch: Asks for a page, by the name of the order (``None``: the server's own) and number.
        orders: What to try, one after the other.
    """
    raw = read_pages(partial(fetch, orders[0]))
    together = {_identity(row): row for row in raw.rows}
    for order in orders[1:]:
        if raw.complete or not raw.steady:
            break
        again = read_pages(partial(fetch, order))
        if again.complete:
            return again
        together.update((_identity(row), row) for row in again.rows)
        steady = again.steady and again.total == raw.total
        raw = replace(
            again,
            rows=tuple(together.values()),
            complete=steady and len(together) == again.total,
            steady=steady,
            received=len(together),
        )
    return raw


def read_pages(fetch: Callable[[int], httpx.Response]) -> RawListing:
    """Fetch the pages in order until the rows are as many as the server says there are.

    Args:
        fetch: Asks for the page of a number, from 1.
    """
    rows: list[Row] = []
    seen: set[str] = set()
    arrived = accounted = 0
    totals: list[int | None] = []
    for page in _count_from_one():
        try:
            response = fetch(page)
        except NotFoundError:
            if page == 1:
                raise
            break  # "Invalid page.": there are fewer rows than the first page promised
        page_rows = read_rows(response)
        totals.append(total_rows(response))
        arrived += len(page_rows)
        fresh = [row for row in page_rows if _identity(row) not in seen]
        accounted += len(fresh)
        rows.extend({_identity(row): row for row in fresh}.values())
        seen.update(map(_identity, fresh))
        if not fresh or _is_last(response, page_rows, arrived, totals[-1]):
            break
    total = totals[-1]
    steady = total is not None and len({*totals}) == 1
    return RawListing(
        rows=tuple(rows),
        total=total,
        complete=steady and accounted == total,
        steady=steady,
        received=accounted,
        answer=response,
    )


def matching(
    rows: Collection[Row], wanted: Mapping[str, Collection[str]]
) -> Iterator[tuple[int, Row]]:
    """The rows whose fields have wanted values, with their numbers from 1.

    Servers ignore filters that they do not know and then send everything. A field that a row
    does not have, or that is no text, cannot be checked and counts as wanted.
    """
    for number, row in enumerate(rows, 1):
        if all(
            not isinstance(row.get(field), str) or _comparable(field, row[field]) in values
            for field, values in wanted.items()
        ):
            yield number, row


def _identity(row: Row) -> str:
    """What makes a row the same as another: its UUID, or all of it where rows have none."""
    return str(row["uuid"]) if row.get("uuid") else repr(sorted(row.items()))


def _comparable(field: str, value: object) -> str:
    text = str(value)
    return text.replace("-", "").lower() if field.endswith("uuid") else text


def total_rows(response: httpx.Response) -> int | None:
    """How many rows the list has on the server, all pages together; ``None`` if it is not said."""
    header = response.headers.get("x-result-count", "").strip()
    return int(header) if header.isascii() and header.isdigit() else None


def _is_last(response: httpx.Response, rows: list[Row], arrived: int, total: int | None) -> bool:
    if total is not None:
        return arrived >= total
    if "link" in response.headers:
        return "next" not in response.links
    return len(rows) < PAGE_SIZE


def _count_from_one() -> Iterator[int]:
    page = 1
    while True:
        yield page
        page += 1


Answer = TypeVar("Answer")

_log = structlog.get_logger(__name__)


class ApiClient:
    """Carries declared operations out over one connection; the subjects build on it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._refused_orders: set[tuple[str, str]] = set()
        """By operation, the values of ``o`` that this server does not know."""

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
        *,
        without: Collection[str] = (),
        **filters: QueryValue,
    ) -> Listing[Answer]:
        query: dict[str, QueryValue] = {
            **filters,
            "page_size": PAGE_SIZE,
        }
        if operation.asked_fields:
            query["field"] = [name for name in operation.asked_fields if name not in without]

        def fetch(order: str | None, page: int) -> httpx.Response:
            place: dict[str, QueryValue] = {"o": order} if order is not None else {}
            return self._connection.send(
                Call.of(operation, uuid=uuid, query={**query, **place, "page": page})
            )

        raw = self._read_in_orders(operation, fetch)
        wanted = {
            name: {value} if isinstance(value, str) else {*value}
            for name, value in filters.items()
            if not isinstance(value, int)
        }
        return _decoded(operation, raw, wanted)

    def _read_in_orders(
        self,
        operation: Operation[Answer],
        fetch: Callable[[str | None, int], httpx.Response],
    ) -> RawListing:
        """Read a list in the orders that the server knows, or in its own.

        An order is a precaution: a server that refuses it is asked without.
        """

        def fetch_ordered(order: str | None, page: int) -> httpx.Response:
            try:
                return fetch(order, page)
            except OrderingRefusedError as error:
                if order is None:
                    raise
                self._refused_orders.add((operation.id, order))
                _log.info("this Waldur does not sort a list as asked", reason=str(error))
                raise

        orders = self._known_orders(operation)
        try:
            return read_in_orders(fetch_ordered, orders)
        except OrderingRefusedError:
            if orders == (None,):
                raise
            return self._read_in_orders(operation, fetch)

    def _known_orders(self, operation: Operation[Answer]) -> tuple[str | None, ...]:
        known = tuple(
            order
            for order in operation.orders
            if order is None or (operation.id, order) not in self._refused_orders
        )
        return known or (None,)

    def _count(self, operation: Operation[Answer], uuid: str = "", **filters: QueryValue) -> int:
        """How many rows a list has, without the rows."""
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
        """Write, and read the object in the answer; ``uuid`` is it, or what it is made for."""
        call = Call.of(operation, uuid=uuid_text(uuid), body=body)
        response = self._connection.send(call)
        return decode(operation, read_json(response), response)


def _decoded(
    operation: Operation[Answer], raw: RawListing, wanted: Mapping[str, Collection[str]]
) -> Listing[Answer]:
    items: list[Answer] = []
    unreadable: list[UnreadableRow] = []
    for number, row in matching(raw.rows, wanted):
        try:
            items.append(decode(operation, row, raw.answer, f"row {number}"))
        except TemporaryError as error:
            unreadable.append(UnreadableRow(error, row))
    return Listing(
        items=tuple(items),
        total=raw.total,
        complete=raw.complete,
        received=raw.received,
        unreadable=tuple(unreadable),
    )
