"""With the token of an owner of the provider, and no right of staff, every mode does its work.

The sandbox refuses what a real server refuses (``contract/test_roles.py``).
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from harness import SimulatedSite, a_simulated_site
from harness.metering import Meter, a_meter
from unit.cycles.test_last_usage import process

VERSIONS = ("7.7.9", "8.0.5", "8.1.3")


def refusals(meter: SimulatedSite | Meter) -> list[tuple[str, int | None]]:
    """What the server refused for want of a right."""
    asked = meter.sandbox.requests.snapshot()
    return [(r.operation, r.status) for r in asked if r.status in (401, 403)]


@pytest.mark.parametrize("version", VERSIONS)
def test_orders_and_members_need_no_right_of_staff(version: str, tmp_path: Path) -> None:
    with a_simulated_site(tmp_path / "lock", version) as testbed:
        assert not testbed.sandbox.agent.is_staff
        project = testbed.project(ada="ada01", bob="bob01")
        order = testbed.order(project, cpu=10)
        assert not testbed.cycle().failed
        assert testbed.state(order) == "done"
        assert not testbed.sync().failed
        assert testbed.members(order) == {"ada01", "bob01"}
        testbed.sandbox.customer.remove_member(project, "bob")
        assert not testbed.sync().failed
        assert testbed.members(order) == {"ada01"}
        resource = testbed.resource(order)
        testbed.sandbox.customer.place_update_order(resource, {"cpu": 20})
        assert not testbed.cycle().failed
        assert testbed.resource(order).limits == {"cpu": 20}
        assert testbed.resource(order).state == "OK"
        assert refusals(testbed) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_month_and_the_last_usage_of_a_termination_are_billed(version: str) -> None:
    with a_meter(version) as meter:
        ocean, ice = meter.resource("ocean"), meter.resource("ice")
        start = meter.travel("2027-03-11T10:00")
        meter.ledger.run("a_ocean", "ada", start, hours=3)
        meter.ledger.run("a_ice", "bob", start, hours=2)
        meter.travel("2027-03-11T11:00")
        assert not meter.report_again().failed
        assert meter.total(ocean)["cpu"] == 1
        assert meter.total(ice)["cpu"] == 1
        meter.travel("2027-03-11T12:30")
        order = meter.sandbox.customer.place_terminate_order(ice)
        assert not process(meter).failed
        assert meter.sandbox.customer.current(order).state == "done"
        assert not meter.report_again().failed
        assert meter.total(ice)["cpu"] == 2
        assert meter.total(ocean)["cpu"] == Decimal("2.5")
        assert meter.parts(ice)["cpu"] == {"bob": 2}
        assert refusals(meter) == []


@pytest.mark.parametrize("role", ["CUSTOMER.MANAGER", "OFFERING.MANAGER"])
def test_with_a_managers_token_no_usage_is_lost_and_no_order_is_erred(role: str) -> None:
    with a_meter() as meter:
        ocean = meter.resource("ocean")
        meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T10:00"), hours=1)
        meter.travel("2027-03-11T12:00")
        side = meter.sandbox.customer
        manager = side.add_user("manager")
        if role.startswith("OFFERING"):
            side.add_offering_role(meter.sandbox.offering, manager, role)
        else:
            side.add_customer_role(meter.sandbox.provider, manager, role)
        order = side.place_terminate_order(ocean)
        assert process(meter.with_(token=manager.token)).failed
        assert side.current(order).state == "pending-provider"
        side.edit(order, state="executing")  # somebody else approved it
        assert process(meter.with_(token=manager.token)).failed
        assert side.current(order).state == "executing"
        assert not process(meter).failed
        assert side.current(order).state == "done"
        assert meter.total(ocean)["cpu"] == 1
