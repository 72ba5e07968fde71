"""What became of the usage in one cycle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.report import CycleReport
from waldur_site_agent.model.errors import TemporaryError

if TYPE_CHECKING:
    from waldur_site_agent.model.errors import SiteAgentError
    from waldur_site_agent.planning.usage import MonthPlan, PartsChange


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReported:
    """Something that Waldur was not told, and why."""

    account: str
    error: SiteAgentError


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthOutcome:
    """What one month looked like, and what became of it."""

    plan: MonthPlan
    reported: frozenset[str] = frozenset()
    """The accounts whose totals were sent."""
    refused: frozenset[tuple[str, str]] = frozenset()
    """Account and component of totals that Waldur refused."""
    parts: int = 0
    """How many users' parts were sent."""
    part_changes: tuple[PartsChange, ...] = ()
    """Of a dry run: which users' parts would be sent, beside the totals of the plan."""
    failures: tuple[NotReported, ...] = ()
    waits: str = ""
    """Why nothing of the month can be sent at this moment."""
    refusal: str = ""
    """Why Waldur takes some components of this month, or all, from staff alone."""

    def has_sent(self, account: str, component: str) -> bool:
        """Whether a total that was news was taken."""
        return account in self.reported and (account, component) not in self.refused

    @property
    def not_billed(self) -> dict[str, str]:
        """By component, how much more was used than Waldur has; in measured units."""
        amounts = self.plan.outstanding(self.has_sent)
        return {component: f"{amount:.2f}" for component, amount in amounts.items()}

    @property
    def is_unfinished(self) -> bool:
        """Whether another try may change something."""
        return bool(self.waits) or any(
            isinstance(failure.error, TemporaryError) for failure in self.failures
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCycleReport(CycleReport):
    """The outcome of one pass over the usage of an offering."""

    months: tuple[MonthOutcome, ...] = ()
    """Oldest first; the month before is here when it was closed in this pass."""
    skipped: tuple[str, ...] = ()
    """Resources of which nothing is reported for the time being, and why."""
    failures: tuple[str, ...] = ()
    """What went wrong with single resources; the others were reported."""

    @property
    def has_failures(self) -> bool:
        """Whether some resource needs another try, or somebody who judges a figure kept back."""
        return bool(self.failures) or any(outcome.plan.anomalies for outcome in self.months)
