"""Collects, in bulk, which users should have access to which accounts.

One list each for resources, offering users, project roles, service accounts, course accounts and
per-user limits. If a list cannot be read, memberships that depend on it are left unchanged. Before
a plan removes anybody, ``confirm_wanted`` reads the objects concerned individually.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.backends import (
    Access,
    BackendState,
    CreateResource,
    Grant,
    MoveContainer,
    RemoveMembers,
    SetAccess,
    SetMemberLimits,
)
from waldur_site_agent.backends.naming import is_reserved
from waldur_site_agent.cycles.feedback import accounts_with_changes
from waldur_site_agent.cycles.limits import by_account
from waldur_site_agent.cycles.offering import check_emptied_list
from waldur_site_agent.cycles.partial_answers import Protected, call_optional, readable
from waldur_site_agent.cycles.site import ScopeFilter, Site
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.events import WaldurSnapshot
from waldur_site_agent.model.marketplace import (
    KNOWN_ACCOUNT_STATES,
    KNOWN_USER_STATES,
    OfferingUser,
    OfferingUserState,
    ProjectAccount,
    ProjectAccountState,
    ProjectRole,
    ProjectTeam,
    Resource,
    ResourceState,
    TeamMember,
    UserLimit,
    WaldurOffering,
)
from waldur_site_agent.planning.limits import is_possible
from waldur_site_agent.planning.membership import (
    AccountPlan,
    AccountWanted,
    MembershipPlan,
    People,
    consent_problem,
    granted_usernames,
    normalize_username,
    reasons_to_leave,
    usable_usernames,
    wanted_access,
)
from waldur_site_agent.planning.remembered import looks_closed
from waldur_site_agent.waldur import (
    AbsentOperationError,
    Listing,
    concurrently,
)

Team = Collection[TeamMember] | SiteAgentError
LimitsByAccount = Mapping[str, Mapping[str, Mapping[str, Decimal]] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The memberships that Waldur wants for an offering, and what is uncertain about them."""

    accounts: tuple[AccountWanted, ...]
    people: People
    users_to_delete: tuple[OfferingUser, ...]
    """Offering users whom Waldur is deleting."""
    not_understood: tuple[str, ...] = ()
    """Rows that could not be decoded and were skipped."""
    still_present: frozenset[str] | None = frozenset()
    """Users who may be in an account that is not covered; ``None`` if they are not known."""
    unconfirmed: tuple[str, ...] = ()
    """Accounts deferred to the next pass because their resource could not be read."""
    removals_suspended: str = ""
    """Why no member may be removed: lists that could grant access were not read."""
    offering_accounts: frozenset[str] = frozenset()
    """All accounts of the offering, including those out of scope."""
    snapshot: WaldurSnapshot = field(default_factory=WaldurSnapshot)
    provider: UUID | None = None
    """The service provider, if this token may see it."""
    teams: Mapping[UUID, Collection[TeamMember]] = field(default_factory=dict)
    """The teams that were read, by project."""
    projects: int = 0
    """The number of projects of the offering that have an account of their own."""


