"""A simulated site whose resources have budgets, and its calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from harness.testbed import SimulatedSite
from waldur_site_agent_sandbox import Resource

START = datetime(2031, 2, 10, 12, tzinfo=UTC)
"""In the middle of a quarter."""
BUDGETS = {"periodic_limits": {"enabled": True}}
_CPUS = 1000


def a_budget(testbed: SimulatedSite) -> SimulatedSite:
    """The same site, with budgets, at :data:`START` on both sides and for the agent."""
    with testbed.slurm.change() as cluster:
        cluster.configuration["PriorityUsageResetPeriod"] = "NONE"
    testbed = testbed.with_(settings={**testbed.settings, **BUDGETS}, now=testbed.sandbox.clock.now)
    at(testbed, START)
    return testbed


def at(testbed: SimulatedSite, moment: datetime) -> None:
    """Let it be that moment everywhere."""
    clock = testbed.sandbox.clock
    clock.advance((moment - clock.now()).total_seconds())
    with testbed.slurm.change() as cluster:
        cluster.now = int(moment.timestamp())


def next_quarter(testbed: SimulatedSite, after: timedelta = timedelta(hours=1)) -> None:
    """Let the next quarter begin, and a time pass."""
    now = testbed.sandbox.clock.now()
    months = now.year * 12 + (now.month - 1) // 3 * 3 + 3
    at(testbed, datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC) + after)


def use(testbed: SimulatedSite, resource: Resource, minutes: int) -> None:
    """Let a job run that takes so many CPU-minutes, and that time pass."""
    begin = testbed.sandbox.clock.now().replace(microsecond=0)
    end = begin + timedelta(minutes=minutes / _CPUS)
    testbed.slurm.run_job("ada01", resource.backend_id, {"cpu": _CPUS}, begin, end)
    at(testbed, end + timedelta(minutes=1))


def budget_of(testbed: SimulatedSite, resource: Resource) -> dict[str, int]:
    """The limits of a resource's account."""
    return dict(testbed.slurm.state.accounts[resource.backend_id].limits)


def resets(testbed: SimulatedSite) -> list[tuple[int, str]]:
    """Every reset of usage, and of what."""
    return list(testbed.slurm.state.usage_resets)
