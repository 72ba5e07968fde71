"""What tests of usage share: a simulated cluster with a clock of its own, and its usage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fractions import Fraction

from waldur_site_agent.backends.processes import Runner
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period, UsageReport
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(text: str) -> datetime:
    """``11-22 12:00`` of the year 2026, UTC."""
    return datetime.fromisoformat(f"2026-{text}:00+00:00")


def between(first: str, last: str) -> Period:
    return Period(start=at(first), end=at(last))


OCTOBER = between("10-01 00:00", "11-01 00:00")
NOVEMBER = between("11-01 00:00", "12-01 00:00")


def simulated(now: datetime = NOW) -> SimulatedSlurm:
    slurm = SimulatedSlurm()
    with slurm.change() as state:
        state.now = int(now.timestamp())
    return slurm


def no_time_passes() -> float:
    return 0.0


def backend_on(
    runner: Runner | SimulatedSlurm,
    components: Sequence[str] = ("cpu",),
    clock: Callable[[], float] = no_time_passes,
    now: Callable[[], float] = NOW.timestamp,
    **settings: object,
) -> SlurmBackend:
    counted = {
        name: Component(type=name, measured_unit="h", label=name, accounting_type="usage")
        for name in components
    }
    return SlurmBackend(
        SlurmSettings.model_validate(settings),
        counted,
        runner=runner.runner() if isinstance(runner, SimulatedSlurm) else runner,
        clock=clock,
        now=now,
    )


def tres_seconds(report: UsageReport, resource: str = "climate") -> dict[str, dict[str, Fraction]]:
    """By user and component."""
    return {
        user: {component: amount * 60 for component, amount in amounts.items()}
        for user, amounts in report.resources[resource].by_user.items()
    }


def cpu_seconds(report: UsageReport, resource: str = "climate") -> dict[str, int]:
    """By user."""
    return {user: int(amounts["cpu"]) for user, amounts in tres_seconds(report, resource).items()}
