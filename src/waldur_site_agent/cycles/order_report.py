"""What became of the orders of one cycle, for the log, the exit code and the dry run."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.report import CycleReport
from waldur_site_agent.cycles.scoping import Seen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from waldur_site_agent.model.orders import Order
    from waldur_site_agent.planning.orders import OrderPlan
    from waldur_site_agent.planning.writes import Write


class Fate(enum.Enum):
    """What a cycle made of an order."""

    PLANNED = "planned"
    """Dry run: nothing was done."""
    DONE = "done"
    ERRED = "erred"
    """It will not work, and Waldur knows why: from the agent, or by itself."""
    WAITING = "waiting"
    """Left as it is; the next cycle goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFate:
    """One order's fate, with the reason where it is not plainly done."""

    order: Order
    fate: Fate
    reason: str = ""
    is_trouble: bool = False
    """Whether somebody should look at it; waiting for the next pass by itself is no trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersReport(CycleReport):
    """The outcome of one pass over the orders of an offering."""

    fates: tuple[OrderFate, ...] = ()
    plans: tuple[OrderPlan, ...] = ()
    waiting: frozenset[str] = frozenset()
    """Of a dry run: whom the backend could not add yet, of those whom its plans add."""
    last_usage: Mapping[UUID, tuple[Write, ...]] = field(default_factory=dict)
    """Of a dry run: by order, the usage that is reported before it is marked done."""
    seen: Seen = field(default_factory=Seen)

    @property
    def has_failures(self) -> bool:
        """Whether some order needs a human or another try."""
        return any(fate.is_trouble for fate in self.fates)
