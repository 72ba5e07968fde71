"""Deletes offering users: they leave every account first and are then marked deleted in Waldur."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from waldur_site_agent.backends import BackendResource, BackendState, members_of
from waldur_site_agent.cycles.changes import Applied, note_write, send_write
from waldur_site_agent.cycles.claims import accounts_elsewhere, namesakes, recently_named
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.membership_inputs import Gathered
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import OfferingUser, OfferingUserState, aware
from waldur_site_agent.planning.membership import MembershipPlan, folded, normalize_username
from waldur_site_agent.planning.plan import Plan, Write, deleted_write, deleting_write
from waldur_site_agent.waldur import TransitionRefusedError, concurrently

_LISTS_CATCH_UP = timedelta(hours=1)
"""When lists of resources certainly show an account that was just created."""


def begin_deletions(site: Site, users_to_delete: Sequence[OfferingUser]) -> list[OfferingUser]:
    """Mark the users as Deleting in Waldur; return those for whom this succeeded."""
    attempts = concurrently(lambda user: _begin(site, user), users_to_delete)
    begun = []
    for attempt in attempts:
        if attempt.value is not None:
            begun.append(attempt.value)
        else:
            name, reason = attempt.item.username, str(attempt.error)
            site.conditions.note(
                "could not mark user as Deleting in Waldur",
                name,
                cause=cause_of(reason, name),
                user=name,
                reason=reason,
            )
    return begun


def _begin(site: Site, user: OfferingUser) -> OfferingUser:
    if user.state != OfferingUserState.DELETING:
        send_write(site, deleting_write(user))
    return replace(user, state=OfferingUserState.DELETING)


def still_in_accounts(
    site: Site, users_to_delete: Iterable[OfferingUser], wanted: Gathered, state: BackendState
) -> tuple[frozenset[str], list[str]]:
    """Users to delete who are still members of some account of the offering in the backend.

    The plan cannot tell: a list may not show an account yet that was just created. So an account
    that was created for a resource but belongs to none counts as the offering's until the lists
    have certainly caught up.

    Args:
        site: the offering at work.
        users_to_delete: the users whom Waldur is deleting.
        wanted: what Waldur wants for the offering.
        state: the backend, read after the plan was applied.

    Returns:
        The usernames, and for each of them why the user is not marked deleted.
    """
    people: defaultdict[str, list[OfferingUser]] = defaultdict(list)
    for deleted in users_to_delete:
        people[folded(deleted.username)].append(deleted)
    listed = wanted.snapshot.resources.values()
    ours: set[str] | None = None
    found: dict[str, str] = {}
    for account in state.resources.values():
        for member in sorted(account.members):
            name = folded(member)
            user = next((u for u in people.get(name, ()) if _may_be(site, u, member)), None)
            if user is None:
                continue
            if ours is None:
                named = (*listed, *recently_named(site, listed))
                ours = {*wanted.offering_accounts, *(r.account for r in named if r.account)}
            why = (
                f"is in account {account.id}"
                if account.id in ours
                else _why_unclaimed_counts(site, account, user)
            )
            if why:
                found.setdefault(name, f"{name}: not marked deleted: {why}")
    return frozenset(found), list(found.values())


def _may_be(site: Site, user: OfferingUser, member: str) -> bool:
    """Whether a member whose name differs at most in case is the user to delete."""
    name = normalize_username(user.username)
    return name == member or site.backend.is_listed_as(name, member)


def _why_unclaimed_counts(site: Site, account: BackendResource, user: OfferingUser) -> str:
    """Why an unlisted account keeps a user from being deleted; empty if it does not."""
    is_made_for_a_resource = account.organization and account.organization == account.parent
    if not is_made_for_a_resource or account.id in accounts_elsewhere(site):
        return ""
    owners = {resource.offering_uuid for resource in namesakes(site, account.id)} - {None}
    if owners and site.offering.waldur_offering_uuid not in owners:
        return ""
    if not owners and not _was_changed_lately(site, user):
        site.conditions.note(
            "user is in an account that belongs to no resource; marked deleted regardless",
            f"{user.username} ({account.id})",
            user=user.username,
            account=account.id,
        )
        return ""
    return f"is in account {account.id}, whose resource Waldur does not list yet"


def _was_changed_lately(site: Site, user: OfferingUser) -> bool:
    return user.modified is not None and site.now() - aware(user.modified) < _LISTS_CATCH_UP


def finish_deletions(
    site: Site, users_to_delete: Sequence[OfferingUser], still_present: Collection[str] | None
) -> list[str]:
    """Mark users as deleted unless they are still in some account; return what went wrong.

    ``still_present`` has their usernames; ``None`` means that they are not known.
    """
    return [
        f"{attempt.item.username}: not marked deleted: {attempt.error}"
        for attempt in concurrently(
            lambda user: _finish(site, user), _gone(users_to_delete, still_present)
        )
        if attempt.error is not None
    ]


def preview_deletions(
    users_to_delete: Sequence[OfferingUser], still_present: Collection[str] | None
) -> list[Write]:
    """The writes of :func:`begin_deletions` and :func:`finish_deletions`; nothing is sent."""
    begun = [deleting_write(u) for u in users_to_delete if u.state != OfferingUserState.DELETING]
    gone = [
        replace(u, state=OfferingUserState.DELETING) for u in _gone(users_to_delete, still_present)
    ]
    return [*begun, *map(deleted_write, gone)]


def _gone(
    users_to_delete: Sequence[OfferingUser], still_present: Collection[str] | None
) -> list[OfferingUser]:
    if still_present is None:
        return []
    still = {
        folded(name) for name in still_present
    }  # without regard to case, because deleting is final
    return [user for user in users_to_delete if folded(user.username) not in still]


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


def still_present_after(
    applied: Sequence[Applied], refused: Plan, membership: MembershipPlan, wanted: Gathered
) -> frozenset[str] | None:
    """Users who are, or may be, still in some account; ``None`` if they are not known."""
    if wanted.still_present is None or any(a.wanted.members is None for a in membership.accounts):
        return None
    still_present = set(wanted.still_present)
    failed = [step for step, outcome in applied if outcome.error is not None]
    for step in (*failed, *refused.steps):
        still_present |= set(members_of(step.action))
    still_present |= {left.name for _, outcome in applied for left in outcome.skipped}
    return frozenset(still_present)
