"""The journal: one line per applied action, flushed, and opened again on SIGHUP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from harness import Installation
from waldur_site_agent.backends import AddMembers, Outcome, Result
from waldur_site_agent.planning.plan import Step
from waldur_site_agent.service.journal import Journal


def with_journal(installation: Installation) -> Path:
    path = installation.directory / "journal.jsonl"
    content = yaml.safe_load(installation.file.read_text())
    installation.file.write_text(yaml.safe_dump(content | {"journal": str(path)}))
    return path


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_applied_action_says_what_why_for_which_order_and_how_it_ended(
    installation: Installation,
) -> None:
    testbed, path = installation.testbed, with_journal(installation)
    order = testbed.order(testbed.project("climate", ada="ada01"), cpu=10)
    assert installation.run("--once").code == 0
    lines = entries(path)
    create, add = [line for line in lines if line["side"] == "backend"]
    assert (create["action"], create["result"]) == ("CreateResource", "done")
    assert create["limits"] == {"cpu": "600000"}
    assert create["order"].replace("-", "") == order.uuid
    assert (add["action"], add["members"]) == ("AddMembers", ["ada01"])
    assert add["reason"] == "in the team of project climate"
    assert (add["offering"], add["mode"]) == ("Test cluster", "order_process")
    told = [line for line in lines if line["side"] == "waldur"]
    assert [(line["action"], line["changes"][0]["new"]) for line in told] == [
        ("approve_order", "executing"),
        ("set_backend_id", create["placement"]["id"]),
        ("complete_order", "done"),
    ]
    assert testbed.sandbox.token not in path.read_text()


def test_a_dry_run_and_an_idle_cycle_write_nothing_down(installation: Installation) -> None:
    testbed, path = installation.testbed, with_journal(installation)
    testbed.order(testbed.project(ada="ada01"))
    installation.run("--dry-run")
    assert not path.exists()
    installation.run("--once")
    length = len(entries(path))
    installation.run("--once")
    assert len(entries(path)) == length


def test_a_journal_that_cannot_be_opened_is_an_error_before_anything_is_done(
    installation: Installation,
) -> None:
    testbed, path = installation.testbed, with_journal(installation)
    path.mkdir()
    order = testbed.order(testbed.project(ada="ada01"))
    done = installation.run("--once")
    assert done.code == 2
    assert "journal" in done.err
    assert testbed.state(order) == "pending-provider"


def test_a_full_disk_does_not_stop_the_work() -> None:
    journal = Journal(Path("/dev/full"))
    action = AddMembers("a", ("ada",))
    journal.of("o", "m").record(Step(action, "joined"), Outcome(action, Result.DONE))
    journal.close()
