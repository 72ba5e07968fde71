"""Usage: exact amounts, one month, one request for each thing said."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.model.usage import BillingMonth, UserUsage
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    PastMonthRefusedError,
    TokenRefusedError,
    concurrently,
)
from waldur_site_agent.waldur.operation import amount_text

if TYPE_CHECKING:
    from unit.waldur.conftest import Scripted

OFFERING = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
OTHER = "ffffffff3a5b4c7f8d1e2f3a4b5c6d7e"
RESOURCE = "5a5f6c1d2e3b4a5c6d7e8f9012345678"
OCTOBER = BillingMonth(2026, 10)
ADA = UserUsage(username="ada", usage=Decimal("1.5"), offering_user_uuid=UUID(OTHER))
BOB = UserUsage(username="bob", usage=Decimal(0))


def usage(**changes: object) -> dict[str, object]:
    return {
        "uuid": uuid4().hex,
        "type": "cpu",
        "usage": "10.10",
        "resource_uuid": RESOURCE,
        "offering_uuid": OFFERING,
        "billing_period": "2026-10-01",
        "date": "2026-10-31T23:59:59.999999Z",
        **changes,
    }


def part(**changes: object) -> dict[str, object]:
    return {
        "uuid": uuid4().hex,
        "username": "ada",
        "usage": "1.50",
        "component_type": "cpu",
        "component_usage": f"https://waldur.example.com/api/marketplace-component-usages/{OTHER}/",
        "resource_uuid": RESOURCE,
        "offering_uuid": OFFERING,
        "billing_period": "2026-10-01",
        **changes,
    }


def test_a_whole_offering_is_read_for_one_month(server: Scripted) -> None:
    server.replies = [server.page([usage()], 1)]
    (read,) = server.waldur().component_usages(OFFERING, OCTOBER).require_complete("usages")
    params = server.requests[0].url.params
    assert (params["offering_uuid"], params["billing_period"]) == (OFFERING, "2026-10-01")
    assert (read.type, read.usage, read.resource_uuid) == ("cpu", Decimal("10.10"), UUID(RESOURCE))
    assert read.billing_period == date(2026, 10, 1)
    assert read.date == datetime(2026, 10, 31, 23, 59, 59, 999999, UTC)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("0.10", "0.10"),
        ("12345678901234567.89", "12345678901234567.89"),
        (10, "10"),
        (10.1, "10.1"),
        (0.3, "0.3"),
        (None, "0"),
        ("-1.00", "-1.00"),
    ],
)
def test_an_amount_is_exactly_what_the_server_wrote(
    server: Scripted, sent: object, expected: str
) -> None:
    server.replies = [server.page([usage(usage=sent)], 1)]
    (read,) = server.waldur().component_usages(OFFERING, OCTOBER).items
    assert str(read.usage) == expected


@pytest.mark.parametrize("sent", ["NaN", "many", [1]])
def test_an_amount_that_is_none_makes_the_list_unusable(server: Scripted, sent: object) -> None:
    server.replies = [server.page([usage(usage=sent)], 1)]
    with pytest.raises(TemporaryError, match="'usage' cannot be used"):
        server.waldur().component_usages(OFFERING, OCTOBER).require_complete("usages")


def test_other_months_and_offerings_of_a_server_that_ignores_filters_are_dropped(
    server: Scripted,
) -> None:
    strays = {"billing_period": "2026-09-01"}, {"offering_uuid": OTHER}
    server.replies = [server.page([usage(), *(usage(**stray) for stray in strays)], 3)]
    assert len(server.waldur().component_usages(OFFERING, OCTOBER).require_complete("usages")) == 1
    server.replies = [server.page([part(), *(part(**stray) for stray in strays)], 3)]
    parts = server.waldur().component_user_usages(OFFERING, OCTOBER).require_complete("parts")
    assert len(parts) == 1


def test_a_part_knows_the_usage_that_it_is_part_of(server: Scripted) -> None:
    server.replies = [server.page([part(), part(component_usage="nowhere")], 2)]
    first, second = server.waldur().component_user_usages(OFFERING, OCTOBER).items
    params = server.requests[0].url.params
    assert params["component_usage__billing_period"] == "2026-10-01"
    assert (first.username, first.usage, first.component_type) == ("ada", Decimal("1.50"), "cpu")
    assert (first.component_usage_uuid, second.component_usage_uuid) == (UUID(OTHER), None)


def test_parts_are_counted_without_being_read(server: Scripted) -> None:
    server.replies = [server.page([part()], 5120)]
    assert server.waldur().count_component_user_usages(OFFERING, OCTOBER) == 5120
    (request,) = server.requests
    assert dict(request.url.params) == {
        "offering_uuid": OFFERING,
        "component_usage__billing_period": "2026-10-01",
        "field": "uuid",
        "page": "1",
        "page_size": "1",
    }


@pytest.mark.parametrize("count", [None, "", "many", "-1"])
def test_a_count_that_is_not_said_is_not_guessed(server: Scripted, count: str | None) -> None:
    headers = {} if count is None else {"X-Result-Count": count}
    server.replies = [httpx.Response(200, json=[], headers=headers)]
    with pytest.raises(TemporaryError, match="how many rows"):
        server.waldur().count_component_user_usages(OFFERING, OCTOBER)


def shuffling(
    server: Scripted, rows: list[dict[str, object]], shuffled_orders: set[str | None], size: int
) -> None:
    """Let a server put rows that are alike into another order on every page."""

    def answer(request: httpx.Request) -> httpx.Response:
        params = request.url.params
        order, page = params.get("o"), int(params["page"])
        seed = f"{order} {page}" if order in shuffled_orders else "steady"
        dealt = random.Random(seed).sample(rows, len(rows))  # noqa: S311 - a game, not a secret
        return server.page(dealt[(page - 1) * size : page * size], len(rows))

    server.responder = answer


def test_rows_that_hide_behind_their_like_are_found_in_another_order(server: Scripted) -> None:
    rows = [usage(usage="0.00") for _ in range(90)]
    shuffling(server, rows, {None, "usage"}, 30)
    listing = server.waldur().component_usages(OFFERING, OCTOBER)
    read = {each.uuid.hex for each in listing.require_complete("usages")}
    assert read == {row["uuid"] for row in rows}
    assert (listing.total, listing.received) == (90, 90)


def test_a_list_that_comes_whole_is_read_once_and_in_the_servers_order(server: Scripted) -> None:
    shuffling(server, [part() for _ in range(90)], set(), 30)
    assert server.waldur().component_user_usages(OFFERING, OCTOBER).complete
    assert [dict(r.url.params).get("o") for r in server.requests] == [None] * 3


def test_rows_that_stay_hidden_in_every_order_leave_the_list_incomplete(server: Scripted) -> None:
    rows = [usage() for _ in range(20)]
    server.responder = lambda request: server.page(
        rows[:17] if request.url.params["page"] == "1" else [], 20
    )
    listing = server.waldur().component_usages(OFFERING, OCTOBER)
    with pytest.raises(TemporaryError, match="17 of 20 usages arrived"):
        listing.require_complete("usages")
    orders = [r.url.params.get("o") for r in server.requests]
    assert orders == [None, None, "usage", "usage", "-usage", "-usage"]


def test_orders_are_not_tried_on_a_list_that_changes_meanwhile(server: Scripted) -> None:
    server.replies = [server.page([usage()], 3), server.page([usage()], 2)]
    assert not server.waldur().component_usages(OFFERING, OCTOBER).complete
    assert len(server.requests) == 2


def test_passes_with_different_counts_do_not_make_a_whole(server: Scripted) -> None:
    first, second, third = usage(), usage(), usage()
    pages = {
        (None, "1"): server.page([first], 2),
        (None, "2"): server.page([first], 2),
        ("usage", "1"): server.page([second], 3),
        ("usage", "2"): server.page([second], 3),
        ("-usage", "1"): server.page([third], 3),
        ("-usage", "2"): server.page([third], 3),
    }
    server.responder = lambda request: pages[
        request.url.params.get("o"), request.url.params["page"]
    ]
    assert not server.waldur().component_usages(OFFERING, OCTOBER).complete


def test_all_components_of_a_resource_go_in_one_request(server: Scripted) -> None:
    server.replies = [httpx.Response(201)]
    server.waldur().set_usage(RESOURCE, {"cpu": Decimal("1E+3"), "gres/gpu": Decimal("0.1")})
    (request,) = server.requests
    assert (
        str(request.url) == "https://waldur.example.com/api/marketplace-component-usages/set_usage/"
    )
    assert json.loads(request.content) == {
        "resource": RESOURCE,
        "usages": [{"type": "cpu", "amount": "1000.00"}, {"type": "gres/gpu", "amount": "0.10"}],
    }


def test_a_month_is_named_by_a_moment_in_utc(server: Scripted) -> None:
    server.replies = [httpx.Response(201)]
    tallinn = timezone(timedelta(hours=3))
    when = datetime(2026, 10, 1, 2, 0, tzinfo=tallinn)
    server.waldur().set_usage(RESOURCE, {"cpu": Decimal(1)}, when)
    assert json.loads(server.requests[0].content)["date"] == "2026-09-30T23:00:00+00:00"


def test_a_moment_without_a_zone_names_no_month(server: Scripted) -> None:
    with pytest.raises(ValueError, match="time zone"):
        server.waldur().set_usage(
            RESOURCE, {"cpu": Decimal(1)}, datetime(2026, 10, 1, tzinfo=UTC).replace(tzinfo=None)
        )
    assert server.requests == []


def test_what_several_people_used_goes_in_one_request(server: Scripted) -> None:
    server.replies = [httpx.Response(201)]
    server.waldur().set_user_usages(OTHER, [ADA, BOB])
    (request,) = server.requests
    assert request.url.path == f"/api/marketplace-component-usages/{OTHER}/set_user_usages/"
    user = f"https://waldur.example.com/api/marketplace-offering-users/{OTHER}/"
    assert json.loads(request.content) == {
        "usages": [
            {"username": "ada", "usage": "1.50", "user": user},
            {"username": "bob", "usage": "0.00"},
        ]
    }


def test_one_persons_part_can_be_said_alone(server: Scripted) -> None:
    server.replies = [httpx.Response(201)]
    server.waldur().set_user_usage(OTHER, BOB)
    (request,) = server.requests
    assert request.url.path == f"/api/marketplace-component-usages/{OTHER}/set_user_usage/"
    assert json.loads(request.content) == {"username": "bob", "usage": "0.00"}


def test_a_server_without_the_bulk_call_says_so(server: Scripted) -> None:
    server.replies = [httpx.Response(404, html="<h1>Not Found</h1>")]
    with pytest.raises(AbsentOperationError):
        server.waldur().set_user_usages(OTHER, [ADA])


def test_usage_whose_answer_was_lost_is_sent_again(server: Scripted) -> None:
    server.replies = [httpx.ReadTimeout("slow"), httpx.Response(502), httpx.Response(201)]
    server.waldur().set_usage(RESOURCE, {"cpu": Decimal(1)}, datetime(2026, 9, 30, tzinfo=UTC))
    assert len({request.content for request in server.requests}) == 1
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(429, headers={"Retry-After": "60"}),
        httpx.Response(503, headers={"Retry-After": "60"}),
        httpx.Response(500),
    ],
    ids=["no connection", "no answer", "429", "503", "500"],
)
def test_usage_without_a_date_is_sent_once_for_it_might_arrive_in_the_next_month(
    server: Scripted, trouble: httpx.Response | httpx.TransportError
) -> None:
    server.replies = [trouble, httpx.Response(201)]
    with pytest.raises(TemporaryError):
        server.waldur().set_usage(RESOURCE, {"cpu": Decimal(1)})
    assert len(server.requests) == 1


def test_a_past_month_that_only_staff_may_report_is_told_apart(server: Scripted) -> None:
    words = "Only staff can do backfilling past billing periods."
    server.replies = [httpx.Response(400, json={"date": [words]})]
    when = datetime(2026, 9, 30, tzinfo=UTC)
    with pytest.raises(PastMonthRefusedError, match="backfilling past billing periods"):
        server.waldur().set_usage(RESOURCE, {"cpu": Decimal(1)}, when)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"resource": ["Resource is not in valid state."]},
        {"non_field_errors": ["These components are invalid: zzz."]},
        ["The date of this is not to be mentioned."],
    ],
)
def test_another_mistake_in_usage_is_not_taken_for_a_matter_of_the_month(
    server: Scripted, body: object
) -> None:
    server.replies = [httpx.Response(400, json=body)]
    with pytest.raises(PermanentError) as caught:
        server.waldur().set_usage(RESOURCE, {"cpu": Decimal(1)})
    assert type(caught.value) is PermanentError
    assert f"cannot report the usage of resource {RESOURCE}" in str(caught.value)


REQUIRED = ["This field is required."]


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (
            httpx.Response(400, json={"usages": REQUIRED, "date": ["Datetime has wrong format."]}),
            True,
        ),
        (httpx.Response(400, json={"date": ["Datetime has wrong format."]}), True),
        (httpx.Response(400, json={"usages": REQUIRED}), False),
        (httpx.Response(400, json={"resource": REQUIRED, "usages": REQUIRED}), False),
        (httpx.Response(201), False),
    ],
)
def test_usage_is_dated_where_the_server_reads_dates(
    server: Scripted, answer: httpx.Response, accepted: bool
) -> None:
    server.replies = [answer]
    waldur = server.waldur()
    assert waldur.usage_dates_accepted is None
    assert {waldur.accepts_usage_dates() for _ in range(3)} == {accepted}
    assert waldur.usage_dates_accepted is accepted
    (request,) = server.requests
    assert request.url.path.endswith("/set_usage/")
    assert set(json.loads(request.content)) == {"date"}, "without figures nothing can be stored"


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (httpx.Response(403, json={"detail": "No."}), AccessDeniedError),
        (httpx.Response(401), TokenRefusedError),
    ],
)
def test_what_could_not_be_found_out_is_asked_again(
    server: Scripted, trouble: httpx.Response, error: type[Exception]
) -> None:
    answer = httpx.Response(400, json={"date": ["Datetime has wrong format."]})
    server.replies = [trouble, answer]
    waldur = server.waldur()
    with pytest.raises(error):
        waldur.accepts_usage_dates()
    assert waldur.accepts_usage_dates()


def test_many_threads_ask_once_whether_usage_can_be_dated(server: Scripted) -> None:
    server.replies = [httpx.Response(400, json={"usages": REQUIRED})]
    waldur = server.waldur()
    asked = [*concurrently(lambda _: waldur.accepts_usage_dates(), range(20))]
    assert {attempt.value for attempt in asked} == {False}
    assert len(server.requests) == 1


@given(st.decimals(min_value=-(10**15), max_value=10**15, places=2))
def test_an_amount_is_sent_without_loss_and_without_an_exponent(amount: Decimal) -> None:
    text = amount_text(amount)
    assert Decimal(text) == amount
    assert text.lstrip("-").replace(".", "", 1).isdigit()


@pytest.mark.parametrize("amount", ["1.001", "0.005", "1E-3", "33.333333333333333333333333333333"])
def test_an_amount_that_nobody_rounded_is_not_rounded_here(amount: str) -> None:
    with pytest.raises(ValueError, match="more than two decimals"):
        amount_text(Decimal(amount))


def test_an_amount_that_waldur_cannot_hold_is_not_sent(server: Scripted) -> None:
    for amount in ("NaN", "Infinity", "-Infinity", "1E+18", "-1E+40"):
        with pytest.raises(PermanentError, match="not a number"):
            server.waldur().set_usage(RESOURCE, {"cpu": Decimal(amount)})
    assert server.requests == []


def test_amounts_of_twenty_digits_keep_every_one() -> None:
    assert amount_text(Decimal("123456789012345678.90")) == "123456789012345678.90"
    assert amount_text(Decimal("1.500000")) == "1.50"
    assert amount_text(Decimal("-0.00")) == "0.00"
