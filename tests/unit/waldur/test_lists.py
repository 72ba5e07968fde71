from __future__ import annotations

from threading import Barrier
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.patience import patience
from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.waldur import Listing, NotFoundError
from waldur_site_agent.waldur.listing import read_pages

if TYPE_CHECKING:
    from unit.waldur.conftest import Scripted

OFFERING = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
OTHER = "ffffffff3a5b4c7f8d1e2f3a4b5c6d7e"
NO_SUCH_PAGE = httpx.Response(404, json={"detail": "Invalid page."})


def order(**changes: object) -> dict[str, object]:
    return {"uuid": uuid4().hex, "type": "Create", "state": "executing", **changes}


def test_all_pages_are_read_and_their_rows_are_in_order(server: Scripted) -> None:
    rows = [order() for _ in range(1550)]

    def answer(request: httpx.Request) -> httpx.Response:
        start = (int(request.url.params["page"]) - 1) * 300
        return server.page(rows[start : start + 300], 1550)

    server.responder = answer
    listing = server.waldur().orders(OFFERING, ["executing"])
    assert [row["uuid"] for row in rows] == [item.uuid.hex for item in listing.items]
    asked = [int(request.url.params["page"]) for request in server.requests]
    assert (asked[0], sorted(asked)) == (1, [1, 2, 3, 4, 5, 6])
    assert (listing.total, listing.complete) == (1550, True)


def test_pages_after_the_first_are_fetched_four_at_a_time(server: Scripted) -> None:
    rows = [order() for _ in range(2500)]
    together = Barrier(4, timeout=patience())

    def answer(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params["page"])
        if page > 1:
            together.wait()  # nobody is answered before four have asked
        return server.page(rows[(page - 1) * 300 : page * 300], 2500)

    server.responder = answer
    assert len(server.waldur().orders(OFFERING, ["executing"]).require_complete("orders")) == 2500
    assert len(server.requests) == 9


def test_a_count_that_lies_costs_a_few_requests_and_no_more(server: Scripted) -> None:
    rows = [order() for _ in range(300)]
    server.replies = [server.page(rows, 10**9)]
    assert not server.waldur().orders(OFFERING, ["executing"]).complete
    assert len(server.requests) == 5


def test_pages_cut_shorter_than_asked_for_are_read_to_the_end(server: Scripted) -> None:
    rows = [order() for _ in range(25)]

    def answer(request: httpx.Request) -> httpx.Response:
        start = (int(request.url.params["page"]) - 1) * 10
        return server.page(rows[start : start + 10], 25)

    server.responder = answer
    assert len(server.waldur().orders(OFFERING, ["executing"]).require_complete("orders")) == 25


def test_a_list_is_asked_for_in_large_pages_and_a_fixed_order(server: Scripted) -> None:
    server.replies = [server.page([], 0)]
    server.waldur().orders(UUID(OFFERING), ["pending-provider", "executing"])
    params = server.requests[0].url.params
    assert (
        params["page_size"],
        params["o"],
        params["offering_uuid"],
    ) == ("300", "created", OFFERING)
    assert params.get_list("state") == ["pending-provider", "executing"]
    assert {"uuid", "state", "limits", "attributes"} < {*params.get_list("field")}


def test_an_empty_list_is_complete(server: Scripted) -> None:
    server.replies = [server.page([], 0)]
    assert server.waldur().orders(OFFERING, ["executing"]).require_complete("orders") == ()
    assert len(server.requests) == 1


def test_a_short_list_says_how_much_is_missing(server: Scripted) -> None:
    server.replies = [server.page([order() for _ in range(17)], 20), server.page([], 20)]
    listing = server.waldur().orders(OFFERING, ["executing"])
    assert not listing.complete
    with pytest.raises(TemporaryError, match="17 of 20 orders arrived"):
        listing.require_complete("orders")


