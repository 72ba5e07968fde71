"""What the operating system and Slurm serve is served, and what was listed can be taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_slurm.simulator.state import SimMembership, SimUser

if TYPE_CHECKING:
    from harness import House
    from waldur_site_agent_sandbox import Resource

SERVED = ["eva@example.org", "machine$", "a+b", "_apt", "1234", "x" * 36, "y" * 100]
LISTED = ["with space", "a=b", "-dash", "back\\slash", "\N{LATIN SMALL LETTER E WITH ACUTE}va"]


def put_in(house: House, resource: Resource, user: str) -> None:
    with house.slurm.change() as state:
        state.users[user] = SimUser(user, resource.backend_id)
        state.accounts[resource.backend_id].members[user] = SimMembership()


@pytest.mark.parametrize("username", SERVED, ids=lambda name: name[:12])
def test_a_username_that_slurm_serves_is_served_and_taken_away(house: House, username: str) -> None:
    project = house.project(ada="ada01", eva=username)
    resource = house.settled(project)
    assert house.members_of(resource) == {"ada01", username}
    house.sandbox.customer.remove_member(project, "eva")
    assert not house.sync().failures
    assert house.members_of(resource) == {"ada01"}


@pytest.mark.parametrize("username", LISTED)
def test_a_leaver_with_a_name_that_would_not_be_given_loses_access(
    house: House, username: str
) -> None:
    resource = house.settled(house.project(ada="ada01"))
    house.person("eva", username)
    put_in(house, resource, username)
    house.forget()
    assert not house.sync().failures
    assert house.members_of(resource) == {"ada01"}


@pytest.mark.parametrize("username", ["a,root", "x[1-3]", 'q"uote'])
def test_a_name_that_commands_misread_is_reported_as_failed_and_the_others_leave(
    house: House, username: str
) -> None:
    project = house.project(ada="ada01", bob="bob01")
    resource = house.settled(project)
    house.person("eva", username)
    put_in(house, resource, username)
    house.sandbox.customer.remove_member(project, "bob")
    (failure,) = house.sync().failures
    assert "cannot be removed by the agent" in failure
    assert "by hand" in failure
    assert house.members_of(resource) == {"ada01", username}
    assert "root" in house.slurm.state.users


def test_a_name_that_commands_misread_does_not_keep_an_account_from_being_deleted(
    house: House,
) -> None:
    resource = house.settled(house.project(ada="ada01"))
    put_in(house, resource, "a,root")
    order = house.sandbox.customer.place_terminate_order(resource)
    house.cycle()
    assert house.state(order) == "done"
    assert resource.backend_id not in house.accounts
    assert "root" in house.slurm.state.accounts["root"].members
