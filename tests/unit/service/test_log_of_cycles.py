"""The log says what changed: what lasts is one line, whichever cycle meets it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from harness import Relay, SimulatedSite
from waldur_site_agent.cycles.conditions import Conditions
from waldur_site_agent.service.session import MEMBERSHIP_SYNC, ORDER_PROCESS, Mode
from waldur_site_agent.service.worker import run_cycle


@dataclass
class Process:
    """Cycles of one process, with a clock of its own."""

    testbed: SimulatedSite
    moment: datetime = field(default_factory=lambda: datetime.now(UTC))
    conditions: Conditions = field(default_factory=Conditions)

    def cycle(self, mode: Mode) -> list[dict[str, Any]]:
        testbed = self.testbed.with_(now=lambda: self.moment)
        with capture_logs() as lines, testbed.agent() as site:
            run_cycle(replace(site, conditions=self.conditions), mode)
        return [dict(line) for line in lines if line["event"] != "cycle ended"]

    def events(self, mode: Mode) -> list[str]:
        return [line["event"] for line in self.cycle(mode)]


@pytest.fixture
def process(testbed: SimulatedSite, only_warnings_are_logged: None) -> Process:  # noqa: ARG001 - first
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(20))
    return Process(testbed)


class _Expired(Relay):
    """Refuses approvals as Waldur does for the orders of a project that has expired."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/approve_by_provider/"):
            return httpx.Response(400, json=["Project 'Climate' is expired."], request=request)
        return super().handle_request(request)


def test_twenty_orders_of_an_expired_project_are_one_line_and_none_in_the_next_cycle(
    process: Process,
) -> None:
    testbed = process.testbed
    project = testbed.project(ada="ada01")
    for number in range(20):
        testbed.order(project, f"run-{number}")
    process.testbed = testbed.with_(transport=_Expired)
    (line,) = process.cycle(ORDER_PROCESS)
    assert (line["event"], line["count"]) == ("order deferred to the next pass", 20)
    assert "Project 'Climate' is expired." in line["reason"]
    assert process.events(ORDER_PROCESS) == []
    process.moment += timedelta(days=1)
    (line,) = process.cycle(ORDER_PROCESS)
    assert (line["count"], "since" in line) == (20, True)
    process.testbed = testbed
    assert process.events(ORDER_PROCESS).count("order done") == 20
    assert process.cycle(ORDER_PROCESS) == []


def test_members_who_wait_are_named_once_and_newcomers_at_once(process: Process) -> None:
    testbed = process.testbed
    project = testbed.project(ada="ada01")
    testbed.settled(project, cpu=10, mem=10)
    testbed.sandbox.customer.add_member(project, testbed.person("bob", "bob01"))
    process.testbed = testbed.with_(unknown_to_the_system=frozenset({"bob01", "cyd01"}))
    (line,) = process.cycle(MEMBERSHIP_SYNC)
    assert line["event"] == "members not added yet: unknown to the backend"
    assert line["user"] == "bob01"
    assert process.events(MEMBERSHIP_SYNC) == []
    testbed.sandbox.customer.add_member(project, testbed.person("cyd", "cyd01"))
    (line,) = process.cycle(MEMBERSHIP_SYNC)
    assert line["count"] == 2
    assert line["affected"][0].startswith("cyd01")


def test_nobody_leaves_is_a_line_and_so_is_its_end(process: Process) -> None:
    testbed = process.testbed
    testbed.settled(testbed.project(ada="ada01"), cpu=10, mem=10)
    operation = "marketplace_service_providers_project_service_accounts_list"
    testbed.sandbox.faults.add(operation, "status", status=502, times=None)
    (line,) = process.cycle(MEMBERSHIP_SYNC)
    assert line["event"] == "removals suspended in this cycle"
    assert line["log_level"] == "warning"
    assert "service accounts could not be read" in line["reason"]
    assert process.events(MEMBERSHIP_SYNC) == []
    testbed.sandbox.faults.clear()
    (line,) = process.cycle(MEMBERSHIP_SYNC)
    assert (line["event"], line["condition"]) == (
        "resolved",
        "removals suspended in this cycle",
    )


def test_the_time_of_a_sync_is_told_without_a_line(process: Process) -> None:
    testbed = process.testbed
    testbed.settled(testbed.project(ada="ada01"), cpu=10, mem=10)
    process.moment += timedelta(days=1)
    assert process.cycle(MEMBERSHIP_SYNC) == []
    assert testbed.sandbox.requests.count("marketplace_provider_resources_refresh_last_sync") == 1


def test_a_cycle_that_is_cut_short_ends_no_condition(process: Process) -> None:
    testbed = process.testbed
    process.testbed = testbed.with_(transport=_Expired)
    testbed.order(testbed.project(ada="ada01"))
    assert len(process.cycle(ORDER_PROCESS)) == 1
    testbed.sandbox.faults.add("marketplace_orders_list", "status", status=503, times=None)
    assert process.events(ORDER_PROCESS) == ["cycle cut short; will retry"]
    testbed.sandbox.faults.clear()
    assert process.events(ORDER_PROCESS) == []
