"""A quiet agent is not a healthy one: what exit code, log, health, metrics and plan say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness import Installation, SimulatedSite
from waldur_site_agent.service.monitoring import Monitoring
from waldur_site_agent.service.session import MEMBERSHIP_SYNC
from waldur_site_agent.service.worker import run_cycle

SERVICE_ACCOUNTS = "marketplace_service_providers_project_service_accounts_list"


def stranger(testbed: SimulatedSite) -> str:
    return testbed.sandbox.customer.add_user("stranger").token


@pytest.mark.parametrize("arguments", [("--once",), ("--dry-run",), ("--once", "-m", "report")])
def test_a_token_that_sees_nothing_ends_in_exit_code_one_and_names_the_key(
    installation: Installation, arguments: tuple[str, ...]
) -> None:
    installation.write(waldur_api_token=stranger(installation.testbed), reporting_backend="slurm")
    done = installation.run(*arguments)
    assert done.code == 1
    assert "waldur_api_token" in done.out + done.err
    assert "has no role at all" in done.out + done.err
    assert "No changes" not in done.out


def test_a_plan_says_that_nobody_leaves_in_text_and_for_machines(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    testbed.settled(testbed.project(ada="ada01"))
    installation.write(membership_sync_backend="slurm")
    testbed.sandbox.faults.add(SERVICE_ACCOUNTS, "status", status=502, times=None)
    plan = ("plan", "-m", "membership_sync")
    text = installation.run(*plan, command="waldur-site-agent").out
    assert "! removals suspended in this cycle: service accounts could not be read: " in text
    found = installation.run(*plan, "--output", "json", command="waldur-site-agent").out
    (report,) = json.loads(found)
    assert report["removals_suspended"].startswith("service accounts could not be read: ")


def test_a_plan_for_machines_has_the_trouble(installation: Installation) -> None:
    installation.write(waldur_offering_uuid="11111111-1111-4111-9111-11111111cafe")
    done = installation.run("plan", "--output", "json", command="waldur-site-agent")
    assert done.code == 1
    assert json.loads(done.out)[0]["trouble"].startswith("waldur_offering_uuid: offering 11111111")


def test_nobody_leaves_is_in_the_report_health_and_metrics_until_the_list_is_read(
    testbed: SimulatedSite,
) -> None:
    pytest.importorskip("prometheus_client")
    from waldur_site_agent.service.metrics import Metrics  # noqa: PLC0415 - an extra

    monitoring = Monitoring("membership_sync")
    metrics = monitoring.metrics = Metrics(monitoring.health)
    testbed.created(testbed.project(ada="ada01"))
    labels = {"offering": "Test cluster", "mode": "membership_sync"}

    def cycle() -> tuple[str, float | None, float | None]:
        with testbed.agent() as site:
            watched = replace(site, observer=monitoring.observe("Test cluster", "membership_sync"))
            report = run_cycle(watched, MEMBERSHIP_SYNC)
        suspended, failing = (
            metrics.registry.get_sample_value(f"waldur_site_agent_{name}", labels)
            for name in ("removals_suspended", "worker_failing")
        )
        assert report.failed is bool(suspended)
        return (
            monitoring.health.worker_health("Test cluster", "membership_sync").trouble,
            suspended,
            failing,
        )

    testbed.sandbox.faults.add(SERVICE_ACCOUNTS, "status", status=502, times=None)
    trouble, *gauges = cycle()
    assert trouble.startswith("removals suspended in this cycle: service accounts could not")
    assert gauges == [1, 1]
    testbed.sandbox.faults.clear()
    assert cycle() == ("", 0, 0)
