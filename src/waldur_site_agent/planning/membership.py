"""Who has access to a resource, and how its account becomes so: members, member limits, access.

Waldur decides about the users it knows. Unknown members of an account are reported and left
unchanged, unless the site asked for their removal. The settings of an account before a restriction
are kept in the resource's backend_metadata, so that they can be restored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    BackendResource,
    BackendState,
    CreateHomeDirectories,
    CreateProjectDirectory,
    CreateResource,
    Grant,
    MoveContainer,
    RemoveMembers,
    SetAccess,
    SetMemberLimits,
)
from waldur_site_agent.model.marketplace import (
    OfferingUser,
    OfferingUserState,
    Resource,
    ResourceState,
    TeamMember,
    has_ended,
)
from waldur_site_agent.planning.budgets import BudgetPlan
from waldur_site_agent.planning.limits import EXACT, LimitDecision, LimitPrecision, limit_changes
from waldur_site_agent.planning.plan import (
    CREATION_NOTE,
    Plan,
    Step,
    Write,
    metadata_write,
    ok_write,
    sync_write,
)
from waldur_site_agent.planning.remembered import REMEMBERED


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
    strangers = frozenset(found) - names
    of_folded: dict[str, set[str]] = {folded(member): set() for member in strangers}
    if not of_folded:
        return {}
    for name in names:
        if (alike := of_folded.get(folded(name))) is not None:
            alike.add(name)
    return {
        member: next(iter(alike))
        for member in strangers
        if len(alike := of_folded[folded(member)]) == 1
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


def usable_usernames(
    offering_users: Iterable[OfferingUser], *, with_consent: bool = False
) -> dict[UUID, str]:
    """The usernames of all users with an active account at the offering, by user UUID.

    ``with_consent``: only of those who have consented to the terms of the offering.
    """
    return {
        user.user_uuid: normalize_username(user.username)
        for user in offering_users
        if user.state == OfferingUserState.OK and user.username and not user.is_restricted
        if user.has_consent or not with_consent
    }


def consent_problem(offering_users: Iterable[OfferingUser]) -> str:
    """Why it is not known who has consented to the offering's terms; empty if it is."""
    users = tuple(offering_users)
    if any(user.has_consent is None for user in users):
        return (
            "require_consent: this Waldur does not show who has consented to the terms of "
            "service; upgrade it to 7.9 or newer, or remove require_consent"
        )
    if users and all(user.offering_has_active_tos is False for user in users):
        return (
            "require_consent: the offering has no active terms of service, so nobody can consent; "
            "publish them in Waldur, or remove require_consent"
        )
    return ""


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


def reasons_to_leave(
    offering_users: Iterable[OfferingUser], *, with_consent: bool = False
) -> dict[str, str]:
    """Every username that Waldur knows at the offering, with the reason for a removal.

    Only these users are ever removed; other members are not managed by Waldur.
    """
    reasons: dict[str, str] = {}
    for user in offering_users:
        if name := normalize_username(user.username):
            reason = _reason_to_leave(user, with_consent=with_consent)
            if reasons.get(name, _LEFT) == _LEFT:
                reasons[name] = reason
    return reasons


_LEFT = "is no longer in the project's team"


