"""Collects, in bulk, who is to have access to what.

One list each for resources, offering users, project roles, service accounts, course accounts and
per-user limits. A list that cannot be read makes the agent careful, never generous or cruel: where
a team is not known nobody moves, and where names are missing nobody counts as unknown.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from waldur_site_agent.backends import Access, SetMemberLimits
from waldur_site_agent.cycles.offering_access import check_emptied_list
from waldur_site_agent.cycles.optional_calls import ask_optional
from waldur_site_agent.cycles.scoping import Seen, short_role
from waldur_site_agent.cycles.unreadable import Doubts, readable
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.model.people import (
    KNOWN_ACCOUNT_STATES,
    KNOWN_USER_STATES,
    OfferingUserState,
    ProjectAccountState,
    TeamMember,
)
from waldur_site_agent.planning.access import (
    granted_usernames,
    reasons_to_leave,
    spelled,
    usable_usernames,
    wanted_access,
)
from waldur_site_agent.planning.membership import AccountWanted, People
from waldur_site_agent.waldur import (
    AbsentOperationError,
    concurrently,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from decimal import Decimal
    from uuid import UUID

    from waldur_site_agent.cycles.scoping import Sight
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.offerings import UserLimit, WaldurOffering
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.model.people import OfferingUser, ProjectAccount
    from waldur_site_agent.waldur import Listing

    Team = Sequence[TeamMember] | SiteAgentError
    LimitsByAccount = Mapping[str, Mapping[str, Mapping[str, Decimal]] | None]

SERVED_STATES = (
    ResourceState.OK,
    ResourceState.ERRED,
    ResourceState.UPDATING,
    ResourceState.TERMINATING,
)
"""Resources with an order in progress keep their members up to date, too."""

_WITHOUT_ORDER = (ResourceState.OK, ResourceState.ERRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What Waldur wants of an offering."""

    accounts: tuple[AccountWanted, ...]
    people: People
    leavers: tuple[OfferingUser, ...]
    """Offering users whom Waldur is deleting."""
    not_understood: tuple[str, ...] = ()
    """Rows of lists that were left out."""
    staying: frozenset[str] = frozenset()
    """Users who may be in an account that is not looked at; ``*`` stands for "who knows"."""
    unconfirmed: tuple[str, ...] = ()
    """Accounts that are left for the next pass because their resource could not be read."""
    removals_suspended: str = ""
    """Why nobody may leave any account: lists that could grant access were not read."""
    offering_accounts: frozenset[str] = frozenset()
    """Every account of the offering, also those that are not looked at."""
    seen: Seen = field(default_factory=Seen)
    provider: UUID | None = None
    """The service provider, where this token is shown it."""


