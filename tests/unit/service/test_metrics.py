"""Metrics are named after Prometheus' rules, documented, and say what happened."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from structlog.testing import capture_logs

from harness.patience import patience
from waldur_site_agent.backends import AddMembers, Outcome, Result, Skipped, TemporaryError
from waldur_site_agent.config import Configuration
from waldur_site_agent.cycles.membership import MembershipReport
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent.model.budget_notices import Budget
from waldur_site_agent.service.endpoint import Endpoint
from waldur_site_agent.service.health import Health
from waldur_site_agent.service.logs import configure_logs
from waldur_site_agent.service.metrics import PREFIX, Metrics
from waldur_site_agent.service.monitoring import LISTEN_VARIABLE, Monitoring

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
EVENTS = {
    "connected": True,
    "waiting": 2,
    "oldest_waiting_seconds": 3.5,
    "connections": 4,
    "messages": {"order looked at": 5},
}
COORDINATION = {"connected": True, "agents": 2, "held": ["report of Cluster"]}
BUDGET = Budget(
    resource=UUID(int=1),
    account="a_run",
    title="run",
    project="climate",
    ends_on=None,
    component="cpu",
    label="CPU",
    unit="k-Hours",
    limit=Decimal(10),
    used=Decimal(8),
)
SKIPPED = Skipped("ada01", TemporaryError("unknown to the operating system"))
WORK = {"offering": "Cluster", "mode": "report"}


@pytest.fixture
def monitoring() -> Iterator[Monitoring]:
    monitoring = Monitoring("all")
    monitoring.metrics = Metrics(monitoring.health)
    yield monitoring
    monitoring.close()


def value(monitoring: Monitoring, name: str, **labels: str) -> float | None:
    assert monitoring.metrics is not None
    return monitoring.metrics.registry.get_sample_value(f"{PREFIX}_{name}", labels)


def configuration(**settings: Any) -> Configuration:
    offering = {
        "name": "Cluster",
        "waldur_api_url": "https://waldur.example.com",
        "waldur_offering_uuid": "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1",
    }
    return Configuration.model_validate({"offerings": [offering], **settings})


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience())
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


@pytest.mark.parametrize(
    ("report", "result", "succeeded"),
    [
        (CycleReport(offering="Cluster"), "success", True),
        (CycleReport(offering="Cluster", trouble="away"), "cut_short", False),
    ],
)
def test_a_cycle_is_counted_by_its_result(
    monitoring: Monitoring, report: CycleReport, result: str, succeeded: bool
) -> None:
    watch = monitoring.observe("Cluster", "report")
    watch.cycle_began()
    watch.cycle_ended(report, 2.5)
    assert value(monitoring, "cycles_total", **WORK, result=result) == 1
    assert value(monitoring, "cycle_duration_seconds_sum", **WORK) == 2.5
    assert (value(monitoring, "last_success_timestamp_seconds", **WORK) is not None) is succeeded


def test_actions_requests_commands_and_refusals_are_counted(monitoring: Monitoring) -> None:
    watch = monitoring.observe("Cluster", "report")
    action = AddMembers("a_run", ("ada01",))
    watch.action(Outcome(action, Result.DONE))
    watch.action(Outcome(action, Result.FAILED))
    watch.request("orders_list", 502, 0.2)
    watch.request("orders_list", "error", 0.2)
    watch.command("sacctmgr read", "failure", 0.2)
    watch.cycle_ended(CycleReport(offering="Cluster", refused_reason="too many"), 1)
    done = {**WORK, "action": "AddMembers", "result": "done"}
    assert value(monitoring, "actions_total", **done) == 1
    assert value(monitoring, "actions_total", **{**done, "result": "failed"}) == 1
    requests = {"operation": "orders_list"}
    assert value(monitoring, "waldur_requests_total", **requests, status="502") == 1
    assert value(monitoring, "waldur_requests_total", **requests, status="error") == 1
    commands = {"command": "sacctmgr read", "result": "failure"}
    assert value(monitoring, "backend_commands_total", **commands) == 1
    assert value(monitoring, "refused_plans_total", **WORK) == 1


def test_workers_and_events_are_looked_at_when_somebody_asks(monitoring: Monitoring) -> None:
    monitoring.health.worker_health("Cluster", "report")
    monitoring.health.watch_events("Cluster", lambda: EVENTS)
    assert value(monitoring, "worker_alive", **WORK) == 1
    at = {"offering": "Cluster"}
    assert value(monitoring, "event_connection_up", **at) == 1
    assert value(monitoring, "event_scopes_waiting", **at) == 2
    assert value(monitoring, "event_oldest_waiting_seconds", **at) == 3.5
    assert value(monitoring, "event_connections_total", **at) == 4
    kinds = {"type": "order", "outcome": "looked at"}
    assert value(monitoring, "event_messages_total", **at, **kinds) == 5
    monitoring.health.worker_health("Cluster", "report").monotonic = lambda: 1e9
    assert value(monitoring, "worker_alive", **WORK) == 0


def test_an_offering_that_cannot_be_served_fails_for_ever_but_is_never_stuck(
    monitoring: Monitoring,
) -> None:
    monitoring.health.cannot_serve("Cluster", "report", "unknown key")
    assert value(monitoring, "worker_failing", **WORK) == 1
    monitoring.health.worker_health("Cluster", "report").monotonic = lambda: 1e9
    assert value(monitoring, "worker_alive", **WORK) == 1
    assert value(monitoring, "worker_silent_seconds", **WORK) == 0


def test_a_defect_is_counted_wherever_it_is_logged(monitoring: Monitoring) -> None:
    configure_logs("error", "json")
    monitoring.report_errors(configuration())
    structlog.get_logger().error("cycle failed because of a bug", exc_info=KeyError("surprise"))
    structlog.get_logger().error("expected", reason="no exception")
    assert value(monitoring, "defects_total") == 1


def test_the_page_lists_every_metric_with_its_labels_and_no_other(monitoring: Monitoring) -> None:
    watch = monitoring.observe("Cluster", "report")
    watch.action(Outcome(AddMembers("a_run", ("ada01",)), Result.DONE, None, (SKIPPED,)))
    watch.request("orders_list", 200, 0.2)
    watch.command("sacctmgr read", "success", 0.2)
    watch.cycle_ended(CycleReport(offering="Cluster", refused_reason="too many"), 1)
    watch.cycle_ended(MembershipReport(offering="Cluster"), 1)
    watch.cycle_ended(UsageCycleReport(offering="Cluster", budgets=(BUDGET,)), 1)
    monitoring.health.watch_events("Cluster", lambda: EVENTS)
    monitoring.health.watch_coordination(lambda: COORDINATION)
    assert monitoring.metrics is not None
    registered: dict[str, set[str]] = {}
    for metric in monitoring.metrics.registry.collect():
        if metric.name.startswith(PREFIX):
            name = metric.name + ("_total" if metric.type == "counter" else "")
            registered[name] = {*metric.samples[0].labels} - {"le"}
    rows = re.findall(rf"^\| `({PREFIX}_\w+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows} == registered


def test_a_budget_that_is_gone_has_no_share_any_more(monitoring: Monitoring) -> None:
    watch = monitoring.observe("Cluster", "report")
    for budgets, share in (((BUDGET,), 0.8), ((), None)):
        watch.cycle_ended(UsageCycleReport(offering="Cluster", budgets=budgets), 1)
        labels = {"offering": "Cluster", "account": "a_run", "component": "cpu"}
        assert monitoring.metrics is not None
        registry = monitoring.metrics.registry
        assert registry.get_sample_value(f"{PREFIX}_budget_used_ratio", labels) == share


def test_names_follow_prometheus_rules_and_help_texts_end(monitoring: Monitoring) -> None:
    assert monitoring.metrics is not None
    for metric in monitoring.metrics.registry.collect():
        if not metric.name.startswith(PREFIX):
            continue
        assert metric.documentation.endswith("."), metric.name
        assert re.fullmatch(r"[a-z_]+", metric.name)
        if metric.type == "histogram":
            assert metric.name.endswith("_seconds")


def test_the_endpoint_serves_health_and_metrics_and_nothing_else(monitoring: Monitoring) -> None:
    assert monitoring.metrics is not None
    endpoint = Endpoint("127.0.0.1:0", monitoring.health, monitoring.metrics.exposition)
    try:
        status, text = get(endpoint.port, "/metrics")
        assert (status, f"{PREFIX}_build_info" in text) == (200, True)
        worker_health = monitoring.health.worker_health("Cluster", "report")
        worker_health.fail("Waldur is away")
        status, text = get(endpoint.port, "/health")
        assert (status, json.loads(text)["status"]) == (200, "failing")
        worker_health.monotonic = lambda: 1e9
        status, text = get(endpoint.port, "/health")
        assert (status, json.loads(text)["status"]) == (503, "stuck")
        assert get(endpoint.port, "/etc/passwd")[0] == 404
    finally:
        endpoint.close()


def test_an_address_that_is_taken_is_reported_and_the_agent_goes_on() -> None:
    monitoring = Monitoring("report")
    with socket.create_server(("127.0.0.1", 0)) as other, capture_logs() as logged:
        port = other.getsockname()[1]
        monitoring.adopt(configuration(metrics_listen=f"127.0.0.1:{port}"), {})
        (entry,) = logged
        assert entry["log_level"] == "error"
        assert entry["metrics_listen"] == f"127.0.0.1:{port}"
        assert LISTEN_VARIABLE in entry["remedy"]
        monitoring.beat()
    monitoring.close()


def test_the_variable_gives_each_service_an_address_of_its_own() -> None:
    monitoring = Monitoring("report")
    taken = configuration(metrics_listen="192.0.2.1:1")
    with capture_logs() as logged:
        monitoring.adopt(taken, {LISTEN_VARIABLE: "127.0.0.1:0"})
    monitoring.close()
    assert logged == []  # 192.0.2.1 is no address of any machine
    assert monitoring.metrics is not None


def test_health_alone_needs_no_configuration() -> None:
    monitoring = Monitoring("report", Health())
    monitoring.adopt(configuration(), {})
    monitoring.beat()
    assert monitoring.metrics is None
