"""What became of the usernames of one cycle, for membership planning, the log and the exit code."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent.model.people import OfferingUser
    from waldur_site_agent.planning.writes import Write


class UsernameResult(enum.Enum):
    """What a cycle made of one offering user."""

    PLANNED = "planned"
    """Dry run: it would be done."""
    DONE = "done"
    """Waldur has it."""
    REFUSED = "refused"
    """There will be no username until somebody changes something; tried again each cycle."""
    LEFT = "left"
    """Something went wrong on the way; the next cycle goes on from where it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsernameChange:
    """One offering user for whom something was done, or should have been."""

    user: OfferingUser
    """As it is afterwards."""
    what: str
    """The new username or what the person waits for, in words."""
    result: UsernameResult
    reason: str = ""
    """Why it was refused or left, or what the person was told."""
    write: Write | None = None
    """What changed in Waldur with old and new value, or would; ``None``: nothing."""

    @property
    def text(self) -> str:
        """In words: old and new values, and why."""
        if self.write is None:
            return f"{self.what}  {self.reason}".rstrip()
        if any(change.field == "username" for change in self.write.changes):
            return f"{self.write}  {self.reason}".rstrip()
        return f"{self.what}  {self.reason}".rstrip() + f"  ({self.write})"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsernamesReport:
    """The outcome of one pass over the usernames of an offering."""

    users: tuple[OfferingUser, ...]
    """All offering users in the order in which they were given, as they are afterwards.

    In a dry run: as they would be, as far as that can be known.
    """
    changes: tuple[UsernameChange, ...] = ()
    """Those for whom something was done or went wrong; the others need nothing or wait."""
    duplicates: Mapping[str, tuple[OfferingUser, ...]] = field(default_factory=dict)
    """Usernames, in lower case, that Waldur shows for several people, with those people."""
    policy_of_others: str = ""
    """The offering's policy, where it is not the site that makes the names; nothing is changed."""

    @property
    def failed(self) -> bool:
        """Whether somebody has to act, or another try is needed, before everybody has a name."""
        return any(
            change.result in (UsernameResult.REFUSED, UsernameResult.LEFT)
            for change in self.changes
        )
