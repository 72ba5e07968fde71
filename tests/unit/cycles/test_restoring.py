"""What an order to restore does to others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from harness import SimulatedSite
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator.state import SimMembership


def two_of_one_name(site: SimulatedSite) -> tuple[Resource, Resource]:
    """A resource that has ended, and the one that got its name afterwards."""
    project = site.project(ada="ada01")
    old = site.created(project, "old", cpu=10)
    side = site.sandbox.customer
    side.place_terminate_order(old)
    site.cycle()
    order = site.order(project, "new", cpu=20)
    side.edit(site.resource(order), slug=old.slug)
    site.cycle()
    new = site.resource(order)
    assert new.backend_id == old.backend_id
    return old, new


def test_the_orders_of_a_resource_are_not_erred_because_an_ended_namesake_is_to_be_restored(
    testbed: SimulatedSite,
) -> None:
    old, new = two_of_one_name(testbed)
    side = testbed.sandbox.customer
    side.place_restore_order(old, state="pending-consumer")
    order = side.place_update_order(new, {"cpu": 30})
    testbed.cycle()
    assert testbed.state(order) != "erred"


def test_a_live_resource_is_terminated_although_an_ended_namesake_is_to_be_restored(
    testbed: SimulatedSite,
) -> None:
    old, new = two_of_one_name(testbed)
    side = testbed.sandbox.customer
    back = side.place_restore_order(old, state="pending-consumer")
    order = side.place_terminate_order(new)
    testbed.cycle()
    assert testbed.state(order) == "done"
    side.approve_as_consumer(back)
    testbed.cycle()
    assert testbed.state(back) == "done"
    assert testbed.members(back) == {"ada01"}


def test_a_resource_is_not_restored_over_the_one_that_has_its_name_now(
    testbed: SimulatedSite,
) -> None:
    old, new = two_of_one_name(testbed)
    limits = dict(testbed.slurm.state.accounts[new.backend_id].limits)
    back = testbed.sandbox.customer.place_restore_order(old)
    testbed.cycle()
    assert testbed.state(back) == "erred"
    assert testbed.slurm.state.accounts[new.backend_id].limits == limits


def ended(site: SimulatedSite) -> Resource:
    """A resource that ran and was terminated."""
    resource = site.settled(site.project(ada="ada01"), cpu=10)
    site.sandbox.customer.place_terminate_order(resource)
    site.cycle()
    assert resource.backend_id not in site.accounts or site.settings.get("soft_delete")
    return site.sandbox.customer.current(resource)


@pytest.mark.parametrize("soft_delete", [False, True])
def test_of_two_orders_to_restore_a_resource_the_first_does_it_and_both_end_done(
    testbed: SimulatedSite, soft_delete: bool
) -> None:
    testbed = testbed.with_(settings={"soft_delete": soft_delete})
    resource, side = ended(testbed), testbed.sandbox.customer
    first = side.place_restore_order(resource)
    side.edit(resource, state="Terminated")  # two people asked at the same time
    second = side.place_restore_order(side.current(resource))
    testbed.cycle()
    assert sorted([testbed.state(first), testbed.state(second)]) == ["done", "executing"]
    assert testbed.members_of(resource) == {"ada01"}
    testbed.forget()
    testbed.cycle()
    assert [testbed.state(first), testbed.state(second)] == ["done", "done"]
    assert testbed.writing_commands == 0
    assert testbed.account(first).limits == {"cpu": 600000}


@pytest.mark.parametrize("soft_delete", [False, True])
@pytest.mark.parametrize("flag", ["paused", "downscaled"])
def test_nobody_gets_into_a_restored_resource_before_it_is_restricted(
    testbed: SimulatedSite, flag: str, soft_delete: bool
) -> None:
    testbed = testbed.with_(settings={"soft_delete": soft_delete})
    resource, side = ended(testbed), testbed.sandbox.customer
    side.set_flags(resource, **{flag: True})
    order = side.place_restore_order(side.current(resource))
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.members_of(resource) == set()
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01"}
    assert testbed.account(order).qos == ["paused" if flag == "paused" else "limited"]
    side.set_flags(side.current(resource), **{flag: False})
    testbed.sync()
    assert testbed.account(order).qos == []


def test_a_restoration_that_fails_lets_nobody_into_the_account_of_another_resource(
    testbed: SimulatedSite,
) -> None:
    old, new = two_of_one_name(testbed)
    side = testbed.sandbox.customer
    side.edit(side.current(old), project=testbed.project("plasma", bob="bob01").uuid)
    back = side.place_restore_order(side.current(old))
    testbed.cycle(dry_run=True)
    assert side.current(old).backend_id == new.backend_id
    testbed.cycle()
    assert testbed.state(back) == "erred"
    assert "belongs to another resource" in side.current(back).error_message
    assert side.current(old).backend_id == ""
    testbed.sync()
    assert testbed.members_of(new) == {"ada01"}
    end = side.place_terminate_order(side.current(old))
    testbed.cycle()
    assert testbed.state(end) == "done"
    assert testbed.members_of(new) == {"ada01"}


@pytest.mark.parametrize("kind", ["cut", "lost_answer"])
def test_the_order_fails_only_once_the_name_is_taken_from_the_resource(
    testbed: SimulatedSite, kind: Any
) -> None:
    old, new = two_of_one_name(testbed)
    side = testbed.sandbox.customer
    back = side.place_restore_order(old)
    testbed.sandbox.faults.add("*_set_backend_id", kind, times=20)
    testbed.cycle()
    assert testbed.state(back) == "executing" or not side.current(old).backend_id
    testbed.sandbox.faults.clear()
    testbed.cycle()
    assert (testbed.state(back), side.current(old).backend_id) == ("erred", "")
    assert side.current(new).backend_id


def waiting_for_its_project(site: SimulatedSite) -> Resource:
    """A terminated resource that is to be restored, in a project that has ended."""
    resource, side = ended(site), site.sandbox.customer
    side.place_restore_order(resource)
    yesterday = (site.sandbox.clock.now() - timedelta(days=1)).date()
    side.edit(side.world.projects[resource.project], end_date=yesterday)
    return side.current(resource)


@pytest.mark.parametrize("soft_delete", [False, True])
def test_a_restoration_that_cannot_be_approved_keeps_nobody_from_being_deleted(
    testbed: SimulatedSite, soft_delete: bool
) -> None:
    testbed = testbed.with_(settings={"soft_delete": soft_delete})
    resource, side = waiting_for_its_project(testbed), testbed.sandbox.customer
    side.request_deletion("ada")
    testbed.cycle()
    assert not testbed.sync().failed
    assert side.current(resource).state == "Creating"
    assert [user.state for user in side.world.offering_users.values()] == ["Deleted"]


def test_a_member_of_an_account_that_is_being_restored_is_not_marked_deleted(
    testbed: SimulatedSite,
) -> None:
    testbed = testbed.with_(settings={"soft_delete": True})
    resource, side = waiting_for_its_project(testbed), testbed.sandbox.customer
    with testbed.slurm.change() as state:
        state.accounts[resource.backend_id].members["ada01"] = SimMembership()
    side.request_deletion("ada")
    testbed.sync()
    assert [user.state for user in side.world.offering_users.values()] != ["Deleted"]


@pytest.mark.parametrize("soft_delete", [False, True])
def test_an_account_comes_back_only_once_its_project_that_ended_meanwhile_goes_on(
    testbed: SimulatedSite, soft_delete: bool
) -> None:
    testbed = testbed.with_(settings={"soft_delete": soft_delete})
    resource, side = waiting_for_its_project(testbed), testbed.sandbox.customer
    testbed.forget()
    testbed.cycle()
    testbed.sync()
    assert side.current(resource).state == "Creating"
    assert testbed.writing_commands == 0
    side.edit(side.world.projects[resource.project], end_date=None)
    testbed.cycle()
    assert side.current(resource).state == "OK"
    assert testbed.members_of(resource) == {"ada01"}
    assert testbed.slurm.state.accounts[resource.backend_id].limits == {"cpu": 600000}


@pytest.mark.guarantee("membership: Who is removed, and who never")
@pytest.mark.parametrize(
    ("order", "state"),
    [("pending-consumer", "Deleted"), ("withdrawn", "Deleted"), ("executing", "Deleting")],
)
def test_a_user_is_deleted_while_a_restoration_waits_and_not_while_it_is_carried_out(
    testbed: SimulatedSite, order: str, state: str
) -> None:
    testbed = testbed.with_(settings={"soft_delete": True})
    resource, side = ended(testbed), testbed.sandbox.customer
    live = testbed.settled(side.world.projects[resource.project], "other")
    back = side.place_restore_order(
        resource, state="pending-consumer" if order == "withdrawn" else order
    )
    if order == "withdrawn":
        side.withdraw_order(back)
    assert side.current(resource).state == "Creating"
    side.request_deletion("ada")
    testbed.sync()
    assert testbed.members_of(live) == set()
    assert [user.state for user in side.world.offering_users.values()] == [state]
