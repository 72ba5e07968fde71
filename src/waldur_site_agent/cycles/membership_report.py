"""What became of the memberships in one cycle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.report import CycleReport
from waldur_site_agent.cycles.scoping import Seen
from waldur_site_agent.planning.membership import MembershipPlan

if TYPE_CHECKING:
    from waldur_site_agent.cycles.usernames import UsernamesReport


NOBODY_LEAVES = "nobody leaves any account in this cycle"


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipReport(CycleReport):
    """The outcome of one pass over the members of an offering."""

    membership: MembershipPlan = field(default_factory=MembershipPlan)
    usernames: UsernamesReport | None = None
    resources: int = 0
    seen: Seen = field(default_factory=Seen)
    removals_suspended: str = ""
    """Why nobody left any account in this pass; empty when whoever had to leave could."""
    failures: tuple[str, ...] = ()
    """What went wrong with single accounts or people; everything else was carried out."""

    @property
    def impairment(self) -> str:
        """Why nobody could leave any account; empty when that was possible."""
        return f"{NOBODY_LEAVES}: {self.removals_suspended}" if self.removals_suspended else ""

    @property
    def has_failures(self) -> bool:
        """Whether some account or person needs another try."""
        return bool(self.failures or self.removals_suspended)
