"""The example dashboard and alert rules load, and ask for metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from waldur_site_agent.service.health import Health
from waldur_site_agent.service.metrics import PREFIX, Metrics

ROOT = Path(__file__).parents[3]
DIRECTORY = ROOT / "deploy" / "monitoring"
PAGE = ROOT / "docs" / "metrics.md"
LABELS_OF_A_SCRAPE = {"instance", "job", "le"}


def expressions() -> list[str]:
    rules = yaml.safe_load((DIRECTORY / "alerts.yaml").read_text())
    dashboard = json.loads((DIRECTORY / "dashboard.json").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    found += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [variable["query"] for variable in dashboard["templating"]["list"]]
    return [str(expression) for expression in found]


def metrics() -> dict[str, set[str]]:
    """The names that a scrape shows, with the labels that the page gives them."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `({PREFIX}_\w+)` \| (.*?) \|", text, re.MULTILINE)
    labels = {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows}
    found: dict[str, set[str]] = {}
    health = Health()
    health.watch_coordination(lambda: {"connected": True, "agents": 1, "held": []})
    for metric in Metrics(health).registry.collect():
        if metric.name.startswith(PREFIX):
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
            for ending in endings.get(metric.type, [""]):
                name = metric.name + ending
                found[name] = labels[name if ending in ("", "_total") else metric.name]
    return found


@pytest.mark.guarantee("metrics")
def test_every_metric_in_rules_and_dashboard_exists() -> None:
    asked = {
        name
        for expression in expressions()
        for name in re.findall(rf"\b(?:{PREFIX}|process)_\w+", expression)
    }
    assert len(asked) > 10
    assert asked - {*metrics(), "process_resident_memory_bytes"} == set()


def test_every_label_that_is_chosen_by_exists() -> None:
    known = metrics()
    for expression in expressions():
        for name, chosen in re.findall(rf"({PREFIX}_\w+)\{{([^}}]*)\}}", expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen))
            assert labels - known[name] - LABELS_OF_A_SCRAPE == set(), expression


def test_every_rule_says_what_happened_and_what_to_do() -> None:
    rules = yaml.safe_load((DIRECTORY / "alerts.yaml").read_text())
    named: set[str] = set()
    for rule in rules["groups"][0]["rules"]:
        assert {"summary", "description"} <= set(rule["annotations"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        named.add(rule["alert"])
    assert len(named) == len(rules["groups"][0]["rules"])


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    dashboard = json.loads((DIRECTORY / "dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