def _reason_to_leave(user: OfferingUser, *, with_consent: bool) -> str:
    if user.state in (OfferingUserState.REQUESTED_DELETION, OfferingUserState.DELETING):
        return "is being deleted in Waldur"
    if user.state != OfferingUserState.OK:
        return f'has an account in state "{user.state}"'
    if user.is_restricted:
        return "is restricted in Waldur"
    has_refused = with_consent and not user.has_consent
    return "has not consented to the terms of the offering" if has_refused else _LEFT


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountWanted:
    """The wanted state of one account."""

    id: str
    resources: tuple[Resource, ...]
    """Usually one. If several share the account, access to any of them grants access."""
    members: Mapping[str, str] | None
    """By username, the reason for access; ``None`` if the team is not known."""
    trouble: str = ""
    """Why the team is not known."""
    nobody_leaves: str = ""
    """Why no member may be removed from this account; empty if they may."""
    grant: Grant = field(default_factory=Grant)
    """What new members get."""
    nobody_joins: str = ""
    """Why nobody may be added to this account; empty if they may."""
    creation: CreateResource | None = None
    """What makes the account again, if it is missing and that was asked for."""
    creation_problem: str = ""
    """Why it cannot be made again."""
    move: MoveContainer | None = None
    """What moves the account of its project, which belongs to another organization now."""
    not_moved: str = ""
    """Why the account of its project is not moved although it is below another organization's."""
    is_restricted: bool = False
    access: Access | None = None
    """``None`` while an order is in progress, or if it is not known."""
    member_limits: Mapping[str, Mapping[str, Decimal]] | None = None
    """By username, in backend units; ``None`` if not known or not supported."""

    @property
    def limited(self) -> frozenset[str]:
        """The members whose limits the agent has set; only those are ever removed."""
        names = (limited_members(resource.backend_metadata) for resource in self.resources)
        return frozenset().union(*names)

    @property
    def title(self) -> str:
        """A heading for the account."""
        resource = self.resources[0]
        project = f" (project {resource.project_slug})" if resource.project_slug else ""
        end = f", {resource.end_text}" if resource.end_text else ""
        return f"{self.id}  {resource.name}{project}{end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """The usernames that Waldur knows at the offering."""

    known: Mapping[str, str]
    """By username, the reason for a removal."""
    is_complete: bool = True
    """Whether all lists of names were read; if not, an unknown user may exist in Waldur."""
    nobody_leaves: str = ""
    """Why removals are suspended: a list that could grant access was not read."""
    undecided: frozenset[str] = frozenset()
    """Usernames in lower case that must not be removed: their data could not be decoded."""
    waiting: frozenset[str] = frozenset()
    """Users whom the backend cannot add yet."""
    homeless: frozenset[str] = frozenset()
    """Users who should get a home directory."""
    unset_quotas: frozenset[str] = frozenset()
    """Users whose home lacks its quota, because setting it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPlan:
    """What one account needs."""

    wanted: AccountWanted
    steps: tuple[Step, ...] = ()
    waiting: tuple[str, ...] = ()
    kept_out: tuple[str, ...] = ()
    """Who is not added because ``nobody_joins``."""
    unknown: tuple[str, ...] = ()
    """Members unknown to Waldur, who stay."""
    is_missing: bool = False
    """The backend does not have the account at all."""
    limits: LimitDecision | None = None
    """The decision about limits that differ between Waldur and the account."""
    budget: BudgetPlan | None = None
    """What the account needs where a periodic policy, not the order, sets its limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipPlan:
    """What a whole offering needs."""

    accounts: tuple[AccountPlan, ...] = ()
    homes: tuple[Step, ...] = ()
    unlimited: tuple[str, ...] = ()
    """Limit-based components without a limit on either side, as text."""

    @property
    def plan(self) -> Plan:
        """All steps, account by account."""
        steps = [step for account in self.accounts for step in account.steps]
        return Plan((*steps, *self.homes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the site and the backend allow a membership plan to do."""

    supports: frozenset[type]
    remove_unknown: bool = False
    component_types: frozenset[str] = field(default_factory=frozenset)
    """The types in the backend whose per-user limits belong to Waldur."""
    precision: LimitPrecision = EXACT
    unfinished_directories: frozenset[str] = frozenset()
    """Accounts whose project directory could not be made or completed before."""


