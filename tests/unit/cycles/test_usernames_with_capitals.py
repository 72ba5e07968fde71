"""Capitals tell people apart, where the cluster keeps them and where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator.state import Outage, SimMembership, SimUser

if TYPE_CHECKING:
    from harness import House
    from waldur_site_agent_sandbox import Resource


def keep_case(house: House) -> None:
    """Set PreserveCaseUser in slurmdbd.conf."""
    with house.slurm.change() as state:
        state.configuration["Parameters"] = "PreserveCaseUser"


def put_in(house: House, resource: Resource, user: str) -> None:
    """Have a user in an account whom an administrator or an earlier agent put there."""
    with house.slurm.change() as state:
        state.users[user] = SimUser(user, resource.backend_id)
        state.accounts[resource.backend_id].members[user] = SimMembership()


def test_a_cluster_that_keeps_capitals_gets_them_and_loses_them_again(house: House) -> None:
    keep_case(house)
    project = house.project(ada="Ada", bob="bob")
    resource = house.settled(project)
    assert house.members_of(resource) == {"Ada", "bob"}
    house.sync()
    assert house.writing_commands == 0
    house.sandbox.customer.remove_member(project, "ada")
    house.sync()
    assert house.members_of(resource) == {"bob"}


def test_elsewhere_capitals_are_refused_by_name_and_nobody_gets_anothers_association(
    house: House,
) -> None:
    resource = house.settled(house.project(ada="Ada", bob="bob"))
    assert house.members_of(resource) == {"bob"}
    assert "ada" not in house.slurm.state.users
    (failure,) = house.sync().failures
    assert "Ada cannot be served" in failure
    assert "PreserveCaseUser" in failure


def test_a_user_whom_the_directory_knows_in_lower_case_is_that_user(house: House) -> None:
    house = house.with_(system_names={"Ada": "ada"})
    project = house.project(ada="Ada", bob="bob")
    resource = house.settled(project)
    assert house.members_of(resource) == {"ada", "bob"}
    assert not house.sync().failures
    assert house.writing_commands == 0
    house.sandbox.customer.remove_member(project, "ada")
    house.sync()
    assert house.members_of(resource) == {"bob"}


def test_who_was_written_in_lower_case_by_an_earlier_agent_stays_and_leaves_with_the_person(
    house: House,
) -> None:
    house = house.with_(unknown_to_the_system=frozenset({"ada"}))
    project = house.project(bob="bob", ada="Ada")
    resource = house.settled(project)
    put_in(house, resource, "ada")
    house.forget()
    assert not house.sync().failures
    assert house.members_of(resource) == {"ada", "bob"}
    house.sandbox.customer.remove_member(project, "ada")
    house.sync()
    assert house.members_of(resource) == {"bob"}


def test_two_people_whose_names_differ_in_case_only_do_not_stand_for_each_other(
    house: House,
) -> None:
    project = house.project(ada="Ada", bob="bob")
    house.person("other", "ada")
    resource = house.settled(project)
    put_in(house, resource, "ada")
    house.forget()
    house.sync()
    assert house.members_of(resource) == {"bob"}  # the other one is not in this team


def test_a_user_of_the_operating_system_with_another_spelling_is_somebody_else(
    house: House,
) -> None:
    project = house.project(ada="Ada", bob="bob")
    resource = house.settled(project)
    put_in(house, resource, "ada")  # the system has both, and an administrator put this one in
    house.forget()
    (failure,) = house.sync().failures
    assert "Ada cannot be served" in failure
    house.sandbox.customer.remove_member(project, "ada")
    assert not house.sync().failures
    assert house.members_of(resource) == {"ada", "bob"}


def test_where_capitals_are_kept_another_spelling_is_somebody_else(house: House) -> None:
    keep_case(house)
    project = house.project(bob="bob", ada="Ada")
    resource = house.settled(house.project("other", eve="eve"))
    put_in(house, resource, "ada")
    own = house.settled(project)
    assert house.members_of(own) == {"bob"}
    (failure,) = house.sync().failures
    assert "Slurm has the user ada" in failure
    assert house.members_of(resource) == {"ada", "eve"}


def test_somebody_elses_association_does_not_keep_a_leaver_from_being_deleted(house: House) -> None:
    keep_case(house)
    project = house.project(bob="bob", eve="eve")
    resource = house.settled(project)
    put_in(house, resource, "ada")
    side = house.sandbox.customer
    leaver = side.set_account(side.add_user("ada"), "Ada", state="Requested deletion")
    assert not house.sync().failures
    assert side.current(leaver).state == "Deleted"
    assert house.members_of(resource) == {"ada", "bob", "eve"}


def test_of_two_leavers_the_one_in_an_account_is_not_deleted(house: House) -> None:
    keep_case(house)
    resource = house.settled(house.project(bob="bob", eve="eve"))
    put_in(house, resource, "ada")
    side = house.sandbox.customer
    leaving = [
        side.set_account(side.add_user(f"ada{number}"), name, state="Requested deletion")
        for number, name in enumerate(("ada", "Ada"))
    ]
    with house.slurm.outage(Outage.SLURMCTLD_AWAY):
        assert house.sync().failed
    assert house.members_of(resource) == {"ada", "bob", "eve"}
    assert side.current(leaving[0]).state == "Deleting"
