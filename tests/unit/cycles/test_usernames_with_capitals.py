"""Capitals tell people apart, where the cluster keeps them and where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator.state import Outage, SimMembership, SimUser

if TYPE_CHECKING:
    from harness import SimulatedSite
    from waldur_site_agent_sandbox import Resource


def keep_case(testbed: SimulatedSite) -> None:
    """Set PreserveCaseUser in slurmdbd.conf."""
    with testbed.slurm.change() as state:
        state.configuration["Parameters"] = "PreserveCaseUser"


def put_in(testbed: SimulatedSite, resource: Resource, user: str) -> None:
    """Have a user in an account whom an administrator or an earlier agent put there."""
    with testbed.slurm.change() as state:
        state.users[user] = SimUser(user, resource.backend_id)
        state.accounts[resource.backend_id].members[user] = SimMembership()


def test_a_cluster_that_keeps_capitals_gets_them_and_loses_them_again(
    testbed: SimulatedSite,
) -> None:
    keep_case(testbed)
    project = testbed.project(ada="Ada", bob="bob")
    resource = testbed.settled(project)
    assert testbed.members_of(resource) == {"Ada", "bob"}
    testbed.sync()
    assert testbed.writing_commands == 0
    testbed.sandbox.customer.remove_member(project, "ada")
    testbed.sync()
    assert testbed.members_of(resource) == {"bob"}


def test_elsewhere_capitals_are_refused_by_name_and_nobody_gets_anothers_association(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project(ada="Ada", bob="bob"))
    assert testbed.members_of(resource) == {"bob"}
    assert "ada" not in testbed.slurm.state.users
    (failure,) = testbed.sync().failures
    assert "Ada cannot be served" in failure
    assert "PreserveCaseUser" in failure


def test_a_user_whom_the_directory_knows_in_lower_case_is_that_user(testbed: SimulatedSite) -> None:
    testbed = testbed.with_(system_names={"Ada": "ada"})
    project = testbed.project(ada="Ada", bob="bob")
    resource = testbed.settled(project)
    assert testbed.members_of(resource) == {"ada", "bob"}
    assert not testbed.sync().failures
    assert testbed.writing_commands == 0
    testbed.sandbox.customer.remove_member(project, "ada")
    testbed.sync()
    assert testbed.members_of(resource) == {"bob"}


def test_who_was_written_in_lower_case_by_an_earlier_agent_stays_and_leaves_with_the_person(
    testbed: SimulatedSite,
) -> None:
    testbed = testbed.with_(unknown_to_the_system=frozenset({"ada"}))
    project = testbed.project(bob="bob", ada="Ada")
    resource = testbed.settled(project)
    put_in(testbed, resource, "ada")
    testbed.forget()
    assert not testbed.sync().failures
    assert testbed.members_of(resource) == {"ada", "bob"}
    testbed.sandbox.customer.remove_member(project, "ada")
    testbed.sync()
    assert testbed.members_of(resource) == {"bob"}


def test_two_people_whose_names_differ_in_case_only_do_not_stand_for_each_other(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="Ada", bob="bob")
    testbed.person("other", "ada")
    resource = testbed.settled(project)
    put_in(testbed, resource, "ada")
    testbed.forget()
    testbed.sync()
    assert testbed.members_of(resource) == {"bob"}  # the other one is not in this team


def test_a_user_of_the_operating_system_with_another_spelling_is_somebody_else(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="Ada", bob="bob")
    resource = testbed.settled(project)
    put_in(testbed, resource, "ada")  # the system has both, and an administrator put this one in
    testbed.forget()
    (failure,) = testbed.sync().failures
    assert "Ada cannot be served" in failure
    testbed.sandbox.customer.remove_member(project, "ada")
    assert not testbed.sync().failures
    assert testbed.members_of(resource) == {"ada", "bob"}


def test_where_capitals_are_kept_another_spelling_is_somebody_else(testbed: SimulatedSite) -> None:
    keep_case(testbed)
    project = testbed.project(bob="bob", ada="Ada")
    resource = testbed.settled(testbed.project("other", eve="eve"))
    put_in(testbed, resource, "ada")
    own = testbed.settled(project)
    assert testbed.members_of(own) == {"bob"}
    (failure,) = testbed.sync().failures
    assert "Slurm has the user ada" in failure
    assert testbed.members_of(resource) == {"ada", "eve"}


def test_somebody_elses_association_does_not_keep_a_leaver_from_being_deleted(
    testbed: SimulatedSite,
) -> None:
    keep_case(testbed)
    project = testbed.project(bob="bob", eve="eve")
    resource = testbed.settled(project)
    put_in(testbed, resource, "ada")
    side = testbed.sandbox.customer
    leaver = side.set_account(side.add_user("ada"), "Ada", state="Requested deletion")
    assert not testbed.sync().failures
    assert side.current(leaver).state == "Deleted"
    assert testbed.members_of(resource) == {"ada", "bob", "eve"}


def test_of_two_who_left_the_one_in_an_account_is_not_deleted(testbed: SimulatedSite) -> None:
    keep_case(testbed)
    resource = testbed.settled(testbed.project(bob="bob", eve="eve"))
    put_in(testbed, resource, "ada")
    side = testbed.sandbox.customer
    leaving = [
        side.set_account(side.add_user(f"ada{number}"), name, state="Requested deletion")
        for number, name in enumerate(("ada", "Ada"))
    ]
    with testbed.slurm.outage(Outage.SLURMCTLD_AWAY):
        assert testbed.sync().failed
    assert testbed.members_of(resource) == {"ada", "bob", "eve"}
    assert side.current(leaving[0]).state == "Deleting"
