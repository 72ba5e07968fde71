"""Who may use a resource, and why somebody may no longer."""

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
    """A username as it is compared: capitals tell people apart, as the operating system does."""
    return username.strip()


def folded(username: str) -> str:
    """A username without regard to case, for looking up whom a record may be about."""
    return username.strip().lower()


def same_but_for_case(found: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Which members of a backend are listed under a name of Waldur's with other capitals.

    Earlier agents wrote ``ada`` for ``Ada`` into backends that do not tell case apart. Only where
    nobody in Waldur has the name as listed, and exactly one person has it with other capitals.

    Returns:
        Waldur's spelling, by the one in the backend.
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
    """The same state with members named as Waldur names them."""
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
    """The username of each person who has a working account at the offering."""
    return {
        user.user_uuid: normalize_username(user.username)
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
