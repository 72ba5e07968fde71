"""membership_sync between a served sandbox and a simulated cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from harness import House, a_house
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.sandbox import Project, Resource
from waldur_site_agent_slurm.simulator import Outage


def members(house: House, resource: Resource) -> set[str]:
    return set(house.slurm.state.accounts[resource.backend_id].members)


def settled(house: House, project: Project, name: str = "run", **limits: float) -> Resource:
    """A resource after a first pass, so that the next has nothing to do."""
    resource = house.created(project, name, **limits)
    house.sync()
    forget(house)
    return house.sandbox.customer.current(resource)


def forget(house: House) -> None:
    house.sandbox.requests.clear()
    house.slurm.commands_run.clear()
    house.slurm.history.clear()


def writes(house: House) -> int:
    return house.slurm.commands_run["sacctmgr write"]


def test_a_person_who_joins_is_added_and_one_who_leaves_is_removed(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01", bob="bob01")
    resource = settled(house, project)
    side.remove_member(project, "bob")
    side.add_member(project, house.person("cyd", "cyd01"))
    report = house.sync()
    assert not report.failed
    assert members(house, resource) == {"ada01", "cyd01"}
    reasons = {n: r for step in report.membership.plan.steps for n, r in step.reasons.items()}
    assert reasons == {
        "bob01": "is no longer in the project's team",
        "cyd01": "is in the project's team",
    }


def test_a_person_who_comes_back_is_added_again(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01", bob="bob01")
    resource = settled(house, project)
    side.remove_member(project, "bob")
    house.sync()
    side.add_member(project, "bob")
    house.sync()
    assert members(house, resource) == {"ada01", "bob01"}


def test_a_second_cycle_without_news_writes_nothing_anywhere(house: House) -> None:
    settled(house, house.project(ada="ada01", bob="bob01"))
    house.sync()
    assert house.sandbox.requests.writes() == []
    assert writes(house) == 0


@pytest.mark.parametrize("bulk", [True, False], ids=["in bulk", "team by team"])
def test_an_unchanged_site_costs_a_bounded_number_of_requests(house: House, bulk: bool) -> None:
    side = house.sandbox.customer
    for number in range(100):
        project = house.project(
            f"project{number}", **{f"p{number}u{n}": f"p{number}u{n}" for n in range(10)}
        )
        house.order(project, f"run {number}")
    house.cycle()
    house.sync()
    if not bulk:
        house.sandbox.faults.add("*_project_permissions_list", "status", status=403, times=None)
    forget(house)
    with house.agent() as site:
        site.waldur.whoami()
    report = house.sync()
    assert not report.failed
    assert house.sandbox.requests.count() <= (18 if bulk else 115)
    assert house.sandbox.requests.writes() == []
    assert sum(house.slurm.commands_run.values()) <= 2
    assert writes(house) == 0
    assert len(side.world.resources) == 100


def test_churn_costs_one_command_per_account_and_direction(house: House) -> None:
    side = house.sandbox.customer
    people = {f"user{n}": f"u{n:03}" for n in range(10)}
    projects = [house.project(f"project{n}", **people) for n in range(4)]
    for project in projects:
        house.created(project)
    house.sync()
    for project in projects[:2]:
        for name in ("user1", "user2", "user3"):
            side.remove_member(project, name)
        for number in range(10, 13):
            side.add_member(project, house.person(f"user{number}", f"u{number:03}"))
    forget(house)
    house.with_(removals_allowed=True).sync()
    removals = [c for c in house.slurm.history if c[:4] == ("sacctmgr", "-i", "remove", "user")]
    additions = [
        c
        for c in house.slurm.history
        if c[:4] == ("sacctmgr", "-i", "add", "user") and "account=root" not in c
    ]
    assert (len(removals), len(additions)) == (2, 2)


def test_a_user_in_two_projects_keeps_the_other_one(house: House) -> None:
    side = house.sandbox.customer
    one, two = house.project("one", ada="ada01"), house.project("two", ada="ada01")
    first, second = settled(house, one), settled(house, two)
    side.remove_member(one, "ada")
    house.sync()
    assert (members(house, first), members(house, second)) == (set(), {"ada01"})
    side.place_terminate_order(side.current(first))
    house.cycle()
    house.sync()
    assert members(house, second) == {"ada01"}


def test_users_whom_waldur_does_not_know_are_left_alone_and_listed(house: House) -> None:
    resource = settled(house, house.project(ada="ada01"))
    add = ["sacctmgr", "-i", "add", "user", "name=oper", f"account={resource.backend_id}"]
    house.slurm.run(add)
    report = house.sync()
    assert report.membership.accounts[0].unknown == ("oper",)
    assert members(house, resource) == {"ada01", "oper"}
    house.with_(remove_unknown_users=True).sync()
    assert members(house, resource) == {"ada01"}


@pytest.mark.parametrize("kind", ["status", "html", "cut", "short_page"])
@pytest.mark.parametrize("code", [403, 404, 500])
def test_a_team_that_cannot_be_read_costs_nobody_there_anything(
    house: House, kind: str, code: int
) -> None:
    side = house.sandbox.customer
    one, two = house.project("one", ada="ada01", bob="bob01"), house.project("two", cyd="cyd01")
    first, second = settled(house, one), settled(house, two)
    side.remove_member(one, "bob")
    side.add_member(two, house.person("dan", "dan01"))
    house.sandbox.faults.add("*_project_permissions_list", "status", status=403, times=None)
    if kind == "status":
        house.sandbox.faults.add("*_team_list", "status", status=code, times=None)
    else:
        house.sandbox.faults.add("*_team_list", kind, times=None)  # type: ignore[arg-type]  # parametrized
    report = house.sync()
    if kind != "short_page":  # a team is no paged list
        assert report.failed
        assert members(house, first) == {"ada01", "bob01"}
        assert members(house, second) == {"cyd01"}
    house.sandbox.faults.clear()
    house.sync()
    assert (members(house, first), members(house, second)) == ({"ada01"}, {"cyd01", "dan01"})


def test_a_short_list_of_roles_is_not_believed(house: House) -> None:
    resource = settled(house, house.project(ada="ada01", bob="bob01"))
    house.sandbox.faults.add("*_project_permissions_list", "short_page", rows=2, times=None)
    house.sync()
    assert members(house, resource) == {"ada01", "bob01"}


@pytest.mark.parametrize("operation", ["*_resources_list", "*_offering_users_list"])
def test_a_short_list_stops_the_cycle_before_anything_is_written(
    house: House, operation: str
) -> None:
    resource = settled(house, house.project(ada="ada01", bob="bob01"))
    house.sandbox.faults.add(operation, "short_page", rows=1, times=None)
    with pytest.raises(TemporaryError):
        house.sync()
    assert members(house, resource) == {"ada01", "bob01"}
    assert writes(house) == 0
    assert house.sandbox.requests.writes() == []


def test_an_empty_list_of_offering_users_removes_nobody(house: House) -> None:
    side = house.sandbox.customer
    resource = settled(house, house.project(ada="ada01", bob="bob01"))
    hidden = {"service_provider_can_create_offering_user": False}
    offering = house.sandbox.offering
    side.edit(offering, plugin_options={**offering.plugin_options, **hidden})
    report = house.sync()
    assert members(house, resource) == {"ada01", "bob01"}
    assert report.membership.accounts[0].unknown == ("ada01", "bob01")


@pytest.mark.parametrize(
    "outage", [Outage.SLURMDBD_REFUSED, Outage.SLURMDBD_HUNG, Outage.MARIADB_AWAY]
)
def test_a_cluster_that_is_away_changes_nothing_in_waldur(house: House, outage: Outage) -> None:
    resource = settled(house, house.project(ada="ada01"))
    with house.slurm.outage(outage), pytest.raises(TemporaryError):
        house.sync()
    assert house.sandbox.requests.writes() == []
    assert house.sandbox.customer.current(resource).state == "OK"


def test_too_many_removals_are_refused_as_a_whole_and_additions_applied(house: House) -> None:
    side = house.sandbox.customer
    people = {f"user{n}": f"u{n:03}" for n in range(20)}
    project = house.project(**people)
    resource = settled(house, project)
    for number in range(12):
        side.remove_member(project, f"user{number}")
    side.add_member(project, house.person("new", "new01"))
    for _ in range(2):
        report = house.sync()
        assert "12 of 2" in report.refusal
        assert members(house, resource) == {*people.values(), "new01"}
    house.with_(removals_allowed=True).sync()
    assert len(members(house, resource)) == 9


def test_restricted_access_empties_the_account(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    side.add_service_account(project, "svc1")
    resource = settled(house, project)
    assert members(house, resource) == {"ada01", "svc1"}
    side.set_flags(resource, restrict_member_access=True)
    house.sync()
    assert members(house, resource) == set()
    side.set_flags(resource, restrict_member_access=False)
    house.sync()
    assert members(house, resource) == {"ada01", "svc1"}


def test_service_and_course_accounts_come_and_go_with_their_state(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    service = side.add_service_account(project, "svc1")
    side.add_course_account(project, "crs1")
    resource = settled(house, project)
    assert members(house, resource) == {"ada01", "svc1", "crs1"}
    job = house.slurm.submit_job("crs1", resource.backend_id)
    stopped = house.slurm.submit_job("svc1", resource.backend_id)
    side.set_project_account_state(service, "Closed")
    for _ in range(3):
        house.sync()
    assert members(house, resource) == {"ada01", "crs1"}
    assert job in house.slurm.state.jobs
    assert stopped not in house.slurm.state.jobs


@pytest.mark.parametrize("kind", ["service", "course"])
def test_accounts_of_projects_that_cannot_be_read_stay(house: House, kind: str) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    side.add_service_account(project, "svc1")
    side.add_course_account(project, "crs1")
    resource = settled(house, project)
    house.sandbox.faults.add(f"*{kind}_accounts_list", "status", status=500, times=None)
    house.with_(remove_unknown_users=True).sync()
    assert members(house, resource) == {"ada01", "svc1", "crs1"}


def test_a_user_whom_waldur_deletes_is_removed_everywhere_and_then_deleted(house: House) -> None:
    side = house.sandbox.customer
    resources = [settled(house, house.project(slug, ada="ada01")) for slug in ("one", "two")]
    side.request_deletion("ada")
    report = house.sync()
    assert not report.failed
    assert [members(house, resource) for resource in resources] == [set(), set()]
    assert [u.state for u in side.world.offering_users.values()] == ["Deleted"]


def test_a_user_is_not_marked_deleted_while_an_account_keeps_him(house: House) -> None:
    side = house.sandbox.customer
    settled(house, house.project(ada="ada01"))
    side.request_deletion("ada")
    with house.slurm.outage(Outage.SLURMDBD_REFUSED, after_commands=1):
        house.sync()
    assert [u.state for u in side.world.offering_users.values()] == ["Deleting"]
    house.sync()
    assert [u.state for u in side.world.offering_users.values()] == ["Deleted"]


def test_a_member_whom_the_system_does_not_know_waits_and_fails_nothing(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    resource = settled(house, project)
    side.add_member(project, house.person("bob", "bob01"))
    forget(house)
    report = house.with_(unknown_to_the_system=frozenset({"bob01"})).sync()
    assert not report.failed
    assert report.membership.accounts[0].waiting == ("bob01",)
    assert writes(house) == 0
    house.sync()
    assert members(house, resource) == {"ada01", "bob01"}


def test_a_username_that_changes_in_waldur_adds_the_new_and_names_the_old(house: House) -> None:
    resource = settled(house, house.project(ada="ada01"))
    house.person("ada", "lovelace")
    report = house.sync()
    assert members(house, resource) == {"ada01", "lovelace"}
    assert report.membership.accounts[0].unknown == ("ada01",)


def test_names_in_another_case_are_the_same_names(house: House) -> None:
    resource = settled(house, house.project(ada="ADA01"))
    house.sandbox.customer.edit(resource, backend_id=resource.backend_id.upper())
    forget(house)
    report = house.sync()
    assert not report.failed
    assert members(house, resource) == {"ada01"}
    assert writes(house) == 0


def test_pausing_and_restoring_keeps_the_sites_own_qos_list(house: House) -> None:
    side = house.sandbox.customer
    resource = settled(house, house.project(ada="ada01"))
    account = f"name={resource.backend_id}"
    with house.slurm.change() as state:
        state.qos += [name for name in ("long", "limited", "paused") if name not in state.qos]
    house.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "qos=normal,long"]
    )
    house.sync()
    assert set(house.slurm.state.accounts[resource.backend_id].qos) == {"normal", "long"}
    forget(house)
    side.set_flags(resource, paused=True, downscaled=True)
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    assert side.current(resource).backend_metadata["qos"] == "paused"
    side.set_flags(resource, paused=False)
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos == ["limited"]
    side.set_flags(resource, downscaled=False)
    house.sync()
    assert set(house.slurm.state.accounts[resource.backend_id].qos) == {"normal", "long"}
    metadata = side.current(resource).backend_metadata
    assert set(str(metadata["qos"]).split(",")) == {"normal", "long"}
    assert not any(key.endswith("_before") for key in metadata)


def test_a_pause_killed_after_any_request_still_restores_the_old_list(house: House) -> None:
    side = house.sandbox.customer
    resource = settled(house, house.project(ada="ada01"))
    side.set_flags(resource, paused=True)
    house.sandbox.faults.add("*_set_backend_metadata", "lost_answer", times=1)
    house.sync()
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    side.set_flags(resource, paused=False)
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].qos in ([], ["normal"])


def test_limits_of_a_member_are_set_changed_and_withdrawn(house: House) -> None:
    side = house.sandbox.customer
    resource = settled(house, house.project(ada="ada01", bob="bob01"))
    side.set_user_limit(resource, "ada", "cpu", 2)

    def limit_of(name: str) -> str:
        query = f"account={resource.backend_id}"
        words = ["show", "assoc", "wopl", "where", query, f"user={name}"]
        _, out, _ = house.slurm.run(["sacctmgr", "-P", "-n", *words, "format=grptresmins"])
        return out.strip()

    house.sync()
    assert (limit_of("ada01"), limit_of("bob01")) == ("cpu=120000", "")
    forget(house)
    house.sync()
    assert writes(house) == 0
    side.clear_user_limit(resource, "ada", "cpu")
    house.sync()
    assert limit_of("ada01") == ""


def test_limits_found_in_the_cluster_are_told_once(house: House) -> None:
    resource = settled(house, house.project(ada="ada01"), cpu=10, mem=2)
    account = f"name={resource.backend_id}"
    house.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "GrpTRESMins=cpu=900000"]
    )
    house.sync()
    assert house.sandbox.customer.current(resource).limits == {"cpu": 15, "mem": 2}
    forget(house)
    house.sync()
    assert house.sandbox.requests.writes() == []


def test_limits_that_a_periodic_policy_owns_are_not_told(house: House) -> None:
    resource = settled(house, house.project(ada="ada01"), cpu=10)
    house.sandbox.customer.add_periodic_policy()
    account = f"name={resource.backend_id}"
    house.slurm.run(
        ["sacctmgr", "-i", "modify", "account", "where", account, "set", "GrpTRESMins=cpu=900000"]
    )
    house.sync()
    assert house.sandbox.requests.count("*_set_limits") == 0


def test_a_resource_with_an_order_in_progress_keeps_its_members_up_to_date(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    resource = settled(house, project, cpu=10)
    side.place_update_order(resource, {"cpu": 20})
    side.set_flags(resource, paused=True)
    side.add_member(project, house.person("bob", "bob01"))
    house.sync()
    assert members(house, resource) == {"ada01", "bob01"}
    assert house.slurm.state.accounts[resource.backend_id].qos in ([], ["normal"])
    assert house.sandbox.requests.count("*_set_limits") == 0


def test_a_missing_account_is_marked_once_and_set_ok_when_it_is_back(house: House) -> None:
    side = house.sandbox.customer
    resource = settled(house, house.project(ada="ada01"))
    other = settled(house, house.project("other", bob="bob01"))
    name = resource.backend_id
    house.slurm.run(["sacctmgr", "-i", "remove", "account", "where", f"name={name}"])
    assert house.sync().failed
    assert side.current(resource).state == "Erred"
    assert name in side.current(resource).error_message
    assert side.current(other).state == "OK"
    house.sync()
    assert house.sandbox.requests.count("*_set_as_erred") == 1
    words = [f"name={name}", "parent=p_climate", "organization=p_climate"]
    house.slurm.run(["sacctmgr", "-i", "add", "account", *words])
    assert not house.sync().failed
    assert side.current(resource).state == "OK"
    assert members(house, resource) == {"ada01"}


def test_a_cluster_without_any_of_the_accounts_marks_nothing(house: House) -> None:
    resources = [settled(house, house.project(f"p{n}", ada="ada01")) for n in range(12)]
    with house.slurm.change() as state:
        for resource in resources:
            del state.accounts[resource.backend_id]
    report = house.sync()
    assert "right cluster" in " ".join(report.failures)
    assert house.sandbox.requests.count("*_set_as_erred") == 0


@pytest.mark.parametrize(("minutes", "renewals"), [(45, 0), (55, 1)])
def test_the_sync_mark_is_renewed_only_when_it_is_old(
    house: House, minutes: int, renewals: int
) -> None:
    resource = settled(house, house.project(ada="ada01"))
    synced = datetime.now(UTC) - timedelta(minutes=minutes)
    house.sandbox.customer.edit(resource, last_sync=synced)
    house.sync()
    assert house.sandbox.requests.count("*_refresh_last_sync") == renewals


def test_a_token_for_the_members_only_still_does_its_work(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01")
    resource = settled(house, project)
    for call in ("set_backend_metadata", "refresh_last_sync", "set_limits", "set_as_ok"):
        house.sandbox.faults.add(f"*_{call}", "status", status=403, times=None)
    side.add_member(project, house.person("bob", "bob01"))
    side.set_flags(resource, paused=True)
    house.sync()
    assert members(house, resource) == {"ada01", "bob01"}
    assert house.slurm.state.accounts[resource.backend_id].qos == ["paused"]


def test_a_dry_run_writes_nowhere(house: House) -> None:
    side, project = house.sandbox.customer, house.project(ada="ada01", bob="bob01")
    resource = settled(house, project)
    side.remove_member(project, "bob")
    side.set_flags(resource, paused=True)
    side.request_deletion("ada")
    house.sync(dry_run=True)
    assert house.sandbox.requests.writes() == []
    assert writes(house) == 0
    assert members(house, resource) == {"ada01", "bob01"}


def test_two_resources_on_one_account_share_their_members(house: House) -> None:
    side = house.sandbox.customer
    first = settled(house, house.project("one", ada="ada01"))
    second = settled(house, house.project("two", bob="bob01"))
    side.edit(second, backend_id=first.backend_id)
    side.set_flags(first, paused=True)
    house.sync()
    assert members(house, first) == {"ada01", "bob01"}
    assert house.slurm.state.accounts[first.backend_id].qos in ([], ["normal"])


@pytest.mark.parametrize("version", ["7.7.9", "7.9.0", "8.0.5", "8.1.3"])
def test_every_generation_of_servers_is_served(
    tmp_path_factory: pytest.TempPathFactory, version: str
) -> None:
    with a_house(tmp_path_factory.mktemp("h") / "lock", version) as house:
        side, project = house.sandbox.customer, house.project(ada="ada01")
        resource = settled(house, project)
        side.add_member(project, house.person("bob", "bob01"))
        side.remove_member(project, "ada")
        report = house.sync()
        assert not report.failed, report.failures
        assert members(house, resource) == {"bob01"}
        forget(house)
        house.sync()
        assert house.sandbox.requests.writes() == []
