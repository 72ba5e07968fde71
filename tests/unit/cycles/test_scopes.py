"""Passes that look at a part of an offering: what they change, what they leave, what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid4

import pytest

from harness import SimulatedSite
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


def sync(testbed: SimulatedSite, *scopes: Scope) -> MembershipReport:
    with testbed.agent() as site:
        return sync_membership(site, scopes=scopes)


def orders(testbed: SimulatedSite, uuids: Iterable[str]) -> OrdersReport:
    with testbed.agent() as site:
        return process_orders(site, scopes=[OrderScope(UUID(uuid)) for uuid in uuids])


@pytest.mark.guarantee("events: From a message to a cycle")
@pytest.mark.parametrize("number", [1, 2, 5])
def test_an_order_event_costs_at_most_six_requests_and_six_for_each_order(
    testbed: SimulatedSite, number: int
) -> None:
    placed = [
        testbed.order(testbed.project(f"p{n}", ada="ada01"), f"run {n}") for n in range(number)
    ]
    testbed.forget()
    assert not orders(testbed, [order.uuid for order in placed]).failed
    assert [testbed.state(order) for order in placed] == ["done"] * number
    assert testbed.sandbox.requests.count() <= 6 + 6 * number
    for order in placed:
        side = testbed.sandbox.customer
        side.place_update_order(testbed.resource(order), {"cpu": 20})
    testbed.forget()
    updates = [o for o in testbed.sandbox.customer.world.orders.values() if o.type == "Update"]
    assert not orders(testbed, [order.uuid for order in updates]).failed
    assert testbed.sandbox.requests.count() <= 6 + 6 * number


def test_orders_out_of_scope_are_left_alone(testbed: SimulatedSite) -> None:
    project = testbed.project(ada="ada01")
    one, other = testbed.order(project, "one"), testbed.order(project, "other")
    report = orders(testbed, [one.uuid])
    assert (testbed.state(one), testbed.state(other)) == ("done", "pending-provider")
    assert report.snapshot.orders == {UUID(one.uuid): "pending-provider"}


def test_an_order_that_is_over_costs_two_requests_and_no_command(testbed: SimulatedSite) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.cycle()
    testbed.forget()
    report = orders(testbed, [order.uuid, uuid4().hex])
    assert report.snapshot.orders == {UUID(order.uuid): "done"}
    assert testbed.sandbox.requests.count() == 3
    assert sum(testbed.slurm.commands_run.values()) == 0


def test_a_project_scope_changes_that_project_only(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    projects = [testbed.project(slug, ada="ada01") for slug in ("one", "two")]
    first, second = (testbed.settled(project, project.slug) for project in projects)
    for project in projects:
        side.add_member(project, testbed.person("cyd", "cyd01"))
    report = sync(testbed, ProjectScope(UUID(projects[0].uuid)))
    assert not report.failed
    assert (testbed.members_of(first), testbed.members_of(second)) == (
        {"ada01", "cyd01"},
        {"ada01"},
    )
    assert set(report.snapshot.teams) == {UUID(projects[0].uuid)}


def test_a_resource_scope_changes_that_resource_only(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    project = testbed.project(ada="ada01")
    first, second = testbed.settled(project, "one"), testbed.settled(project, "two")
    side.set_flags(first, restrict_member_access=True)
    side.set_flags(second, restrict_member_access=True)
    assert not sync(testbed, ResourceScope(UUID(first.uuid))).failed
    assert (testbed.members_of(first), testbed.members_of(second)) == (set(), {"ada01"})


@pytest.mark.guarantee("events: From a message to a cycle")
def test_resources_of_other_projects_on_the_same_account_keep_their_members(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    one, two = testbed.project("one", ada="ada01"), testbed.project("two", bob="bob01")
    first, second = testbed.settled(one, "one"), testbed.created(two, "two")
    side.edit(second, backend_id=first.backend_id)
    assert not sync(testbed, ProjectScope(UUID(one.uuid))).failed
    assert testbed.members_of(first) == {"ada01", "bob01"}


def test_a_user_scope_gives_and_takes_everywhere_but_only_to_that_person(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    project, other = testbed.project("one", ada="ada01"), testbed.project("two", ada="ada01")
    resources = [testbed.settled(project, "one"), testbed.settled(other, "two")]
    cyd, bob = side.add_user("cyd"), side.add_user("bob")
    for each in (project, other):
        side.add_member(each, cyd)
    side.add_member(other, bob)
    side.set_account(cyd, "cyd01")
    assert not sync(testbed, UserScope(UUID(cyd.uuid))).failed
    assert [testbed.members_of(each) for each in resources] == [{"ada01", "cyd01"}] * 2
    side.request_deletion(cyd)
    assert not sync(testbed, UserScope(UUID(cyd.uuid))).failed
    assert [testbed.members_of(each) for each in resources] == [{"ada01"}] * 2
    states = {u.username: u.state for u in side.world.offering_users.values()}
    assert states["cyd01"] == "Deleted"


def test_a_scope_without_any_resource_costs_few_requests_and_no_command(
    testbed: SimulatedSite,
) -> None:
    testbed.settled(testbed.project(ada="ada01"))
    sync(testbed, ProjectScope(uuid4()))
    assert testbed.sandbox.requests.count() <= 3
    assert sum(testbed.slurm.commands_run.values()) == 0


@pytest.mark.guarantee("events: From a message to a cycle")
def test_a_role_change_costs_one_request_for_each_list(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    projects = [testbed.project(f"p{n}", ada="ada01") for n in range(10)]
    for project in projects:
        testbed.order(project, project.slug)
    testbed.cycle()
    testbed.sync()
    testbed.forget()
    side.add_member(projects[3], testbed.person("cyd", "cyd01"))
    testbed.forget()
    sync(testbed, ProjectScope(UUID(projects[3].uuid)))
    assert testbed.sandbox.requests.count() <= 8


@pytest.mark.guarantee("events: From a message to a cycle")
def test_removals_of_many_small_passes_count_together_until_all_is_judged(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    projects = [
        testbed.project(f"p{n}", **{f"u{n}x{m}": f"u{n}x{m}" for m in range(6)}) for n in range(6)
    ]
    resources = [testbed.created(project, project.slug) for project in projects]
    testbed.sync()
    for number, project in enumerate(projects):
        for member in range(6):
            side.remove_member(project, f"u{number}x{member}")
    refusals = []
    with testbed.agent() as site:
        for project in projects:
            report = sync_membership(site, scopes=[ProjectScope(UUID(project.uuid))])
            refusals.append(bool(report.refused_reason))
        left = [len(testbed.members_of(resource)) for resource in resources]
        assert refusals == [False, True, True, True, True, True]
        assert left == [0, 6, 6, 6, 6, 6]
        assert sync_membership(site, scopes=[Everything()]).refused_reason


def test_a_missing_account_is_marked_by_full_passes_only(testbed: SimulatedSite) -> None:
    project = testbed.project(ada="ada01")
    first, second, third = (testbed.settled(project, name) for name in ("one", "two", "three"))
    with testbed.slurm.change() as state:
        del state.accounts[first.backend_id]
    sync(testbed, ProjectScope(UUID(project.uuid)))
    assert testbed.sandbox.customer.current(first).state == "OK"
    testbed.sync()
    assert testbed.sandbox.customer.current(first).state == "Erred"
    assert {testbed.sandbox.customer.current(each).state for each in (second, third)} == {"OK"}
