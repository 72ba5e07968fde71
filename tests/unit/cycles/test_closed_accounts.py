"""Accounts that ``soft_delete`` has closed while Waldur still has a resource for them."""

from __future__ import annotations

import pytest

from harness import SimulatedSite
from waldur_site_agent.cycles.limits import sync_resource_limits
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent_sandbox import Resource


@pytest.fixture
def site(testbed: SimulatedSite) -> SimulatedSite:
    return testbed.with_(settings={"soft_delete": True})


def sync_and_report(site: SimulatedSite) -> None:
    """What runs beside the orders."""
    site.sync()
    with site.agent() as agent:
        report_usage(agent)
        sync_resource_limits(agent)
    site.sync()


def assert_closed(site: SimulatedSite, resource: Resource) -> None:
    assert site.members_of(resource) == set()
    assert site.slurm.state.accounts[resource.backend_id].limits == {"cpu": 0, "mem": 0}


def test_nobody_is_let_into_a_closed_account_whose_order_is_not_completed_yet(
    site: SimulatedSite,
) -> None:
    resource = site.created(site.project(ada="ada01"), "Ocean", cpu=10, mem=2)
    order = site.sandbox.customer.place_terminate_order(resource)
    site.sandbox.faults.add("marketplace_orders_set_state_done", "status", status=500, times=None)
    site.cycle()
    assert site.state(order) == "executing"
    sync_and_report(site)
    assert_closed(site, resource)
    site.sandbox.faults.clear()
    site.cycle()
    assert site.state(order) == "done"
    assert_closed(site, resource)


def test_while_its_termination_waits_for_an_approval_a_resource_is_served(
    site: SimulatedSite,
) -> None:
    project = site.project(ada="ada01")
    resource = site.created(project, "Ocean", cpu=10, mem=2)
    site.sandbox.customer.place_terminate_order(resource)
    site.sandbox.customer.add_member(project, site.person("bob", "bob01"))
    site.sync()
    assert site.members_of(resource) == {"ada01", "bob01"}


def test_an_order_to_restore_that_failed_opens_nothing_and_loses_no_limits(
    site: SimulatedSite,
) -> None:
    resource = site.created(site.project(ada="ada01"), "Ocean", cpu=10, mem=2)
    side = site.sandbox.customer
    side.place_terminate_order(resource)
    site.cycle()
    account = site.slurm.state.accounts[resource.backend_id]
    account.organization = "p_physics"
    order = side.place_restore_order(resource)
    site.cycle()
    assert site.state(order) == "erred"
    sync_and_report(site)
    assert_closed(site, resource)
    assert side.current(resource).state == "Erred"
    assert side.current(resource).limits == {"cpu": 10, "mem": 2}


def test_a_list_that_is_older_than_a_termination_lets_nobody_into_the_closed_account(
    testbed: SimulatedSite,
) -> None:
    testbed = testbed.with_(settings={"soft_delete": True})
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10)
    order = testbed.sandbox.customer.place_terminate_order(resource)
    testbed.cycle()
    assert testbed.state(order) == "done"
    for changes in range(1, 8):
        with testbed.lists_a_moment_old(changes):
            testbed.sync()
        assert testbed.members_of(resource) == set(), changes