def test_a_page_that_is_gone_leaves_the_list_incomplete(server: Scripted) -> None:
    server.replies = [server.page([order() for _ in range(17)], 20), NO_SUCH_PAGE]
    listing = server.waldur().orders(OFFERING, ["executing"])
    assert (len(listing.items), listing.complete) == (17, False)


def test_a_list_that_does_not_exist_is_an_error_not_an_empty_list(server: Scripted) -> None:
    server.replies = [httpx.Response(404, json={"detail": "Not found."})]
    with pytest.raises(NotFoundError):
        server.waldur().project_roles(OFFERING)


def test_a_list_without_a_count_is_not_known_to_be_complete(server: Scripted) -> None:
    server.replies = [server.page([order()], None)]
    listing = server.waldur().orders(OFFERING, ["executing"])
    assert (len(listing.items), listing.total, listing.complete) == (1, None, False)
    with pytest.raises(TemporaryError, match="did not say how many"):
        listing.require_complete("orders")


def test_links_lead_on_where_the_count_is_missing(server: Scripted) -> None:
    link = '<https://waldur.example.com/api/marketplace-orders/?page=2>; rel="next"'
    server.replies = [
        server.page([order()], None, Link=link),
        server.page([order()], None, Link=""),
    ]
    assert len(server.waldur().orders(OFFERING, ["executing"]).items) == 2


def test_a_row_that_comes_on_two_pages_counts_once_and_betrays_a_lost_one(server: Scripted) -> None:
    twice = order()
    server.replies = [server.page([order(), twice], 4), server.page([twice, order()], 4)]
    listing = server.waldur().orders(OFFERING, ["executing"])
    assert len(listing.items) == 3
    assert not listing.complete


def test_a_row_that_a_join_doubles_within_a_page_is_one_item(server: Scripted) -> None:
    twice = order()
    server.replies = [server.page([twice, twice, order()], 3)]
    assert len(server.waldur().orders(OFFERING, ["executing"]).require_complete("orders")) == 2


def test_a_count_that_moves_between_pages_makes_the_list_incomplete(server: Scripted) -> None:
    server.replies = [server.page([order(), order()], 4), server.page([order()], 3)]
    listing = server.waldur().orders(OFFERING, ["executing"])
    assert not listing.complete
    with pytest.raises(TemporaryError, match="changed while it was read"):
        listing.require_complete("orders")


def test_a_server_that_sends_the_same_page_for_ever_is_left(server: Scripted) -> None:
    server.replies = [server.page([order()], 1000)]
    assert not server.waldur().orders(OFFERING, ["executing"]).complete
    assert len(server.requests) == 2


def test_a_page_that_fails_fails_the_list(server: Scripted) -> None:
    server.replies = [server.page([order()], 2), httpx.Response(500)]
    with pytest.raises(TemporaryError, match="list the orders"):
        server.waldur().orders(OFFERING, ["executing"])


def test_filters_that_the_server_ignores_are_applied_here(server: Scripted) -> None:
    mine = order(offering_uuid=OFFERING)
    dashed = order(offering_uuid=str(UUID(OFFERING)).upper())
    silent = order()
    foreign = order(offering_uuid=OTHER)
    finished = order(offering_uuid=OFFERING, state="done")
    server.replies = [server.page([mine, dashed, silent, foreign, finished], 5)]
    listing = server.waldur().orders(OFFERING, ["executing"])
    assert [row["uuid"] for row in (mine, dashed, silent)] == [i.uuid.hex for i in listing.items]
    assert listing.complete


