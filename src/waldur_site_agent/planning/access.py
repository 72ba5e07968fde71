"""Who may use a resource, and why somebody may no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import Access
from waldur_site_agent.model.people import OfferingUserState, has_ended

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.model.people import OfferingUser, TeamMember


def spelled(username: str) -> str:
    """A username as it is compared everywhere: accounting databases keep lower case."""
    return username.strip().lower()


def usable_usernames(offering_users: Iterable[OfferingUser]) -> dict[UUID, str]:
    """The username of each person who has a working account at the offering."""
    return {
        user.user_uuid: spelled(user.username)
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
        if member.uuid in usernames and not has_ended(member.expiration_time, now)
    )


def wanted_access(resource: Resource) -> Access:
    """Paused counts over downscaled, downscaled over normal."""
    if resource.paused:
        return Access.PAUSED
    return Access.DOWNSCALED if resource.downscaled else Access.NORMAL


def reasons_to_leave(offering_users: Iterable[OfferingUser]) -> dict[str, str]:
    """Every username that Waldur knows at the offering, with why its owner may have to leave.

    Only these are ever removed: a name that is not here belongs to somebody else.
    """
    reasons: dict[str, str] = {}
    for user in offering_users:
        if name := spelled(user.username):
            reason = _reason_to_leave(user)
            if reasons.get(name, _LEFT) == _LEFT:
                reasons[name] = reason
    return reasons


_LEFT = "is no longer in the project's team"


def _reason_to_leave(user: OfferingUser) -> str:
    if user.state in (OfferingUserState.REQUESTED_DELETION, OfferingUserState.DELETING):
        return "is being deleted in Waldur"
    if user.state != OfferingUserState.OK:
        return f'has an account in state "{user.state}"'
    return "is restricted in Waldur" if user.is_restricted else _LEFT
