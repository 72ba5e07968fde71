"""What the operating system and Slurm serve is served, and what was listed can be taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_slurm.simulator.state import SimMembership, SimUser

if TYPE_CHECKING:
    from harness import SimulatedSite
    from waldur_site_agent_sandbox import Resource

SERVED = ["eva@example.org", "machine$", "a+b", "_apt", "1234", "x" * 36, "y" * 100]
LISTED = ["with space", "a=b", "-dash", "back\\slash", "\N{LATIN SMALL LETTER E WITH ACUTE}va"]


def put_in(testbed: SimulatedSite, resource: Resource, user: str) -> None:
    with testbed.slurm.change() as state:
        state.users[user] = SimUser(user, resource.backend_id)
        state.accounts[resource.backend_id].members[user] = SimMembership()


@pytest.mark.parametrize("username", SERVED, ids=lambda name: name[:12])
def test_a_username_that_slurm_serves_is_served_and_taken_away(
    testbed: SimulatedSite, username: str
) -> None:
    project = testbed.project(ada="ada01", eva=username)
    resource = testbed.settled(project)
    assert testbed.members_of(resource) == {"ada01", username}
    testbed.sandbox.customer.remove_member(project, "eva")
    assert not testbed.sync().failures
    assert testbed.members_of(resource) == {"ada01"}


@pytest.mark.parametrize("username", LISTED)
def test_a_leaver_with_a_name_that_would_not_be_given_loses_access(
    testbed: SimulatedSite, username: str
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    testbed.person("eva", username)
    put_in(testbed, resource, username)
    testbed.forget()
    assert not testbed.sync().failures
    assert testbed.members_of(resource) == {"ada01"}


@pytest.mark.parametrize("username", ["a,root", "x[1-3]", 'q"uote'])
def test_a_name_that_commands_misread_is_reported_as_failed_and_the_others_leave(
    testbed: SimulatedSite, username: str
) -> None:
    project = testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    testbed.person("eva", username)
    put_in(testbed, resource, username)
    testbed.sandbox.customer.remove_member(project, "bob")
    (failure,) = testbed.sync().failures
    assert "cannot be removed by the agent" in failure
    assert "by hand" in failure
    assert testbed.members_of(resource) == {"ada01", username}
    assert "root" in testbed.slurm.state.users


def test_a_name_that_commands_misread_does_not_keep_an_account_from_being_deleted(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    put_in(testbed, resource, "a,root")
    order = testbed.sandbox.customer.place_terminate_order(resource)
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert resource.backend_id not in testbed.accounts
    assert "root" in testbed.slurm.state.accounts["root"].members
