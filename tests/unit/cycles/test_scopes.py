"""Passes that look at a part of an offering: what they change, what they leave, what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid4

import pytest

from harness import House
from waldur_site_agent.cycles.membership import MembershipReport, sync_membership
from waldur_site_agent.cycles.order_inputs import OrdersReport
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.model.backend import (
    Everything,
    OrderScope,
    ProjectScope,
    ResourceScope,
    Scope,
    UserScope,
)


def sync(house: House, *scopes: Scope) -> MembershipReport:
    with house.agent() as site:
        return sync_membership(site, scopes=scopes)


def orders(house: House, uuids: Iterable[str]) -> OrdersReport:
    with house.agent() as site:
        return process_orders(site, scopes=[OrderScope(UUID(uuid)) for uuid in uuids])


@pytest.mark.parametrize("number", [1, 2, 5])
def test_an_order_event_costs_at_most_six_requests_and_six_for_each_order(
    house: House, number: int
) -> None:
    placed = [house.order(house.project(f"p{n}", ada="ada01"), f"run {n}") for n in range(number)]
    house.forget()
    assert not orders(house, [order.uuid for order in placed]).failed
    assert [house.state(order) for order in placed] == ["done"] * number
    assert house.sandbox.requests.count() <= 6 + 6 * number
    for order in placed:
        side = house.sandbox.customer
        side.place_update_order(house.resource(order), {"cpu": 20})
    house.forget()
    updates = [o for o in house.sandbox.customer.world.orders.values() if o.type == "Update"]
    assert not orders(house, [order.uuid for order in updates]).failed
    assert house.sandbox.requests.count() <= 6 + 6 * number


def test_orders_out_of_scope_are_left_alone(house: House) -> None:
    project = house.project(ada="ada01")
    one, other = house.order(project, "one"), house.order(project, "other")
    report = orders(house, [one.uuid])
    assert (house.state(one), house.state(other)) == ("done", "pending-provider")
    assert report.seen.orders == {UUID(one.uuid): "pending-provider"}


def test_an_order_that_is_over_costs_two_requests_and_no_command(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    house.cycle()
    house.forget()
    report = orders(house, [order.uuid, uuid4().hex])
    assert report.seen.orders == {UUID(order.uuid): "done"}
    assert house.sandbox.requests.count() == 3
    assert sum(house.slurm.commands_run.values()) == 0


def test_a_project_scope_changes_that_project_only(house: House) -> None:
    side = house.sandbox.customer
    projects = [house.project(slug, ada="ada01") for slug in ("one", "two")]
    first, second = (house.settled(project, project.slug) for project in projects)
    for project in projects:
        side.add_member(project, house.person("cyd", "cyd01"))
    report = sync(house, ProjectScope(UUID(projects[0].uuid)))
    assert not report.failed
    assert (house.members_of(first), house.members_of(second)) == ({"ada01", "cyd01"}, {"ada01"})
    assert set(report.seen.roles) == {UUID(projects[0].uuid)}


def test_a_resource_scope_changes_that_resource_only(house: House) -> None:
    side = house.sandbox.customer
    project = house.project(ada="ada01")
    first, second = house.settled(project, "one"), house.settled(project, "two")
    side.set_flags(first, restrict_member_access=True)
    side.set_flags(second, restrict_member_access=True)
    assert not sync(house, ResourceScope(UUID(first.uuid))).failed
    assert (house.members_of(first), house.members_of(second)) == (set(), {"ada01"})


def test_resources_of_other_projects_on_the_same_account_keep_their_members(house: House) -> None:
    side = house.sandbox.customer
    one, two = house.project("one", ada="ada01"), house.project("two", bob="bob01")
    first, second = house.settled(one, "one"), house.created(two, "two")
    side.edit(second, backend_id=first.backend_id)
    assert not sync(house, ProjectScope(UUID(one.uuid))).failed
    assert house.members_of(first) == {"ada01", "bob01"}


def test_a_user_scope_gives_and_takes_everywhere_but_only_to_that_person(house: House) -> None:
    side = house.sandbox.customer
    project, other = house.project("one", ada="ada01"), house.project("two", ada="ada01")
    resources = [house.settled(project, "one"), house.settled(other, "two")]
    cyd, bob = side.add_user("cyd"), side.add_user("bob")
    for each in (project, other):
        side.add_member(each, cyd)
    side.add_member(other, bob)
    side.set_account(cyd, "cyd01")
    assert not sync(house, UserScope(UUID(cyd.uuid))).failed
    assert [house.members_of(each) for each in resources] == [{"ada01", "cyd01"}] * 2
    side.request_deletion(cyd)
    assert not sync(house, UserScope(UUID(cyd.uuid))).failed
    assert [house.members_of(each) for each in resources] == [{"ada01"}] * 2
    states = {u.username: u.state for u in side.world.offering_users.values()}
    assert states["cyd01"] == "Deleted"


def test_a_scope_without_any_resource_costs_few_requests_and_no_command(house: House) -> None:
    house.settled(house.project(ada="ada01"))
    sync(house, ProjectScope(uuid4()))
    assert house.sandbox.requests.count() <= 3
    assert sum(house.slurm.commands_run.values()) == 0


def test_a_role_change_costs_one_request_for_each_list(house: House) -> None:
    side = house.sandbox.customer
    projects = [house.project(f"p{n}", ada="ada01") for n in range(10)]
    for project in projects:
        house.order(project, project.slug)
    house.cycle()
    house.sync()
    house.forget()
    side.add_member(projects[3], house.person("cyd", "cyd01"))
    house.forget()
    sync(house, ProjectScope(UUID(projects[3].uuid)))
    assert house.sandbox.requests.count() <= 8


def test_removals_of_many_small_passes_count_together_until_all_is_judged(house: House) -> None:
    side = house.sandbox.customer
    projects = [
        house.project(f"p{n}", **{f"u{n}x{m}": f"u{n}x{m}" for m in range(6)}) for n in range(6)
    ]
    resources = [house.created(project, project.slug) for project in projects]
    house.sync()
    for number, project in enumerate(projects):
        for member in range(6):
            side.remove_member(project, f"u{number}x{member}")
    refusals = []
    with house.agent() as site:
        for project in projects:
            report = sync_membership(site, scopes=[ProjectScope(UUID(project.uuid))])
            refusals.append(bool(report.refusal))
        left = [len(house.members_of(resource)) for resource in resources]
        assert refusals == [False, True, True, True, True, True]
        assert left == [0, 6, 6, 6, 6, 6]
        assert sync_membership(site, scopes=[Everything()]).refusal


def test_a_missing_account_is_marked_by_full_passes_only(house: House) -> None:
    project = house.project(ada="ada01")
    first, second, third = (house.settled(project, name) for name in ("one", "two", "three"))
    with house.slurm.change() as state:
        del state.accounts[first.backend_id]
    sync(house, ProjectScope(UUID(project.uuid)))
    assert house.sandbox.customer.current(first).state == "OK"
    house.sync()
    assert house.sandbox.customer.current(first).state == "Erred"
    assert {house.sandbox.customer.current(each).state for each in (second, third)} == {"OK"}