def plan_membership(
    wanted: Iterable[AccountWanted], state: BackendState, people: People, policy: Policy
) -> MembershipPlan:
    """Compare Waldur with the backend; the plan has a stable order."""
    accounts = tuple(
        _plan_account(account, state.resources.get(account.id), people, policy)
        for account in sorted(wanted, key=lambda account: account.id)
    )
    homes = tuple(
        Step(CreateHomeDirectories(tuple(sorted(users))), reason)
        for users, reason in (
            (people.homeless, "has no home directory"),
            (people.unset_quotas, "the home directory has no quota yet"),
        )
        if users and CreateHomeDirectories in policy.supports
    )
    return MembershipPlan(accounts=accounts, homes=homes)


def _plan_account(
    account: AccountWanted, found: BackendResource | None, people: People, policy: Policy
) -> AccountPlan:
    steps: list[Step] = []
    if account.creation is not None:
        is_there = "not complete" if found is not None else "missing"
        reason = f"{is_there} in the backend; made again from Waldur"
        steps.append(Step(account.creation, reason))
        found = found or as_created(account.creation)
    if found is None:
        return AccountPlan(wanted=account, is_missing=True)
    if account.move is not None:
        steps.append(Step(account.move, _why_it_moves(account.move)))
    waiting: tuple[str, ...] = ()
    kept_out: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    if account.members is not None:
        extra = [name for name in found.members if name not in account.members]
        strangers = frozenset(name for name in extra if name not in people.known)
        stay = strangers if not (policy.remove_unknown and people.is_complete) else frozenset()
        unknown = tuple(sorted(stay))
        if not (people.nobody_leaves or account.nobody_leaves):
            gone = (name for name in extra if name not in stay)
            decided = frozenset(name for name in gone if folded(name) not in people.undecided)
            steps += _leaving(account, decided, people)
        missing = account.members.keys() - found.members
        waiting = tuple(sorted(missing & people.waiting))
        newcomers = frozenset(missing - people.waiting)
        kept_out = tuple(sorted(newcomers)) if account.nobody_joins else ()
        steps += _joining(account, newcomers - frozenset(kept_out))
        if SetMemberLimits in policy.supports:
            present = account.members.keys() - frozenset((*waiting, *kept_out))
            steps += _limiting(account, present, found, policy)
    if SetAccess in policy.supports:
        steps += _switching(account, found)
    if account.id in policy.unfinished_directories:
        steps.append(Step(CreateProjectDirectory(account.id), "was not complete before"))
    return AccountPlan(
        wanted=account, steps=tuple(steps), waiting=waiting, kept_out=kept_out, unknown=unknown
    )


def _why_it_moves(move: MoveContainer) -> str:
    customer = move.containers[-2]
    return f'the project belongs to the organization "{customer.title or customer.id}" now'


def as_created(creation: CreateResource) -> BackendResource:
    """The account that a creation makes."""
    placement = creation.placement
    return BackendResource(
        id=placement.id,
        parent=placement.parent,
        organization=placement.organization,
        limits=creation.limits,
        access=Access.NORMAL,
    )


def _leaving(account: AccountWanted, names: frozenset[str], people: People) -> list[Step]:
    if not names:
        return []
    reasons = {
        name: "access to the resource is restricted"
        if account.is_restricted
        else people.known.get(name, "is not known to Waldur")
        for name in names
    }
    action = RemoveMembers(account.id, tuple(sorted(names)))
    return [Step(action, _summary(reasons), reasons=reasons)]


def _joining(account: AccountWanted, names: frozenset[str]) -> list[Step]:
    if not names:
        return []
    members = account.members or {}
    reasons = {name: members[name] for name in names}
    action = AddMembers(account.id, tuple(sorted(names)), account.grant)
    return [Step(action, _summary(reasons), reasons=reasons)]


def _summary(reasons: Mapping[str, str]) -> str:
    return "; ".join(sorted(set(reasons.values())))


def _limiting(
    account: AccountWanted, members: Iterable[str], found: BackendResource, policy: Policy
) -> list[Step]:
    if account.member_limits is None:
        return []
    steps = []
    for member in sorted(members):
        wanted = account.member_limits.get(member, {})
        has = found.member_limits.get(member, {})
        changes: dict[str, Decimal | None] = {**limit_changes(wanted, has, policy.precision)}
        if account.limited & {member, member.lower()}:  # older agents saved names in lower case
            changes |= {name: None for name in has if _is_withdrawn(name, wanted, policy)}
        if changes:
            action = SetMemberLimits(account.id, member, changes)
            steps.append(Step(action, f"limit of {member} in Waldur", before=has))
    return steps


