"""What an order to restore does to others."""

from __future__ import annotations

from harness import SimulatedSite
from waldur_site_agent_sandbox import Resource


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
