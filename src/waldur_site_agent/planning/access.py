"""Who may use a resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.model.people import OfferingUserState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from waldur_site_agent.model.people import OfferingUser, TeamMember


def usable_usernames(offering_users: Iterable[OfferingUser]) -> dict[UUID, str]:
    """The username of each person who has a working account at the offering."""
    return {
        user.user_uuid: user.username
        for user in offering_users
        if user.state == OfferingUserState.OK and user.username and not user.is_restricted
    }


def granted_usernames(
    team: Iterable[TeamMember], usernames: Mapping[UUID, str], now: datetime
) -> frozenset[str]:
    """The accounts of the project's current team; nobody else's.

    A role whose end has passed grants nothing, even when the list still shows it.
    """
    return frozenset(
        usernames[member.uuid]
        for member in team
        if member.uuid in usernames
        and (member.expiration_time is None or member.expiration_time > now)
    )