@dataclass(slots=True)
class _ProjectAccounts:
    """Service and course accounts by project; ``closed`` are usernames to remove."""

    granted: dict[UUID | None, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    closed: dict[str, str] = field(default_factory=dict)
    is_complete: bool = True
    """Whether all names are known; false if the lists are hidden from this token."""
    troubles: list[str] = field(default_factory=list)
    """Lists that could not be read although they should have been."""
    protected: Protected = field(default_factory=Protected)
    """What could not be decoded."""


def gather_wanted(
    site: Site,
    offering: WaldurOffering,
    users: Sequence[OfferingUser],
    scope_filter: ScopeFilter,
    protected: Protected,
) -> Gathered:
    """Everything that planning the memberships in scope needs from Waldur.

    ``protected`` has the offering users that could not be decoded.

    Raises:
        TemporaryError: the resources could not be read.
    """
    listing = site.waldur.resources(site.offering.waldur_offering_uuid)
    listed = readable(site, listing, "resources")
    protected.of_resources(listing.unreadable)
    check_emptied_list(site, "resources", listed)
    named = [resource for resource in listed if resource.backend_id.strip()]
    served = [resource for resource in named if resource.state in ResourceState.SERVED]
    resources = scope_filter.choose(served)
    users_to_delete = tuple(u for u in users if u.state in _LEAVING and scope_filter.holds_user(u))
    others = [resource for resource in named if resource.state not in ResourceState.SERVED]
    covers_all_accounts = not listing.unreadable and not (
        users_to_delete and others and _may_have_members(site, others)
    )
    snapshot = WaldurSnapshot(
        resources={each.uuid: each for each in listed}, users={u.user_uuid: u for u in users}
    )
    gathered = Gathered(
        accounts=(),
        people=People(known=reasons_to_leave(users, with_consent=site.offering.require_consent)),
        users_to_delete=users_to_delete,
        still_present=frozenset() if covers_all_accounts else None,
        not_understood=tuple(protected.rows),
        offering_accounts=frozenset(resource.account for resource in served),
        snapshot=snapshot,
    )
    if not resources:
        return gathered
    _note_unknown_states(site, users, protected)
    return _with_members(site, offering, gathered, resources, users, protected)


def _with_members(
    site: Site,
    offering: WaldurOffering,
    gathered: Gathered,
    resources: Sequence[Resource],
    users: Sequence[OfferingUser],
    protected: Protected,
) -> Gathered:
    """What is wanted with the accounts of these resources, and who belongs into them."""
    accounts = _ProjectAccounts(protected=protected)
    provider = _service_provider(site, offering, accounts.troubles)
    _read_project_accounts(site, provider, accounts)
    teams = _teams(site, provider, resources, gathered.snapshot.users, accounts)
    teams_read = _teams_read(teams)
    accounts.troubles += protected.everything
    has_all = gathered.still_present is not None and not accounts.troubles
    return replace(
        gathered,
        accounts=_accounts(site, offering, resources, teams, accounts, users),
        people=_people(users, gathered.people.known, accounts),
        still_present=frozenset(protected.names) if has_all else None,
        not_understood=tuple(protected.rows),
        removals_suspended="; ".join(accounts.troubles),
        snapshot=replace(
            gathered.snapshot,
            teams=teams_read,
            accounts={p: frozenset(names) for p, names in accounts.granted.items() if p},
        ),
        provider=provider,
        teams=teams_read,
    )


def _may_have_members(site: Site, resources: Sequence[Resource]) -> bool:
    """Whether accounts that the pass does not cover may have members whom a reading would miss.

    Some backends do not tell members, and an order that is being carried out may add them at any
    moment. A resource to be restored has its old name from the beginning, and may wait for long:
    for its approval, or because its order was deleted.
    """
    if not site.backend.capabilities.tells_members:
        return True
    attempts = concurrently(site.waldur.resource, [resource.uuid for resource in resources])
    return not all(attempt.value and _waits(attempt.value) for attempt in attempts)


def _waits(resource: Resource) -> bool:
    """Whether nothing is done about a resource, read individually, before its order is approved."""
    order = resource.order_in_progress
    is_pending = order is None or str(order.get("state", "")).startswith("pending-")
    return is_pending and resource.state == ResourceState.CREATING


def _teams_read(teams: Mapping[UUID | None, Team]) -> dict[UUID, Collection[TeamMember]]:
    return {
        project: team
        for project, team in teams.items()
        if project is not None and not isinstance(team, SiteAgentError)
    }


def _note_unknown_states(site: Site, users: Iterable[OfferingUser], protected: Protected) -> None:
    """Leave users unchanged whose state this version does not know."""
    for user in users:
        if user.state not in KNOWN_USER_STATES:
            protected.of_state(user.username, "an offering user", user.state)
            _note_state(site, user.username, user.state)


def _accounts(
    site: Site,
    offering: WaldurOffering,
    resources: Sequence[Resource],
    teams: Mapping[UUID | None, Team],
    accounts: _ProjectAccounts,
    users: Sequence[OfferingUser],
) -> tuple[AccountWanted, ...]:
    limits = _member_limits(site, resources, users)
    usernames = usable_usernames(users, with_consent=site.offering.require_consent)
    problem = consent_problem(users) if site.offering.require_consent else ""
    wanted = (
        _account(site, name, group, teams, usernames, accounts, limits)
        for name, group in by_account(resources).items()
    )
    return tuple(
        _with_grant(
            site, offering, replace(each, members=None, trouble=problem) if problem else each
        )
        for each in wanted
    )


def _with_grant(site: Site, offering: WaldurOffering, account: AccountWanted) -> AccountWanted:
    """The account with what its new members get: what the first of its resources has ordered."""
    try:
        grants = [site.backend.grant(offering, each.attributes) for each in account.resources]
    except PermanentError as error:
        return replace(account, nobody_joins=str(error))
    return replace(account, grant=next(filter(None, map(_given, grants)), Grant()))


def _given(grant: Grant) -> Grant | None:
    return grant if str(grant) else None


def _people(
    users: Sequence[OfferingUser], reasons: Mapping[str, str], accounts: _ProjectAccounts
) -> People:
    others = {**accounts.closed, **_serving(accounts)}
    known = {**others, **reasons} if others else reasons
    if any(map(is_reserved, known)):
        # a person in Waldur may call themselves so, but the member is somebody of the site
        known = {name: reason for name, reason in known.items() if not is_reserved(name)}
    return People(
        known=known,
        is_complete=accounts.is_complete
        and not accounts.troubles
        and accounts.protected.users_are_known
        and bool(users),
        undecided=frozenset(accounts.protected.names),
        nobody_leaves="; ".join(accounts.troubles),
    )


_LEAVING = (
    OfferingUserState.REQUESTED_DELETION,
    OfferingUserState.DELETING,
    OfferingUserState.ERROR_DELETING,
)


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
    protected = accounts.protected
    doubtful = [protected.projects.get(each.project_uuid or each.uuid, "") for each in group]
    is_shared_with_unknown = name in protected.accounts
    return AccountWanted(
        id=name,
        resources=tuple(group),
        members=members,
        trouble=trouble,
        nobody_leaves="; ".join(filter(None, [protected.accounts.get(name, ""), *doubtful])),
        is_restricted=all(resource.restrict_member_access for resource in group),
        access=None if is_shared_with_unknown else _shared_access(site, group),
        member_limits=None if limits is None else limits.get(name, {}),
    )


def _shared_access(site: Site, group: Sequence[Resource]) -> Access | None:
    """The access of an account; if resources share it, the least restrictive one wins."""
    if any(resource.state not in ResourceState.WITHOUT_ORDER for resource in group):
        return None
    order = [Access.NORMAL, Access.DOWNSCALED, Access.PAUSED]
    wanted = min((wanted_access(resource) for resource in group), key=order.index)
    return site.backend.access_to_set(wanted)


def _service_provider(site: Site, offering: WaldurOffering, troubles: list[str]) -> UUID | None:
    if offering.customer_uuid is None:
        return None
    customer = offering.customer_uuid
    try:
        providers = call_optional(
            site,
            "service_providers",
            lambda: site.waldur.service_providers(customer),
            _PER_PROJECT,
        ).items
    except PermanentError as error:
        _note_refusal(site, "service provider hidden from this token", error, _PER_PROJECT)
        return None
    except SiteAgentError as error:
        troubles.append(f"the service provider could not be read: {error}")
        return None
    return providers[0].uuid if providers else None


def _teams(
    site: Site,
    provider: UUID | None,
    resources: Sequence[Resource],
    users: Mapping[UUID, OfferingUser],
    accounts: _ProjectAccounts,
) -> dict[UUID | None, Team]:
    """The team of each project: from one list if permitted, otherwise one by one.

    The two do not always agree (only one of them respects consent to terms of service). So if
    the list could not be read although it should have been, nobody is removed.

    The list has only users with a role, so the team of a project that is not in it is read
    individually before it is considered empty. The same goes for projects with a role that could
    not be decoded; nobody is removed from those.
    """
    one_each: dict[UUID | None, Resource] = {}
    for resource in resources:
        one_each.setdefault(resource.project_uuid, resource)
    projects = {project: project for project in one_each if project is not None}

    def shared(uuid: UUID) -> UUID:
        user = users.get(uuid)
        return projects.get(uuid, uuid) if user is None else user.user_uuid

    in_bulk = _teams_in_bulk(site, provider, shared, accounts)
    teams: dict[UUID | None, Team] = {p: in_bulk[p] for p in one_each if p in in_bulk}
    missing = [resource for project, resource in one_each.items() if project not in teams]
    for attempt in concurrently(lambda resource: site.waldur.team(resource.uuid), missing):
        teams[attempt.item.project_uuid] = attempt.error or attempt.value or ()
    return teams


def _teams_in_bulk(
    site: Site,
    provider: UUID | None,
    shared: Callable[[UUID], UUID],
    accounts: _ProjectAccounts,
) -> dict[UUID, ProjectTeam]:
    """The teams; ``shared`` returns equal UUIDs that are in memory already."""
    if provider is None:
        return {}
    try:
        listing = call_optional(
            site,
            "project_permissions",
            lambda: site.waldur.project_roles(provider, shared),
            _PER_PROJECT,
        )
        roles = readable(site, listing, "project roles")
    except PermanentError as error:
        _note_refusal(site, "list of project roles denied to this token", error, _PER_PROJECT)
        return {}
    except SiteAgentError as error:
        accounts.troubles.append(f"project roles could not be read: {error}")
        return {}
    accounts.protected.of_roles(listing.unreadable)
    by_project: dict[UUID, list[ProjectRole]] = defaultdict(list)
    for role in roles:
        if role.project_uuid not in accounts.protected.projects:
            by_project[role.project_uuid].append(role)
    return {project: ProjectTeam(of_project) for project, of_project in by_project.items()}


_PER_PROJECT = "the team of each project is read individually"


def _note_refusal(site: Site, event: str, error: PermanentError, effect: str) -> None:
    """Note a lasting denial; calls that the server lacks have been logged already."""
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


_Ask = tuple[str, Callable[[], Listing[ProjectAccount]]]
"""The name of an API call, and the call."""


def _first_answer(
    site: Site, kind: str, asks: Sequence[_Ask], accounts: _ProjectAccounts
) -> tuple[ProjectAccount, ...]:
    """The accounts of one kind, from the first list that this token may read."""
    effect = "unknown account members are left unchanged"
    for call, ask in asks:
        try:
            listing = call_optional(site, call, ask, "another list is read instead")
            accounts.protected.of_project_accounts(listing.unreadable, kind)
            return readable(site, listing, f"{kind}s")
        except AbsentOperationError:
            continue
        except PermanentError as error:
            accounts.is_complete = False
            _note_refusal(site, f"{kind}s hidden from this token", error, effect)
        except SiteAgentError as error:
            accounts.troubles.append(f"{kind}s could not be read: {error}")
            return ()
    return ()


def _collect(
    site: Site, accounts: _ProjectAccounts, kind: str, listed: Iterable[ProjectAccount]
) -> None:
    for account in listed:
        name = normalize_username(account.username)
        if not name:
            continue
        if account.state == ProjectAccountState.OK:
            accounts.granted[account.project_uuid][name] = f"is a {kind} of the project"
        elif account.state in KNOWN_ACCOUNT_STATES:
            accounts.closed[name] = f'is a {kind} in state "{account.state}"'
        else:
            accounts.protected.of_state(name, f"a {kind}", account.state)
            accounts.protected.users_are_known = False
            _note_state(site, name, account.state)


def _note_state(site: Site, name: str, state: str) -> None:
    event = "user left unchanged: unknown state in Waldur"
    site.conditions.note(event, name, user=name, state=state)


def _serving(accounts: _ProjectAccounts) -> dict[str, str]:
    """Active service and course accounts, with the reason to leave accounts of other projects."""
    names = {name for granted in accounts.granted.values() for name in granted}
    return dict.fromkeys(names, "is a service or course account of another project")


def _member_limits(
    site: Site, resources: Sequence[Resource], users: Iterable[OfferingUser]
) -> LimitsByAccount | None:
    """Per-user limits in backend units, by account and username.

    ``None``, for all accounts or for a single one, means that they are not known.
    """
    if SetMemberLimits not in site.backend.supports:
        return None
    uuid = site.offering.waldur_offering_uuid
    try:
        listing = call_optional(
            site, "user_limits", lambda: site.waldur.user_limits(uuid), "members have no limits"
        )
        if any(row.uuid("resource") is None for row in listing.unreadable):
            listing.require_complete("user limits")  # raises: any account may be concerned
        listed = readable(site, listing, "user limits")
    except PermanentError as error:
        _note_refusal(site, "user limits hidden from this token", error, "they are left unchanged")
        return None
    except SiteAgentError as error:
        event = "user limits could not be read; left unchanged"
        site.conditions.note(event, event, reason=str(error))
        return None
    doubtful = {row.uuid("resource") for row in listing.unreadable}
    for impossible in [
        each for each in listed if not (each.limit is None or is_possible(each.limit))
    ]:
        doubtful.add(impossible.resource_uuid)
        site.conditions.note(
            "user limits left unchanged: one of them is no amount that a cluster can have",
            str(impossible.resource_uuid),
            limit=str(impossible.uuid),
        )
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
    names = {user.uuid: normalize_username(user.username) for user in users}
    accounts = {resource.uuid: resource.account for resource in resources}
    components = site.offering.components
    result: dict[str, dict[str, dict[str, Decimal]]] = defaultdict(lambda: defaultdict(dict))
    for limit in listed:
        account = accounts.get(limit.resource_uuid or limit.uuid)
        name = names.get(limit.offering_user_uuid or limit.uuid)
        component = components.get(limit.component_type)
        if account and name and component and limit.limit is not None and is_possible(limit.limit):
            for part in component.parts:
                amount = site.backend.settable_limit(part.type, part.to_backend(limit.limit))
                result[account][name][part.type] = amount
    return result


Readings = Mapping[UUID, Resource | SiteAgentError]

_CONFIRMED = (CreateResource, MoveContainer, RemoveMembers, SetAccess, SetMemberLimits)


def confirm_wanted(
    site: Site,
    wanted: Gathered,
    membership: MembershipPlan,
    state: BackendState,
    users: Sequence[OfferingUser],
) -> Gathered:
    """The wanted memberships, after individual reads of the objects that a plan would change.

    Args:
        site: the offering at work.
        wanted: the memberships according to the lists.
        membership: the plan that follows from them.
        state: the backend.
        users: the offering's users, as listed.
    """
    news = accounts_with_changes(site, membership.accounts, state)
    capabilities = site.backend.capabilities
    changing = [
        plan
        for plan in membership.accounts
        if plan.wanted.id in news
        or _rests_on_notes_or_team(plan)
        # a list that is a moment old may show a resource whose account was closed meanwhile
        or (plan.steps and looks_closed(state.resources.get(plan.wanted.id), capabilities))
    ]
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
                "the resource has changed since the list was read; account deferred to the "
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
    """The account with its resources as read; ``None`` if they differ from the list."""
    resources = []
    for listed in account.resources:
        current = readings[listed.uuid]
        if isinstance(current, SiteAgentError) or _planned_from(current) != _planned_from(listed):
            return None
        resources.append(current)
    owners = map(_owners, account.resources), map(_owners, resources)
    move = account.move if tuple(owners[0]) == tuple(owners[1]) else None
    return replace(account, resources=tuple(resources), move=move)


def _owners(resource: Resource) -> tuple[str, ...]:
    """What says where the account of a resource's project belongs."""
    return resource.project_slug, resource.customer_slug, resource.customer_name


def _planned_from(resource: Resource) -> tuple[object, ...]:
    """The fields that the plan depends on."""
    return (
        resource.account,
        resource.state,
        resource.paused,
        resource.downscaled,
        resource.restrict_member_access,
        dict(resource.limits),
        resource.term,
    )


def _troubles(account: AccountWanted, readings: Readings) -> list[str]:
    """What could not be read; a resource that has merely changed is not an error."""
    found = (readings[resource.uuid] for resource in account.resources)
    errors = [error for error in found if isinstance(error, SiteAgentError)]
    return [f"{account.id}: not changed: its resource could not be read: {e}" for e in errors[:1]]


def _leaving(plan: AccountPlan) -> frozenset[str]:
    actions = (step.action for step in plan.steps)
    return frozenset(m for a in actions if isinstance(a, RemoveMembers) for m in a.members)


def _with_teams(
    site: Site,
    accounts: Sequence[AccountWanted],
    leaving: Mapping[str, frozenset[str]],
    users: Sequence[OfferingUser],
) -> dict[str, AccountWanted | None]:
    """Accounts with removals, after reading their teams; whoever is in the team stays."""
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
            if user.user_uuid in people and normalize_username(user.username) in leaving[account.id]
        ]
        current, trouble = _read_users(site, doubtful)
        if trouble:
            result[account.id] = replace(account, members=None, trouble=trouble)
            continue
        usernames = usable_usernames(current, with_consent=site.offering.require_consent)
        stays = granted_usernames(attempt.value, usernames, site.now())
        members = {**dict.fromkeys(stays, "is in the project's team"), **account.members}
        if not people <= {user.user_uuid for user in users}:
            strangers = leaving[account.id] - {normalize_username(user.username) for user in users}
            members |= dict.fromkeys(strangers, "may be a team member without a username yet")
        result[account.id] = replace(account, members=members)
    return result


def _with_project_accounts(
    site: Site,
    provider: UUID | None,
    accounts: Iterable[AccountWanted | None],
    leaving: Mapping[str, frozenset[str]],
    users: Sequence[OfferingUser],
) -> dict[str, AccountWanted | None]:
    """Accounts with removals of non-users, after reading the project's own accounts."""
    people = {normalize_username(user.username) for user in users}
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
    if provider is None:  # without the provider's lists no unknown member is removed
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
    """The usernames of a project's active service and course accounts."""
    names: set[str] = set()
    for ask in (site.waldur.service_accounts, site.waldur.course_accounts):
        try:
            listed = ask(provider, project).require_complete("accounts of a project")
        except AbsentOperationError:
            continue
        names |= {
            normalize_username(a.username) for a in listed if a.state == ProjectAccountState.OK
        }
    return frozenset(names - {""})


def _read_users(site: Site, users: Iterable[OfferingUser]) -> tuple[list[OfferingUser], str]:
    """The users, read individually, and the first error."""
    attempts = concurrently(lambda user: site.waldur.offering_user(user.uuid), users)
    errors = [f"{a.item.username} could not be read: {a.error}" for a in attempts if a.error]
    return [a.value for a in attempts if a.value is not None], "; ".join(errors[:1])