def _is_withdrawn(name: str, wanted: Mapping[str, Decimal], policy: Policy) -> bool:
    return name not in wanted and name in policy.component_types


def _switching(account: AccountWanted, found: BackendResource) -> list[Step]:
    """Restrict access or lift a restriction; settings made by the site are not touched."""
    wanted = account.access
    if wanted is None or wanted is found.access:
        return []
    before = settings_before(account.resources[0].backend_metadata)
    if wanted is Access.NORMAL and (not is_restricted(found) or before is None):
        return []
    restore = before or {}
    now = found.access.value if found.access else found.metadata.get("qos", "as set by the site")
    return [Step(SetAccess(account.id, wanted, restore), f"{wanted.value} in Waldur, was {now}")]


def joining(wanted: Iterable[AccountWanted], state: BackendState) -> frozenset[str]:
    """All users who will be added to some account."""
    return frozenset(
        name
        for account in wanted
        if account.id in state.resources or account.creation is not None
        for name in account.members or ()
        if name not in state.members_of(account.id)
    )


Metadata = dict[str, object]

_BEFORE = "_before"

_LIMITED = "limited_members"

_SHOWN = ("qos", "default_qos", "member_qos", "submit_limit", *REMEMBERED, CREATION_NOTE)
"""Keys that backends report; one that is no longer reported is dropped."""


def settings_before(metadata: Mapping[str, object]) -> dict[str, str] | None:
    """The account's settings before the agent restricted it; ``None`` if it did not."""
    before = {k.removesuffix(_BEFORE): str(v) for k, v in metadata.items() if k.endswith(_BEFORE)}
    return {key: value for key, value in before.items() if value} if before else None


def limited_members(metadata: Mapping[str, object]) -> frozenset[str]:
    """The members whose limits the agent has set."""
    listed = metadata.get(_LIMITED)
    return (
        frozenset(str(name) for name in listed) if isinstance(listed, list | tuple) else frozenset()
    )


def is_restricted(found: BackendResource) -> bool:
    """Whether the account is restricted in the way the agent does it."""
    return found.access in (Access.PAUSED, Access.DOWNSCALED)


def metadata_of(
    metadata: Mapping[str, object],
    found: BackendResource,
    wanted: Access | None,
    limited: Collection[str] = (),
) -> Metadata:
    """The metadata that a resource should have, given the state of its account.

    The settings before a restriction are dropped only when the restriction is neither wanted nor
    found any more. A restriction that is both, but without saved settings, was made by an older
    agent that did not save them; it counts as made by the agent.

    Args:
        metadata: the current metadata.
        found: the account.
        wanted: the wanted access; ``None`` while an order is in progress.
        limited: the members whose limits the agent has set.
    """
    keep = is_restricted(found) or wanted is not Access.NORMAL
    remembered = {k: v for k, v in metadata.items() if keep and k.endswith(_BEFORE)}
    if is_restricted(found) and wanted in (Access.PAUSED, Access.DOWNSCALED) and not remembered:
        remembered = {_SHOWN[0] + _BEFORE: ""}
    names: Metadata = {_LIMITED: sorted(limited)} if limited else {}
    return {**_foreign(metadata, found), **remembered, **names, **found.metadata}


def metadata_before_restricting(metadata: Mapping[str, object], found: BackendResource) -> Metadata:
    """The metadata to save before an account is restricted, so that it can be restored."""
    shown = {k: v for k, v in found.metadata.items() if k not in REMEMBERED}
    before = {key + _BEFORE: value for key, value in shown.items()}
    before = before or {_SHOWN[0] + _BEFORE: ""}
    kept = {_LIMITED: metadata[_LIMITED]} if _LIMITED in metadata else {}
    return {**_foreign(metadata, found), **kept, **before, **found.metadata}


