"""Explains how a user or a resource stands: what Waldur wants and why, and what the backend has.

Pure: the facts were read before, by ``cycles/explanation.py``; nothing is decided here that a cycle
decides otherwise, because the plan of the next cycle is one of the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from waldur_site_agent.model.marketplace import (
    Component,
    OfferingUser,
    OfferingUserState,
    Order,
    Resource,
    TeamMember,
    has_ended,
)
from waldur_site_agent.model.standing import (
    Detail,
    MemberStanding,
    Refusal,
    ResourceStanding,
    UserStanding,
)
from waldur_site_agent.planning.limits import of_resource
from waldur_site_agent.planning.membership import AccountPlan, normalize_username, wanted_access
from waldur_site_agent.planning.plan import Step, Write, amount_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceFacts:
    """What was read about one account, or about a resource without one."""

    account: str
    """Empty where the resource has none yet."""
    resources: tuple[Resource, ...] = ()
    """Those in Waldur that have this account; none where Waldur does not know it."""
    plan: AccountPlan | None = None
    """What the next cycle would do about it; ``None`` where it would not look at it."""
    not_planned: str = ""
    """Why there is no plan."""
    refused: tuple[Step, ...] = ()
    """What the guard would refuse of the plan."""
    refused_reason: str = ""
    orders: tuple[Order, ...] = ()
    """Open orders."""
    order_lines: tuple[str, ...] = ()
    """What the next cycle would do about them."""
    writes: tuple[Write, ...] = ()
    """What the next cycle would change in Waldur."""
    standing: ResourceStanding | None = None
    """``None`` where the backend could not be read."""
    team: tuple[TeamMember, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that was read about what was asked for."""

    now: datetime
    components: Mapping[str, Component] = field(default_factory=dict)
    with_consent: bool = False
    """Whether the site requires consent."""
    users: Mapping[UUID, OfferingUser] = field(default_factory=dict)
    """By person."""
    asked_users: tuple[str, ...] = ()
    """The usernames asked about; none where it was about a resource."""
    persons: tuple[OfferingUser, ...] = ()
    """The offering users asked about; one may have no username yet."""
    resources: tuple[ResourceFacts, ...] = ()
    user_standing: Mapping[str, UserStanding] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberExplanation:
    """How one user stands in one account."""

    user: str
    wanted: bool | None
    """Whether Waldur wants the user in; ``None`` where that is not known."""
    why: str
    standing: MemberStanding | None = None

    @property
    def is_in(self) -> bool | None:
        """Whether the backend has the user in."""
        return None if self.standing is None else self.standing.is_member

    @property
    def is_odd(self) -> bool:
        """Whether the two differ, or work of the user would be refused."""
        differs = None not in (self.wanted, self.is_in) and self.wanted is not self.is_in
        return differs or bool(self.wanted and self.standing and self.standing.refusals)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceExplanation:
    """How one account stands."""

    title: str
    account: str
    waldur: tuple[Detail, ...] = ()
    backend: tuple[Detail, ...] = ()
    exists: bool | None = None
    members: tuple[MemberExplanation, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """Those that meet everybody."""
    steps: tuple[Step, ...] = ()
    """What the next cycle would change in the backend."""
    refused: tuple[Step, ...] = ()
    refused_reason: str = ""
    writes: tuple[Write, ...] = ()
    notes: tuple[str, ...] = ()
    """What the next cycle would leave undone, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserExplanation:
    """How one user stands, whatever the account."""

    user: str
    waldur: tuple[Detail, ...] = ()
    backend: tuple[Detail, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer to one question."""

    users: tuple[UserExplanation, ...] = ()
    resources: tuple[ResourceExplanation, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found of that name."""
        return not self.users and not self.resources

    def refusals(self) -> Iterator[tuple[str, Refusal]]:
        """Every reason, with whom and what it concerns."""
        for user in self.users:
            yield from ((user.user, refusal) for refusal in user.refusals)
        for resource in self.resources:
            yield from ((resource.account, refusal) for refusal in resource.refusals)
            for member in resource.members:
                if member.standing is not None and member.wanted is not False:
                    label = f"{member.user} in {resource.account}"
                    yield from ((label, refusal) for refusal in member.standing.refusals)


def explain(facts: Facts) -> Explanation:
    """Put the facts together."""
    nowhere = ("in no project that has a resource of this offering, and in no account of one",)
    return Explanation(
        users=tuple(_users(facts)),
        resources=tuple(_resource(each, facts) for each in facts.resources),
        remarks=(*facts.remarks, *(nowhere if facts.persons and not facts.resources else ())),
    )


def _users(facts: Facts) -> Iterator[UserExplanation]:
    told: set[str] = set()
    for person in facts.persons:
        name = normalize_username(person.username)
        told.add(name)
        found = facts.user_standing.get(name, UserStanding())
        nameless = Refusal(
            rule="username", value=f'none yet, so in no account; its state is "{person.state}"'
        )
        yield UserExplanation(
            user=name or person.user_username or str(person.user_uuid),
            waldur=tuple(_person_details(person, with_consent=facts.with_consent)),
            backend=found.details,
            refusals=found.refusals if name else (nameless,),
        )
    for name in facts.asked_users:
        if name not in told:
            found = facts.user_standing.get(name, UserStanding())
            yield UserExplanation(
                user=name,
                waldur=(Detail("username", "Waldur has no user of the offering with this name"),),
                backend=found.details,
                refusals=found.refusals,
            )


def _person_details(person: OfferingUser, *, with_consent: bool) -> Iterator[Detail]:
    if person.user_username:
        yield Detail("person", person.user_username)
    if not person.username:
        yield Detail("username", "none yet")
    yield Detail("state", person.state)
    if person.service_provider_comment:
        link = person.service_provider_comment_url
        yield Detail("message", f"{person.service_provider_comment} {link}".strip())
    if person.is_restricted:
        yield Detail("restricted", "yes, in Waldur: in no account")
    if person.has_consent is not None:
        asked = "required" if with_consent else "not required by require_consent"
        yield Detail("consent", f"{'given' if person.has_consent else 'not given'} ({asked})")


def _resource(found: ResourceFacts, facts: Facts) -> ResourceExplanation:
    standing = found.standing
    plan = found.plan
    return ResourceExplanation(
        title=_title(found),
        account=found.account,
        waldur=tuple(_waldur_details(found, facts)),
        backend=standing.details if standing is not None else (),
        exists=None if standing is None else standing.exists,
        members=tuple(_members(found, facts)),
        refusals=standing.refusals if standing is not None else (),
        steps=plan.steps if plan is not None else (),
        refused=found.refused,
        refused_reason=found.refused_reason,
        writes=found.writes,
        notes=tuple(_notes(found)),
    )


def _title(found: ResourceFacts) -> str:
    name = found.account or "(no account yet)"
    if not found.resources:
        return f"{name}  no resource of this offering in Waldur"
    resource = found.resources[0]
    project = f" (project {resource.project_slug})" if resource.project_slug else ""
    return f"{name}  {resource.name}{project}"


def _waldur_details(found: ResourceFacts, facts: Facts) -> Iterator[Detail]:
    for resource in found.resources:
        state = resource.state + (f": {resource.error_message}" if resource.error_message else "")
        yield Detail("resource", f"{resource.uuid}, {state}")
        if resource.end_text:
            yield Detail("end", resource.end_text)
        yield Detail("access", wanted_access(resource).value)
        if resource.restrict_member_access:
            yield Detail("restriction", "member access is restricted: nobody is added")
        limits = ", ".join(_limit_texts(resource, facts.components))
        if limits:
            yield Detail("limits", limits)
    for order in found.orders:
        yield Detail("order", f"{order.uuid}, {order.type}, {order.state}")
    for line in found.order_lines:
        yield Detail("next for the order", line)


def _limit_texts(resource: Resource, components: Mapping[str, Component]) -> Iterator[str]:
    components = of_resource(components, resource)
    for name, amount in sorted(resource.limits.items()):
        unit = f" {components[name].unit_text}" if name in components else ""
        yield f"{name} {amount_text(amount) or 'none'}{unit}"


def _members(found: ResourceFacts, facts: Facts) -> Iterator[MemberExplanation]:
    standings = found.standing.members if found.standing is not None else {}
    wanted = _wanted(found)
    names = dict.fromkeys((*facts.asked_users, *sorted((*(wanted or ()), *standings))))
    if facts.asked_users:
        names = dict.fromkeys(facts.asked_users)
    people = {normalize_username(u.username): u for u in facts.users.values() if u.username}
    for name in names:
        is_wanted = None if wanted is None else name in wanted
        yield MemberExplanation(
            user=name,
            wanted=is_wanted,
            why=_why(name, people.get(name), found, facts, is_wanted=is_wanted),
            standing=standings.get(name),
        )


def _wanted(found: ResourceFacts) -> Mapping[str, str] | None:
    """By username, why Waldur wants the user in; ``None`` where it is not known."""
    if found.plan is not None:
        return found.plan.wanted.members
    return None if found.not_planned else {}


def _why(
    name: str,
    person: OfferingUser | None,
    found: ResourceFacts,
    facts: Facts,
    *,
    is_wanted: bool | None,
) -> str:
    roles = _roles(person, found.team)
    if is_wanted is None:
        return found.not_planned or (found.plan.wanted.trouble if found.plan else "not known")
    if is_wanted:
        reason = (_wanted(found) or {}).get(name, "")
        parts = [reason, *(_role_text(role, facts.now) for role in roles)]
        return "; ".join(filter(None, [*parts, _held_up(name, found)]))
    return _why_not(person, roles, found, facts)


def _held_up(name: str, found: ResourceFacts) -> str:
    """Why a wanted user is not let in by the next cycle."""
    plan = found.plan
    if plan is None:
        return ""
    if name in plan.waiting:
        return "waits until the operating system of the agent's machine knows the user"
    if name in plan.kept_out:
        return f"not added: {plan.wanted.nobody_joins}"
    return "the account is missing in the backend" if plan.is_missing else ""


def _why_not(
    person: OfferingUser | None, roles: Sequence[TeamMember], found: ResourceFacts, facts: Facts
) -> str:
    if not found.resources:
        return "Waldur does not know this account"
    if all(resource.restrict_member_access for resource in found.resources):
        return "member access to the resource is restricted in Waldur"
    if person is None:
        return "Waldur has no user of the offering with this name"
    return (
        _unusable(person, with_consent=facts.with_consent)
        or "; ".join(_role_text(role, facts.now) for role in roles)
        or "has no role in the project"
    )


def _unusable(person: OfferingUser, *, with_consent: bool) -> str:
    """Why nobody of this name is let in anywhere; empty where it is not so."""
    if person.state != OfferingUserState.OK:
        return f'the username is in state "{person.state}", and must be "OK"'
    if person.is_restricted:
        return "the user is restricted in Waldur"
    if with_consent and not person.has_consent:
        return "has not consented to the terms of the offering (require_consent)"
    return ""


def _roles(person: OfferingUser | None, team: Iterable[TeamMember]) -> list[TeamMember]:
    return [] if person is None else [each for each in team if each.uuid == person.user_uuid]


def _role_text(role: TeamMember, now: datetime) -> str:
    end = role.expiration_time
    if end is None:
        return f"role {role.role or 'member'}, without end"
    verb = "ended" if has_ended(end, now) else "ends"
    return f"role {role.role or 'member'} {verb} {end.isoformat(timespec='minutes')}"


def _notes(found: ResourceFacts) -> Iterator[str]:
    if found.not_planned:
        yield found.not_planned
    plan = found.plan
    if plan is None:
        return
    if plan.is_missing:
        yield (
            "the backend does not have this account; the next full cycle marks the resource Erred"
        )
        yield "to create it again: waldur-site-agent run -m membership_sync --once --recreate"
    if plan.wanted.trouble:
        yield f"nobody joins or leaves: {plan.wanted.trouble}"
    if plan.wanted.nobody_leaves:
        yield f"nobody leaves: {plan.wanted.nobody_leaves}"
    if plan.unknown:
        yield f"not known to Waldur, left alone: {', '.join(plan.unknown)}"
    if plan.limits is not None:
        yield from plan.limits.left
