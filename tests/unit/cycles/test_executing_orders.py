"""Orders that an earlier run left executing: what they cost while nothing changes about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cloud import a_simulated_cloud_site
from harness.testbed import SimulatedSite, a_simulated_site
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_slurm.simulator import Outage

BOUNDED = "Requests and processes per cycle are a constant plus the number of changes"


def left_executing(testbed: SimulatedSite, number: int) -> list[str]:
    """The orders of one project that were approved, and no more."""
    project = testbed.project(ada="ada01")
    orders = [testbed.order(project, f"run{n}") for n in range(number)]
    with testbed.agent() as site:
        for order in site.waldur.orders(
            site.offering.waldur_offering_uuid, ["pending-provider"]
        ).items:
            site.waldur.approve_order(order.uuid)
    testbed.sandbox.requests.clear()
    return [order.uuid for order in orders]


@pytest.mark.guarantee(BOUNDED)
@pytest.mark.parametrize("number", [1, 5, 40])
def test_each_that_is_done_costs_one_reading_that_proves_order_and_account(
    testbed: SimulatedSite, number: int
) -> None:
    left_executing(testbed, number)
    testbed.cycle()
    counts = testbed.sandbox.requests.by_operation()
    assert counts.pop("marketplace_orders_set_state_done") == number
    assert counts.pop("marketplace_provider_resources_set_backend_id") == number
    assert counts.pop("marketplace_provider_resources_retrieve") == number
    assert counts.total() == 5


@pytest.mark.guarantee(BOUNDED)
@pytest.mark.parametrize("number", [21, 60])
def test_many_cost_one_list_while_slurmdbd_is_away(tmp_path: Path, number: int) -> None:
    with a_simulated_site(tmp_path / "lock") as testbed:
        left_executing(testbed, number)
        with (
            testbed.agent() as site,
            testbed.slurm.outage(Outage.SLURMDBD_REFUSED),
            pytest.raises(TemporaryError, match="refused"),
        ):
            process_orders(site)
        assert testbed.sandbox.requests.by_operation() == {"marketplace_orders_list": 1}


@pytest.mark.guarantee(BOUNDED)
@pytest.mark.parametrize("number", [1, 12])
def test_those_on_which_the_backend_still_works_cost_one_list(number: int) -> None:
    with a_simulated_cloud_site(finishes_later=True) as site:
        site.cloud.slow = {"create"}
        project = site.project(ada="ada01")
        orders = [
            site.sandbox.customer.place_create_order(project, f"Ocean {n}", {"cpu": 1})
            for n in range(number)
        ]
        site.cycle()
        site.sandbox.requests.clear()
        assert not site.cycle().has_failures
        assert {site.state(order) for order in orders} == {"executing"}
        assert site.sandbox.requests.by_operation() == {"marketplace_orders_list": 1}
        site.cloud.finish()
        site.cycle()
        assert {site.state(order) for order in orders} == {"done"}
