"""The journal of a running service."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from harness import Installation, SimulatedSite, eventually
from waldur_site_agent_sandbox import Order

QUICKLY = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.01"}


def with_journal(installation: Installation) -> Path:
    path = installation.directory / "journal.jsonl"
    content = yaml.safe_load(installation.file.read_text())
    installation.file.write_text(yaml.safe_dump(content | {"journal": str(path)}))
    return path


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_backend(path: Path) -> list[dict[str, Any]]:
    return [entry for entry in entries(path) if entry["side"] == "backend"]


def test_after_a_rotation_sighup_opens_the_file_again(installation: Installation) -> None:
    testbed, path = installation.testbed, with_journal(installation)
    project = testbed.project(ada="ada01")
    with installation.service(**QUICKLY) as service:
        first = testbed.order(project, "one")
        eventually(partial(is_done, testbed, first), "the first order")
        path.rename(path.with_suffix(".1"))
        service.send(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in service.text, "the reload")
        second = testbed.order(project, "two")
        eventually(partial(is_done, testbed, second), "the second order")
        eventually(lambda: len(of_backend(path)) == 2, "two new lines")
    assert len(of_backend(path.with_suffix(".1"))) == 2


def is_done(testbed: SimulatedSite, order: Order) -> bool:
    return testbed.state(order) == "done"
