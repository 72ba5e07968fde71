"""order_process between a served sandbox and a simulated cluster."""

from __future__ import annotations

import copy
from uuid import UUID

import pytest

from harness import House, a_house
from waldur_site_agent.cycles.order_inputs import Fate
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.model.backend import OrderScope


def test_an_order_becomes_an_account_with_parents_limits_and_team(house: House) -> None:
    project = house.project("climate", ada="ada01", bob="bob01")
    order = house.order(project, "Ocean", cpu=10, mem=2)
    report = house.cycle()
    assert [fate.fate for fate in report.fates] == [Fate.DONE]
    assert house.state(order) == "done"
    resource, account = house.resource(order), house.account(order)
    assert resource.state == "OK"
    assert resource.backend_id == f"a_{resource.slug}"
    assert (account.parent, account.organization) == ("p_climate", "p_climate")
    assert account.description == "ocean"
    assert account.limits == {"cpu": 600000, "mem": 122880}
    assert set(account.members) == {"ada01", "bob01"}
    accounts = house.slurm.state.accounts
    assert (accounts["p_climate"].parent, accounts["c_uni"].parent) == ("c_uni", "root")


def test_only_the_team_is_added_never_other_users_of_the_offering(house: House) -> None:
    project = house.project("climate", ada="ada01")
    house.project("physics", eve="eve01")
    order = house.order(project)
    house.cycle()
    assert house.members(order) == {"ada01"}


def test_members_without_a_working_username_wait_for_the_membership_sync(house: House) -> None:
    project = house.project("climate", ada="ada01")
    side = house.sandbox.customer
    for name, state, restricted in (("bob", "Creating", False), ("cyd", "OK", True)):
        person = side.add_user(name)
        side.set_account(person, name, state, is_restricted=restricted)
        side.add_member(project, person)
    order = house.order(project)
    house.cycle()
    assert house.members(order) == {"ada01"}
    assert house.state(order) == "done"


def test_a_member_whom_the_operating_system_does_not_know_waits(house: House) -> None:
    project = house.project("climate", ada="ada01", bob="bob01")
    order = house.order(project)
    house.with_(unknown_to_the_system=frozenset({"bob01"})).cycle()
    assert house.members(order) == {"ada01"}
    assert house.state(order) == "done"


def test_an_idle_cycle_is_one_request_and_no_command(house: House) -> None:
    house.created(house.project(ada="ada01"))
    house.cycle()
    assert house.sandbox.requests.by_operation() == {"marketplace_orders_list": 1}
    assert house.slurm.history == []


@pytest.mark.parametrize("orders", [1, 5, 25])
def test_requests_and_commands_grow_with_orders_not_with_members(house: House, orders: int) -> None:
    people = {f"user{n}": f"u{n:03}" for n in range(8)}
    projects = [house.project(f"project{n}", **people) for n in range(orders)]
    placed = [house.order(project) for project in projects]
    house.sandbox.requests.clear()
    house.cycle()
    assert {house.state(order) for order in placed} == {"done"}
    assert house.sandbox.requests.count() <= 10 + 6 * orders
    writes = house.slurm.commands_run["sacctmgr write"]
    accounts = 2 * orders + 1
    additions = orders + 1  # one per account, and one for users that are new to the cluster
    assert writes == accounts + additions
    assert sum(house.slurm.commands_run.values()) - writes <= 6


def test_twenty_five_orders_at_once_are_all_carried_out(house: House) -> None:
    project = house.project(ada="ada01")
    placed = [house.order(project, f"run {n}") for n in range(25)]
    house.cycle()
    assert {house.state(order) for order in placed} == {"done"}
    assert len({house.resource(order).backend_id for order in placed}) == 25


def test_a_second_cycle_without_news_writes_nothing(house: House) -> None:
    house.created(house.project(ada="ada01"))
    house.cycle()
    assert house.sandbox.requests.writes() == []
    assert house.slurm.commands_run["sacctmgr write"] == 0


def test_an_update_sets_the_new_limits_and_leaves_the_rest(house: House) -> None:
    resource = house.created(house.project(ada="ada01"), cpu=10, mem=2)
    order = house.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 2})
    house.cycle()
    assert house.state(order) == "done"
    assert house.account(order).limits == {"cpu": 1200000, "mem": 122880}
    assert house.members(order) == {"ada01"}
    assert house.resource(order).limits == {"cpu": 20, "mem": 2}
    assert house.sandbox.requests.count("*_set_limits") == 0


def test_a_termination_removes_jobs_users_account_and_the_empty_project(house: House) -> None:
    resource = house.created(house.project(ada="ada01"))
    job = house.slurm.submit_job("ada01", resource.backend_id)
    order = house.sandbox.customer.place_terminate_order(resource)
    house.cycle()
    assert house.state(order) == "done"
    assert house.resource(order).state == "Terminated"
    assert house.accounts == {"c_uni"}
    assert job not in house.slurm.state.jobs


def test_a_project_account_stays_while_another_resource_lives_below_it(house: House) -> None:
    project = house.project(ada="ada01")
    first, second = house.created(project, "one"), house.created(project, "two")
    house.sandbox.customer.place_terminate_order(first)
    house.cycle()
    assert house.accounts == {"c_uni", "p_climate", second.backend_id}
    assert set(house.slurm.state.accounts[second.backend_id].members) == {"ada01"}


def test_a_termination_of_an_account_that_is_gone_is_done(house: House) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.slurm.run(["sacctmgr", "-i", "remove", "account", "where", f"name={resource.backend_id}"])
    order = house.sandbox.customer.place_terminate_order(resource)
    house.cycle()
    assert house.state(order) == "done"


