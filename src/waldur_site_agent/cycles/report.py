"""What every cycle reports: whether it was cut short or refused, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waldur_site_agent.planning.plan import Plan

if TYPE_CHECKING:
    from waldur_site_agent.planning.writes import Write


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What a command did once, by hand: a line for each object."""

    done: tuple[str, ...] = ()
    """What was done, or would be."""
    trouble: tuple[str, ...] = ()
    """What went wrong."""
    remarks: tuple[str, ...] = ()
    """What was seen and left as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleReport:
    """The outcome of one pass over an offering; what was done is told by its subclasses."""

    offering: str
    refused: Plan = field(default_factory=Plan)
    refusal: str = ""
    """Why the guard refused a part of the plan; empty when it did not."""
    trouble: str = ""
    """Why the pass as a whole was cut short; empty when it was not."""
    writes: tuple[Write, ...] = ()
    """Of a dry run: what would be changed in Waldur."""
    requests: int = 0
    """How many requests to Waldur the pass took."""
    commands: int = 0
    """How many commands of the backend it took."""

    @property
    def impairment(self) -> str:
        """What the pass could not do for anybody, although it went through; for health."""
        return ""

    @property
    def has_failures(self) -> bool:
        """Whether some part of the work needs a human or another try."""
        return False

    @property
    def failed(self) -> bool:
        """Whether anything at all needs a human or another try."""
        return bool(self.trouble) or self.has_failures
