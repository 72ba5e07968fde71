"""What might be billed twice: months with several plans, and accounts of several offerings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from harness.metering import Meter, a_meter
from waldur_site_agent.cycles.site import Sibling
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Resource


@pytest.fixture
def meter() -> Iterator[Meter]:
    with a_meter() as meter:
        yield meter


def warnings(entries: list[Any]) -> list[Any]:
    return [entry for entry in entries if entry["log_level"] in ("warning", "error")]


def billed_by_row(meter: Meter, resource: Resource) -> dict[str, Decimal]:
    """What Waldur has of cpu in this month, by plan; the present plan has no name."""
    rows = meter.sandbox.customer.usage_rows(resource)
    return {row.plan_period: row.usage for row in rows if row.component_type == "cpu"}


def test_several_rows_for_a_month_are_said_once_and_add_up_to_what_was_used(meter: Meter) -> None:
    ocean = meter.resource("ocean")
    start = meter.travel("2027-03-11T00:00")
    meter.ledger.run("a_ocean", "ada", start, hours=5)
    meter.ledger.run("a_ocean", "bob", start, hours=None)
    meter.travel("2027-03-11T12:00")
    side = meter.sandbox.customer
    former = side.put_usage(ocean, "cpu", 7, plan_period="before")
    side.put_user_usage(former, "ada", 5)
    side.put_user_usage(former, "bob", 2)
    meter.travel("2027-03-11T13:00")
    side.put_usage(ocean, "cpu", 1)
    with capture_logs() as logs:
        assert not meter.report_again().failed
        meter.travel("2027-03-11T14:00")
        assert not meter.report_again().failed
    (warning,) = warnings(logs)
    assert (warning["component"], warning["rows"]) == ("cpu", 2)
    assert billed_by_row(meter, ocean) == {"before": 7, "": 12}
    assert meter.parts(ocean)["cpu"] == {"ada": 5, "bob": 14}
    meter.sandbox.requests.clear()
    assert not meter.report().failed
    assert meter.sandbox.requests.writes() == []


@pytest.mark.guarantee("usage: What is sent, and what is not")
def test_what_the_first_report_after_a_change_of_plan_counts_twice_the_next_puts_right(
    meter: Meter,
) -> None:
    ocean = meter.resource("ocean")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T00:00"), hours=None)
    meter.travel("2027-03-15T04:00")
    meter.sandbox.customer.put_usage(ocean, "cpu", 100, plan_period="before")
    meter.travel("2027-03-15T14:00")
    assert not meter.report().failed
    assert billed_by_row(meter, ocean) == {"before": 100, "": 110}
    meter.travel("2027-03-15T15:00")
    with capture_logs() as logs:
        assert not meter.report().failed
    assert billed_by_row(meter, ocean) == {"before": 100, "": 11}
    assert "double-counted after a plan change" in warnings(logs)[0]["event"]
    assert sum(meter.parts(ocean)["cpu"].values()) == 111


@contextmanager
def a_sibling(meter: Meter) -> Iterator[Meter]:
    """Another Waldur, whose offering is reported from the same accounts."""
    with a_meter() as other, other.agent() as their_site:
        name = their_site.offering.model_copy(update={"name": "Second"})
        meter.siblings = (Sibling(offering=name, waldur=their_site.waldur),)
        yield other


@pytest.mark.guarantee("usage: Whose usage it is")
def test_an_account_that_two_offerings_of_the_file_share_is_reported_for_none(
    meter: Meter,
) -> None:
    ocean, ice = meter.resource("ocean"), meter.resource("ice")
    for account in ("a_ocean", "a_ice"):
        meter.ledger.run(account, "ada", meter.travel_on(hours=1))
    with a_sibling(meter) as other:
        theirs = other.resource("ocean")
        meter.travel_on(hours=2)
        report = meter.report()
    (failure,) = report.failures
    assert (
        f'"Ocean" ({UUID(ocean.uuid)}), "Ocean" ({UUID(theirs.uuid)}) of the offering "Second"'
        in failure
    )
    assert meter.total(ocean) == {}
    assert meter.total(ice)["cpu"] == 1


def test_nothing_is_sent_while_a_sibling_cannot_be_read(meter: Meter) -> None:
    meter.resource("ocean")
    with a_sibling(meter) as other:
        operation = "marketplace_provider_resources_list"
        other.sandbox.faults.add(operation, "status", status=503, times=None)
        with pytest.raises(TemporaryError):
            meter.report()
    assert meter.sandbox.requests.writes() == []
