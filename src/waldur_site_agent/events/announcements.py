"""What an event says has changed, and whether a reading of Waldur shows it already.

Waldur may send an event before the change is visible to a reader. An announcement is never acted
upon: it only tells whether to read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from waldur_site_agent.cycles.scoping import short_role
from waldur_site_agent.model.people import OfferingUserState
from waldur_site_agent.planning.access import spelled

if TYPE_CHECKING:
    from collections.abc import Hashable
    from uuid import UUID

    from waldur_site_agent.cycles.scoping import Seen

_PROGRESS = {
    "pending-consumer": 0,
    "pending-project": 0,
    "pending-provider": 1,
    "pending-start-date": 2,
    "executing": 3,
    "done": 4,
    "erred": 4,
    "canceled": 4,
    "rejected": 4,
}
"""How far an order is in each state; it never goes back."""


@dataclass(frozen=True, slots=True)
class OrderAnnounced:
    """An order is in some state; ``""`` where the event does not say which."""

    order: UUID
    state: str

    @property
    def subject(self) -> Hashable:
        """What a later announcement of the same replaces."""
        return self.order

    def is_shown(self, seen: Seen) -> bool:
        """Whether the order is as far as that, or farther."""
        found = seen.orders.get(self.order)
        if found is None:
            return False
        return _PROGRESS.get(found, len(_PROGRESS)) >= _PROGRESS.get(self.state, 0)


@dataclass(frozen=True, slots=True)
class RoleAnnounced:
    """A person got a role in a project, or lost it."""

    project: UUID
    person: UUID
    role: str
    granted: bool

    @property
    def subject(self) -> Hashable:
        """What a later announcement of the same replaces."""
        return self.project, self.person, short_role(self.role)

    def is_shown(self, seen: Seen) -> bool:
        """Whether the project's roles agree; a project that is not served has nothing to show."""
        roles = seen.roles.get(self.project)
        if roles is None:
            return True
        name = short_role(self.role)
        held = {role for person, role in roles if person == self.person}
        return bool(held if not name else name in held) is self.granted


@dataclass(frozen=True, slots=True)
class FlagsAnnounced:
    """Switches of a resource; ``None`` for those that the event does not mention."""

    resource: UUID
    paused: bool | None = None
    downscaled: bool | None = None
    restrict_member_access: bool | None = None

    @property
    def subject(self) -> Hashable:
        """What a later announcement of the same replaces."""
        return self.resource

    def is_shown(self, seen: Seen) -> bool:
        """Whether the resource has these switches so; one that is gone has nothing to show."""
        found = seen.resources.get(self.resource)
        if found is None:
            return True
        return all(
            wanted is None or wanted is has
            for wanted, has in (
                (self.paused, found.paused),
                (self.downscaled, found.downscaled),
                (self.restrict_member_access, found.restrict_member_access),
            )
        )


@dataclass(frozen=True, slots=True)
class UserAnnounced:
    """A person's account at the offering is there, under this name if one is given, or gone."""

    person: UUID
    username: str = ""
    exists: bool = True

    @property
    def subject(self) -> Hashable:
        """What a later announcement of the same replaces."""
        return self.person

    def is_shown(self, seen: Seen) -> bool:
        """Whether the offering's users agree."""
        found = seen.users.get(self.person)
        if found is None:
            return not self.exists
        if found.state == OfferingUserState.DELETED:
            return True
        return self.exists and spelled(self.username) in ("", spelled(found.username))


@dataclass(frozen=True, slots=True)
class ProjectAccountAnnounced:
    """A service or course account of a project works, or does not any more."""

    project: UUID
    username: str
    works: bool

    @property
    def subject(self) -> Hashable:
        """What a later announcement of the same replaces."""
        return self.project, spelled(self.username)

    def is_shown(self, seen: Seen) -> bool:
        """Whether the project's accounts agree; a project that is not served shows nothing."""
        if self.project not in seen.roles:
            return True
        return (spelled(self.username) in seen.accounts.get(self.project, ())) is self.works


Announcement: TypeAlias = (
    OrderAnnounced | RoleAnnounced | FlagsAnnounced | UserAnnounced | ProjectAccountAnnounced
)
