"""A plan: backend changes in a stable order, each with its reason; and the guard.

The guard refuses the removals of a plan that exceed the site's thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.backends import Action, DeleteResource, RemoveMembers


@dataclass(frozen=True, slots=True)
class Step:
    """One planned action; ``order`` is the order it belongs to, if any."""

    action: Action
    reason: str
    order: UUID | None = None
    before: Mapping[str, Decimal] = field(default_factory=dict)
    """For limits: the current values, in backend units."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """For several members or components: the individual reasons."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one pass wants to change in the backend."""

    steps: tuple[Step, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions, in order."""
        return tuple(step.action for step in self.steps)

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How much one plan may remove from an offering without confirmation."""

    max_removals_percent: Decimal
    max_removals: int
    removals_allowed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A plan split into the allowed and the refused part."""

    allowed: Plan
    refused: Plan
    reason: str = ""


def guard(
    plan: Plan,
    members_found: int,
    terminations: int,
    thresholds: Thresholds,
    *,
    removed_before: int = 0,
) -> Guarded:
    """Split a plan into an allowed and a refused part.

    Args:
        plan: what the pass wants to change.
        members_found: the current number of memberships of the offering.
        terminations: the number of resources with terminate orders.
        thresholds: the site's thresholds.
        removed_before: memberships removed by partial passes since the last full pass, so that
            many small plans count as one large one.
    """
    now = removals_in(plan)
    removed, members_found = now + removed_before, members_found + removed_before
    deleted = sum(isinstance(step.action, DeleteResource) for step in plan.steps)
    reason = ""
    share = removed * 100 > thresholds.max_removals_percent * members_found
    if now and removed > thresholds.max_removals and share:
        reason = (
            f"the plan would remove {removed} of {members_found} members, more than "
            f"{thresholds.max_removals} and more than {thresholds.max_removals_percent} %"
        )
    elif deleted > terminations:
        reason = (
            f"the plan would delete {deleted} accounts, but only {terminations} resources are "
            "being terminated"
        )
    if not reason or thresholds.removals_allowed:
        return Guarded(allowed=plan, refused=Plan())
    return Guarded(
        allowed=Plan(tuple(step for step in plan.steps if not _takes_away(step))),
        refused=Plan(tuple(step for step in plan.steps if _takes_away(step))),
        reason=f"{reason}; allow it with --allow-removals or safety.allow_removals",
    )


def removals_in(plan: Plan) -> int:
    """The number of memberships that a plan removes."""
    return sum(len(s.action.members) for s in plan.steps if isinstance(s.action, RemoveMembers))


def _takes_away(step: Step) -> bool:
    return isinstance(step.action, RemoveMembers | DeleteResource)
