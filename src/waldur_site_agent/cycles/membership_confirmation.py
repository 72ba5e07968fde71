"""Reads by itself what a pass is about to change, and lets it be planned once more.

Lists may be a moment old. What would be written over a resource's notes, limits or state, and what
would take somebody out of an account or change how it may be used, rests on that one resource and
that one team read by themselves. Where a list and the single reading do not agree about access, the
account waits for the next pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.backends import RemoveMembers, SetAccess, SetMemberLimits
from waldur_site_agent.cycles.membership_feedback import accounts_with_news
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.people import ProjectAccountState
from waldur_site_agent.planning.access import granted_usernames, spelled, usable_usernames
from waldur_site_agent.waldur import AbsentOperationError, concurrently

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.membership_gathering import Gathered
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.model.people import OfferingUser
    from waldur_site_agent.planning.membership import AccountPlan, AccountWanted, MembershipPlan

    Readings = Mapping[UUID, Resource | SiteAgentError]

_CONFIRMED = (RemoveMembers, SetAccess, SetMemberLimits)


def confirm_wanted(
    site: Site,
    wanted: Gathered,
    membership: MembershipPlan,
    state: BackendState,
    users: Sequence[OfferingUser],
) -> Gathered:
    """What Waldur wants, as the objects that a plan would change say by themselves.

    Args:
        site: the offering at work.
        wanted: what the lists say.
        membership: the plan that follows from them.
        state: the backend.
        users: the offering's users, as listed.
    """
    news = accounts_with_news(site, membership.accounts, state)
    changing = [p for p in membership.accounts if p.wanted.id in news or _rests_on_notes_or_team(p)]
    if not changing:
        return wanted
    readings = _readings(site, changing)
    confirmed: dict[str, AccountWanted | None] = {}
    troubles: list[str] = []
    for plan in changing:
        account = _with_readings(plan.wanted, readings)
        confirmed[plan.wanted.id] = account
        if account is None:
            troubles += _troubles(plan.wanted, readings)
            site.log.info(
                "the list of resources is older than the resource; its account waits for the "
                "next pass",
                resource=plan.wanted.id,
            )
    leaving = {plan.wanted.id: names for plan in changing if (names := _leaving(plan))}
    present = [account for account in confirmed.values() if account is not None]
    confirmed |= _with_teams(site, [a for a in present if a.id in leaving], leaving, users)
    confirmed |= _with_project_accounts(site, wanted.provider, confirmed.values(), leaving, users)
    accounts = (confirmed.get(account.id, account) for account in wanted.accounts)
    return replace(
        wanted,
        accounts=tuple(account for account in accounts if account is not None),
        unconfirmed=tuple(troubles),
    )


def _rests_on_notes_or_team(plan: AccountPlan) -> bool:
    return any(isinstance(step.action, _CONFIRMED) for step in plan.steps)


def _readings(site: Site, plans: Iterable[AccountPlan]) -> Readings:
    uuids = sorted({resource.uuid for plan in plans for resource in plan.wanted.resources})
    attempts = concurrently(site.waldur.resource, uuids)
    return {a.item: a.value or a.error or SiteAgentError("no answer") for a in attempts}


def _with_readings(account: AccountWanted, readings: Readings) -> AccountWanted | None:
    """The account with its resources as read; ``None`` where its access is not as listed."""
    resources = []
    for listed in account.resources:
        current = readings[listed.uuid]
        if isinstance(current, SiteAgentError) or _planned_from(current) != _planned_from(listed):
            return None
        resources.append(current)
    return replace(account, resources=tuple(resources))


def _planned_from(resource: Resource) -> tuple[object, ...]:
    """What the plan was made of; limits that changed meanwhile are newer than the backend's."""
    return (
        resource.account,
        resource.state,
        resource.paused,
        resource.downscaled,
        resource.restrict_member_access,
        dict(resource.limits),
    )


def _troubles(account: AccountWanted, readings: Readings) -> list[str]:
    """What could not be read; a resource that has changed is no trouble."""
    found = (readings[resource.uuid] for resource in account.resources)
    errors = [error for error in found if isinstance(error, SiteAgentError)]
    return [f"{account.id}: not changed, its resource could not be read: {e}" for e in errors[:1]]