def metadata_before_limiting(metadata: Mapping[str, object], limited: Collection[str]) -> Metadata:
    """The metadata to save before member limits are set, so that they can be removed."""
    return {**metadata, _LIMITED: sorted(limited)} if limited else dict(metadata)


def _foreign(metadata: Mapping[str, object], found: BackendResource) -> Metadata:
    own = {*found.metadata, *_SHOWN, _LIMITED}
    return {k: v for k, v in metadata.items() if k not in own and not k.endswith(_BEFORE)}


def needs_notes(account: AccountPlan, found: BackendResource) -> bool:
    """Whether settings must be saved before the plan is applied."""
    return (
        is_first_restriction(account, found)
        or bool(newly_limited(account))
        or any(
            found.metadata.get(key, "") != each.backend_metadata.get(key, "")
            for each in account.wanted.resources
            for key in REMEMBERED
        )
    )


def notes_for(
    metadata: Mapping[str, object], account: AccountPlan, found: BackendResource
) -> Metadata:
    """A resource's backend_metadata with the settings needed to undo the plan."""
    limited = account.wanted.limited | newly_limited(account)
    noted = metadata_before_limiting(metadata, limited)
    if is_first_restriction(account, found):
        noted = metadata_before_restricting(noted, found)
    others = {key: value for key, value in noted.items() if key not in REMEMBERED}
    return {**others, **{k: v for k, v in found.metadata.items() if k in REMEMBERED}}


def is_first_restriction(account: AccountPlan, found: BackendResource) -> bool:
    """Whether an unrestricted account will be paused or downscaled."""
    restricts = any(
        isinstance(step.action, SetAccess) and step.action.access is not Access.NORMAL
        for step in account.steps
    )
    return restricts and not is_restricted(found)


def newly_limited(account: AccountPlan) -> frozenset[str]:
    """The members whose limits will be set for the first time."""
    actions = [step.action for step in account.steps]
    return (
        frozenset(action.member for action in actions if isinstance(action, SetMemberLimits))
        - account.wanted.limited
    )


SYNC_MARK_AGE = timedelta(minutes=50)
"""Waldur sends reminders about resources that were not synced for an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """The updates that a resource needs in Waldur."""

    resource: Resource
    metadata: Mapping[str, object] | None = None
    set_ok: bool = False
    refresh_sync: bool = False

    def __bool__(self) -> bool:
        return self.metadata is not None or self.set_ok or self.refresh_sync


def feedback_writes(feedback: Feedback) -> tuple[Write, ...]:
    """The writes for these updates, in order."""
    resource = feedback.resource
    writes = []
    if feedback.set_ok:
        writes.append(ok_write(resource, "its account works"))
    if feedback.metadata is not None:
        writes.append(metadata_write(resource, feedback.metadata, "found in the backend"))
    if feedback.refresh_sync:
        writes.append(sync_write(resource))
    return tuple(writes)


def feedback_on(
    resource: Resource,
    found: BackendResource,
    now: datetime,
    *,
    works: bool,
    wanted: Access | None = None,
    limited: Collection[str] = (),
) -> Feedback:
    """Compare a resource in Waldur with its account.

    Args:
        resource: the resource as Waldur shows it.
        found: its account.
        now: the time.
        works: whether all steps for the account succeeded.
        wanted: the wanted access.
        limited: the members whose limits the agent has set.
    """
    metadata = metadata_of(resource.backend_metadata, found, wanted, limited)
    return Feedback(
        resource=resource,
        metadata=metadata if metadata != dict(resource.backend_metadata) else None,
        set_ok=works and resource.state == ResourceState.ERRED,
        refresh_sync=works
        and (resource.last_sync is None or now - resource.last_sync > SYNC_MARK_AGE),
    )
