"""Budgets: how much of its limits a resource has used, and the notices that tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Consumption:
    """What is used of one limit; as a backend tells it, in its own units and as it counts.

    What the backend counts decides whether jobs start; Slurm counts with decay, if the site has it.
    """

    limit: Decimal
    used: Decimal

    @property
    def share(self) -> Decimal:
        """The used part of the limit; of a limit of zero, everything is used."""
        return self.used / self.limit if self.limit else Decimal(1)

    @property
    def left(self) -> Decimal:
        """What is left, never less than nothing."""
        return max(self.limit - self.used, Decimal(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Consumption):
    """What a resource has used of the limit of one component, in Waldur's measured units."""

    resource: UUID
    account: str
    title: str
    """The name of the resource in Waldur."""
    project: str
    """The slug of its project."""
    ends_on: date | None
    component: str
    label: str
    unit: str


@dataclass(frozen=True, slots=True)
class BudgetNotice:
    """That a budget has crossed a threshold, to be told once."""

    budget: Budget
    percent: int
    """The threshold that was crossed; the highest, where one step crossed several."""

    @property
    def key(self) -> str:
        """The same for every attempt to tell of this crossing, so that receivers can compare."""
        budget = self.budget
        return f"{budget.resource}/{budget.component}/{budget.limit.normalize():f}/{self.percent}"
