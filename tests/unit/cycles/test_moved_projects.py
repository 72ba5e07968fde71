"""Projects that move to another organization: their account follows, or stays and is named."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from harness import SimulatedSite, a_simulated_site
from waldur_site_agent.backends import CheckStatus, MoveContainer
from waldur_site_agent.cli.plan import report_text
from waldur_site_agent.cycles.membership import MembershipReport, sync_membership
from waldur_site_agent.cycles.placements import misplaced
from waldur_site_agent.model.backend import ResourceScope
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator import Version
from waldur_site_agent_slurm.simulator.state import SimAccount, SimMembership

PEOPLE = {"ada": "ada01", "bob": "bob01"}


def moved_projects(testbed: SimulatedSite, *slugs: str) -> list[Resource]:
    """A resource with members and limits in each project; all have moved from uni to lab."""
    resources = [
        testbed.settled(testbed.project(slug, **PEOPLE), f"run {slug}", cpu=10, mem=2)
        for slug in slugs
    ]
    side = testbed.sandbox.customer
    side.add_customer("Laboratory", "lab")
    for slug in slugs:
        side.move_project(slug, "lab")
    testbed.forget()
    return resources


def a_moved_project(testbed: SimulatedSite) -> Resource:
    return moved_projects(testbed, "climate")[0]


def parent_of(testbed: SimulatedSite, name: str) -> str:
    return testbed.slurm.state.accounts[name].parent


def moves_of(report: MembershipReport) -> list[str]:
    return [a.resource for a in report.membership.plan.actions if isinstance(a, MoveContainer)]


@pytest.mark.guarantee("The account of a project follows it")
@pytest.mark.parametrize("version", ["22.05", "24.11"])
def test_the_account_follows_with_everything_below_it(tmp_path: Path, version: Version) -> None:
    with a_simulated_site(tmp_path / "lock", slurm=version) as testbed:
        first = a_moved_project(testbed)
        second = testbed.created("climate", "two", cpu=3)
        before = testbed.slurm.state.accounts
        kept = {r.backend_id: before[r.backend_id] for r in (first, second)}
        limits = {name: dict(account.limits) for name, account in kept.items()}
        report = testbed.sync()
        assert not report.failed, report.failures
        after = testbed.slurm.state.accounts
        assert (after["p_climate"].parent, after["c_lab"].parent) == ("c_lab", "root")
        assert after["c_lab"].organization == "c_lab"
        assert after["c_lab"].description == "laboratory"
        for resource in (first, second):
            account = after[resource.backend_id]
            assert account.parent == "p_climate"
            assert account.limits == limits[account.name]
            assert set(account.members) == {"ada01", "bob01"}
            assert not any(member.lost_lineage for member in account.members.values())
        assert "c_uni" in after
        testbed.forget()
        assert not testbed.sync().membership.plan
        assert testbed.writing_commands == 0


@pytest.mark.guarantee("moves: What happens")
def test_a_project_that_moves_back_gets_its_old_place(testbed: SimulatedSite) -> None:
    a_moved_project(testbed)
    testbed.sync()
    testbed.sandbox.customer.move_project("climate", "uni")
    assert moves_of(testbed.sync()) == ["p_climate"]
    assert parent_of(testbed, "p_climate") == "c_uni"
    assert not testbed.sync().membership.plan


def test_a_plan_shows_the_move_and_changes_nothing(testbed: SimulatedSite) -> None:
    a_moved_project(testbed)
    text = report_text(testbed.sync(dry_run=True))
    assert (
        "~ parent         of p_climate: c_uni -> c_lab  "
        'the project belongs to the organization "Laboratory" now'
    ) in text
    assert testbed.writing_commands == 0
    assert parent_of(testbed, "p_climate") == "c_uni"


def test_each_command_moves_one_account(testbed: SimulatedSite) -> None:
    project = testbed.project(**PEOPLE)
    for name in ("one", "two", "three"):
        testbed.settled(project, name)
    side = testbed.sandbox.customer
    side.add_customer("Laboratory", "lab")
    side.move_project(project, "lab")
    testbed.forget()
    testbed.sync()
    # the customer's is made; those of the resources go, the project's follows, they go back
    written = [argv for argv in testbed.slurm.history if "-i" in argv]
    assert len(written) == 1 + 3 + 1 + 3
    assert not any("," in word for argv in written[1:] for word in argv)


@pytest.mark.guarantee("moves: What stays where it is")
def test_with_report_the_account_stays_and_is_named(testbed: SimulatedSite) -> None:
    a_moved_project(testbed)
    site = testbed.with_(moved_projects="report")
    with capture_logs() as logs:
        report = site.sync()
    assert not report.failed
    named = [log for log in logs if log["event"] == "account of a project not moved"]
    assert 'account "p_climate" is below "c_uni", not below "c_lab"' in named[0]["reason"]
    assert "moved_projects is report" in report_text(site.sync(dry_run=True))
    assert site.writing_commands == 0


@pytest.mark.guarantee("moves: What stays where it is")
def test_an_account_that_an_administrator_has_put_elsewhere_stays(testbed: SimulatedSite) -> None:
    a_moved_project(testbed)
    with testbed.slurm.change() as state:
        state.accounts["faculty"] = SimAccount("faculty", "faculty", "faculty", "root")
        state.accounts["p_climate"].parent = "faculty"
    report = testbed.sync()
    assert not moves_of(report)
    assert parent_of(testbed, "p_climate") == "faculty"
    (stays,) = (a.wanted.not_moved for a in report.membership.accounts)
    assert '"faculty" is not known as the account of an organization in Waldur' in stays


@pytest.mark.guarantee("moves: What stays where it is")
def test_without_customer_prefix_only_accounts_of_known_customers_are_left(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings={"customer_prefix": ""})
    a_moved_project(site)
    assert not moves_of(site.sync())
    site.created(site.project("plasma", "uni", ada="ada01"), "other")
    assert moves_of(site.sync()) == ["p_climate"]
    assert parent_of(site, "p_climate") == "lab"


@pytest.mark.guarantee("moves: What stays where it is")
def test_accounts_of_the_site_below_the_project_keep_it_where_it_is(
    testbed: SimulatedSite,
) -> None:
    resource = a_moved_project(testbed)
    with testbed.slurm.change() as state:
        state.accounts["course"] = SimAccount("course", "course", "course", resource.backend_id)
        state.accounts["course"].members["eve"] = SimMembership()
    report = testbed.sync()
    assert report.failed
    assert "has accounts below it (course); move it by hand" in "".join(report.failures)
    assert parent_of(testbed, "p_climate") == "c_uni"
    assert parent_of(testbed, resource.backend_id) == "p_climate"


@pytest.mark.guarantee("moves: What stays where it is")
def test_a_customers_account_that_is_somebody_elses_is_not_used(testbed: SimulatedSite) -> None:
    a_moved_project(testbed)
    with testbed.slurm.change() as state:
        state.accounts["c_lab"] = SimAccount("c_lab", "lab", "theirs", "root")
    report = testbed.sync()
    assert parent_of(testbed, "p_climate") == "c_uni"
    (stays,) = (a.wanted.not_moved for a in report.membership.accounts)
    assert '"c_lab" was not made by the agent (organization "theirs")' in stays


@pytest.mark.guarantee("moves: Many at once")
def test_many_moves_at_once_are_refused_as_a_whole_until_allowed(testbed: SimulatedSite) -> None:
    moved_projects(testbed, "p0", "p1", "p2", "p3")
    report = testbed.sync()
    assert report.refused_reason.startswith(
        "the plan would move the accounts of 4 of 4 projects, more than 3 and more than 20 %"
    )
    assert {parent_of(testbed, f"p_p{number}") for number in range(4)} == {"c_uni"}
    assert "! moves refused" in report_text(testbed.sync(dry_run=True))
    allowed = testbed.with_(removals_allowed=True).sync()
    assert not allowed.refused_reason
    assert {parent_of(testbed, f"p_p{number}") for number in range(4)} == {"c_lab"}


@pytest.mark.guarantee("moves: Many at once")
def test_members_are_kept_while_moves_are_refused(testbed: SimulatedSite) -> None:
    resources = moved_projects(testbed, "p0", "p1", "p2", "p3")
    side = testbed.sandbox.customer
    side.add_member("p0", testbed.person("cyd", "cyd01"))
    side.remove_member("p1", "bob")
    testbed.sync()
    assert testbed.members_of(resources[0]) == {"ada01", "bob01", "cyd01"}
    assert testbed.members_of(resources[1]) == {"ada01"}


@pytest.mark.guarantee("moves: Many at once")
def test_moves_of_single_events_count_together(testbed: SimulatedSite) -> None:
    resources = moved_projects(testbed, "p0", "p1", "p2", "p3", "p4")
    with testbed.agent() as site:
        reports = [
            sync_membership(site, scopes={ResourceScope(UUID(resource.uuid))})
            for resource in resources
        ]
    assert [bool(report.refused_reason) for report in reports] == [False] * 3 + [True] * 2


@pytest.mark.guarantee("moves: What happens")
def test_an_event_about_a_resource_moves_the_account_of_its_project(
    testbed: SimulatedSite,
) -> None:
    resource, other = moved_projects(testbed, "climate", "plasma")
    with testbed.agent() as site:
        report = sync_membership(site, scopes={ResourceScope(UUID(resource.uuid))})
    assert moves_of(report) == ["p_climate"]
    assert parent_of(testbed, "p_plasma") == "c_uni"
    assert testbed.members_of(other) == {"ada01", "bob01"}


@pytest.mark.guarantee("moves: What happens")
def test_a_stale_list_moves_nothing(testbed: SimulatedSite) -> None:
    a_moved_project(testbed)
    testbed.sync()
    testbed.sandbox.customer.move_project("climate", "uni")
    with testbed.lists_a_moment_old():
        testbed.sync()
    assert parent_of(testbed, "p_climate") == "c_lab"
    testbed.sandbox.customer.move_project("climate", "lab")
    with testbed.lists_a_moment_old():
        report = testbed.sync()
    assert not report.failed
    assert parent_of(testbed, "p_climate") == "c_lab"


def test_a_customer_without_slug_moves_nothing(testbed: SimulatedSite) -> None:
    a_moved_project(testbed)
    side = testbed.sandbox.customer
    lab = next(c for c in side.world.customers.values() if c.slug == "lab")
    side.edit(lab, slug="")
    assert not moves_of(testbed.sync())
    assert parent_of(testbed, "p_climate") == "c_uni"


def test_a_new_resource_of_a_moved_project_is_made_before_the_move(
    testbed: SimulatedSite,
) -> None:
    a_moved_project(testbed)
    new = testbed.created("climate", "new", cpu=1)
    assert parent_of(testbed, new.backend_id) == "p_climate"
    assert not testbed.sync().failed
    assert parent_of(testbed, "p_climate") == "c_lab"


def test_a_resource_is_terminated_before_and_after_the_move(testbed: SimulatedSite) -> None:
    first = a_moved_project(testbed)
    second = testbed.settled("climate", "two")
    for resource in (first, second):
        testbed.sandbox.customer.place_terminate_order(resource)
        assert not testbed.cycle().failed
        testbed.sync()
    assert testbed.accounts == {"c_uni", "c_lab"}


def test_running_jobs_go_on(testbed: SimulatedSite) -> None:
    resource = a_moved_project(testbed)
    job = testbed.slurm.submit_job("ada01", resource.backend_id)
    testbed.sync()
    assert parent_of(testbed, "p_climate") == "c_lab"
    assert job in testbed.slurm.state.jobs


@pytest.mark.guarantee("moves: What stays where it is")
def test_the_diagnosis_names_accounts_that_are_not_below_their_organizations(
    testbed: SimulatedSite,
) -> None:
    resource = a_moved_project(testbed)
    with testbed.agent() as site:
        current = site.waldur.resource(UUID(resource.uuid))
        groups = {resource.backend_id: [current]}
        ((text, remedy),) = misplaced(site.offering, groups, site.backend)
        assert text == 'account "p_climate" is below "c_uni", not below "c_lab"'
        assert "membership_sync moves it" in remedy
    with testbed.with_(moved_projects="report").agent() as site:
        ((text, remedy),) = misplaced(site.offering, groups, site.backend)
        assert text.endswith("moved_projects is report; move it by hand, or set follow")
    testbed.sync()
    with testbed.agent() as site:
        assert misplaced(site.offering, groups, site.backend) == []


@pytest.mark.guarantee("slurm: Projects that move")
@pytest.mark.parametrize(("version", "found"), [("22.05", None), ("24.11", CheckStatus.FAILED)])
def test_the_diagnosis_finds_users_who_were_lost_when_a_project_was_moved_by_hand(
    tmp_path: Path, version: Version, found: CheckStatus | None
) -> None:
    with a_simulated_site(tmp_path / "lock", slurm=version) as testbed:
        resource = a_moved_project(testbed)
        with testbed.slurm.change() as state:
            state.accounts["c_lab"] = SimAccount("c_lab", "lab", "c_lab", "root")
        with testbed.agent() as site:
            before = {check.name: check.verdict for check in site.backend.diagnose()}
            assert before.get("associations") is (found and CheckStatus.OK)
            command = "sacctmgr -i modify account where name=p_climate set parent=c_lab"
            testbed.slurm.run(command.split())
            checks = {check.name: check for check in site.backend.diagnose()}
        check = checks.get("associations")
        assert (check and check.verdict) is found
        assert check is None or f"ada01 in {resource.backend_id}" in check.detail


@pytest.mark.guarantee("moves: What happens")
def test_a_restored_resource_takes_the_account_of_its_project_along(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings={"soft_delete": True})
    (resource,) = moved_projects(site, "climate")
    side = site.sandbox.customer
    side.place_terminate_order(resource)
    site.cycle()
    assert not moves_of(site.sync())
    order = side.place_restore_order(resource)
    site.cycle()
    assert site.state(order) == "done"
    assert moves_of(site.sync()) == ["p_climate"]
    assert parent_of(site, resource.backend_id) == "p_climate"
    assert site.members_of(resource) == {"ada01", "bob01"}
