"""A resource that ends is billed to its last minute before Waldur stops taking usage of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

import pytest
from structlog.testing import capture_logs

from harness.metering import LedgerBackend, Meter, a_meter
from waldur_site_agent.backends import (
    BackendResource,
    BackendState,
    DeleteResource,
    Outcome,
    Result,
    TemporaryError,
)
from waldur_site_agent.cycles.order_report import OrdersReport
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.placement import Placement, ResourceRequest
from waldur_site_agent.sandbox import Order, Resource


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


def test_the_last_usage_is_told_before_a_termination_is_done(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    report = process(meter)
    assert not report.failed, report.fates
    assert state(meter, order) == "done"
    assert meter.total(ocean)["cpu"] == Decimal("1.33")
    assert meter.parts(ocean)["cpu"] == {"ada": meter.total(ocean)["cpu"]}


def test_a_termination_waits_while_usage_cannot_be_read_and_goes_on_afterwards(
    meter: Meter,
) -> None:
    ocean, order = ordered_to_end(meter)
    meter.ledger.trouble.append(TemporaryError("slurmdbd is away"))
    report = process(meter)
    assert "its last usage was not reported: slurmdbd is away" in report.fates[0].reason
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


def test_an_erred_resource_whose_last_usage_is_lost_is_named(meter: Meter) -> None:
    ocean, order = ordered_to_end(meter)
    meter.change(ocean, state="Erred")
    with capture_logs() as logs:
        process(meter)
    assert state(meter, order) == "done"
    (said,) = [entry for entry in logs if "not billed" in entry["event"]]
    assert (said["resource"], said["name"]) == ("a_ocean", "Ocean")
    assert meter.total(ocean)["cpu"] == 1
