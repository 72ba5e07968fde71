"""One sold unit that is several things in Slurm, from the order to the report."""

from __future__ import annotations

from decimal import Decimal

import pytest

from harness import SimulatedSite
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.cycles.importing import importable
from waldur_site_agent.cycles.limits import sync_resource_limits
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator import SimulatedSlurm

NODE_HOUR = {"node": {"factor": 60}, "gres/gpu": {"factor": 240}}


@pytest.fixture
def sold_by_node(testbed: SimulatedSite) -> SimulatedSite:
    """A node-hour is an hour of one node, and of its four GPUs."""
    testbed.sandbox.customer.add_component("node_hours", "limit", "node-hours")
    testbed.components["node_hours"] = ComponentSettings.model_validate(
        {
            "measured_unit": "node-hours",
            "accounting_type": "limit",
            "label": "Node-hours",
            "target_components": NODE_HOUR,
        }
    )
    return testbed


def settled(site: SimulatedSite, node_hours: float = 10) -> Resource:
    return site.settled(site.project(ada="ada01"), "Ocean", cpu=1, node_hours=node_hours)


def set_by_hand(site: SimulatedSite, resource: Resource, limits: str) -> None:
    words = ["modify", "account", "where", f"name={resource.backend_id}", "set"]
    site.slurm.run(["sacctmgr", "-i", *words, f"GrpTRESMins={limits}"])


def limits_of(site: SimulatedSite, resource: Resource) -> dict[str, int]:
    return dict(site.slurm.state.accounts[resource.backend_id].limits)


def test_an_order_sets_a_limit_per_target_and_then_nothing_is_left_to_do(
    sold_by_node: SimulatedSite,
) -> None:
    resource = settled(sold_by_node)
    assert limits_of(sold_by_node, resource) == {"cpu": 60000, "node": 600, "gres/gpu": 2400}
    sold_by_node.sync()
    assert sold_by_node.writing_commands == 0
    assert sold_by_node.sandbox.requests.writes() == []


@pytest.mark.guarantee("membership: Limits")
def test_a_fraction_of_a_minute_is_rounded_up_once(sold_by_node: SimulatedSite) -> None:
    resource = settled(sold_by_node, 0.01)
    assert limits_of(sold_by_node, resource) == {"cpu": 60000, "node": 1, "gres/gpu": 3}
    report = sold_by_node.with_(limits="waldur").sync()
    assert (sold_by_node.writing_commands, report.failures) == (0, ())


def test_the_accounts_limits_reach_waldur_as_one_amount(sold_by_node: SimulatedSite) -> None:
    resource = settled(sold_by_node)
    set_by_hand(sold_by_node, resource, "node=300,gres/gpu=1200")
    sold_by_node.sync()
    assert sold_by_node.sandbox.customer.current(resource).limits == {"cpu": 1, "node_hours": 5}


@pytest.mark.guarantee("membership: Limits")
def test_limits_of_no_one_amount_are_left_alone_and_can_be_set_again(
    sold_by_node: SimulatedSite,
) -> None:
    resource = settled(sold_by_node)
    set_by_hand(sold_by_node, resource, "node=300")
    sold_by_node.sync()
    assert sold_by_node.sandbox.customer.current(resource).limits == {"cpu": 1, "node_hours": 10}
    with sold_by_node.agent() as site:
        (line,) = sync_resource_limits(site, follows="waldur").done
    assert line == (
        f"{resource.backend_id}  on the account: limit node_hours (node) 300 -> 600 "
        "(sold in Waldur: 10 node-hours)"
    )
    assert limits_of(sold_by_node, resource) == {"cpu": 60000, "node": 600, "gres/gpu": 2400}


def test_a_limit_of_a_person_is_set_for_each_target(sold_by_node: SimulatedSite) -> None:
    resource = settled(sold_by_node)
    sold_by_node.sandbox.customer.set_user_limit(resource, "ada", "node_hours", 2)
    sold_by_node.sync()
    account = sold_by_node.slurm.state.accounts[resource.backend_id]
    assert account.members["ada01"].limits == {"node": 120, "gres/gpu": 480}


def test_an_account_is_offered_with_what_its_tightest_limit_is_worth(
    sold_by_node: SimulatedSite,
) -> None:
    resource = settled(sold_by_node)
    set_by_hand(sold_by_node, resource, "node=300")
    customer = sold_by_node.sandbox.customer
    customer.edit(customer.current(resource), backend_id="elsewhere")
    with sold_by_node.agent() as site:
        (offer,) = importable(site).offers
    assert offer.limits == {"cpu": Decimal(1), "node_hours": Decimal(5)}


def test_a_lost_account_is_made_again_with_a_rounded_limit_per_target(
    sold_by_node: SimulatedSite,
) -> None:
    resource = settled(sold_by_node, 0.01)
    before = limits_of(sold_by_node, resource)
    sold_by_node.slurm = SimulatedSlurm()
    report = sold_by_node.with_(recreate=True).sync()
    assert not report.failed, report.failures
    assert limits_of(sold_by_node, resource) == before
