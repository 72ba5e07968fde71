"""Offering users whom Waldur deletes: out of every account first, deleted afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.writing import note_write, send_write
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.people import OfferingUserState
from waldur_site_agent.planning.access import spelled
from waldur_site_agent.planning.writes import deleted_write, deleting_write
from waldur_site_agent.waldur import TransitionRefusedError, concurrently

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.people import OfferingUser
    from waldur_site_agent.planning.writes import Write


def begin_deletions(site: Site, leavers: Sequence[OfferingUser]) -> list[OfferingUser]:
    """Tell Waldur that their removal has begun; those it agrees about come back."""
    attempts = concurrently(lambda user: _begin(site, user), leavers)
    begun = []
    for attempt in attempts:
        if attempt.value is not None:
            begun.append(attempt.value)
        else:
            site.log.warning(
                "deletion of a user not begun in Waldur",
                user=attempt.item.username,
                reason=str(attempt.error),
            )
    return begun


def _begin(site: Site, user: OfferingUser) -> OfferingUser:
    if user.state != OfferingUserState.DELETING:
        send_write(site, deleting_write(user))
    return replace(user, state=OfferingUserState.DELETING)


def finish_deletions(
    site: Site, leavers: Sequence[OfferingUser], staying: Collection[str]
) -> list[str]:
    """Mark those as deleted who are in no account any more; return what went wrong.

    ``staying`` are usernames that are still in some account; ``*`` stands for "who knows".
    """
    return [
        f"{attempt.item.username}: not marked deleted: {attempt.error}"
        for attempt in concurrently(lambda user: _finish(site, user), _gone(leavers, staying))
        if attempt.error is not None
    ]


def foresee_deletions(leavers: Sequence[OfferingUser], staying: Collection[str]) -> list[Write]:
    """What the two functions above would write."""
    begun = [deleting_write(u) for u in leavers if u.state != OfferingUserState.DELETING]
    gone = [replace(u, state=OfferingUserState.DELETING) for u in _gone(leavers, staying)]
    return [*begun, *map(deleted_write, gone)]


def _gone(leavers: Sequence[OfferingUser], staying: Collection[str]) -> list[OfferingUser]:
    if "*" in staying:
        return []
    return [user for user in leavers if spelled(user.username) not in staying]


def _finish(site: Site, user: OfferingUser) -> None:
    if user.state != OfferingUserState.DELETING:
        send_write(site, deleting_write(user))
        user = replace(user, state=OfferingUserState.DELETING)
    write = deleted_write(user)
    try:
        send_write(site, write)
    except TransitionRefusedError as error:
        current = site.waldur.offering_user(user.uuid)
        if current.state != OfferingUserState.DELETED:
            raise SiteAgentError(str(error)) from error
        note_write(site, write)
