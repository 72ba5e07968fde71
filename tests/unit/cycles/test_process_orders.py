"""order_process between a served sandbox and a simulated cluster."""

from __future__ import annotations

import contextlib
import copy
from datetime import timedelta

import httpx
import pytest

from harness import House, a_house
from waldur_site_agent.cycles.order_report import Fate
from waldur_site_agent.cycles.orders import process_orders, repair_stuck_updates
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.placement import Placement, ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.simulator import Outage


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
    assert house.sandbox.requests.count() <= 10 + 4 * orders
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


def test_with_the_project_slug_policy_names_are_numbered(house: House) -> None:
    side = house.sandbox.customer
    side.edit(
        house.sandbox.offering,
        plugin_options={
            **house.sandbox.offering.plugin_options,
            "account_name_generation_policy": "project_slug",
        },
    )
    project = house.project("climate", ada="ada01")
    orders = [house.order(project, f"run {n}") for n in range(3)]
    house.cycle()
    assert [house.resource(order).backend_id for order in orders] == [
        "a_climate",
        "a_climate-0",
        "a_climate-1",
    ]


def test_when_the_cluster_is_away_orders_are_not_even_approved(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    for outage in (Outage.SLURMDBD_REFUSED, Outage.SLURMDBD_HUNG, Outage.MARIADB_AWAY):
        with house.slurm.outage(outage), pytest.raises(TemporaryError):
            house.cycle()
        assert house.state(order) == "pending-provider"
    house.cycle()
    assert house.state(order) == "done"


@pytest.mark.parametrize("after", range(1, 9))
def test_a_database_that_goes_away_in_mid_cycle_leaves_the_order_open(
    house: House, after: int
) -> None:
    order = house.order(house.project(ada="ada01"))
    with house.slurm.outage(Outage.SLURMDBD_REFUSED, after_commands=after):
        house.cycle()
        assert house.state(order) in ("executing", "done")
    house.cycle()
    assert house.state(order) == "done"
    assert house.members(order) == {"ada01"}
    assert house.resource(order).state == "OK"


def test_a_team_that_cannot_be_read_leaves_the_order_open_and_nobody_out(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    other = house.order(house.project("other", ada="ada01"))
    house.sandbox.faults.add(
        "marketplace_provider_resources_team_list", "status", status=403, times=1
    )
    house.cycle()
    states = sorted([house.state(order), house.state(other)])
    assert states == ["done", "executing"]
    house.cycle()
    assert {house.state(order), house.state(other)} == {"done"}
    assert house.members(order) == house.members(other) == {"ada01"}


def test_a_short_list_of_resources_stops_the_cycle_before_anything_is_written(
    house: House,
) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.faults.add(
        "marketplace_provider_resources_list", "short_page", rows=1, times=None
    )
    with pytest.raises(TemporaryError, match="resources"):
        house.cycle()
    assert house.state(order) == "executing"
    assert house.accounts == set()


def test_a_token_that_expires_in_mid_cycle_errs_nothing(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.faults.add("marketplace_orders_set_state_done", "status", status=401, times=None)
    house.cycle()
    assert house.state(order) == "executing"
    house.sandbox.faults.clear()
    house.cycle()
    assert house.state(order) == "done"


def test_a_server_that_answers_html_errs_nothing(house: House) -> None:
    order = house.order(house.project(ada="ada01"))
    for operation in (
        "marketplace_orders_list",
        "marketplace_provider_resources_list",
        "marketplace_offering_users_list",
        "marketplace_orders_set_state_done",
    ):
        house.sandbox.faults.add(operation, "html", times=None)
        with contextlib.suppress(TemporaryError):
            house.cycle()
        house.sandbox.faults.clear()
        assert house.state(order) != "erred"
    house.cycle()
    assert house.state(order) == "done"


def test_an_order_for_a_later_date_waits(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    tomorrow = (house.sandbox.clock.now() + timedelta(days=1)).date()
    order = side.place_create_order(project, "later", {"cpu": 1}, start_date=tomorrow)
    house.cycle()
    assert house.state(order) == "pending-start-date"
    assert house.accounts == set()


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


def test_an_order_that_waldur_has_not_begun_to_process_waits_for_the_next_pass(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with a_house(tmp_path_factory.mktemp("h") / "lock", "7.7.9") as house:
        resource = house.created(house.project(ada="ada01"))
        house.sandbox.worker.pause()
        order = house.sandbox.customer.place_terminate_order(resource)
        house.cycle()
        assert house.state(order) == "executing"
        assert resource.backend_id in house.accounts
        house.sandbox.worker.resume()
        house.cycle()
        assert house.state(order) == "done"
        assert house.resource(order).state == "Terminated"


def test_a_resource_left_in_updating_is_set_ok(house: House) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.sandbox.customer.edit(resource, state="Updating")
    with house.agent() as site:
        assert repair_stuck_updates(site) == 1
    assert house.sandbox.customer.current(resource).state == "OK"


@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_a_repair_that_waldur_refuses_does_not_stand_in_the_way(house: House, status: int) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.sandbox.customer.edit(resource, state="Updating")
    house.sandbox.faults.add("*_set_as_ok", "status", status=status, times=None)
    with house.agent() as site:
        assert repair_stuck_updates(site) == 0


def test_a_resource_that_a_late_task_leaves_in_updating_is_mended_by_the_next_passes(
    house: House,
) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.sandbox.customer.place_update_order(resource, {"cpu": 20})
    with house.agent() as site:
        process_orders(site)
        house.sandbox.customer.edit(house.sandbox.customer.current(resource), state="Updating")
        process_orders(site)
        assert house.sandbox.customer.current(resource).state == "OK"
        process_orders(site)
        house.sandbox.requests.clear()
        process_orders(site)
        assert house.sandbox.requests.by_operation() == {"marketplace_orders_list": 1}


@pytest.mark.parametrize("status", [400, 403])
def test_a_name_that_waldur_does_not_take_errs_nothing(house: House, status: int) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.faults.add("*_set_backend_id", "status", status=status, times=None)
    report = house.cycle()
    assert report.failed
    assert house.state(order) == "executing"
    house.sandbox.faults.clear()
    house.cycle()
    assert house.state(order) == "done"
    assert house.members(order) == {"ada01"}


@pytest.mark.parametrize("status", [400, 403])
def test_an_approval_that_waldur_refuses_is_reported(house: House, status: int) -> None:
    order = house.order(house.project(ada="ada01"))
    house.sandbox.faults.add("*_approve_by_provider", "status", status=status, times=None)
    report = house.cycle()
    assert report.failed
    assert "was not approved" in report.fates[0].reason
    assert house.state(order) == "pending-provider"


def test_an_order_approved_by_a_killed_agent_is_not_overtaken_either(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with a_house(tmp_path_factory.mktemp("h") / "lock", "7.7.9") as house:
        resource = house.created(house.project(ada="ada01"), cpu=10)
        house.sandbox.worker.pause()
        order = house.sandbox.customer.place_update_order(resource, {"cpu": 20})
        with house.agent() as site:
            site.waldur.approve_order(order.uuid)
        house.cycle()
        assert house.state(order) == "executing"
        house.sandbox.worker.resume()
        house.cycle()
        assert house.state(order) == "done"
        assert house.resource(order).state == "OK"


def test_a_termination_of_a_resource_that_is_terminated_already_ends(house: House) -> None:
    resource = house.created(house.project(ada="ada01"))
    order = house.sandbox.customer.place_terminate_order(resource)
    house.sandbox.customer.edit(house.resource(order), state="Terminated")
    house.cycle()
    assert resource.backend_id not in house.accounts
    assert house.state(order) == "done"


def test_projects_that_a_server_does_not_name_keep_their_teams_apart(house: House) -> None:
    house = house.with_(transport=_WithoutProjects)
    first = house.order(house.project("one", ada="ada01"))
    second = house.order(house.project("two", bob="bob01"))
    house.cycle()
    assert (house.members(first), house.members(second)) == ({"ada01"}, {"bob01"})


class _WithoutProjects(httpx.HTTPTransport):
    """Answers of a server that shows no project's UUID."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        body = response.read().replace(b'"project_uuid"', b'"other"')
        kept = ("content-type", "x-result-count", "link")
        headers = {name: value for name, value in response.headers.items() if name in kept}
        return httpx.Response(response.status_code, headers=headers, content=body)


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


def test_a_defect_met_on_one_order_does_not_stop_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = house.order(house.project("bad", ada="ada01"))
    good = house.order(house.project("good", ada="ada01"))
    place = SlurmBackend.place

    def defective(self: SlurmBackend, request: ResourceRequest, slug: str) -> Placement:
        if request.project_slug == "bad":
            raise KeyError("a bug")
        return place(self, request, slug)

    monkeypatch.setattr(SlurmBackend, "place", defective)
    report = house.cycle()
    assert report.failed
    assert (house.state(bad), house.state(good)) == ("executing", "done")


def test_a_resource_that_is_really_being_updated_is_left_alone(house: House) -> None:
    resource = house.created(house.project(ada="ada01"))
    house.sandbox.customer.place_update_order(resource, {"cpu": 20})
    with house.agent() as site:
        assert repair_stuck_updates(site) == 0
    assert house.sandbox.customer.current(resource).state == "Updating"


def test_an_order_that_cannot_be_understood_does_not_stop_the_others(house: House) -> None:
    project = house.project(ada="ada01")
    bad, good = house.order(project, "bad"), house.order(project, "good")
    house.sandbox.customer.edit(bad, limits={"cpu": "lots"})
    house.cycle()
    assert house.state(bad) == "pending-provider"
    assert house.state(good) == "done"
