"""A resource that ends is billed to its last minute before Waldur stops taking usage of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from harness.metering import LedgerBackend, Meter, a_meter
from waldur_site_agent.backends import (
    BackendResource,
    BackendState,
    DeleteResource,
    Outcome,
    PermanentError,
    Result,
    TemporaryError,
)
from waldur_site_agent.cli.plan import report_text
from waldur_site_agent.cycles.order_inputs import OrdersReport
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import Site, UnreportedUsage
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.planning.plan import Call
from waldur_site_agent_sandbox import Order, Resource


class EndingLedger(LedgerBackend):
    """A ledger whose accounts can be deleted; the work in them stays on record."""

    supports = frozenset({DeleteResource})

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:  # noqa: ARG002 - one read has all
        accounts = self._ledger.accounts
        return BackendState(
            resources={
                name: BackendResource(id=name, parent="climate", organization="climate")
                for name in accounts
            }
        )

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        return Placement(
            id=f"a_{slug}",
            title=request.resource_name,
            parent="climate",
            organization="climate",
            containers=(),
        )

    def delete_resource(self, action: DeleteResource) -> Outcome:
        self._ledger.accounts.discard(action.resource)
        return Outcome(action, Result.DONE)


@pytest.fixture
def meter() -> Iterator[Meter]:
    with a_meter() as meter:
        yield meter


@contextmanager
def an_agent(meter: Meter, **keys: str) -> Iterator[Site]:
    with meter.agent() as site:
        offering = site.offering.model_copy(update={"order_processing_backend": "ledger"} | keys)
        yield replace(site, backend=EndingLedger(meter.ledger), offering=offering)


def process(meter: Meter, **keys: str) -> OrdersReport:
    with an_agent(meter, **keys) as site:
        return process_orders(site)


def ordered_to_end(meter: Meter) -> tuple[Resource, Order]:
    """A resource reported until 11:00, in use until 11:20, whose termination is ordered then."""
    ocean = meter.resource("ocean")
    start = meter.travel("2027-03-11T10:00")
    meter.ledger.run("a_ocean", "ada", start, hours=4 / 3)
    meter.travel("2027-03-11T11:00")
    meter.report()
    assert meter.total(ocean)["cpu"] == 1
    meter.travel("2027-03-11T11:30")
    return ocean, meter.sandbox.customer.place_terminate_order(ocean)


def state(meter: Meter, order: Order) -> str:
    return meter.sandbox.customer.current(order).state


@pytest.mark.guarantee("prepaid: Renewals and end dates")
@pytest.mark.parametrize("whose", ["resource", "project"])
def test_a_resource_whose_day_has_come_is_billed_to_its_last_minute(
    meter: Meter, whose: str
) -> None:
    ocean, side = meter.resource("ocean"), meter.sandbox.customer
    start = meter.travel("2027-03-11T10:00")
    meter.ledger.run("a_ocean", "ada", start, hours=4 / 3)
    meter.travel("2027-03-11T11:00")
    meter.report()
    if whose == "resource":
        side.edit(side.current(ocean), end_date=date(2027, 3, 12))
    else:
        side.edit(side.world.projects[ocean.project], end_date=date(2027, 3, 12))
    meter.travel("2027-03-11T23:55")
    assert side.end_expired() == []
    meter.travel("2027-03-12T00:05")
    (order,) = side.end_expired()
    process(meter)
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.33")


def test_a_resource_that_was_renewed_in_time_is_not_ended(meter: Meter) -> None:
    ocean, side = meter.resource("ocean"), meter.sandbox.customer
    side.edit(side.current(ocean), end_date=date(2027, 3, 12))
    meter.travel("2027-03-11T10:00")
    side.edit(side.current(ocean), end_date=date(2027, 9, 12))
    meter.travel("2027-03-12T00:05")
    assert side.end_expired() == []


@pytest.mark.guarantee("orders: The normal case")
def test_the_last_usage_is_told_before_a_termination_is_done(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    report = process(meter)
    assert not report.failed, report.results
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.33")
    assert meter.parts(ocean)["cpu"] == {"ada": meter.total(ocean)["cpu"]}


@pytest.mark.guarantee("usage: Whose usage it is")
def test_a_termination_waits_while_usage_cannot_be_read_and_goes_on_afterwards(
    meter: Meter,
) -> None:
    ocean, order = ordered_to_end(meter)
    meter.ledger.trouble.append(TemporaryError("slurmdbd is away"))
    report = process(meter)
    assert "its last usage was not reported: slurmdbd is away" in report.results[0].reason
    assert state(meter, order) == "executing"
    assert meter.ledger.accounts == set()
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.33")


def test_usage_that_waldur_refuses_for_good_does_not_hold_a_termination_up(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    operation = "marketplace_component_usages_set_usage"
    meter.sandbox.faults.add(operation, "status", status=400, times=None)
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == 1


SET_USAGE = "marketplace_component_usages_set_usage"
LISTS = ("marketplace_component_usages_list", "marketplace_component_user_usages_list")


@pytest.mark.guarantee("usage: Whose usage it is")
@pytest.mark.parametrize("operation", [SET_USAGE, *LISTS])
@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_termination_waits_for_a_token_that_may_report_its_last_usage(
    meter: Meter, operation: str, status: int
) -> None:
    ocean, order = ordered_to_end(meter)
    meter.sandbox.faults.add(operation, "status", status=status, times=None)
    with capture_logs() as logs:
        for _ in range(2):
            report = process(meter)
            assert report.failed
            assert "its last usage was not reported" in report.results[0].reason
            assert state(meter, order) == "executing"
    said = [entry for entry in logs if entry["event"].startswith("termination waiting")]
    assert {(e["log_level"], e["resource"]) for e in said} == {("error", "a_ocean")}
    assert "CUSTOMER.OWNER" in said[0]["remedy"]
    assert "safety.unreported_usage" in said[0]["remedy"]
    meter.sandbox.faults.clear()
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.33")
    assert meter.parts(ocean)["cpu"] == {"ada": Decimal("1.33")}


@pytest.mark.parametrize("status", [409, 415])
def test_a_termination_waits_while_last_usage_is_refused_for_no_fault_of_its_own(
    meter: Meter, status: int
) -> None:
    ocean, order = ordered_to_end(meter)
    meter.sandbox.faults.add(SET_USAGE, "status", status=status, times=None)
    assert process(meter).failed
    assert state(meter, order) == "executing"
    meter.sandbox.faults.clear()
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.33")


@pytest.mark.parametrize("status", [403, 404, 405, 415])
def test_a_refusal_that_tells_nothing_of_dates_loses_no_usage_of_the_month_before(
    meter: Meter, status: int
) -> None:
    """An owner may report ``mem`` of March until its resource ends, with its date."""
    ocean = meter.resource("ocean")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-31T23:00"), 2 / 3, "mem")
    meter.travel("2027-03-31T23:30")
    meter.report()
    meter.travel("2027-04-01T09:00")
    order = meter.sandbox.customer.place_terminate_order(ocean)
    meter.sandbox.faults.add(SET_USAGE, "status", status=status, times=1)
    process(meter)
    assert state(meter, order) == "executing"
    process(meter)
    assert state(meter, order) == "done"
    assert meter.total(ocean, "2027-03")["mem"] == Decimal("0.67")


@pytest.mark.guarantee("usage: Whose usage it is")
def test_a_termination_waits_while_something_hides_the_usage_that_can_be_mended(
    meter: Meter,
) -> None:
    """As PrivateData=jobs does, or a proxy that refuses a list."""
    ocean, order = ordered_to_end(meter)
    with capture_logs() as logs:
        meter.ledger.trouble.append(PermanentError("PrivateData hides the jobs of others"))
        assert "PrivateData hides" in process(meter).results[0].reason
        for operation in ("marketplace_provider_offerings_retrieve", *LISTS):
            meter.sandbox.faults.add(operation, "status", status=400, times=1)
            assert process(meter).failed
            assert state(meter, order) == "executing"
    (cause, *_) = [e for e in logs if e["event"].startswith("termination waiting")]
    assert (cause["log_level"], cause["resource"]) == ("error", "a_ocean")
    assert "safety.unreported_usage: complete" in cause["remedy"]
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.33")


@pytest.mark.guarantee("usage: Whose usage it is")
def test_a_termination_waits_for_work_of_its_own_account_whose_end_is_not_known_yet(
    meter: Meter,
) -> None:
    ocean, order = ordered_to_end(meter)
    meter.ledger.unfinished = {"a_ocean"}
    assert "have no end time in the accounting database yet" in process(meter).results[0].reason
    assert state(meter, order) == "executing"
    meter.ledger.run("a_ocean", "bob", meter.sandbox.clock.now() - timedelta(hours=1), hours=0.5)
    meter.ledger.unfinished = {"a_other"}
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.83")


@pytest.mark.guarantee("usage: Whose usage it is")
def test_a_termination_waits_while_less_is_read_than_waldur_has(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    work, meter.ledger.work = meter.ledger.work, []
    assert "lower than in Waldur" in process(meter).results[0].reason
    assert state(meter, order) == "executing"
    assert meter.total(ocean)["cpu"] == 1
    meter.ledger.work = work
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.33")
    assert meter.parts(ocean)["cpu"] == {"ada": meter.total(ocean)["cpu"]}


def test_a_termination_is_completed_with_less_than_waldur_has_where_a_site_says_so(
    meter: Meter,
) -> None:
    ocean, order = ordered_to_end(meter)
    meter.ledger.work = []
    assert not process(meter.with_(unreported_usage=UnreportedUsage.COMPLETE)).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == 1


def test_a_plan_says_that_a_termination_would_wait_for_work_without_an_end(meter: Meter) -> None:
    ordered_to_end(meter)
    meter.ledger.unfinished = {"a_ocean"}
    with an_agent(meter) as site:
        shown = process_orders(site, dry_run=True)
    assert "  ! a_ocean: not terminated yet, its last usage was not reported" in report_text(shown)
    calls = [write.call for write in shown.writes]
    assert calls == [Call.APPROVE_ORDER, Call.SET_USAGE, Call.SET_USER_USAGES]


def test_a_site_may_give_up_work_whose_end_is_not_known(meter: Meter) -> None:
    _, order = ordered_to_end(meter)
    meter.ledger.unfinished = {"a_ocean"}
    assert not process(meter.with_(unreported_usage=UnreportedUsage.COMPLETE)).failed
    assert state(meter, order) == "done"


def test_a_site_may_give_up_usage_that_cannot_be_read(meter: Meter) -> None:
    _, order = ordered_to_end(meter)
    meter.ledger.trouble.append(PermanentError("PrivateData hides the jobs of others"))
    with capture_logs() as logs:
        assert not process(meter.with_(unreported_usage=UnreportedUsage.COMPLETE)).failed
    assert state(meter, order) == "done"
    assert [e["reason"] for e in logs if e["event"].endswith("usage is not billed")]


def test_a_plan_shows_the_last_usage_of_a_resource_that_ends(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    why = f"Terminate order {UUID(order.uuid)}"
    meter.sandbox.requests.clear()
    with an_agent(meter) as site:
        shown = process_orders(site, dry_run=True)
    assert [str(w) for w in shown.writes if w.call is Call.SET_USAGE] == [
        "usage cpu 1.00 -> 1.33 Hours"
    ]
    assert [str(w) for w in shown.writes if w.call is Call.SET_USER_USAGES] == [
        "usage cpu of ada 1.00 -> 1.33 Hours"
    ]
    assert report_text(shown).splitlines()[1:] == [
        "  - account        terminated in Waldur",
        f"  ~ in Waldur      order pending-provider -> executing  {why}",
        "  ~ in Waldur      usage cpu 1.00 -> 1.33 Hours  used in 2027-03",
        "  ~ in Waldur      usage cpu by user: ada 1.00 -> 1.33  used in 2027-03",
        f"  ~ in Waldur      order executing -> done  {why}",
        "Plan: 0 to add, 1 to remove, 0 to change, 4 in Waldur; 1 orders.",
    ]
    assert meter.sandbox.requests.writes() == []
    assert meter.total(ocean)["cpu"] == 1
    meter.ledger.trouble.append(TemporaryError("slurmdbd is away"))
    with an_agent(meter) as site:
        (result,) = process_orders(site, dry_run=True).results
    assert "its last usage cannot be read: slurmdbd is away" in result.reason


def test_a_site_may_give_the_last_usage_up(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    meter.sandbox.faults.add(SET_USAGE, "status", status=403, times=None)
    given_up = meter.with_(unreported_usage=UnreportedUsage.COMPLETE)
    with capture_logs() as logs:
        assert not process(given_up).failed
    assert state(meter, order) == "done"
    assert [e["resource"] for e in logs if e["event"].endswith("usage is not billed")] == [
        "a_ocean"
    ]
    assert meter.total(ocean)["cpu"] == 1


def ended_after_a_month(meter: Meter) -> tuple[Resource, Order]:
    """A resource in use from 31 March 23:00 to 23:40, reported until 23:30, ended on 1 April."""
    ocean = meter.resource("ocean")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-31T23:00"), hours=2 / 3)
    meter.travel("2027-03-31T23:30")
    meter.report()
    meter.travel("2027-04-01T09:00")
    return ocean, meter.sandbox.customer.place_terminate_order(ocean)


def test_what_staff_alone_may_report_of_a_past_month_holds_no_termination_up(meter: Meter) -> None:
    ocean, order = ended_after_a_month(meter)
    with capture_logs() as logs:
        assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean, "2027-03")["cpu"] == Decimal("0.5")
    (said,) = [entry for entry in logs if "is not billed" in entry["event"]]
    assert (said["log_level"], said["resource"]) == ("error", "a_ocean")
    assert said["reason"].startswith("2027-03, 0.17 of cpu: ")


def test_a_site_may_let_a_termination_wait_for_a_past_month_too(meter: Meter) -> None:
    ocean, order = ended_after_a_month(meter)
    strict = meter.with_(unreported_usage=UnreportedUsage.WAIT_FOR_PAST_MONTHS)
    assert process(strict).failed
    assert state(meter, order) == "executing"
    assert not process(strict.with_(token=meter.sandbox.staff().token)).failed
    assert state(meter, order) == "done"
    assert meter.total(ocean, "2027-03")["cpu"] == Decimal("0.67")


def test_a_termination_waits_until_an_old_server_surely_is_in_the_month() -> None:
    with a_meter("7.7.9") as old:
        ocean = old.resource("ocean")
        old.ledger.run("a_ocean", "ada", old.travel("2027-03-31T23:59"), hours=0.1)
        order = old.sandbox.customer.place_terminate_order(ocean)
        old.travel("2027-04-01T00:08")
        assert process(old).failed
        assert state(old, order) == "executing"
        old.travel("2027-04-01T00:15")
        assert not process(old).failed
        assert state(old, order) == "done"
        assert old.total(ocean, "2027-04")["cpu"] == Decimal("0.08")


@pytest.mark.parametrize("reporting", ["", "another"])
def test_a_backend_that_does_not_report_leaves_the_last_usage_alone(
    meter: Meter, reporting: str
) -> None:
    _, order = ordered_to_end(meter)
    reads = len(meter.ledger.reads)
    assert not process(meter, reporting_backend=reporting).failed
    assert state(meter, order) == "done"
    assert len(meter.ledger.reads) == reads


def test_parts_that_were_lost_are_told_before_a_termination_is_done(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    side = meter.sandbox.customer
    side.put_usage(ocean, "cpu", Decimal("1.33"))
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.parts(ocean)["cpu"] == {"ada": Decimal("1.33")}


@pytest.mark.guarantee("usage: Whose usage it is")
def test_a_termination_waits_for_users_parts_whose_figure_no_list_shows_yet(meter: Meter) -> None:
    ocean = meter.resource("ocean")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T10:00"), hours=1)
    meter.travel("2027-03-11T11:30")
    order = meter.sandbox.customer.place_terminate_order(ocean)
    meter.sandbox.faults.add("*_component_usages_list", "stale", times=None, changes_ago=1)
    report = process(meter)
    assert "does not list it yet" in report.results[0].reason
    assert state(meter, order) == "executing"
    assert meter.total(ocean)["cpu"] == 1
    meter.sandbox.faults.clear()
    assert not process(meter).failed
    assert state(meter, order) == "done"
    assert meter.parts(ocean)["cpu"] == {"ada": meter.total(ocean)["cpu"]}


@pytest.mark.parametrize("age", range(1, 6))
def test_lists_a_moment_old_cost_no_part_of_the_last_usage(meter: Meter, age: int) -> None:
    ocean = meter.resource("ocean")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T10:00"), hours=1)
    meter.travel("2027-03-11T11:30")
    order = meter.sandbox.customer.place_terminate_order(ocean)
    meter.sandbox.faults.add("*_list", "stale", times=None, changes_ago=age)
    for _ in range(3):
        process(meter)
    meter.sandbox.faults.clear()
    process(meter)
    assert state(meter, order) == "done"
    assert meter.parts(ocean)["cpu"] == {"ada": meter.total(ocean)["cpu"]} == {"ada": 1}


def test_an_erred_resource_whose_last_usage_is_lost_is_named(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    meter.change(ocean, state="Erred")
    with capture_logs() as logs:
        process(meter)
    assert state(meter, order) == "done"
    (said,) = [entry for entry in logs if "not billed" in entry["event"]]
    assert (said["resource"], said["name"]) == ("a_ocean", "Ocean")
    assert meter.total(ocean)["cpu"] == 1
