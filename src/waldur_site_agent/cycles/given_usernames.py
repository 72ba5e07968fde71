"""Usernames that a process has given, as long as no list may show them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from waldur_site_agent.model.people import OfferingUser


@dataclass(slots=True)
class GivenUsernames:
    """The names that a process has given at one offering: lists may not show them yet."""

    users: dict[UUID, OfferingUser] = field(default_factory=dict)
    """Offering users who have a name since, as they are with it."""
    is_settled: bool = False
    """Whether what an agent before this one gave is known, too."""

    def added_to(self, listed: Iterable[OfferingUser]) -> list[OfferingUser]:
        """The users of a list, with the names and the users that it does not show yet."""
        shown = {user.uuid: user for user in listed}
        return [
            *(
                user if user.username else replace(user, username=self._name_of(user.uuid))
                for user in shown.values()
            ),
            *(user for uuid, user in self.users.items() if uuid not in shown),
        ]

    def note(self, users: Iterable[OfferingUser]) -> None:
        """Remember their names."""
        self.users.update({user.uuid: user for user in users if user.username})

    def _name_of(self, uuid: UUID) -> str:
        return self.users[uuid].username if uuid in self.users else ""
