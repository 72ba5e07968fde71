"""Usage reported by a running service."""

from __future__ import annotations

import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from harness import Installation, eventually
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent_sandbox import Resource

LAST = BillingMonth.of(datetime.now(UTC), UTC).previous


BEFORE = LAST.previous


@pytest.fixture
def ocean(installation: Installation) -> Resource:
    """A resource that used 2 and 3 units in the last two months, and nothing in this one."""
    testbed = installation.testbed
    installation.write_offerings({"reporting_backend": "slurm"}, timezone="UTC")
    made = testbed.created(testbed.project(ada="ada01", bob="bob01"), "Ocean")
    born = replace(made, created=BEFORE.period(UTC).start - timedelta(days=1))
    testbed.sandbox.customer.world.put(born)
    for month, user, hours in ((BEFORE, "ada01", 2), (LAST, "ada01", 1), (LAST, "bob01", 2)):
        start = month.period(UTC).start + timedelta(days=2)
        tres = {"cpu": 1000}
        testbed.slurm.run_job(user, made.backend_id, tres, start, start + timedelta(hours=hours))
    testbed.forget()
    return born


@pytest.mark.parametrize("mode", ["report", "all"])
def test_an_offering_that_follows_events_is_reported_all_the_same(
    installation: Installation, ocean: Resource, mode: str
) -> None:
    change = {"reporting_backend": "slurm", "order_processing_backend": ..., "stomp_enabled": True}
    installation.write_offerings(change, timezone="UTC")
    variables = {"WALDUR_SITE_AGENT_REPORT_PERIOD_MINUTES": "0.01"}
    side = installation.testbed.sandbox.customer
    with installation.service("-m", mode, **variables) as service:
        eventually(lambda: side.usages(ocean), "usage reported")
        service.send(signal.SIGTERM)
        assert service.wait() == 0, service.text


def test_an_outage_at_the_start_does_not_delay_the_first_report_by_a_whole_period(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    installation.write(reporting_backend="slurm")
    testbed.created(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add("users_me_retrieve", "status", status=401, times=1)
    reports = "marketplace_component_usages_set_usage"
    with installation.service("-m", "report") as service:
        eventually(lambda: testbed.sandbox.requests.count(reports), "a report")
        assert "could not start; will retry" in service.text