def _leaving(plan: AccountPlan) -> frozenset[str]:
    actions = (step.action for step in plan.steps)
    return frozenset(m for a in actions if isinstance(a, RemoveMembers) for m in a.members)


def _with_teams(
    site: Site,
    accounts: Sequence[AccountWanted],
    leaving: Mapping[str, frozenset[str]],
    users: Sequence[OfferingUser],
) -> dict[str, AccountWanted | None]:
    """The accounts that somebody is to leave; who is in the team after all is wanted there."""
    one_each = {
        (account.id, resource.project_uuid): resource
        for account in accounts
        for resource in account.resources
        if not resource.restrict_member_access
    }
    result: dict[str, AccountWanted | None] = {account.id: account for account in accounts}
    attempts = concurrently(lambda item: site.waldur.team(item[1].uuid), one_each.items())
    for attempt in attempts:
        account = result[attempt.item[0][0]]
        if account is None or account.members is None:
            continue
        if attempt.value is None:
            trouble = f"its team could not be read: {attempt.error}"
            result[account.id] = replace(account, members=None, trouble=trouble)
            continue
        people = {member.uuid for member in attempt.value}
        doubtful = [
            user
            for user in users
            if user.user_uuid in people and spelled(user.username) in leaving[account.id]
        ]
        current, trouble = _read_users(site, doubtful)
        if trouble:
            result[account.id] = replace(account, members=None, trouble=trouble)
            continue
        stays = granted_usernames(attempt.value, usable_usernames(current), site.now())
        members = {**dict.fromkeys(stays, "is in the project's team"), **account.members}
        if not people <= {user.user_uuid for user in users}:
            strangers = leaving[account.id] - {spelled(user.username) for user in users}
            members |= dict.fromkeys(strangers, "may be somebody of the team without a name yet")
        result[account.id] = replace(account, members=members)
    return result


def _with_project_accounts(
    site: Site,
    provider: UUID | None,
    accounts: Iterable[AccountWanted | None],
    leaving: Mapping[str, frozenset[str]],
    users: Sequence[OfferingUser],
) -> dict[str, AccountWanted | None]:
    """The accounts that somebody is to leave who is no person: a project's own may be new."""
    people = {spelled(user.username) for user in users}
    doubtful = [
        (account, resource.project_uuid)
        for account in accounts
        if account is not None and account.members is not None
        for resource in account.resources
        if not resource.restrict_member_access
        and resource.project_uuid is not None
        and leaving.get(account.id, frozenset()) - people - account.members.keys()
    ]
    result: dict[str, AccountWanted | None] = {}
    if provider is None:  # without the list of a provider no stranger leaves
        return result
    for account, project in doubtful:
        current = result.get(account.id) or account
        if current.members is None:
            continue
        try:
            names = _working_accounts(site, provider, project)
        except SiteAgentError as error:
            trouble = f"the accounts of its project could not be read: {error}"
            result[account.id] = replace(current, members=None, trouble=trouble)
            continue
        granted = dict.fromkeys(names, "is a service or course account of the project")
        result[account.id] = replace(current, members={**granted, **current.members})
    return result


def _working_accounts(site: Site, provider: UUID, project: UUID) -> frozenset[str]:
    """The usernames of a project's service and course accounts that work."""
    names: set[str] = set()
    for ask in (site.waldur.service_accounts, site.waldur.course_accounts):
        try:
            listed = ask(provider, project).require_complete("accounts of a project")
        except AbsentOperationError:
            continue
        names |= {spelled(a.username) for a in listed if a.state == ProjectAccountState.OK}
    return frozenset(names - {""})


def _read_users(site: Site, users: Iterable[OfferingUser]) -> tuple[list[OfferingUser], str]:
    """Users as they are by themselves, and why one of them is not known."""
    attempts = concurrently(lambda user: site.waldur.offering_user(user.uuid), users)
    errors = [f"{a.item.username} could not be read: {a.error}" for a in attempts if a.error]
    return [a.value for a in attempts if a.value is not None], "; ".join(errors[:1])
