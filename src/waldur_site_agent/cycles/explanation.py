"""Reads what an explanation of a user, account, resource or order needs; changes nothing.

Two lists find what a name means; a dry run of the membership cycle over that part of the offering
says what Waldur wants, what differs and what would be done; the backend says what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from waldur_site_agent.backends import resource_of
from waldur_site_agent.cycles.membership import MembershipReport, sync_membership
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.backend import OrderScope, ResourceScope, Scope, UserScope
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import (
    OfferingUser,
    Order,
    OrderState,
    Resource,
    ResourceState,
    TeamMember,
)
from waldur_site_agent.model.standing import Standing
from waldur_site_agent.planning.explanation import Explanation, Facts, ResourceFacts, explain
from waldur_site_agent.planning.membership import AccountPlan, normalize_username
from waldur_site_agent.planning.plan import Write
from waldur_site_agent.waldur import NotFoundError

MOST_USERS = 300
"""How many users of an account the backend and the operating system are asked about."""
_OPEN = (OrderState.PENDING_PROVIDER, OrderState.EXECUTING)


@dataclass(frozen=True, slots=True)
class _Meant:
    """What a name means in Waldur."""

    resources: tuple[Resource, ...] = ()
    people: tuple[OfferingUser, ...] = ()


def explain_name(site: Site, name: str) -> Explanation:
    """Explain a username, an account, a resource (UUID, name or slug) or an order (UUID).

    Raises:
        TemporaryError: Waldur or the backend could not be read.
        PermanentError: the token gives no access to the offering.
    """
    uuid = site.offering.waldur_offering_uuid
    resources = site.waldur.resources(uuid).items
    users = site.waldur.offering_users(uuid).items
    meant = _meant(site, name.strip(), resources, users)
    if meant.people:
        return _about_people(site, meant.people, resources, users)
    if meant.resources:
        return _about_resources(site, meant.resources, resources, users)
    return _unknown_to_waldur(site, name.strip())


def _meant(
    site: Site, name: str, resources: Sequence[Resource], users: Sequence[OfferingUser]
) -> _Meant:
    number = _uuid(name)
    if number is not None:
        return _by_uuid(site, number, resources, users)
    people = tuple(
        u for u in users if normalize_username(u.username) == name or u.user_username == name
    )
    folded = name.lower()
    named = tuple(each for each in resources if each.account == folded) or tuple(
        each for each in resources if folded in (each.name.lower(), each.slug.lower())
    )
    return _Meant(named, () if named and not people else people)


def _by_uuid(
    site: Site, uuid: UUID, resources: Sequence[Resource], users: Sequence[OfferingUser]
) -> _Meant:
    people = tuple(u for u in users if uuid in (u.uuid, u.user_uuid))
    if people:
        return _Meant(people=people)
    listed = tuple(each for each in resources if each.uuid == uuid)
    if listed:
        return _Meant(listed)
    try:
        wanted = site.waldur.order(uuid).marketplace_resource_uuid
    except NotFoundError:
        wanted = uuid
    if wanted is None:
        return _Meant()
    try:
        found = next((r for r in resources if r.uuid == wanted), None)
        return _Meant((found or site.waldur.resource(wanted),))
    except NotFoundError:
        return _Meant()


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _about_people(
    site: Site,
    people: tuple[OfferingUser, ...],
    resources: Sequence[Resource],
    users: Sequence[OfferingUser],
) -> Explanation:
    """The accounts that the people are in, or should be in."""
    scopes = frozenset[Scope](UserScope(person.user_uuid) for person in people)
    report = sync_membership(site, scopes=scopes, dry_run=True)
    names = tuple(filter(None, dict.fromkeys(normalize_username(p.username) for p in people)))
    uuids = {person.user_uuid for person in people}
    projects = {p for p, team in report.teams.items() if any(m.uuid in uuids for m in team)}
    planned = {plan.wanted.id for plan in report.membership.accounts}
    groups = _groups(r for r in resources if r.project_uuid in projects or r.account in planned)
    # an account that Waldur does not want the user in may still have one: that is in the plan
    standing, remarks = _standing(site, [name for name in groups if name], names)
    return explain(
        _facts(site, report, groups, standing, remarks, users, names=names, people=people)
    )


def _about_resources(
    site: Site,
    meant: tuple[Resource, ...],
    resources: Sequence[Resource],
    users: Sequence[OfferingUser],
) -> Explanation:
    accounts = {each.account for each in meant if each.account}
    same = [r for r in resources if r.account in accounts and r.uuid not in {m.uuid for m in meant}]
    groups = _groups([*meant, *same])
    scopes = frozenset[Scope](ResourceScope(each.uuid) for each in meant)
    report = sync_membership(site, scopes=scopes, dry_run=True)
    known = _names_in(report, site, [name for name in groups if name])
    standing, remarks = _standing(site, [name for name in groups if name], known[:MOST_USERS])
    if len(known) > MOST_USERS:
        remarks.append(f"{len(known)} users; only the first {MOST_USERS} were looked at")
    return explain(_facts(site, report, groups, standing, remarks, users))


def _unknown_to_waldur(site: Site, name: str) -> Explanation:
    """Ask the backend about an account, and a user, of that name."""
    standing, remarks = _standing(site, [name.lower()], [name])
    facts = Facts(now=site.now(), remarks=tuple(remarks))
    account = standing.resources.get(name.lower())
    if account is not None and account.exists:
        found = ResourceFacts(account=name.lower(), standing=account)
        return explain(replace(facts, resources=(found,)))
    user = standing.users.get(name)
    if user is None or not any(d.name == "accounts" and d.value != "none" for d in user.details):
        return Explanation(remarks=tuple(remarks))
    return explain(replace(facts, asked_users=(name,), user_standing=standing.users))


def _groups(resources: Iterable[Resource]) -> dict[str, tuple[Resource, ...]]:
    """By account; a resource without one has a group of its own, below its UUID."""
    groups: dict[str, tuple[Resource, ...]] = {}
    for resource in resources:
        key = resource.account or f"({resource.uuid})"
        groups[key] = (*groups.get(key, ()), resource)
    return groups


def _names_in(report: MembershipReport, site: Site, accounts: Sequence[str]) -> list[str]:
    """Those whom Waldur wants in the accounts, and those who are there."""
    names: set[str] = set()
    for plan in report.membership.accounts:
        if plan.wanted.id in accounts:
            names |= {*(plan.wanted.members or ()), *plan.unknown}
    named = [name for name in accounts if not name.startswith("(")]
    state = site.backend.observe(named) if named else None
    for name in named:
        names |= state.members_of(name) if state is not None else frozenset()
    return sorted(names)


def _standing(
    site: Site, accounts: Sequence[str], users: Sequence[str]
) -> tuple[Standing, list[str]]:
    named = [name for name in accounts if not name.startswith("(")]
    try:
        found = site.backend.explain(named, users)
    except SiteAgentError as error:
        return Standing(), [f"the backend could not be read: {error}"]
    return found, [*found.remarks]


def _facts(
    site: Site,
    report: MembershipReport,
    groups: dict[str, tuple[Resource, ...]],
    standing: Standing,
    remarks: Sequence[str],
    users: Sequence[OfferingUser],
    *,
    names: tuple[str, ...] = (),
    people: tuple[OfferingUser, ...] = (),
) -> Facts:
    plans = {plan.wanted.id: plan for plan in report.membership.accounts}
    orders = _orders(site, groups)
    found = tuple(
        _resource_facts(site, account, group, plans.get(account), report, standing, orders)
        for account, group in groups.items()
    )
    return Facts(
        now=site.now(),
        components=site.offering.components,
        with_consent=site.offering.require_consent,
        users={user.user_uuid: user for user in users},
        asked_users=names,
        persons=people,
        resources=found,
        user_standing=standing.users,
        remarks=tuple(filter(None, [*remarks, report.impairment, *report.failures])),
    )


def _resource_facts(
    site: Site,
    account: str,
    group: tuple[Resource, ...],
    plan: AccountPlan | None,
    report: MembershipReport,
    standing: Standing,
    orders: dict[UUID, list[Order]],
) -> ResourceFacts:
    is_named = not account.startswith("(")
    refused = tuple(s for s in report.refused.steps if resource_of(s.action) == account)
    own = tuple(order for each in group for order in orders.get(each.uuid, ()))
    return ResourceFacts(
        account=account if is_named else "",
        resources=group,
        plan=plan,
        not_planned="" if plan is not None else _not_planned(group),
        refused=refused,
        refused_reason=report.refused_reason if refused else "",
        orders=own,
        order_lines=tuple(_order_lines(site, own)),
        writes=tuple(write for write in report.writes if _is_about(write, group)),
        standing=standing.resources.get(account) if is_named else None,
        team=_team(report, group),
    )


def _not_planned(group: Sequence[Resource]) -> str:
    """Why no cycle looks at these; empty where one does, and finds nothing to do for the user."""
    states = {each.state for each in group}
    if not any(each.backend_id.strip() for each in group):
        return f"has no account yet (state {', '.join(sorted(states))}): see its order"
    if states.isdisjoint(ResourceState.SERVED):
        return f"is not served in state {', '.join(sorted(states))}"
    return ""


def _is_about(write: Write, group: Sequence[Resource]) -> bool:
    return write.uuid in {each.uuid for each in group}


def _team(report: MembershipReport, group: Sequence[Resource]) -> tuple[TeamMember, ...]:
    return tuple(
        member
        for each in group
        if each.project_uuid is not None
        for member in report.teams.get(each.project_uuid, ())
    )


def _orders(site: Site, groups: dict[str, tuple[Resource, ...]]) -> dict[UUID, list[Order]]:
    """The open orders of the resources."""
    wanted = {each.uuid for group in groups.values() for each in group}
    found: dict[UUID, list[Order]] = {}
    for order in site.waldur.orders(site.offering.waldur_offering_uuid, _OPEN).items:
        if order.marketplace_resource_uuid in wanted:
            found.setdefault(order.marketplace_resource_uuid, []).append(order)
    return found


def _order_lines(site: Site, orders: Sequence[Order]) -> Iterator[str]:
    """What the next pass would do about orders, and what keeps it from it."""
    if not orders:
        return
    if site.offering.order_processing_backend != site.offering.membership_sync_backend:
        yield "see: waldur-site-agent plan -m order_process"
        return
    scopes = frozenset[Scope](OrderScope(order.uuid) for order in orders)
    try:
        report = process_orders(site, scopes=scopes, dry_run=True)
    except SiteAgentError as error:
        yield f"could not be planned: {error}"
        return
    for plan in report.plans:
        if plan.problem is not None:
            yield str(plan.problem)
        yield from (f"{type(step.action).__name__}: {step.reason}" for step in plan.steps)
        if plan.note:
            yield plan.note
    for result in report.results:
        if result.reason:
            yield f"{result.status.value}: {result.reason}"
