"""``explain``: what the support desk reads, against a sandbox and a simulated cluster."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness import Installation
from waldur_site_agent_slurm.simulator.state import Outage

HOUR = timedelta(hours=1)
PROGRAM = "waldur-site-agent"
LEGACY = "waldur_site_diagnose_slurm_account"


@pytest.fixture
def site(installation: Installation) -> Installation:
    installation.write(
        membership_sync_backend="slurm",
        backend_settings={**installation.backend_settings, "require_system_user": False},
    )
    return installation


def explained(site: Installation, name: str, *options: str) -> Any:
    done = site.run("explain", name, "--output", "json", *options, command=PROGRAM)
    assert done.code == 0, done.err
    return json.loads(done.out)["Test cluster"]


def refusals(found: Any) -> list[str]:
    people = [r for user in found["users"] for r in user["refusals"]]
    accounts = [r for each in found["resources"] for r in each["refusals"]]
    members = [r for each in found["resources"] for m in each["members"] for r in m["refusals"]]
    return [f"{r['rule']}: {r['value']}" for r in (*people, *accounts, *members)]


@pytest.mark.parametrize("by", ["account", "name", "slug", "uuid", "order"])
def test_a_resource_is_found_by_each_of_its_names(site: Installation, by: str) -> None:
    testbed = site.testbed
    order = testbed.order(testbed.project(ada="ada01"), "Ocean", cpu=10)
    testbed.cycle()
    resource = testbed.resource(order)
    names = {
        "account": resource.backend_id.upper(),
        "name": "ocean",
        "slug": resource.slug,
        "uuid": str(resource.uuid),
        "order": str(order.uuid),
    }
    (found,) = explained(site, names[by])["resources"]
    assert found["account"] == resource.backend_id


def test_a_member_with_nothing_against_it_is_said_to_be_well(site: Installation) -> None:
    testbed = site.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    found = explained(site, "ada01")
    (account,) = found["resources"]
    (member,) = account["members"]
    assert (account["account"], member["wanted"], member["there"]) == (
        resource.backend_id,
        True,
        True,
    )
    assert "is in the project's team" in member["why"]
    done = site.run("explain", "ada01", command=PROGRAM)
    assert "no known rule refuses them" in done.out
    assert "GrpTRESMins of" in done.out


def test_explaining_writes_on_neither_side(site: Installation) -> None:
    testbed = site.testbed
    project = testbed.project(ada="ada01")
    resource = testbed.settled(project, "Ocean", cpu=10)
    testbed.sandbox.customer.edit(resource, paused=True)
    testbed.sandbox.customer.add_member(project, testbed.person("bob", "bob01"))
    testbed.forget()
    explained(site, resource.backend_id)
    explained(site, "bob01")
    assert testbed.writing_commands == 0
    assert {request.method for request in testbed.sandbox.requests} == {"GET"}


def test_a_user_who_is_let_in_by_the_next_cycle_is_shown_with_the_reason(
    site: Installation,
) -> None:
    testbed = site.testbed
    project = testbed.project(ada="ada01")
    testbed.settled(project, "Ocean", cpu=10)
    testbed.sandbox.customer.add_member(project, testbed.person("bob", "bob01"))
    found = explained(site, "bob01")
    (account,) = found["resources"]
    (member,) = account["members"]
    assert (member["wanted"], member["there"]) == (True, False)
    assert [step["action"] for step in account["next_cycle"]["steps"]] == ["AddMembers"]
    assert f"association: bob01 has none with account {account['account']}" in refusals(found)


def test_the_end_of_a_role_is_shown_with_it(site: Installation) -> None:
    testbed = site.testbed
    project = testbed.project(ada="ada01")
    testbed.settled(project, "Ocean", cpu=10)
    soon = datetime.now(UTC) + timedelta(days=1)
    side = testbed.sandbox.customer
    side.add_member(project, testbed.person("bob", "bob01"), expiration_time=soon)
    (account,) = explained(site, "bob01")["resources"]
    (member,) = account["members"]
    assert f" ends {soon.isoformat(timespec='minutes')}" in member["why"]


def test_a_person_in_no_project_is_said_to_be_nowhere(site: Installation) -> None:
    testbed = site.testbed
    testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    testbed.person("bob", "bob01")
    found = explained(site, "bob01")
    assert found["resources"] == []
    assert found["remarks"] == [
        "in no project that has a resource of this offering, and in no account of one"
    ]


def test_a_person_whose_username_is_not_there_yet_is_found_by_the_login(
    site: Installation,
) -> None:
    testbed = site.testbed
    project = testbed.project(ada="ada01")
    testbed.settled(project, "Ocean", cpu=10)
    side = testbed.sandbox.customer
    bob = side.add_user("bob")
    side.add_member(project, bob)
    side.set_account(bob, "", state="Pending account linking")
    found = explained(site, "bob")
    state = {each["name"]: each["value"] for each in found["users"][0]["waldur"]}
    assert (state["username"], state["state"]) == ("none yet", "Pending account linking")
    text = site.run("explain", "bob", command=PROGRAM).out
    assert 'username: none yet, so in no account; its state is "Pending account linking"' in text
    assert "no known rule" not in text


def test_a_paused_account_is_explained_by_the_qos_that_decides(site: Installation) -> None:
    testbed = site.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    testbed.sandbox.customer.edit(resource, paused=True)
    testbed.sync()
    found = explained(site, "ada01")
    assert refusals(found) == ["MaxSubmitJobsPerUser of QOS paused: limit 0, used 0"]
    values = {each["name"]: each["value"] for each in found["resources"][0]["waldur"]}
    assert values["access"] == "paused"


def test_a_used_up_limit_above_the_account_is_named_with_its_account(site: Installation) -> None:
    testbed = site.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    with testbed.slurm.change() as cluster:
        cluster.accounts["p_climate"].limits["cpu"] = 60
        cluster.accounts["p_climate"].counted_since = 0
    ended = datetime.now(UTC) - timedelta(hours=1)
    testbed.slurm.run_job("ada01", resource.backend_id, {"cpu": 1}, ended - HOUR, ended)
    rules = refusals(explained(site, "ada01"))
    assert rules == ["GrpTRESMins of account p_climate: cpu: limit 60, used 60"]


def test_a_user_without_default_account_gets_the_command_that_mends_it(
    site: Installation,
) -> None:
    testbed = site.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    with testbed.slurm.change() as cluster:
        cluster.users["ada01"].default_account = ""
    done = site.run("explain", "ada01", command=PROGRAM)
    assert "default account: DefaultAccount of ada01 is empty (jobs without -A)" in done.out
    command = f"sacctmgr modify user where name=ada01 set DefaultAccount={resource.backend_id}"
    assert command in done.out


def test_an_account_that_waldur_does_not_know_is_explained_too(site: Installation) -> None:
    testbed = site.testbed
    testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    done = site.run("explain", "p_climate", command=PROGRAM)
    assert done.code == 0
    assert "no resource of this offering in Waldur" in done.out


def test_a_name_that_nobody_knows_is_an_error(site: Installation) -> None:
    site.testbed.settled(site.testbed.project(ada="ada01"), "Ocean", cpu=10)
    done = site.run("explain", "nobody01", command=PROGRAM)
    assert (done.code, done.out) == (1, "")
    assert "nothing is called nobody01" in done.err


def test_hostile_names_of_resources_do_not_reach_the_terminal(site: Installation) -> None:
    testbed = site.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    testbed.sandbox.customer.edit(resource, name="\x1b]0;gone\x07\x1b[31mOcean\nNext line")
    done = site.run("explain", resource.backend_id, command=PROGRAM)
    assert "\x1b" not in done.out
    assert "Next line" not in done.out.splitlines()


def test_slurmctld_being_away_is_said_and_the_rest_is_shown(site: Installation) -> None:
    testbed = site.testbed
    testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    with testbed.slurm.outage(Outage.SLURMCTLD_AWAY):
        done = site.run("explain", "ada01", command=PROGRAM)
    assert done.code == 0
    assert "slurmctld: it does not answer" in done.out
    assert "used: not known" in done.out


def test_the_old_command_prints_the_same_explanation(site: Installation) -> None:
    testbed = site.testbed
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    new = site.run("explain", resource.backend_id, command=PROGRAM)
    old = site.run(resource.backend_id, command=LEGACY)
    assert old.out.endswith(new.out)
