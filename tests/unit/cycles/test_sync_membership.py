"""membership_sync between a served sandbox and a simulated cluster."""

from __future__ import annotations

import pytest

from harness import SimulatedSite
from harness.odd_rows import OddRows
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_slurm.simulator import Outage


def test_a_person_who_joins_is_added_and_one_who_leaves_is_removed(testbed: SimulatedSite) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    side.remove_member(project, "bob")
    side.add_member(project, testbed.person("cyd", "cyd01"))
    report = testbed.sync()
    assert not report.failed
    assert testbed.members_of(resource) == {"ada01", "cyd01"}
    reasons = {n: r for step in report.membership.plan.steps for n, r in step.reasons.items()}
    assert reasons == {
        "bob01": "is no longer in the project's team",
        "cyd01": "is in the project's team",
    }


def test_a_person_who_comes_back_is_added_again(testbed: SimulatedSite) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    side.remove_member(project, "bob")
    testbed.sync()
    side.add_member(project, "bob")
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "bob01"}


@pytest.mark.guarantee("membership: What it costs")
def test_a_second_cycle_without_news_writes_nothing_anywhere(testbed: SimulatedSite) -> None:
    testbed.settled(testbed.project(ada="ada01", bob="bob01"))
    testbed.sync()
    assert testbed.sandbox.requests.writes() == []
    assert testbed.writing_commands == 0


@pytest.mark.guarantee("membership: What it costs")
@pytest.mark.guarantee("Requests and processes per cycle are a constant plus the number of changes")
@pytest.mark.parametrize("bulk", [True, False], ids=["in bulk", "team by team"])
def test_an_unchanged_site_costs_a_bounded_number_of_requests(
    testbed: SimulatedSite, bulk: bool
) -> None:
    side = testbed.sandbox.customer
    for number in range(30):
        project = testbed.project(
            f"project{number}", **{f"p{number}u{n}": f"p{number}u{n}" for n in range(3)}
        )
        testbed.order(project, f"run {number}")
    testbed.cycle()
    testbed.sync()
    if not bulk:
        testbed.sandbox.faults.add("*_project_permissions_list", "status", status=403, times=None)
    testbed.forget()
    with testbed.agent() as site:
        site.waldur.whoami()
    report = testbed.sync()
    assert not report.failed
    assert testbed.sandbox.requests.count() <= (18 if bulk else 45)
    assert testbed.sandbox.requests.writes() == []
    assert sum(testbed.slurm.commands_run.values()) <= 2
    assert testbed.writing_commands == 0
    assert len(side.world.resources) == 30


