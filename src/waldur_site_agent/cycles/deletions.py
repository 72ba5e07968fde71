"""Offering users whom Waldur deletes: out of every account first, deleted afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.people import OfferingUserState
from waldur_site_agent.planning.access import spelled
from waldur_site_agent.waldur import TransitionRefusedError, concurrently

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.people import OfferingUser


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
        site.waldur.set_deleting(user.uuid)
    return replace(user, state=OfferingUserState.DELETING)


def finish_deletions(
    site: Site, leavers: Sequence[OfferingUser], staying: Collection[str]
) -> list[str]:
    """Mark those as deleted who are in no account any more; return what went wrong.

    ``staying`` are usernames that are still in some account; ``*`` stands for "who knows".
    """
    if "*" in staying:
        return []
    gone = [user for user in leavers if spelled(user.username) not in staying]
    failures = []
    for attempt in concurrently(lambda user: _finish(site, user), gone):
        if attempt.error is not None:
            failures.append(f"{attempt.item.username}: not marked deleted: {attempt.error}")
        else:
            site.log.info("user deleted", user=attempt.item.username)
    return failures


def _finish(site: Site, user: OfferingUser) -> None:
    if user.state != OfferingUserState.DELETING:
        site.waldur.set_deleting(user.uuid)
    try:
        site.waldur.set_deleted(user.uuid)
    except TransitionRefusedError as error:
        current = site.waldur.offering_user(user.uuid)
        if current.state != OfferingUserState.DELETED:
            raise SiteAgentError(str(error)) from error
