"""What a plan says about the side of Waldur, and about itself when it could not be made."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import yaml

from harness import Installation, SimulatedSite
from waldur_site_agent_slurm.simulator.state import Outage, SimAccount

LIMIT = "limit cpu 120 -> 20 k-Hours (the account has 1200000)"


def with_members(installation: Installation) -> SimulatedSite:
    installation.write(membership_sync_backend="slurm")
    return installation.testbed


def plan(installation: Installation, *words: str, mode: str = "membership_sync") -> Any:
    return installation.run("plan", "-m", mode, *words, command="waldur-site-agent")


def change_limit(testbed: SimulatedSite, account: str, text: str) -> None:
    modify = ["sacctmgr", "-i", "modify", "account", "where", f"name={account}", "set"]
    testbed.slurm.run([*modify, f"GrpTRESMins={text}"])


def test_a_plan_shows_old_and_new_value_of_all_that_waldur_would_be_told(
    installation: Installation,
) -> None:
    testbed = with_members(installation)
    side = testbed.sandbox.customer
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=120, mem=2)
    change_limit(testbed, resource.backend_id, "cpu=1200000")
    side.edit(resource, state="Erred")
    side.set_flags(resource, paused=True)
    before = side.world
    done = plan(installation)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"{resource.backend_id}  Ocean (project climate)",
        "  ~ access         paused in Waldur, was normal",
        "  ~ in Waldur      metadata qos_before none -> normal  to restore it later",
        "  ~ in Waldur      state Erred -> OK  its account works",
        "  ~ in Waldur      metadata qos normal -> (read afterwards)  found in the backend",
        f"  ~ in Waldur      {LIMIT}  limits: backend",
        "Plan: 0 to add, 0 to remove, 1 to change, 4 in Waldur; 0 resources unchanged.",
    ]
    assert testbed.sandbox.requests.writes() == []
    assert side.world == before


@pytest.mark.guarantee("membership: Records")
def test_what_a_plan_says_of_waldur_is_what_log_and_journal_say_afterwards(
    installation: Installation,
) -> None:
    testbed = with_members(installation)
    path = installation.directory / "journal.jsonl"
    content = yaml.safe_load(installation.file.read_text())
    installation.file.write_text(yaml.safe_dump(content | {"journal": str(path)}))
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=120, mem=2)
    change_limit(testbed, resource.backend_id, "cpu=1200000")
    (planned,) = json.loads(plan(installation, "--output", "json").out)[0]["waldur"]
    done = installation.run("-m", "membership_sync", "--once")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "told Waldur" in line]
    assert LIMIT in line
    (entry,) = [json.loads(text) for text in path.read_text().splitlines()]
    assert entry["changes"] == [
        {
            "field": "limit cpu",
            "old": "120",
            "new": "20",
            "unit": "k-Hours",
            "note": "the account has 1200000",
        }
    ]
    assert {key: entry[key] for key in planned} == planned
    assert (entry["side"], entry["action"], entry["result"]) == ("waldur", "set_limits", "done")


def test_users_whom_waldur_deletes_are_in_the_plan(installation: Installation) -> None:
    testbed = with_members(installation)
    testbed.settled(testbed.project(ada="ada01", bob="bob01"))
    testbed.sandbox.customer.request_deletion("bob")
    out = plan(installation).out
    assert "  - bob01          is being deleted in Waldur\n" in out
    assert "  ~ in Waldur      bob01  state Requested deletion -> Deleting  deletion" in out
    assert "  ~ in Waldur      bob01  state Deleting -> Deleted  deletion was requested" in out


def test_a_resource_whose_account_is_gone_is_in_the_plan_as_erred(
    installation: Installation,
) -> None:
    testbed = with_members(installation)
    testbed.settled(testbed.project("other", bob="bob01"))
    resource = testbed.settled(testbed.project(ada="ada01"))
    words = ["remove", "account", "where", f"name={resource.backend_id}"]
    testbed.slurm.run(["sacctmgr", "-i", *words])
    assert "  ~ in Waldur      state OK -> Erred  The account" in plan(installation).out


def importing(installation: Installation) -> tuple[SimulatedSite, str]:
    """A cluster with an account that no resource has, and a request that asks for such."""
    installation.write(membership_sync_backend="slurm", resource_import_enabled=True)
    testbed = installation.testbed
    testbed.settled(testbed.project(ada="ada01"), cpu=1, mem=1)
    with testbed.slurm.change() as state:
        name, parent = "a_old", "p_climate"
        state.accounts[name] = SimAccount(name, name, parent, parent, limits={"cpu": 120000})
    testbed.sync()
    return testbed, str(UUID(testbed.sandbox.customer.request_import().uuid))


def test_accounts_shown_for_import_are_in_plan_log_and_journal(installation: Installation) -> None:
    testbed, request = importing(installation)
    path = installation.directory / "journal.jsonl"
    content = yaml.safe_load(installation.file.read_text())
    installation.file.write_text(yaml.safe_dump(content | {"journal": str(path)}))
    testbed.sandbox.requests.clear()
    out = plan(installation).out
    asked = f"import request {request}"
    offer = "importable in project none -> climate; limit cpu none -> 2 k-Hours; "
    offer += "metadata qos none -> normal"
    assert out.splitlines() == [
        "Other changes in Waldur",
        f"  ~ in Waldur      {asked}  state Sent -> Processing  asked for importable resources",
        f"  ~ in Waldur      {asked}  state Processing -> Done  asked for importable resources",
        f"  ~ in Waldur      a_old  {offer}  no resource has this account",
        "Plan: 0 to add, 0 to remove, 0 to change, 3 in Waldur; 1 resources unchanged.",
    ]
    planned = json.loads(plan(installation, "--output", "json").out)[0]["waldur"]
    assert testbed.sandbox.requests.writes() == []
    assert not path.exists()
    done = installation.run("-m", "membership_sync", "--once")
    assert done.code == 0, done.err
    told = [line for line in done.err.splitlines() if "told Waldur" in line]
    assert len(told) == 3
    assert "limit cpu none -> 2 k-Hours" in told[1]
    entries = [json.loads(text) for text in path.read_text().splitlines()]
    assert [{key: e[key] for key in planned[0]} for e in entries] == planned
    assert [(e["action"], e["result"]) for e in entries] == [
        ("start_import", "done"),
        ("create_backend_resource", "done"),
        ("close_import", "done"),
    ]
    assert plan(installation).out == "No changes.\n"


def test_imports_that_cannot_be_foreseen_are_named_in_the_plan(installation: Installation) -> None:
    testbed, _ = importing(installation)
    operation = "backend_resource_requests_list"
    testbed.sandbox.faults.add(operation, "status", status=500, times=None)
    out = plan(installation).out
    assert out.startswith("Not foreseen\n  ! imports: ")
    assert json.loads(plan(installation, "--output", "json").out)[0]["failures"]


def test_a_request_that_would_be_refused_is_in_the_plan_with_the_reason(
    installation: Installation,
) -> None:
    testbed, request = importing(installation)
    operation = "*backend_resources_list"
    testbed.sandbox.faults.add(operation, "status", status=403, times=None)
    out = plan(installation).out
    assert f"import request {request}  state Processing -> Erred  " in out
    assert "403" in out


def test_new_sync_marks_are_one_line(installation: Installation) -> None:
    testbed = with_members(installation)
    synced = datetime.now(UTC) - timedelta(hours=1)
    for resource in [
        testbed.settled(testbed.project(slug), cpu=1, mem=1) for slug in ("one", "two")
    ]:
        testbed.sandbox.customer.edit(resource, last_sync=synced)
    assert plan(installation).out == (
        "Time of the last synchronization\n"
        "  ~ in Waldur      2 renewed\n"
        "Plan: 0 to add, 0 to remove, 0 to change, 2 in Waldur; 2 resources unchanged.\n"
    )


@pytest.mark.parametrize("mode", ["order_process", "membership_sync", "report"])
def test_a_plan_that_could_not_be_made_says_so_once(installation: Installation, mode: str) -> None:
    installation.write(membership_sync_backend="slurm", reporting_backend="slurm")
    testbed = installation.testbed
    testbed.created(testbed.project(ada="ada01"))
    testbed.order(testbed.project(ada="ada01"), "second")
    testbed.slurm.start_outage(Outage.SLURMDBD_REFUSED)
    done = plan(installation, mode=mode)
    assert done.code == 1
    assert done.out.startswith("No plan could be made: ")
    assert "slurmdbd" in done.out
    assert len(done.out.splitlines()) == 1
    assert done.err == ""
    (report,) = json.loads(plan(installation, "--output", "json", mode=mode).out)
    assert (report["made"], bool(report["trouble"])) == (False, True)


def test_a_server_that_does_not_answer_gives_no_plan_either(installation: Installation) -> None:
    testbed = with_members(installation)
    testbed.sandbox.faults.add("*", "status", status=403, times=None)
    done = plan(installation)
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("No plan could be made: ")
    assert "403" in done.out


def test_the_diagnosis_shows_limits_that_differ_or_are_missing_with_the_remedy(
    installation: Installation,
) -> None:
    testbed = with_members(installation)
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=120, mem=2)
    change_limit(testbed, resource.backend_id, "cpu=1200000,mem=-1")
    done = installation.run("diagnose", command="waldur-site-agent")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    (number,) = [n for n, line in enumerate(lines) if "limit cpu" in line]
    assert lines[number].endswith(
        f"limits of {resource.backend_id}: limit cpu: Waldur has 120 k-Hours (7200000), "
        "the account 1200000 (20 k-Hours)"
    )
    assert "-> the next cycle reports the account's limits to Waldur" in lines[number + 1]
    assert lines[number + 2].endswith("limit mem: Waldur has 2 GB-hours (122880), the account none")
    assert lines[number + 3].endswith("-> waldur-site-agent limits sync --to backend sets it")
    testbed.sync()
    change_limit(testbed, resource.backend_id, "mem=122880")
    out = installation.run("diagnose", command="waldur-site-agent").out
    assert "1 of 1 accounts have the limits that Waldur shows" in out