def test_another_backend_id_is_not_mistaken_for_the_one_asked_for(server: Scripted) -> None:
    rows = [
        {"uuid": uuid4().hex, "backend_id": name, "state": "OK"}
        for name in ("hpc_climate", "hpc_climate-2", "HPC_climate")
    ]
    server.replies = [server.page(rows, 3)]
    listing = server.waldur().resources_named("hpc_climate")
    assert [item.backend_id for item in listing.items] == ["hpc_climate"]
    assert "offering_uuid" not in server.requests[0].url.params


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"type": "Create", "state": "executing"}, "'uuid' is missing"),
        ({"uuid": None, "type": "Create", "state": "executing"}, "'uuid' is missing"),
        ({"uuid": "x", "type": "Create", "state": "executing"}, "'uuid' cannot be used"),
        (order(limits=[1]), "'limits' cannot be used"),
        (order(limits={"cpu": "many"}), "'limits.cpu' cannot be used"),
    ],
)
def test_a_bad_row_is_named_and_keeps_the_list_from_counting_as_complete(
    server: Scripted, row: dict[str, object], field: str
) -> None:
    good = order()
    server.replies = [server.page([good, row], 2)]
    listing = server.waldur().orders(OFFERING, ["executing"])
    assert [str(item.uuid) for item in listing.items] == [str(UUID(str(good["uuid"])))]
    with pytest.raises(TemporaryError) as caught:
        listing.require_complete("orders")
    message = str(caught.value)
    assert "waldur.example.com sent an invalid response to GET /api/marketplace-orders/" in message
    assert "row 2 field" in message
    assert field in message


@pytest.mark.parametrize("body", [{}, "x", [1], [None], [[]], None])
def test_what_is_no_list_of_objects_is_tried_later(server: Scripted, body: object) -> None:
    server.replies = [httpx.Response(200, json=body, headers={"X-Result-Count": "1"})]
    with pytest.raises(TemporaryError, match="marketplace-orders"):
        server.waldur().orders(OFFERING, ["executing"])


@given(st.integers(0, 40), st.integers(1, 9), st.data())
def test_a_list_is_complete_exactly_when_every_row_arrived(
    count: int, size: int, data: st.DataObject
) -> None:
    pages = [
        [{"uuid": str(n)} for n in range(i, min(i + size, count))] for i in range(0, count, size)
    ]
    lost = data.draw(st.sets(st.integers(0, count))) if count else set()
    sent = [[row for row in page if int(row["uuid"]) not in lost] for page in pages]

    def fetch(number: int) -> httpx.Response:
        rows = sent[number - 1] if number <= len(sent) else []
        return httpx.Response(200, json=rows, headers={"X-Result-Count": str(count)})

    raw = read_pages(fetch, lambda row, *_: row)
    arrived = {str(row["uuid"]) for row in raw.rows.values()}
    assert (arrived == {str(n) for n in range(count)}) is raw.complete


def test_a_listing_can_be_made_by_hand() -> None:
    assert Listing(("a",), 1, True).require_complete("letters") == ("a",)
    with pytest.raises(TemporaryError, match="1 of 2 letters arrived"):
        Listing(("a",), 2, False).require_complete("letters")


def test_a_list_whose_order_is_refused_is_read_in_the_servers_own(server: Scripted) -> None:
    rows = [order() for _ in range(3)]

    def answer(request: httpx.Request) -> httpx.Response:
        if "o" in request.url.params:
            refusal = {"o": ["Select a valid choice. created is not one of the choices."]}
            return httpx.Response(400, json=refusal)
        return server.page(rows, 3)

    server.responder = answer
    waldur = server.waldur()
    for _ in range(2):
        listing = waldur.orders(OFFERING, ["executing"])
        assert [row["uuid"] for row in rows] == [o.uuid.hex for o in listing.require_complete("")]
    assert [request.url.params.get("o") for request in server.requests] == ["created", None, None]


def test_a_refusal_of_something_else_is_not_taken_for_one_of_the_order(server: Scripted) -> None:
    server.replies = [httpx.Response(400, json={"offering_uuid": ["Enter a valid UUID."]})]
    with pytest.raises(PermanentError, match="Enter a valid UUID"):
        server.waldur().orders(OFFERING, ["executing"])
    assert len(server.requests) == 1
