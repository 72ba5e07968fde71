"""How everything is asked: read one, list all, write, change."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.waldur.bodies import uuid_text
from waldur_site_agent.waldur.connection import Call
from waldur_site_agent.waldur.decoding import bad_answer, decode, read_json
from waldur_site_agent.waldur.errors import OrderingRefusedError
from waldur_site_agent.waldur.listing import (
    PAGE_SIZE,
    Listing,
    UnreadableRow,
    matching,
    read_in_orders,
    total_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from uuid import UUID

    import httpx

    from waldur_site_agent.waldur.connection import Connection, QueryValue
    from waldur_site_agent.waldur.listing import RawListing
    from waldur_site_agent.waldur.operation import Operation

Answer = TypeVar("Answer")

_log = structlog.get_logger(__name__)


class Conversation:
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