@dataclass(slots=True)
class _ProjectAccounts:
    """Service and course accounts, by project; ``closed`` are usernames that must go."""

    granted: dict[UUID | None, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    closed: dict[str, str] = field(default_factory=dict)
    is_complete: bool = True
    """Whether every name is known; not so where this token is not shown the lists."""
    troubles: list[str] = field(default_factory=list)
    """Lists that should have been read and were not."""
    doubts: Doubts = field(default_factory=Doubts)
    """What was not understood."""


def gather_wanted(
    site: Site,
    offering: WaldurOffering,
    users: Sequence[OfferingUser],
    sight: Sight,
    doubts: Doubts | None = None,
) -> Gathered:
    """Everything that planning the memberships in sight needs from Waldur.

    ``doubts`` has what was not understood of the users.

    Raises:
        TemporaryError: the resources could not be read.
    """
    uuid = site.offering.waldur_offering_uuid
    doubts = Doubts() if doubts is None else doubts
    listing = site.waldur.resources(uuid)
    listed = readable(site, listing, "resources")
    doubts.of_resources(listing.unreadable)
    check_emptied_list(site, "resources", listed)
    named = [resource for resource in listed if resource.backend_id.strip()]
    served = [resource for resource in named if resource.state in SERVED_STATES]
    resources = sight.choose(served)
    leavers = tuple(u for u in users if u.state in _LEAVING and sight.holds_user(u))
    staying = frozenset({"*"} if listing.unreadable or len(named) > len(served) else ())
    seen = Seen(
        resources={each.uuid: each for each in listed}, users={u.user_uuid: u for u in users}
    )
    ours = frozenset(resource.account for resource in served)
    if not resources:
        return Gathered(
            accounts=(),
            people=People(known=reasons_to_leave(users)),
            leavers=leavers,
            staying=staying,
            not_understood=tuple(doubts.rows),
            offering_accounts=ours,
            seen=seen,
        )
    _note_unknown_states(site, users, doubts)
    accounts = _ProjectAccounts(doubts=doubts)
    provider = _service_provider(site, offering, accounts.troubles)
    _read_project_accounts(site, provider, accounts)
    teams = _teams(site, provider, resources, accounts)
    accounts.troubles += doubts.everything
    return Gathered(
        accounts=_accounts(site, resources, teams, accounts, users),
        people=_people(users, accounts),
        leavers=leavers,
        staying=staying | ({"*"} if accounts.troubles else set()) | doubts.names.keys(),
        not_understood=tuple(doubts.rows),
        removals_suspended="; ".join(accounts.troubles),
        offering_accounts=ours,
        seen=replace(
            seen,
            roles=_roles_seen(teams),
            accounts={p: frozenset(names) for p, names in accounts.granted.items() if p},
        ),
        provider=provider,
    )


def _note_unknown_states(site: Site, users: Iterable[OfferingUser], doubts: Doubts) -> None:
    """People in a state that only newer servers have neither join nor leave."""
    for user in users:
        if user.state not in KNOWN_USER_STATES:
            doubts.of_state(user.username, "an offering user", user.state)
            _note_state(site, user.username, user.state)


def _accounts(
    site: Site,
    resources: Sequence[Resource],
    teams: Mapping[UUID | None, Team],
    accounts: _ProjectAccounts,
    users: Sequence[OfferingUser],
) -> tuple[AccountWanted, ...]:
    limits = _member_limits(site, resources, users)
    usernames = usable_usernames(users)
    return tuple(
        _account(site, name, group, teams, usernames, accounts, limits)
        for name, group in _by_account(resources).items()
    )


def _people(users: Sequence[OfferingUser], accounts: _ProjectAccounts) -> People:
    return People(
        known={**accounts.closed, **_serving(accounts), **reasons_to_leave(users)},
        is_complete=accounts.is_complete
        and not accounts.troubles
        and accounts.doubts.users_are_known
        and bool(users),
        undecided=frozenset(accounts.doubts.names),
        nobody_leaves="; ".join(accounts.troubles),
    )


def _roles_seen(teams: Mapping[UUID | None, Team]) -> dict[UUID, frozenset[tuple[UUID, str]]]:
    return {
        project: frozenset((member.uuid, short_role(member.role)) for member in team)
        for project, team in teams.items()
        if project is not None and not isinstance(team, SiteAgentError)
    }


_LEAVING = (
    OfferingUserState.REQUESTED_DELETION,
    OfferingUserState.DELETING,
    OfferingUserState.ERROR_DELETING,
)


def _by_account(resources: Iterable[Resource]) -> dict[str, list[Resource]]:
    groups: dict[str, list[Resource]] = defaultdict(list)
    for resource in resources:
        groups[resource.account].append(resource)
    return groups


def _account(
    site: Site,
    name: str,
    group: Sequence[Resource],
    teams: Mapping[UUID | None, Team],
    usernames: Mapping[UUID, str],
    accounts: _ProjectAccounts,
    limits: LimitsByAccount | None,
) -> AccountWanted:
    members: dict[str, str] | None = {}
    trouble = ""
    for resource in group:
        team = teams.get(resource.project_uuid, ())
        if isinstance(team, SiteAgentError):
            members, trouble = None, f"its team could not be read: {team}"
            break
        if members is None or resource.restrict_member_access:
            continue
        granted = granted_usernames(team, usernames, site.now())
        members |= dict.fromkeys(granted, "is in the project's team")
        members |= accounts.granted.get(resource.project_uuid, {})
    doubts = accounts.doubts
    doubtful = [doubts.projects.get(each.project_uuid or each.uuid, "") for each in group]
    is_shared_with_unknown = name in doubts.accounts
    return AccountWanted(
        id=name,
        resources=tuple(group),
        members=members,
        trouble=trouble,
        nobody_leaves="; ".join(filter(None, [doubts.accounts.get(name, ""), *doubtful])),
        is_restricted=all(resource.restrict_member_access for resource in group),
        access=None if is_shared_with_unknown else _shared_access(group),
        member_limits=None if limits is None else limits.get(name, {}),
    )


def _shared_access(group: Sequence[Resource]) -> Access | None:
    """One account for several resources is as open as the most open of them."""
    if any(resource.state not in _WITHOUT_ORDER for resource in group):
        return None
    order = [Access.NORMAL, Access.DOWNSCALED, Access.PAUSED]
    return min((wanted_access(resource) for resource in group), key=order.index)


def _service_provider(site: Site, offering: WaldurOffering, troubles: list[str]) -> UUID | None:
    if offering.customer_uuid is None:
        return None
    customer = offering.customer_uuid
    try:
        providers = ask_optional(
            site,
            "service_providers",
            lambda: site.waldur.service_providers(customer),
            _PER_PROJECT,
        ).items
    except PermanentError as error:
        _note_refusal(site, "the service provider is not shown", error, _PER_PROJECT)
        return None
    except SiteAgentError as error:
        troubles.append(f"the service provider was not read: {error}")
        return None
    return providers[0].uuid if providers else None


def _teams(
    site: Site, provider: UUID | None, resources: Sequence[Resource], accounts: _ProjectAccounts
) -> dict[UUID | None, Team]:
    """The team of each project: all in one list where that is allowed, else one by one.

    The two do not always agree (consent to terms of service counts in one only), so when the list
    should have been read and was not, that is a trouble: nobody leaves because of the other.

    The list names only people with a role, so a project that is not in it is asked for by itself
    before anybody concludes that it is empty. One of whose roles is not understood is asked for,
    too, and nobody leaves it.
    """
    one_each: dict[UUID | None, Resource] = {}
    for resource in resources:
        one_each.setdefault(resource.project_uuid, resource)
    in_bulk = _teams_in_bulk(site, provider, accounts)
    teams: dict[UUID | None, Team] = {p: in_bulk[p] for p in one_each if p in in_bulk}
    missing = [resource for project, resource in one_each.items() if project not in teams]
    for attempt in concurrently(lambda resource: site.waldur.team(resource.uuid), missing):
        teams[attempt.item.project_uuid] = attempt.error or attempt.value or ()
    return teams


def _teams_in_bulk(
    site: Site, provider: UUID | None, accounts: _ProjectAccounts
) -> dict[UUID | None, list[TeamMember]]:
    if provider is None:
        return {}
    try:
        listing = ask_optional(
            site, "project_permissions", lambda: site.waldur.project_roles(provider), _PER_PROJECT
        )
        roles = readable(site, listing, "project roles")
    except PermanentError as error:
        _note_refusal(site, "project roles are not shown in bulk", error, _PER_PROJECT)
        return {}
    except SiteAgentError as error:
        accounts.troubles.append(f"project roles were not read: {error}")
        return {}
    accounts.doubts.of_roles(listing.unreadable)
    teams: dict[UUID | None, list[TeamMember]] = defaultdict(list)
    for role in roles:
        member = TeamMember(
            uuid=role.user_uuid, role=role.role_name, expiration_time=role.expiration_time
        )
        if role.project_uuid not in accounts.doubts.projects:
            teams[role.project_uuid].append(member)
    return teams


_PER_PROJECT = "the team of each project is read by itself"


def _note_refusal(site: Site, event: str, error: PermanentError, effect: str) -> None:
    """Note a refusal that lasts; what a server lacks was logged when that was found out."""
    if not isinstance(error, AbsentOperationError):
        site.conditions.note(event, event, level=logging.INFO, effect=effect, reason=str(error))


def _read_project_accounts(site: Site, provider: UUID | None, accounts: _ProjectAccounts) -> None:
    offering = site.offering.waldur_offering_uuid
    waldur = site.waldur
    accounts.is_complete = provider is not None
    service: list[_Ask] = [
        ("offering_service_accounts", lambda: waldur.offering_service_accounts(offering))
    ]
    course: list[_Ask] = [
        ("offering_course_accounts", lambda: waldur.offering_course_accounts(offering))
    ]
    if provider is not None:
        service.insert(0, ("service_accounts", lambda: waldur.service_accounts(provider)))
        course.insert(0, ("course_accounts", lambda: waldur.course_accounts(provider)))
    for kind, asks in (("service account", service), ("course account", course)):
        _collect(site, accounts, kind, _first_answer(site, kind, asks, accounts))


if TYPE_CHECKING:
    _Ask = tuple[str, Callable[[], Listing[ProjectAccount]]]
    """A call's name, and the call."""


def _first_answer(
    site: Site, kind: str, asks: Sequence[_Ask], accounts: _ProjectAccounts
) -> tuple[ProjectAccount, ...]:
    """The accounts of a kind; none where neither list is offered to this token."""
    effect = "unknown users of accounts are left alone"
    for call, ask in asks:
        try:
            listing = ask_optional(site, call, ask, "another list is tried")
            accounts.doubts.of_project_accounts(listing.unreadable, kind)
            return readable(site, listing, f"{kind}s")
        except AbsentOperationError:
            continue
        except PermanentError as error:
            accounts.is_complete = False
            _note_refusal(site, f"{kind}s are not shown", error, effect)
        except SiteAgentError as error:
            accounts.troubles.append(f"{kind}s were not read: {error}")
            return ()
    return ()


def _collect(
    site: Site, accounts: _ProjectAccounts, kind: str, listed: Iterable[ProjectAccount]
) -> None:
    for account in listed:
        name = spelled(account.username)
        if not name:
            continue
        if account.state == ProjectAccountState.OK:
            accounts.granted[account.project_uuid][name] = f"is a {kind} of the project"
        elif account.state in KNOWN_ACCOUNT_STATES:
            accounts.closed[name] = f'is a {kind} in state "{account.state}"'
        else:
            accounts.doubts.of_state(name, f"a {kind}", account.state)
            accounts.doubts.users_are_known = False
            _note_state(site, name, account.state)


def _note_state(site: Site, name: str, state: str) -> None:
    event = "neither joins nor leaves: the state in Waldur is not known to this agent"
    site.conditions.note(event, name, user=name, state=state)


def _serving(accounts: _ProjectAccounts) -> dict[str, str]:
    """Service and course accounts that work, with why they would leave some other account."""
    names = {name for granted in accounts.granted.values() for name in granted}
    return dict.fromkeys(names, "is a service or course account of another project")


def _member_limits(
    site: Site, resources: Sequence[Resource], users: Iterable[OfferingUser]
) -> LimitsByAccount | None:
    """Per-user limits in backend units, by account and username; ``None`` when not known.

    That may be so for one account alone.
    """
    if SetMemberLimits not in site.backend.supports:
        return None
    uuid = site.offering.waldur_offering_uuid
    try:
        listing = ask_optional(
            site, "user_limits", lambda: site.waldur.user_limits(uuid), "members have no limits"
        )
        if any(row.uuid("resource") is None for row in listing.unreadable):
            listing.require_complete("user limits")  # it fails: any account may be concerned
        listed = readable(site, listing, "user limits")
    except PermanentError as error:
        _note_refusal(site, "user limits are not shown", error, "they stay as they are")
        return None
    except SiteAgentError as error:
        event = "user limits were not read; they stay as they are"
        site.conditions.note(event, event, reason=str(error))
        return None
    doubtful = {row.uuid("resource") for row in listing.unreadable}
    return {
        **_limits_by_account(site, listed, resources, users),
        **{each.account: None for each in resources if each.uuid in doubtful},
    }


def _limits_by_account(
    site: Site,
    listed: Iterable[UserLimit],
    resources: Iterable[Resource],
    users: Iterable[OfferingUser],
) -> dict[str, dict[str, dict[str, Decimal]]]:
    names = {user.uuid: spelled(user.username) for user in users}
    accounts = {resource.uuid: resource.account for resource in resources}
    components = site.offering.components
    result: dict[str, dict[str, dict[str, Decimal]]] = defaultdict(lambda: defaultdict(dict))
    for limit in listed:
        account = accounts.get(limit.resource_uuid or limit.uuid)
        name = names.get(limit.offering_user_uuid or limit.uuid)
        component = components.get(limit.component_type)
        if account and name and component and limit.limit is not None:
            amount = (limit.limit * component.unit_factor).normalize() + 0
            result[account][name][limit.component_type] = amount
    return result
