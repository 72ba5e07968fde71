"""Who joins, who leaves, and how far each account may be used.

Waldur decides about the people it knows. Everybody else in an account is somebody else's: left
alone and named, unless the site asked for their removal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateHomeDirectories,
    RemoveMembers,
    SetAccess,
    SetMemberLimits,
)
from waldur_site_agent.planning.access import folded
from waldur_site_agent.planning.limits import limit_changes, to_the_last_digit
from waldur_site_agent.planning.plan import Plan, Step
from waldur_site_agent.planning.remembering import (
    is_restricted,
    limited_members,
    settings_before,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

    from waldur_site_agent.backends import BackendResource, BackendState
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.limit_sync import LimitDecision
    from waldur_site_agent.planning.limits import Agree

MemberLimits = dict[str, dict[str, "Decimal"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountWanted:
    """What Waldur wants of one account of the backend."""

    id: str
    resources: tuple[Resource, ...]
    """Usually one. Where several share an account, whoever may use one of them may use it."""
    members: Mapping[str, str] | None
    """By username, what lets them in; ``None`` when the team is not known: nobody moves then."""
    trouble: str = ""
    """Why the team is not known."""
    nobody_leaves: str = ""
    """Why nobody is removed from this account, if so: not everything about it was understood."""
    is_restricted: bool = False
    access: Access | None = None
    """``None`` while an order is in progress, which decides about it, or when it is not known."""
    member_limits: Mapping[str, Mapping[str, Decimal]] | None = None
    """By username, in backend units; ``None`` when the limits are not known or not supported."""

    @property
    def limited(self) -> frozenset[str]:
        """The members whose limits the agent has set before; only theirs are ever withdrawn."""
        names = (limited_members(resource.backend_metadata) for resource in self.resources)
        return frozenset().union(*names)

    @property
    def title(self) -> str:
        """The account as a heading for people."""
        resource = self.resources[0]
        project = f" (project {resource.project_slug})" if resource.project_slug else ""
        return f"{self.id}  {resource.name}{project}"


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """The usernames that Waldur knows at the offering."""

    known: Mapping[str, str]
    """With the reason for which each may have to leave an account."""
    is_complete: bool = True
    """Whether every list of names was read; if not, an unknown user may be known after all."""
    nobody_leaves: str = ""
    """Why removals wait for another cycle: a list that could grant access was not read."""
    undecided: frozenset[str] = frozenset()
    """Users who leave no account, in any spelling: what Waldur says of them was not understood.
    Without regard to case."""
    waiting: frozenset[str] = frozenset()
    """Users whom the backend cannot serve yet."""
    homeless: frozenset[str] = frozenset()
    """Users who should get a home directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPlan:
    """What one account needs."""

    wanted: AccountWanted
    steps: tuple[Step, ...] = ()
    waiting: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Members whom Waldur does not know; they stay."""
    is_missing: bool = False
    """The backend does not have the account at all."""
    limits: LimitDecision | None = None
    """Where Waldur and the account have different limits, and what becomes of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipPlan:
    """What a whole offering needs."""

    accounts: tuple[AccountPlan, ...] = ()
    homes: tuple[Step, ...] = ()
    unlimited: tuple[str, ...] = ()
    """Components sold by limit of which neither Waldur nor some accounts have one, in words."""

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
    """The components whose per-user limits belong to Waldur."""
    agree: Agree = to_the_last_digit


def joining(wanted: Iterable[AccountWanted], state: BackendState) -> frozenset[str]:
    """Everybody who is to be added to some account."""
    return frozenset(
        name
        for account in wanted
        if account.id in state.resources
        for name in account.members or ()
        if name not in state.resources[account.id].members
    )


def plan_membership(
    wanted: Iterable[AccountWanted], state: BackendState, people: People, policy: Policy
) -> MembershipPlan:
    """Compare what Waldur wants with what the backend has; the result is stable in its order."""
    accounts = tuple(
        _plan_account(account, state.resources.get(account.id), people, policy)
        for account in sorted(wanted, key=lambda account: account.id)
    )
    homes: tuple[Step, ...] = ()
    if people.homeless and CreateHomeDirectories in policy.supports:
        action = CreateHomeDirectories(tuple(sorted(people.homeless)))
        homes = (Step(action, "has no home directory"),)
    return MembershipPlan(accounts=accounts, homes=homes)


def _plan_account(
    account: AccountWanted, found: BackendResource | None, people: People, policy: Policy
) -> AccountPlan:
    if found is None:
        return AccountPlan(wanted=account, is_missing=True)
    steps: list[Step] = []
    waiting: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    if account.members is not None:
        strangers = found.members - account.members.keys() - people.known.keys()
        stay = strangers if not (policy.remove_unknown and people.is_complete) else frozenset()
        unknown = tuple(sorted(stay))
        if not (people.nobody_leaves or account.nobody_leaves):
            gone = found.members - account.members.keys() - stay
            decided = frozenset(name for name in gone if folded(name) not in people.undecided)
            steps += _leaving(account, decided, people)
        missing = account.members.keys() - found.members
        waiting = tuple(sorted(missing & people.waiting))
        steps += _joining(account, frozenset(missing - people.waiting))
        if SetMemberLimits in policy.supports:
            present = account.members.keys() - frozenset(waiting)
            steps += _limiting(account, present, found, policy)
    if SetAccess in policy.supports:
        steps += _switching(account, found)
    return AccountPlan(wanted=account, steps=tuple(steps), waiting=waiting, unknown=unknown)


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
    action = AddMembers(account.id, tuple(sorted(names)))
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
        changes: dict[str, Decimal | None] = {**limit_changes(wanted, has, policy.agree)}
        if account.limited & {member, member.lower()}:  # earlier agents noted lower case
            changes |= {name: None for name in has if _is_withdrawn(name, wanted, policy)}
        if changes:
            action = SetMemberLimits(account.id, member, changes)
            steps.append(Step(action, f"limit of {member} in Waldur", before=has))
    return steps


def _is_withdrawn(name: str, wanted: Mapping[str, Decimal], policy: Policy) -> bool:
    return name not in wanted and name in policy.component_types


def _switching(account: AccountWanted, found: BackendResource) -> list[Step]:
    """Restrict, or lift a restriction; what the site set itself is never touched otherwise."""
    wanted = account.access
    if wanted is None or wanted is found.access:
        return []
    before = settings_before(account.resources[0].backend_metadata)
    if wanted is Access.NORMAL and (not is_restricted(found) or before is None):
        return []
    restore = (before or {}) if wanted is Access.NORMAL else {}
    now = found.access.value if found.access else found.metadata.get("qos", "as the site set it")
    return [Step(SetAccess(account.id, wanted, restore), f"{wanted.value} in Waldur, was {now}")]
