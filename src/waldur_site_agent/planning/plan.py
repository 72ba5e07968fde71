"""A plan: what is to be changed, in a stable order, each change with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.backends import Action, DeleteResource, RemoveMembers


@dataclass(frozen=True, slots=True)
class Step:
    """One planned action; ``order`` is the order that asked for it."""

    action: Action
    reason: str
    order: UUID | None = None
    before: Mapping[str, Decimal] = field(default_factory=dict)
    """For changes of limits: what the backend has now, in its units."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """For several members or components: why each of them, where it is not ``reason``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass wants to change in the backend, and nothing that it does not."""

    steps: tuple[Step, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """The bare actions, in the plan's order."""
        return tuple(step.action for step in self.steps)

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How much one plan may take away from an offering without asking."""

    max_removals_percent: Decimal
    max_removals: int
    removals_allowed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """The part of a plan that may be carried out, and the part that may not."""

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
    """Split a plan into what is allowed and what is refused.

    Args:
        plan: what the pass wants to change.
        members_found: how many memberships the offering's resources have now.
        terminations: how many resources the terminate orders in hand ask to delete.
        thresholds: the site's limits.
        removed_before: how many memberships passes over other parts of the offering have removed
            since all of it was judged; many small plans count as one large one.
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
        reason = f"the plan would delete {deleted} accounts, but {terminations} are terminated"
    if not reason or thresholds.removals_allowed:
        return Guarded(allowed=plan, refused=Plan())
    return Guarded(
        allowed=Plan(tuple(step for step in plan.steps if not _takes_away(step))),
        refused=Plan(tuple(step for step in plan.steps if _takes_away(step))),
        reason=f"{reason}; allow it with --allow-removals or safety.allow_removals",
    )


def removals_in(plan: Plan) -> int:
    """How many memberships a plan removes."""
    return sum(len(s.action.members) for s in plan.steps if isinstance(s.action, RemoveMembers))


def _takes_away(step: Step) -> bool:
    return isinstance(step.action, RemoveMembers | DeleteResource)
