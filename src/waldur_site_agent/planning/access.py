"""Which users have access to a resource, and why a user loses access."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from waldur_site_agent.backends import Access, BackendState
from waldur_site_agent.model.marketplace import (
    OfferingUser,
    OfferingUserState,
    Resource,
    TeamMember,
    has_ended,
)


def normalize_username(username: str) -> str:
    """A username for comparison; case-sensitive, as in the operating system."""
    return username.strip()


def folded(username: str) -> str:
    """A username in lower case, to find all users whom a record may be about."""
    return username.strip().lower()


def same_but_for_case(found: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Backend members whose names differ from Waldur's usernames in case only.

    Earlier agents wrote ``ada`` for ``Ada`` to case-insensitive backends. A member is matched only
    if no user has exactly this name and exactly one has it in different case.

    Returns:
        Waldur's spelling by the backend's spelling.
    """
    names = frozenset(known)
    of_folded: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        of_folded[folded(name)].add(name)
    return {
        member: next(iter(of_folded[folded(member)]))
        for member in frozenset(found) - names
        if len(of_folded.get(folded(member), ())) == 1
    }


def in_waldurs_spelling(state: BackendState, aliases: Mapping[str, str]) -> BackendState:
    """The state with members spelled as in Waldur."""
    if not aliases:
        return state
    resources = {
        name: replace(
            resource,
            members=frozenset(aliases.get(member, member) for member in resource.members),
            member_limits={aliases.get(m, m): v for m, v in resource.member_limits.items()},
        )
        for name, resource in state.resources.items()
    }
    return replace(state, resources=resources)


def usable_usernames(offering_users: Iterable[OfferingUser]) -> dict[UUID, str]:
    """The usernames of all users with an active account at the offering, by user UUID."""
    return {
        user.user_uuid: normalize_username(user.username)
        for user in offering_users
        if user.state == OfferingUserState.OK and user.username and not user.is_restricted
    }


def granted_usernames(
    team: Iterable[TeamMember], usernames: Mapping[UUID, str], now: datetime
) -> frozenset[str]:
    """The usernames of the project's current team.

    An expired role grants nothing, even if the list still shows it.
    """
    return frozenset(
        usernames[member.uuid]
        for member in team
        if member.uuid in usernames and not has_ended(member.expiration_time, now)
    )


def wanted_access(resource: Resource) -> Access:
    """Paused takes precedence over downscaled, and downscaled over normal."""
    if resource.paused:
        return Access.PAUSED
    return Access.DOWNSCALED if resource.downscaled else Access.NORMAL


def reasons_to_leave(offering_users: Iterable[OfferingUser]) -> dict[str, str]:
    """Every username that Waldur knows at the offering, with the reason for a removal.

    Only these users are ever removed; other members are not managed by Waldur.
    """
    reasons: dict[str, str] = {}
    for user in offering_users:
        if name := normalize_username(user.username):
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
