"""An agent that cannot see its offering, or has no role there, fails and names the key."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import SimulatedSite
from waldur_site_agent.cycles.membership import sync_membership
from waldur_site_agent.cycles.offering import OfferingAccessError, check_offering_access
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Role, User

CYCLES: dict[str, Callable[[Site], object]] = {
    "order_process": process_orders,
    "membership_sync": sync_membership,
    "report": report_usage,
}


def agent_role(testbed: SimulatedSite) -> Role:
    """The role of the agent's own user."""
    world = testbed.sandbox.customer.world
    (role,) = [r for r in world.roles.values() if r.user == testbed.sandbox.agent.uuid]
    return role


def seen_by(testbed: SimulatedSite, user: User) -> SimulatedSite:
    return testbed.with_(token=user.token)


def refusal(testbed: SimulatedSite) -> str:
    with testbed.agent() as site, pytest.raises(OfferingAccessError) as caught:
        check_offering_access(site)
    return str(caught.value)


def test_a_token_without_any_role_is_named(testbed: SimulatedSite) -> None:
    text = refusal(seen_by(testbed, testbed.sandbox.customer.add_user("stranger")))
    assert "waldur_api_token" in text
    assert 'user "stranger"' in text
    assert "no role at all" in text
    assert "CUSTOMER.OWNER" in text


def test_a_wrong_offering_uuid_is_named_with_the_roles_that_the_token_has(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    elsewhere = side.add_customer("Elsewhere", "elsewhere")
    user = side.add_user("stranger")
    side.add_customer_role(elsewhere, user)
    text = refusal(seen_by(testbed, user))
    assert text.startswith("waldur_offering_uuid: offering ")
    assert 'CUSTOMER.OWNER of "Elsewhere"' in text


def test_an_offering_of_another_type_is_named_with_its_type(testbed: SimulatedSite) -> None:
    testbed.sandbox.customer.edit(testbed.sandbox.offering, type="Marketplace.Rancher")
    text = refusal(testbed)
    assert text.startswith("waldur_offering_uuid: ")
    assert '"Marketplace.Rancher"' in text
    assert "Marketplace.Slurm" in text


@pytest.mark.parametrize("role", ["CUSTOMER.OWNER", "OFFERING.MANAGER", "staff"])
def test_whoever_has_a_role_there_passes(testbed: SimulatedSite, role: str) -> None:
    side = testbed.sandbox.customer
    user = side.add_user("agent2", is_staff=role == "staff")
    if role == "CUSTOMER.OWNER":
        side.add_customer_role(testbed.sandbox.offering.customer, user)
    if role == "OFFERING.MANAGER":
        side.add_offering_role(testbed.sandbox.offering, user)
    with seen_by(testbed, user).agent() as site:
        assert check_offering_access(site).username == "agent2"


@pytest.mark.parametrize("mode", CYCLES)
def test_a_role_that_is_lost_is_noticed_when_the_lists_are_empty_and_again_when_it_is_back(
    testbed: SimulatedSite, mode: str
) -> None:
    project = testbed.project(ada="ada01")
    if mode == "order_process":
        testbed.order(project)
    else:
        testbed.created(project)
    role = agent_role(testbed)
    with testbed.agent() as site:
        CYCLES[mode](site)
        testbed.sandbox.customer.end_role(role)
        for _ in range(2):  # it is no better the second time
            with pytest.raises(OfferingAccessError, match="no role at all"):
                CYCLES[mode](site)
        testbed.sandbox.customer.add_customer_role(
            testbed.sandbox.offering.customer, testbed.sandbox.agent
        )
        CYCLES[mode](site)


def test_an_empty_list_costs_two_requests_once_and_none_after_that(testbed: SimulatedSite) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    with testbed.agent() as site:
        process_orders(site)
        assert testbed.state(order) == "done"
        costs = []
        for _ in range(4):
            testbed.forget()
            process_orders(site)
            costs.append(testbed.sandbox.requests.count())
    assert costs == [3, 1, 1, 1]


def test_a_look_that_fails_for_a_moment_is_repeated_and_condemns_nothing(
    testbed: SimulatedSite,
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    with testbed.agent() as site:
        process_orders(site)
        testbed.sandbox.faults.add("users_me_retrieve", "status", status=503, times=None)
        with pytest.raises(TemporaryError) as caught:
            process_orders(site)
        assert not isinstance(caught.value, OfferingAccessError)
        testbed.sandbox.faults.clear()
        assert not process_orders(site).failed
    assert testbed.state(order) == "done"