def test_a_dry_run_changes_nothing_on_either_side(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.requests.clear()
    report = house.cycle(dry_run=True)
    assert [type(step.action).__name__ for step in report.plans[0].steps] == [
        "CreateResource",
        "AddMembers",
    ]
    assert house.state(order) == "pending-provider"
    assert house.sandbox.requests.writes() == []
    assert house.slurm.commands_run["sacctmgr write"] == 0
    assert house.accounts == set()


@pytest.mark.parametrize(("customer", "project"), [("", "climate"), ("uni", "")])
def test_a_missing_slug_fails_the_order_with_words_its_owner_understands(
    house: House, customer: str, project: str
) -> None:
    side = house.sandbox.customer
    order = house.order(side.add_project("P", side.add_customer("C", customer), project))
    house.cycle()
    assert house.state(order) == "erred"
    missing = "project" if customer else "customer"
    assert f"the {missing} has no slug" in side.current(order).error_message
    assert house.accounts == set()


def test_one_bad_order_never_stops_the_others(house: House) -> None:
    side = house.sandbox.customer
    bad = house.order(side.add_project("P", side.add_customer("C", "c"), "a,root"))
    negative = house.order(house.project("neg", ada="ada01"), cpu=-1)
    good = house.order(house.project("good", ada="ada01"))
    house.cycle()
    assert [house.state(order) for order in (bad, negative, good)] == ["erred", "erred", "done"]


def test_a_foreign_account_of_the_same_name_is_left_as_it_is(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    name = f"a_{house.resource(order).slug}"
    house.slurm.run(["sacctmgr", "-i", "add", "account", f"name={name}", "organization=physics"])
    before = copy.deepcopy(house.slurm.state.accounts[name])
    house.cycle()
    assert house.state(order) == "erred"
    assert (
        f'account "{name}" exists under "root"'
        in house.sandbox.customer.current(order).error_message
    )
    assert house.slurm.state.accounts[name] == before


def named_after_projects(house: House) -> None:
    offering = house.sandbox.offering
    options = {**offering.plugin_options, "account_name_generation_policy": "project_slug"}
    house.sandbox.customer.edit(offering, plugin_options=options)


def test_with_the_project_slug_policy_names_are_numbered(house: House) -> None:
    named_after_projects(house)
    project = house.project("climate", ada="ada01")
    orders = [house.order(project, f"run {n}") for n in range(3)]
    house.cycle()
    assert [house.resource(order).backend_id for order in orders] == [
        "a_climate",
        "a_climate-0",
        "a_climate-1",
    ]


def test_a_name_that_was_used_since_the_order_is_not_given_again(house: House) -> None:
    """Usage counts from the order on: what the old account used then would be billed twice."""
    named_after_projects(house)
    project = house.project("climate", ada="ada01")
    old = house.created(project, "old")
    waiting = [house.order(project, f"early {number}") for number in range(2)]
    side = house.sandbox.customer
    ended = side.place_terminate_order(old)
    with house.agent() as site:
        process_orders(site, scopes=[OrderScope(UUID(ended.uuid))])
    assert house.state(ended) == "done"
    house.cycle()
    later = house.order(project, "late")
    house.cycle()
    assert [house.resource(order).backend_id for order in (*waiting, later)] == [
        "a_climate-0",
        "a_climate-1",
        "a_climate",
    ]


@pytest.mark.parametrize("version", ["7.7.9", "7.9.0", "8.0.5", "8.1.3"])
def test_every_generation_of_servers_is_served(
    tmp_path_factory: pytest.TempPathFactory, version: str
) -> None:
    with a_house(tmp_path_factory.mktemp("h") / "lock", version) as house:
        resource = house.created(house.project(ada="ada01"))
        update = house.sandbox.customer.place_update_order(resource, {"cpu": 20})
        house.cycle()
        assert house.state(update) == "done"
        assert house.account(update).limits["cpu"] == 1200000
        assert house.resource(update).state == "OK"
        end = house.sandbox.customer.place_terminate_order(resource)
        house.cycle()
        assert house.state(end) == "done"
        assert house.resource(end).state == "Terminated"


def test_a_termination_of_a_resource_that_is_terminated_already_ends(house: House) -> None:
    resource = house.created(house.project(ada="ada01"))
    order = house.sandbox.customer.place_terminate_order(resource)
    house.sandbox.customer.edit(house.resource(order), state="Terminated")
    house.cycle()
    assert resource.backend_id not in house.accounts
    assert house.state(order) == "done"


def test_an_account_of_another_offering_is_not_adopted_in_any_spelling(house: House) -> None:
    side = house.sandbox.customer
    other = side.add_offering("Other", house.sandbox.provider)
    project = house.project(ada="ada01")
    order = house.order(project)
    name = f"a_{house.resource(order).slug}"
    elsewhere = side.place_create_order(project, "x", {}, offering=other)
    side.edit(house.resource(elsewhere), backend_id=name.upper(), state="OK")
    for words in (
        ["account", "name=c_uni", "parent=root", "organization=c_uni"],
        ["account", "name=p_climate", "parent=c_uni", "organization=p_climate"],
        ["account", f"name={name}", "parent=p_climate", "organization=p_climate"],
    ):
        house.slurm.run(["sacctmgr", "-i", "add", *words])
    house.cycle()
    assert house.state(order) == "erred"
    assert house.slurm.state.accounts[name].members == {}
