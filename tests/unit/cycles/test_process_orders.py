"""order_process between a served sandbox and a simulated cluster."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from uuid import UUID

import pytest

from harness import SimulatedSite, a_simulated_site
from waldur_site_agent.cycles.order_inputs import OrderStatus
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.model.backend import OrderScope
from waldur_site_agent.model.errors import SiteAgentError


@pytest.mark.guarantee("orders: The normal case")
def test_an_order_becomes_an_account_with_parents_limits_and_team(testbed: SimulatedSite) -> None:
    project = testbed.project("climate", ada="ada01", bob="bob01")
    order = testbed.order(project, "Ocean", cpu=10, mem=2)
    report = testbed.cycle()
    assert [result.status for result in report.results] == [OrderStatus.DONE]
    assert testbed.state(order) == "done"
    resource, account = testbed.resource(order), testbed.account(order)
    assert resource.state == "OK"
    assert resource.backend_id == f"a_{resource.slug}"
    assert (account.parent, account.organization) == ("p_climate", "p_climate")
    assert account.description == "ocean"
    assert account.limits == {"cpu": 600000, "mem": 122880}
    assert set(account.members) == {"ada01", "bob01"}
    accounts = testbed.slurm.state.accounts
    assert (accounts["p_climate"].parent, accounts["c_uni"].parent) == ("c_uni", "root")


@pytest.mark.guarantee("orders: Members")
def test_only_the_team_is_added_never_other_users_of_the_offering(testbed: SimulatedSite) -> None:
    project = testbed.project("climate", ada="ada01")
    testbed.project("physics", eve="eve01")
    order = testbed.order(project)
    testbed.cycle()
    assert testbed.members(order) == {"ada01"}


@pytest.mark.guarantee("orders: Members")
def test_members_without_a_working_username_wait_for_the_membership_sync(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project("climate", ada="ada01")
    side = testbed.sandbox.customer
    for name, state, restricted in (("bob", "Creating", False), ("cyd", "OK", True)):
        person = side.add_user(name)
        side.set_account(person, name, state, is_restricted=restricted)
        side.add_member(project, person)
    order = testbed.order(project)
    testbed.cycle()
    assert testbed.members(order) == {"ada01"}
    assert testbed.state(order) == "done"


@pytest.mark.guarantee("orders: Members")
def test_a_member_whom_the_operating_system_does_not_know_waits(testbed: SimulatedSite) -> None:
    project = testbed.project("climate", ada="ada01", bob="bob01")
    order = testbed.order(project)
    testbed.with_(unknown_to_the_system=frozenset({"bob01"})).cycle()
    assert testbed.members(order) == {"ada01"}
    assert testbed.state(order) == "done"


@pytest.mark.guarantee("orders: The normal case")
@pytest.mark.guarantee("A second cycle with no news writes nothing")
def test_an_idle_cycle_is_one_request_and_no_command(testbed: SimulatedSite) -> None:
    testbed.created(testbed.project(ada="ada01"))
    testbed.cycle()
    assert testbed.sandbox.requests.by_operation() == {"marketplace_orders_list": 1}
    assert testbed.slurm.history == []


@pytest.mark.guarantee("orders: Several at once")
@pytest.mark.guarantee("Requests and processes per cycle are a constant plus the number of changes")
@pytest.mark.parametrize("orders", [1, 5, 25])
def test_requests_and_commands_grow_with_orders_not_with_members(
    testbed: SimulatedSite, orders: int
) -> None:
    people = {f"user{n}": f"u{n:03}" for n in range(8)}
    projects = [testbed.project(f"project{n}", **people) for n in range(orders)]
    placed = [testbed.order(project) for project in projects]
    testbed.sandbox.requests.clear()
    testbed.cycle()
    assert {testbed.state(order) for order in placed} == {"done"}
    assert testbed.sandbox.requests.count() <= 10 + 6 * orders
    writes = testbed.slurm.commands_run["sacctmgr write"]
    accounts = 2 * orders + 1
    additions = 2  # the same people for all accounts, who are new to the cluster
    assert writes == accounts + additions
    assert sum(testbed.slurm.commands_run.values()) - writes <= 6


@pytest.mark.guarantee("orders: Several at once")
def test_twenty_five_orders_at_once_are_all_carried_out(testbed: SimulatedSite) -> None:
    project = testbed.project(ada="ada01")
    placed = [testbed.order(project, f"run {n}") for n in range(25)]
    testbed.cycle()
    assert {testbed.state(order) for order in placed} == {"done"}
    assert len({testbed.resource(order).backend_id for order in placed}) == 25


def test_a_second_cycle_without_news_writes_nothing(testbed: SimulatedSite) -> None:
    testbed.created(testbed.project(ada="ada01"))
    testbed.cycle()
    assert testbed.sandbox.requests.writes() == []
    assert testbed.slurm.commands_run["sacctmgr write"] == 0


@pytest.mark.guarantee("orders: The normal case")
def test_an_update_sets_the_new_limits_and_leaves_the_rest(testbed: SimulatedSite) -> None:
    resource = testbed.created(testbed.project(ada="ada01"), cpu=10, mem=2)
    order = testbed.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 2})
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.account(order).limits == {"cpu": 1200000, "mem": 122880}
    assert testbed.members(order) == {"ada01"}
    assert testbed.resource(order).limits == {"cpu": 20, "mem": 2}
    assert testbed.sandbox.requests.count("*_set_limits") == 0


@pytest.mark.guarantee("orders: The normal case")
def test_a_termination_removes_jobs_users_account_and_the_empty_project(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.created(testbed.project(ada="ada01"))
    job = testbed.slurm.submit_job("ada01", resource.backend_id)
    order = testbed.sandbox.customer.place_terminate_order(resource)
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.resource(order).state == "Terminated"
    assert testbed.accounts == {"c_uni"}
    assert job not in testbed.slurm.state.jobs


def test_a_project_account_stays_while_another_resource_lives_below_it(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01")
    first, second = testbed.created(project, "one"), testbed.created(project, "two")
    testbed.sandbox.customer.place_terminate_order(first)
    testbed.cycle()
    assert testbed.accounts == {"c_uni", "p_climate", second.backend_id}
    assert set(testbed.slurm.state.accounts[second.backend_id].members) == {"ada01"}


@pytest.mark.guarantee("orders: Several at once")
def test_a_termination_of_an_account_that_is_gone_is_done(testbed: SimulatedSite) -> None:
    resource = testbed.created(testbed.project(ada="ada01"))
    testbed.slurm.run(
        ["sacctmgr", "-i", "remove", "account", "where", f"name={resource.backend_id}"]
    )
    order = testbed.sandbox.customer.place_terminate_order(resource)
    testbed.cycle()
    assert testbed.state(order) == "done"


def test_a_dry_run_changes_nothing_on_either_side(testbed: SimulatedSite) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.requests.clear()
    report = testbed.cycle(dry_run=True)
    assert [type(step.action).__name__ for step in report.plans[0].steps] == [
        "CreateResource",
        "AddMembers",
    ]
    assert testbed.state(order) == "pending-provider"
    assert testbed.sandbox.requests.writes() == []
    assert testbed.slurm.commands_run["sacctmgr write"] == 0
    assert testbed.accounts == set()


@pytest.mark.guarantee("orders: Names")
@pytest.mark.parametrize(("customer", "project"), [("", "climate"), ("uni", "")])
def test_a_missing_slug_fails_the_order_with_words_its_owner_understands(
    testbed: SimulatedSite, customer: str, project: str
) -> None:
    side = testbed.sandbox.customer
    order = testbed.order(side.add_project("P", side.add_customer("C", customer), project))
    testbed.cycle()
    assert testbed.state(order) == "erred"
    missing = "project" if customer else "customer"
    assert f"the {missing} has no slug" in side.current(order).error_message
    assert testbed.accounts == set()


@pytest.mark.guarantee("orders: Several at once")
def test_one_bad_order_never_stops_the_others(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    bad = testbed.order(side.add_project("P", side.add_customer("C", "c"), "a,root"))
    negative = testbed.order(testbed.project("neg", ada="ada01"), cpu=-1)
    good = testbed.order(testbed.project("good", ada="ada01"))
    testbed.cycle()
    assert [testbed.state(order) for order in (bad, negative, good)] == ["erred", "erred", "done"]


@pytest.mark.guarantee("orders: Names")
def test_a_foreign_account_of_the_same_name_is_left_as_it_is(testbed: SimulatedSite) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    name = f"a_{testbed.resource(order).slug}"
    testbed.slurm.run(["sacctmgr", "-i", "add", "account", f"name={name}", "organization=physics"])
    before = copy.deepcopy(testbed.slurm.state.accounts[name])
    testbed.cycle()
    assert testbed.state(order) == "erred"
    assert (
        f'account "{name}" exists under "root"'
        in testbed.sandbox.customer.current(order).error_message
    )
    assert testbed.slurm.state.accounts[name] == before


def named_after_projects(testbed: SimulatedSite) -> None:
    offering = testbed.sandbox.offering
    options = {**offering.plugin_options, "account_name_generation_policy": "project_slug"}
    testbed.sandbox.customer.edit(offering, plugin_options=options)


@pytest.mark.guarantee("orders: Names")
def test_with_the_project_slug_policy_names_are_numbered(testbed: SimulatedSite) -> None:
    named_after_projects(testbed)
    project = testbed.project("climate", ada="ada01")
    orders = [testbed.order(project, f"run {n}") for n in range(3)]
    testbed.cycle()
    assert [testbed.resource(order).backend_id for order in orders] == [
        "a_climate",
        "a_climate-0",
        "a_climate-1",
    ]


@pytest.mark.guarantee("orders: Names")
def test_a_name_that_was_used_since_the_order_is_not_given_again(testbed: SimulatedSite) -> None:
    """Usage counts from the order on: what the old account used then would be billed twice."""
    named_after_projects(testbed)
    project = testbed.project("climate", ada="ada01")
    old = testbed.created(project, "old")
    waiting = [testbed.order(project, f"early {number}") for number in range(2)]
    side = testbed.sandbox.customer
    ended = side.place_terminate_order(old)
    with testbed.agent() as site:
        process_orders(site, scopes=[OrderScope(UUID(ended.uuid))])
    assert testbed.state(ended) == "done"
    testbed.cycle()
    later = testbed.order(project, "late")
    testbed.cycle()
    assert [testbed.resource(order).backend_id for order in (*waiting, later)] == [
        "a_climate-0",
        "a_climate-1",
        "a_climate",
    ]


@pytest.mark.guarantee("orders: Names")
def test_a_name_is_given_once_and_never_again_where_the_site_asks_for_that(
    testbed: SimulatedSite,
) -> None:
    named_after_projects(testbed)
    project = testbed.project("climate", ada="ada01")
    ended = testbed.sandbox.customer.place_terminate_order(testbed.created(project, "old"))
    testbed.cycle()
    assert testbed.state(ended) == "done"
    order = testbed.order(project, "new")
    testbed.with_(settings={"check_backend_id_uniqueness": True}).cycle()
    assert testbed.resource(order).backend_id == "a_climate-0"


@pytest.mark.guarantee("orders: Names")
@pytest.mark.parametrize(("settings", "tries"), [({}, 10), ({"backend_id_max_retries": 2}, 2)])
def test_when_all_names_of_a_project_are_taken_the_order_says_how_many_were_tried(
    testbed: SimulatedSite, settings: dict[str, int], tries: int
) -> None:
    named_after_projects(testbed)
    site = testbed.with_(settings=settings)
    project = site.project("climate", ada="ada01")
    orders = [site.order(project, f"run {number}") for number in range(tries + 2)]
    site.cycle()
    site.cycle()  # the names that the first cycle gave are confirmed by now
    assert {site.state(order) for order in orders[:-1]} == {"done"}
    assert site.resource(orders[-2]).backend_id == f"a_climate-{tries - 1}"
    assert site.state(orders[-1]) == "erred"
    assert site.sandbox.customer.current(orders[-1]).error_message == (
        'a_climate: cannot create: account "a_climate" belongs to another resource in Waldur (the '
        f"{tries} other names tried are not available either); terminate resources of the "
        "project, or raise backend_id_max_retries"
    )
    before = site.accounts
    site.sandbox.customer.place_terminate_order(site.resource(orders[0]))
    site.cycle()
    late = site.order(project, "late")
    site.cycle()
    assert site.resource(late).backend_id == "a_climate"
    assert site.accounts == before


@pytest.mark.guarantee("orders: Names")
def test_names_of_ended_resources_use_up_the_tries_where_none_is_given_twice(
    testbed: SimulatedSite,
) -> None:
    named_after_projects(testbed)
    site = testbed.with_(
        settings={"check_backend_id_uniqueness": True, "backend_id_max_retries": 1}
    )
    project = site.project("climate", ada="ada01")
    side = site.sandbox.customer
    for name in ("one", "two"):
        side.place_terminate_order(site.created(project, name))
        site.cycle()
    order = site.order(project, "three")
    site.cycle()
    assert site.state(order) == "erred"
    assert "the 1 other names tried" in side.current(order).error_message
    assert site.accounts == {"c_uni"}
    again = site.order(project, "four")
    site.with_(settings={"check_backend_id_uniqueness": True, "backend_id_max_retries": 2}).cycle()
    assert site.resource(again).backend_id == "a_climate-1"


@pytest.mark.guarantee("orders: Names")
@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_the_only_name_of_an_order_is_not_taken_from_one_that_has_ended(
    testbed: SimulatedSite, spelled: Callable[[str], str]
) -> None:
    project = testbed.project("climate", ada="ada01")
    old = testbed.created(project, "old")
    side = testbed.sandbox.customer
    side.place_terminate_order(old)
    testbed.cycle()
    side.edit(side.current(old), backend_id=spelled(old.backend_id))
    order = testbed.order(project, "new")
    side.edit(testbed.resource(order), slug=old.slug)
    strict = testbed.with_(settings={"check_backend_id_uniqueness": True})
    strict.cycle()
    assert testbed.state(order) == "erred"
    assert "belongs to another resource in Waldur" in side.current(order).error_message
    assert testbed.accounts == {"c_uni"}


def test_a_closed_account_is_not_adopted_by_an_order_of_the_same_name(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings={"soft_delete": True})
    project = testbed.project("climate", ada="ada01")
    old = site.created(project, "old")
    side = testbed.sandbox.customer
    side.place_terminate_order(old)
    site.cycle()
    assert old.backend_id in testbed.accounts
    order = testbed.order(project, "new")
    side.edit(testbed.resource(order), slug=old.slug)
    site.cycle()
    assert testbed.state(order) == "erred"
    assert testbed.slurm.state.accounts[old.backend_id].members == {}
    back = side.place_restore_order(old)
    site.cycle()
    assert testbed.state(back) == "done"


def test_while_the_history_cannot_be_read_no_name_is_given(testbed: SimulatedSite) -> None:
    order = testbed.order(testbed.project("climate", ada="ada01"))
    strict = testbed.with_(settings={"check_backend_id_uniqueness": True})
    testbed.sandbox.faults.add(
        "marketplace_provider_resources_list", "status", status=403, skip=1, times=1
    )
    with contextlib.suppress(SiteAgentError):
        strict.cycle()
    assert testbed.state(order) == "executing"
    assert testbed.accounts == set()
    strict.cycle()
    assert testbed.state(order) == "done"


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.parametrize("version", ["7.7.9", "7.9.0", "8.0.5", "8.1.3"])
def test_every_generation_of_servers_is_served(
    tmp_path_factory: pytest.TempPathFactory, version: str
) -> None:
    with a_simulated_site(tmp_path_factory.mktemp("h") / "lock", version) as testbed:
        resource = testbed.created(testbed.project(ada="ada01"))
        update = testbed.sandbox.customer.place_update_order(resource, {"cpu": 20})
        testbed.cycle()
        assert testbed.state(update) == "done"
        assert testbed.account(update).limits["cpu"] == 1200000
        assert testbed.resource(update).state == "OK"
        end = testbed.sandbox.customer.place_terminate_order(resource)
        testbed.cycle()
        assert testbed.state(end) == "done"
        assert testbed.resource(end).state == "Terminated"


def test_a_termination_of_a_resource_that_is_terminated_already_ends(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.created(testbed.project(ada="ada01"))
    order = testbed.sandbox.customer.place_terminate_order(resource)
    testbed.sandbox.customer.edit(testbed.resource(order), state="Terminated")
    testbed.cycle()
    assert resource.backend_id not in testbed.accounts
    assert testbed.state(order) == "done"


def test_an_account_of_another_offering_is_not_adopted_in_any_spelling(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    other = side.add_offering("Other", testbed.sandbox.provider)
    project = testbed.project(ada="ada01")
    order = testbed.order(project)
    name = f"a_{testbed.resource(order).slug}"
    elsewhere = side.place_create_order(project, "x", {}, offering=other)
    side.edit(testbed.resource(elsewhere), backend_id=name.upper(), state="OK")
    for words in (
        ["account", "name=c_uni", "parent=root", "organization=c_uni"],
        ["account", "name=p_climate", "parent=c_uni", "organization=p_climate"],
        ["account", f"name={name}", "parent=p_climate", "organization=p_climate"],
    ):
        testbed.slurm.run(["sacctmgr", "-i", "add", *words])
    testbed.cycle()
    assert testbed.state(order) == "erred"
    assert testbed.slurm.state.accounts[name].members == {}
