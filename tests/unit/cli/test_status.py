"""``status`` and ``journal``: what people look at."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness import Installation
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE
from waldur_site_agent.cycles.site import RefusedPlan
from waldur_site_agent.service.allowances import Allowances, default_directory
from waldur_site_agent.service.journal_reading import read_journal, since_of

PROGRAM = "waldur-site-agent"
SYNC = ("run", "-m", "membership_sync", "--once")


@pytest.fixture
def site(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    locks = tmp_path / "run"
    locks.mkdir(mode=0o700)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(locks))
    changes: dict[str, Any] = {
        "membership_sync_backend": "slurm",
        "backend_settings": {**installation.backend_settings, "require_system_user": False},
    }
    installation.write_offerings(
        changes,
        journal=str(tmp_path / "journal.jsonl"),
        health_file=str(tmp_path / "health-{mode}.json"),
    )
    return installation


def healthy(site: Installation, **changes: Any) -> None:
    worker = {
        "offering": "Test cluster", "mode": "membership_sync", "status": "ok", "doing": "resting",
        "last_success": datetime.now(UTC).isoformat(), "trouble": "", "waiting": [], "budgets": [],
        **changes,
    }  # fmt: skip
    report = {"status": worker["status"], "workers": [worker], "written": time.time()}
    (site.directory / "health-all.json").write_text(json.dumps(report))


def refuse() -> RefusedPlan:
    plan = RefusedPlan(
        "ab" * 32, "Test cluster", "members", "too many; allow", {"a_ocean": ["ada"]}, 1.7e9
    )
    Allowances(default_directory()).record(plan)
    return plan


def test_a_healthy_agent_is_shown_with_its_last_success(site: Installation) -> None:
    healthy(site)
    done = site.run("status", command=PROGRAM)
    assert done.code == 0
    assert "  ok       membership_sync  resting, last success " in done.out
    assert " ago" in done.out


def test_an_agent_that_is_away_is_an_error(site: Installation) -> None:
    done = site.run("status", command=PROGRAM)
    assert done.code == 1
    assert "the agent is not running" in done.out


def test_a_refused_plan_is_shown_with_the_command_that_allows_it(site: Installation) -> None:
    healthy(site)
    refuse()
    done = site.run("status", command=PROGRAM)
    assert done.code == 1
    assert f"waldur-site-agent allow {'ab' * 8}\n" in done.out
    site.run("allow", "ab" * 8, command=PROGRAM)
    assert "allowed: the next cycle carries it out" in site.run("status", command=PROGRAM).out


def test_what_waits_and_large_budgets_are_listed(site: Installation) -> None:
    budget = {"account": "a_ocean", "component": "cpu", "percent": 91.0, "used": "9.10",
              "limit": "10"}  # fmt: skip
    healthy(site, waiting=["a_ocean: 1 member"], budgets=[budget])
    done = site.run("status", command=PROGRAM)
    assert "  waits    a_ocean: 1 member\n" in done.out
    assert "  budget   a_ocean: cpu 91.0 % (9.10 of 10)\n" in done.out
    found = json.loads(site.run("status", "--output", "json", command=PROGRAM).out)
    assert found["offerings"][0]["workers"][0]["budgets"] == [budget]


def test_hostile_texts_do_not_reach_the_terminal(site: Installation) -> None:
    healthy(site, status="failing", trouble="\x1b[2Jgone\nnext", waiting=["\x1b]0;x\x07"])
    assert "\x1b" not in site.run("status", command=PROGRAM).out


def test_the_journal_says_who_was_let_in_when_why_and_in_which_cycle(site: Installation) -> None:
    testbed = site.testbed
    project = testbed.project(ada="ada01")
    resource = testbed.created(project)
    testbed.sandbox.customer.add_member(project, testbed.person("bob", "bob01"))
    assert site.run(*SYNC, command=PROGRAM).code == 0
    done = site.run("journal", "bob01", command=PROGRAM)
    (line,) = done.out.splitlines()
    assert f"{resource.backend_id}: added bob01  (is in the project's team)" in line
    cycle = line.partition("membership_sync cycle ")[2].removesuffix("]")
    same = json.loads(site.run("journal", cycle, "--output", "json", command=PROGRAM).out)
    assert {entry["cycle"] for entry in same} == {cycle}
    assert any(entry["action"] == "AddMembers" for entry in same)


def test_two_cycles_have_different_marks(site: Installation) -> None:
    testbed = site.testbed
    project = testbed.project(ada="ada01")
    testbed.created(project)
    for name in ("bob", "cyd"):
        testbed.sandbox.customer.add_member(project, testbed.person(name, f"{name}01"))
        site.run(*SYNC, command=PROGRAM)
    found = read_journal(site.directory / "journal.jsonl")
    cycles = {name: e.cycle for e in found for name in e.members}
    assert cycles["bob01"] != cycles["cyd01"] != ""


def test_only_what_is_asked_for_is_printed(site: Installation, tmp_path: Path) -> None:
    def line(hours: int, resource: str) -> str:
        moment = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        entry = {"time": moment, "side": "backend", "action": "AddMembers", "resource": resource,
                 "members": ["ada"], "reason": "r", "result": "done"}  # fmt: skip
        return json.dumps(entry) + "\n"

    (tmp_path / "journal.jsonl.1").write_text(line(50, "a_old"))
    (tmp_path / "journal.jsonl").write_text(
        line(3, "a_one") + "half a li" + "\n" + line(1, "a_two")
    )
    assert len(site.run("journal", command=PROGRAM).out.splitlines()) == 3
    recent = site.run("journal", "--since", "2h", command=PROGRAM).out
    assert ("a_two" in recent, "a_one" in recent) == (True, False)
    assert "a_one" in site.run("journal", "A_ONE", command=PROGRAM).out
    assert site.run("journal", "--since", "soon", command=PROGRAM).code == 2


@pytest.mark.parametrize(
    ("text", "hours"), [("90min", 1.5), ("36h", 36), ("7d", 168), ("2026-04-30T22:00+00:00", 2)]
)
def test_ages_and_dates_are_understood(text: str, hours: float) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    assert now - since_of(text, now) == timedelta(hours=hours)


def test_without_a_journal_the_command_says_how_to_get_one(installation: Installation) -> None:
    installation.write(membership_sync_backend="slurm")
    done = installation.run("journal", command=PROGRAM)
    assert (done.code, "set journal to a file" in done.err) == (2, True)
