"""A budget over three periods on a real Slurm: carry-over, resets, and what jobs have used.

Jobs run now. What slurmdbd has recorded of them is then moved to the period that the sandbox and
the agent are in; slurmctld's own count, which limits are held against, is that of the real jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from harness import SimulatedSite
from integration.slurm.accounting_database import AccountingDatabase
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_sandbox.server import ADDRESS

pytestmark = pytest.mark.slurm

UNIT = 10
"""CPU-minutes in what is sold."""
SOLD = 10
_MOVE = """
UPDATE wsatest_job_table SET time_submit = time_submit + {by}, time_eligible = time_eligible + {by},
time_start = time_start + {by}, time_end = time_end + {by}
WHERE account = '{account}' AND time_start BETWEEN {since} AND {until}
"""


@dataclass
class Calendar:
    """The time of the sandbox and of the agent, some months ahead of the cluster's."""

    testbed: SimulatedSite

    @property
    def now(self) -> datetime:
        return self.testbed.sandbox.clock.now()

    def next_month(self, hours: float) -> None:
        first = (self.now.replace(day=1) + timedelta(days=32)).replace(day=1)
        begin = first.replace(hour=0, minute=0, second=0, microsecond=0)
        ahead = begin + timedelta(hours=hours) - self.now
        self.testbed.sandbox.clock.advance(ahead.total_seconds())


@dataclass
class Budgets:
    """A resource with a budget on a real cluster."""

    slurm: Any
    testbed: SimulatedSite
    calendar: Calendar
    resource: Resource
    user: str

    def limit(self) -> int:
        words = ("show", "assoc", "user=", f"account={self.name}", "format=grptresmins")
        said = self.slurm.run("sacctmgr", "-P", "-n", *words).stdout.strip()
        return int(said.partition("cpu=")[2].partition(",")[0])

    @property
    def name(self) -> str:
        return self.resource.backend_id

    def counted(self) -> Decimal:
        with self.testbed.agent() as site:
            return site.backend.counted_usage([self.name])[self.name]["cpu"]

    def run_job(self, cpus: int, seconds: int) -> Decimal:
        """Run a job; return the CPU-minutes that it took, which are those of the present period."""
        before = self.counted()
        begin = int(datetime.now(UTC).timestamp())
        submitted = ("--parsable", "-A", self.name, "-o", "/dev/null", "-t", "1", "-D", "/")
        words = (*submitted, "-c", str(cpus), "--mem=10", "--wrap", f"sleep {seconds}")
        job = self.slurm.sbatch(*words, user=self.user).stdout.strip()
        asked = ("sacct", "-X", "-n", "-P", "-j", job, "--format=State,ElapsedRaw")
        self.slurm.wait_until(lambda: "COMPLETED" in self.slurm.run(*asked).stdout)
        self.slurm.wait_until(lambda: self.counted() > before)
        elapsed = int(self.slurm.run(*asked).stdout.strip().rpartition("|")[2])
        end = int(datetime.now(UTC).timestamp())
        by = int(self.calendar.now.timestamp()) - end - 60
        move = _MOVE.format(by=by, account=self.name, since=begin - 60, until=end)
        AccountingDatabase(self.slurm).sql(move)
        return Decimal(cpus * elapsed) / 60


@pytest.fixture
def budgets(real_slurm: Any, testbed: SimulatedSite, prefix: str) -> Iterator[Budgets]:
    component = ComponentSettings(
        measured_unit="10 CPU-minutes",
        unit_factor=Decimal(UNIT),
        accounting_type="limit",
        label="CPU",
    )
    testbed = testbed.with_(
        url=ADDRESS,  # within this process, where the clock is the sandbox's
        runner=lambda _simulated: real_slurm.runner(),
        components={"cpu": component},
        now=testbed.sandbox.clock.now,
        settings={
            "customer_prefix": f"{prefix}c_",
            "project_prefix": f"{prefix}p_",
            "allocation_prefix": f"{prefix}a_",
            "periodic_limits": {"enabled": True},
        },
    )
    calendar = Calendar(testbed)
    calendar.next_month(hours=240)
    user = real_slurm.users[0]
    resource = testbed.created(testbed.project("climate", ada=user), cpu=SOLD)
    testbed.sandbox.customer.add_periodic_policy(
        period=2, carryover_factor=100, grace_ratio=0, tres_billing_enabled=False
    )
    testbed.sandbox.clock.advance(3600)  # jobs begin after the resource was made
    yield Budgets(real_slurm, testbed, calendar, resource, user)
    real_slurm.clean(prefix)


def units(minutes: Decimal) -> Decimal:
    """What Waldur is told of minutes."""
    return (minutes / UNIT).quantize(Decimal("0.01"))


@pytest.mark.guarantee("budgets: Carry-over and reset")
def test_a_budget_over_three_periods_on_a_real_slurm(budgets: Budgets) -> None:
    budgets.testbed.sync()
    assert budgets.limit() == 2 * SOLD * UNIT  # nothing was used in the month before
    assert budgets.counted() == 0
    first = budgets.run_job(cpus=30, seconds=10)
    budgets.testbed.sync()
    assert budgets.counted() >= int(first)
    budgets.calendar.next_month(hours=2)
    budgets.testbed.sync()
    assert budgets.counted() == 0  # it was reset
    assert abs(budgets.limit() - (2 * SOLD - units(first)) * UNIT) < 1
    second = budgets.run_job(cpus=60, seconds=12)
    before = budgets.limit(), budgets.counted()
    budgets.testbed.sync()
    assert before == (budgets.limit(), budgets.counted())  # nothing moves within a period
    budgets.calendar.next_month(hours=2)
    budgets.testbed.sync()
    assert budgets.counted() == 0
    assert abs(budgets.limit() - (2 * SOLD - units(second)) * UNIT) < 1
    shares = ("show", "assoc", "user=", f"account={budgets.name}", "format=fairshare")
    assert budgets.slurm.run("sacctmgr", "-P", "-n", *shares).stdout.strip() == "6"


def test_what_was_used_before_a_late_reset_is_missing_in_the_budget(budgets: Budgets) -> None:
    budgets.testbed.sync()
    budgets.run_job(cpus=30, seconds=5)
    budgets.calendar.next_month(hours=24)
    late = budgets.run_job(cpus=60, seconds=10)  # the agent is away
    budgets.testbed.sync()
    note = budgets.testbed.sandbox.customer.current(budgets.resource).backend_metadata["budget"]
    assert isinstance(note, dict)
    used_before = Decimal(str(note["used_before"]["cpu"]))  # type: ignore[index,call-overload]  # JSON
    assert budgets.counted() == 0
    assert abs(budgets.limit() - ((2 * SOLD - used_before) * UNIT - late)) < 1