@pytest.mark.guarantee("membership: What it costs")
def test_churn_costs_one_command_per_account_and_direction(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    people = {f"user{n}": f"u{n:03}" for n in range(10)}
    projects = [testbed.project(f"project{n}", **people) for n in range(4)]
    for project in projects:
        testbed.created(project)
    testbed.sync()
    for place, project in enumerate(projects[:2]):
        for number in range(3 * place, 3 * place + 3):
            side.remove_member(project, f"user{number}")
        for number in range(10 + 3 * place, 13 + 3 * place):
            side.add_member(project, testbed.person(f"user{number}", f"u{number:03}"))
    testbed.forget()
    testbed.with_(removals_allowed=True).sync()
    removals = [c for c in testbed.slurm.history if c[:4] == ("sacctmgr", "-i", "remove", "user")]
    additions = [
        c
        for c in testbed.slurm.history
        if c[:4] == ("sacctmgr", "-i", "add", "user") and "account=root" not in c
    ]
    assert (len(removals), len(additions)) == (2, 2)


@pytest.mark.guarantee("membership: Who is removed, and who never")
def test_a_user_in_two_projects_keeps_the_other_one(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    one, two = testbed.project("one", ada="ada01"), testbed.project("two", ada="ada01")
    first, second = testbed.settled(one), testbed.settled(two)
    side.remove_member(one, "ada")
    testbed.sync()
    assert (testbed.members_of(first), testbed.members_of(second)) == (set(), {"ada01"})
    side.place_terminate_order(side.current(first))
    testbed.cycle()
    testbed.sync()
    assert testbed.members_of(second) == {"ada01"}


@pytest.mark.guarantee("membership: Who is removed, and who never")
@pytest.mark.guarantee("What the agent did not make, and Waldur does not name, stays")
def test_users_whom_waldur_does_not_know_are_left_alone_and_listed(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    add = ["sacctmgr", "-i", "add", "user", "name=oper", f"account={resource.backend_id}"]
    testbed.slurm.run(add)
    report = testbed.sync()
    assert report.membership.accounts[0].unknown == ("oper",)
    assert testbed.members_of(resource) == {"ada01", "oper"}
    testbed.with_(remove_unknown_users=True).sync()
    assert testbed.members_of(resource) == {"ada01"}


@pytest.mark.guarantee("membership: Who is removed, and who never")
@pytest.mark.guarantee("Nobody loses access because a read failed")
@pytest.mark.parametrize("kind", ["status", "html", "cut", "short_page"])
@pytest.mark.parametrize("code", [403, 404, 500])
def test_a_team_that_cannot_be_read_costs_nobody_there_anything(
    testbed: SimulatedSite, kind: str, code: int
) -> None:
    side = testbed.sandbox.customer
    one, two = testbed.project("one", ada="ada01", bob="bob01"), testbed.project("two", cyd="cyd01")
    first, second = testbed.settled(one), testbed.settled(two)
    side.remove_member(one, "bob")
    side.add_member(two, testbed.person("dan", "dan01"))
    testbed.sandbox.faults.add("*_project_permissions_list", "status", status=403, times=None)
    if kind == "status":
        testbed.sandbox.faults.add("*_team_list", "status", status=code, times=None)
    else:
        testbed.sandbox.faults.add("*_team_list", kind, times=None)  # type: ignore[arg-type]  # parametrized
    report = testbed.sync()
    if kind != "short_page":  # a team is no paged list
        assert report.failed
        assert testbed.members_of(first) == {"ada01", "bob01"}
        assert testbed.members_of(second) == {"cyd01"}
    testbed.sandbox.faults.clear()
    testbed.sync()
    assert (testbed.members_of(first), testbed.members_of(second)) == (
        {"ada01"},
        {"cyd01", "dan01"},
    )


def test_a_short_list_of_roles_is_not_believed(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01", bob="bob01"))
    testbed.sandbox.faults.add("*_project_permissions_list", "short_page", rows=2, times=None)
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "bob01"}


@pytest.mark.guarantee("membership: Who is removed, and who never")
@pytest.mark.guarantee("Nobody loses access because a read failed")
@pytest.mark.parametrize("operation", ["*_resources_list", "*_offering_users_list"])
def test_a_short_list_stops_the_cycle_before_anything_is_written(
    testbed: SimulatedSite, operation: str
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01", bob="bob01"))
    testbed.sandbox.faults.add(operation, "short_page", rows=1, times=None)
    with pytest.raises(TemporaryError):
        testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "bob01"}
    assert testbed.writing_commands == 0
    assert testbed.sandbox.requests.writes() == []


@pytest.mark.guarantee("membership: Who is removed, and who never")
@pytest.mark.guarantee("Nobody loses access because a read failed")
def test_an_empty_list_of_offering_users_removes_nobody(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    resource = testbed.settled(testbed.project(ada="ada01", bob="bob01"))
    hidden = {"service_provider_can_create_offering_user": False}
    offering = testbed.sandbox.offering
    side.edit(offering, plugin_options={**offering.plugin_options, **hidden})
    report = testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "bob01"}
    assert report.membership.accounts[0].unknown == ("ada01", "bob01")


@pytest.mark.parametrize(
    "outage", [Outage.SLURMDBD_REFUSED, Outage.SLURMDBD_HUNG, Outage.MARIADB_AWAY]
)
def test_a_cluster_that_is_away_changes_nothing_in_waldur(
    testbed: SimulatedSite, outage: Outage
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    with testbed.slurm.outage(outage), pytest.raises(TemporaryError):
        testbed.sync()
    assert testbed.sandbox.requests.writes() == []
    assert testbed.sandbox.customer.current(resource).state == "OK"


@pytest.mark.guarantee("membership: Who is removed, and who never")
@pytest.mark.guarantee("Removals are bounded")
def test_too_many_removals_are_refused_as_a_whole_and_additions_applied(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    people = {f"user{n}": f"u{n:03}" for n in range(20)}
    project = testbed.project(**people)
    resource = testbed.settled(project)
    for number in range(12):
        side.remove_member(project, f"user{number}")
    side.add_member(project, testbed.person("new", "new01"))
    for _ in range(2):
        report = testbed.sync()
        assert "12 of 2" in report.refused_reason
        assert testbed.members_of(resource) == {*people.values(), "new01"}
    testbed.with_(removals_allowed=True).sync()
    assert len(testbed.members_of(resource)) == 9


@pytest.mark.guarantee("membership: Scope")
def test_restricted_access_empties_the_account(testbed: SimulatedSite) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    side.add_service_account(project, "svc1")
    resource = testbed.settled(project)
    assert testbed.members_of(resource) == {"ada01", "svc1"}
    side.set_flags(resource, restrict_member_access=True)
    testbed.sync()
    assert testbed.members_of(resource) == set()
    side.set_flags(resource, restrict_member_access=False)
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "svc1"}


def test_service_and_course_accounts_come_and_go_with_their_state(testbed: SimulatedSite) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    service = side.add_service_account(project, "svc1")
    side.add_course_account(project, "crs1")
    resource = testbed.settled(project)
    assert testbed.members_of(resource) == {"ada01", "svc1", "crs1"}
    job = testbed.slurm.submit_job("crs1", resource.backend_id)
    stopped = testbed.slurm.submit_job("svc1", resource.backend_id)
    side.set_project_account_state(service, "Closed")
    for _ in range(3):
        testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "crs1"}
    assert job in testbed.slurm.state.jobs
    assert stopped not in testbed.slurm.state.jobs


@pytest.mark.parametrize("kind", ["service", "course"])
def test_accounts_of_projects_that_cannot_be_read_stay(testbed: SimulatedSite, kind: str) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    side.add_service_account(project, "svc1")
    side.add_course_account(project, "crs1")
    resource = testbed.settled(project)
    testbed.sandbox.faults.add(f"*{kind}_accounts_list", "status", status=500, times=None)
    testbed.with_(remove_unknown_users=True).sync()
    assert testbed.members_of(resource) == {"ada01", "svc1", "crs1"}


@pytest.mark.guarantee("membership: Who is removed, and who never")
def test_a_user_whom_waldur_deletes_is_removed_everywhere_and_then_deleted(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    resources = [testbed.settled(testbed.project(slug, ada="ada01")) for slug in ("one", "two")]
    side.request_deletion("ada")
    report = testbed.sync()
    assert not report.failed
    assert [testbed.members_of(resource) for resource in resources] == [set(), set()]
    assert [u.state for u in side.world.offering_users.values()] == ["Deleted"]


def test_a_user_is_not_marked_deleted_while_an_account_keeps_him(testbed: SimulatedSite) -> None:
    side = testbed.sandbox.customer
    testbed.settled(testbed.project(ada="ada01"))
    side.request_deletion("ada")
    with testbed.slurm.outage(Outage.SLURMDBD_REFUSED, after_commands=1):
        testbed.sync()
    assert [u.state for u in side.world.offering_users.values()] == ["Deleting"]
    testbed.sync()
    assert [u.state for u in side.world.offering_users.values()] == ["Deleted"]


@pytest.mark.guarantee("membership: Who is removed, and who never")
def test_a_member_whom_the_system_does_not_know_waits_and_fails_nothing(
    testbed: SimulatedSite,
) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    resource = testbed.settled(project)
    side.add_member(project, testbed.person("bob", "bob01"))
    testbed.forget()
    report = testbed.with_(unknown_to_the_system=frozenset({"bob01"})).sync()
    assert not report.failed
    assert report.membership.accounts[0].waiting == ("bob01",)
    assert testbed.writing_commands == 0
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "bob01"}


@pytest.mark.guarantee("membership: Who is removed, and who never")
def test_a_username_that_changes_in_waldur_adds_the_new_and_names_the_old(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    testbed.person("ada", "lovelace")
    report = testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "lovelace"}
    assert report.membership.accounts[0].unknown == ("ada01",)


def test_accounts_in_another_case_are_the_same_accounts(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    testbed.sandbox.customer.edit(resource, backend_id=resource.backend_id.upper())
    testbed.forget()
    report = testbed.sync()
    assert not report.failed
    assert testbed.members_of(resource) == {"ada01"}
    assert testbed.writing_commands == 0


def test_a_dry_run_writes_nowhere(testbed: SimulatedSite) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    side.remove_member(project, "bob")
    side.set_flags(resource, paused=True)
    side.request_deletion("ada")
    testbed.sync(dry_run=True)
    assert testbed.sandbox.requests.writes() == []
    assert testbed.writing_commands == 0
    assert testbed.members_of(resource) == {"ada01", "bob01"}


def test_nobody_loses_access_for_a_state_that_only_newer_servers_have(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada", bob="bob", cyd="cyd")
    resource = testbed.settled(project)
    newer = OddRows("offering-users", lambda row: row["username"] == "ada", {"state": "Suspended?"})
    testbed.sandbox.customer.remove_member(project, "cyd")
    testbed.with_(transport=newer.between).sync()
    assert newer.struck
    assert testbed.members_of(resource) == {"ada", "bob"}
