"""A plan: what is to be changed, in a stable order, each change with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal
    from uuid import UUID

    from waldur_site_agent.backends import Action


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
