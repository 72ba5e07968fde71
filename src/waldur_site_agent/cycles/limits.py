"""Compares the limits of Waldur and the backend, and brings the side that follows up to date.

``decide`` makes the decisions for membership sync; ``report_limits`` reports the backend's limits
after usage reports; ``sync_resource_limits`` is the command ``limits sync``. Before anything is
changed the resource is read again, and nothing is changed while an order is in progress, several
resources share the account, or a periodic policy in Waldur sets the limits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from waldur_site_agent.backends import BackendResource, BackendState, SetLimits
from waldur_site_agent.cycles.changes import apply_steps, send_write
from waldur_site_agent.cycles.claims import namesakes
from waldur_site_agent.cycles.facts import tell_resources
from waldur_site_agent.cycles.offering import read_offering
from waldur_site_agent.cycles.order_inputs import open_orders
from waldur_site_agent.cycles.partial_answers import (
    call_optional,
    is_unavailable,
    readable,
    stand_ins,
    write_optional,
)
from waldur_site_agent.cycles.site import CommandOutcome, Site
from waldur_site_agent.model.budgets import PeriodicPolicy
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.marketplace import Component, Resource, ResourceState
from waldur_site_agent.planning.budgets import has_note
from waldur_site_agent.planning.limits import (
    Authority,
    LimitDecision,
    LimitPrecision,
    decide_limits,
    limit_differences,
    limited_by,
    unlimited_components,
)
from waldur_site_agent.planning.plan import Call, Step, Write, amount_text, limits_write
from waldur_site_agent.planning.remembered import without_closed
from waldur_site_agent.waldur import AbsentOperationError, concurrently

Decisions = dict[str, LimitDecision]
"""By account, without accounts on which both sides agree."""


def decide(
    site: Site,
    groups: Mapping[str, Sequence[Resource]],
    state: BackendState,
    authority: Authority,
    *,
    uncertain: Collection[str] = (),
    governed: Collection[str] = (),
) -> Decisions:
    """Compare the limits of accounts, and decide what to do about differences.

    Args:
        site: the offering at work.
        groups: the resources of each account in scope.
        state: the backend.
        authority: the side whose limits are kept.
        uncertain: accounts with a resource that could not be decoded.
        governed: accounts with a budget, of which prepaid limits alone are compared.
    """
    decisions: Decisions = {}
    for name, resources in sorted(groups.items()):
        found = state.resources.get(name)
        if found is None or not found.is_complete or not site.backend.capabilities.tells_limits:
            continue
        for resource in resources:
            components = limited_components(site)
            if name in governed:
                components = {n: each for n, each in components.items() if each.is_prepaid}
            decision = _decision_on(site, resource, found, authority, components)
            if decision is None or name in decisions:
                continue
            obstacle = _obstacle(resources, found)
            if not obstacle and name in uncertain:
                obstacle = "one of its resources could not be decoded"
            if not obstacle and has_note(resource) and authority != "waldur":
                obstacle = "" if name in governed else _HAS_BUDGET
            decisions[name] = decision.blocked(obstacle) if obstacle else decision
    beside = {name: d for name, d in decisions.items() if name in governed}
    others = {name: d for name, d in decisions.items() if name not in governed}
    return {
        **_confirmed(site, beside, authority, beside_policy=True),
        **_confirmed(site, others, authority),
    }


_HAS_BUDGET = "its limits are the budget of a periodic policy"


def _obstacle(resources: Sequence[Resource], found: BackendResource) -> str:
    """Why the limits of an account stay as they are for now; empty if nothing is in the way."""
    if len(resources) > 1:
        return f"{len(resources)} resources share the account"
    if any(each.state not in ResourceState.WITHOUT_ORDER for each in resources):
        return "an order is in progress"
    return "" if found.limits_are_known else "not every limit of the account can be read"


def limited_components(site: Site) -> dict[str, Component]:
    """The configured components whose limits the backend supports."""
    return limited_by(site.backend, site.offering.components)


def note_unresolved(site: Site, decisions: Mapping[str, LimitDecision]) -> None:
    """Log the differences that remain."""
    for name, decision in decisions.items():
        for reason in decision.left:
            site.conditions.note("limits differ", f"{name} {reason}", resource=name, reason=reason)


def _decision_on(
    site: Site,
    resource: Resource,
    found: BackendResource,
    authority: Authority,
    components: Mapping[str, Component],
) -> LimitDecision | None:
    precision, supported = LimitPrecision.of(site.backend), SetLimits in site.backend.supports
    differences = limit_differences(resource, found, components, precision)
    if not differences:
        return None
    decision = decide_limits(resource, found, differences, authority)
    if decision.to_set and not supported:
        return decision.blocked("the backend sets no limits")
    return decision


def _confirmed(
    site: Site, decisions: Decisions, authority: Authority, *, beside_policy: bool = False
) -> Decisions:
    """The decisions, after reading again what is about to be changed."""
    changing = {name: d for name, d in decisions.items() if d.changes_something}
    if not changing:
        return decisions
    if authority == "backend" and is_unavailable(site, Call.SET_LIMITS.value):
        reason, names = "Waldur does not accept limits from this token", limited_components(site)
        changing = {n: d.without_reporting(names, reason) for n, d in changing.items()}
        decisions = {**decisions, **changing}
        changing = {n: d for n, d in changing.items() if d.changes_something}
        if not changing:
            return decisions
    obstacle, deciding = _obstacle_to_all(site, beside_policy=beside_policy)
    if not obstacle and authority == "backend":
        changing, obstacle = _sold_by_limit(site, changing)
    if obstacle:
        blocked = {name: decision.blocked(obstacle) for name, decision in changing.items()}
        return {**decisions, **blocked}
    confirmed = {**decisions, **changing}
    attempts = concurrently(
        lambda item: _rechecked(site, item[1], deciding),
        {name: d for name, d in changing.items() if d.changes_something}.items(),
    )
    for attempt in attempts:
        name, decision = attempt.item
        obstacle = f"it could not be read again: {attempt.error}"
        confirmed[name] = attempt.value or decision.blocked(obstacle)
    return confirmed


def _sold_by_limit(site: Site, decisions: Decisions) -> tuple[Decisions, str]:
    """The decisions without components that are not limit-based in Waldur, or an error text.

    On many servers, a limit on any other component makes every later order of the resource fail.
    """
    try:
        components = read_offering(site).components
    except SiteAgentError as error:
        return decisions, f"Waldur's components could not be read: {error}"
    sold = {each.type for each in components if each.rules.is_limited}
    others = limited_components(site).keys() - sold
    reason = "it is not limit-based in Waldur; correct accounting_type in the file or in Waldur"
    return {name: d.without_reporting(others, reason) for name, d in decisions.items()}, ""


def _rechecked(site: Site, decision: LimitDecision, deciding: Collection[UUID]) -> LimitDecision:
    """The decision, blocked if the resource, read individually, has changed.

    Raises:
        SiteAgentError: the resource could not be read.
    """
    resource = site.waldur.resource(decision.resource.uuid)
    name = decision.found.id
    busy = resource.order_in_progress is not None or resource.uuid in deciding
    if busy or resource.state not in ResourceState.WITHOUT_ORDER:
        return decision.blocked("an order is in progress")
    listed = decision.resource
    if resource.account != name or _sold(resource) != _sold(listed):
        # the backend was read before this change
        return decision.blocked(
            "Waldur has changed in the meantime; checked again in the next cycle"
        )
    if decision.to_set:
        others = [each for each in namesakes(site, name) if each.uuid != resource.uuid]
        if others:
            return decision.blocked(f"the account also belongs to resource {others[0].uuid}")
    return decision


def _sold(resource: Resource) -> tuple[object, ...]:
    """What a decision about limits rests on."""
    return dict(resource.limits), resource.term


def _obstacle_to_all(site: Site, *, beside_policy: bool) -> tuple[str, frozenset[UUID]]:
    """Why no limit may be changed now, and the resources with an open order."""
    try:
        policies = () if beside_policy else policies_of(site)
    except SiteAgentError as error:
        return f"periodic policies could not be read: {error}", frozenset()
    if policies:
        return "a periodic policy in Waldur sets the limits", frozenset()
    try:
        return "", open_order_resources(site)
    except SiteAgentError as error:
        return f"open orders could not be read: {error}", frozenset()


def policies_of(site: Site) -> tuple[PeriodicPolicy, ...]:
    """The periodic policies of the offering: one or none; none on servers without policies.

    Raises:
        SiteAgentError: they could not be read, or not completely.
    """
    uuid = site.offering.waldur_offering_uuid
    try:
        listing = call_optional(
            site, "periodic_policies", lambda: site.waldur.periodic_policies(uuid)
        )
    except AbsentOperationError:
        return ()
    return listing.require_complete("periodic policies")


def open_order_resources(site: Site) -> frozenset[UUID]:
    """The resources with an open order.

    Raises:
        SiteAgentError: the orders could not be read.
    """
    try:
        orders = open_orders(site)
    except PermanentError:  # this token may not list orders; each resource shows its own
        orders = ()
    resources = (order.marketplace_resource_uuid for order in orders)
    return frozenset(uuid for uuid in resources if uuid is not None)


def sync_resource_limits(
    site: Site, *, follows: Authority = "backend", dry_run: bool = False
) -> CommandOutcome:
    """Sync limits in one direction, once, regardless of ``limits`` in the file.

    Args:
        site: the offering at work.
        follows: whose limits are kept: ``backend`` reports them to Waldur, ``waldur`` sets them on
            accounts.
        dry_run: change nothing.

    Raises:
        TemporaryError: one side could not be read.
    """
    uuid = site.offering.waldur_offering_uuid
    listing = site.waldur.resources(uuid)
    groups = by_account(readable(site, listing, "resources"))
    uncertain = {each.account for each in stand_ins(listing.unreadable)}
    tell_resources(site)
    state = without_closed(site.backend.observe(), groups, site.backend.capabilities)
    decisions = decide(site, groups, state, follows, uncertain=uncertain)
    if follows == "backend":
        decisions = {name: decision.only_reporting() for name, decision in decisions.items()}
    remarks = [f"{name}  {text}" for name, d in decisions.items() for text in d.left]
    changing = [d for d in decisions.values() if d.changes_something]
    remarks += lines_of_unlimited(site, groups, state)
    if dry_run:
        return CommandOutcome(tuple(_line(site, d) for d in changing), remarks=tuple(remarks))
    done, trouble = _set(site, changing) if follows == "waldur" else _report(site, changing)
    return CommandOutcome(tuple(_line(site, d) for d in done), tuple(trouble), tuple(remarks))


def by_account(resources: Iterable[Resource]) -> dict[str, list[Resource]]:
    """The resources of each account; resources without an account are omitted."""
    groups: dict[str, list[Resource]] = defaultdict(list)
    for resource in resources:
        if resource.account:
            groups[resource.account].append(resource)
    return groups


def lines_of_unlimited(
    site: Site, groups: Mapping[str, Sequence[Resource]], state: BackendState
) -> list[str]:
    """A line per limit-based component that has no limit on either side, with the accounts."""
    components = limited_components(site) if site.backend.capabilities.tells_limits else {}
    names: dict[str, list[str]] = defaultdict(list)
    for name, resources in sorted(groups.items()):
        found = state.resources.get(name)
        idle = all(r.state in ResourceState.WITHOUT_ORDER for r in resources)
        if found is None or not idle:
            continue
        for component in unlimited_components(resources[0], found, components):
            names[component].append(name)
    return [unlimited_text(component, accounts) for component, accounts in names.items()]


_SHOWN = 5
_BY_HAND = "limits sync --to waldur"


def unlimited_text(component: str, accounts: Sequence[str]) -> str:
    """A line about accounts that have no limit for a component on either side."""
    shown = ", ".join(accounts[:_SHOWN])
    if len(accounts) > _SHOWN:
        shown += f" and {len(accounts) - _SHOWN} more"
    return (
        f"limit {component}: set neither in Waldur nor on the account, so usage is unlimited "
        f"({shown}); order one in Waldur"
    )


def limit_step(decision: LimitDecision) -> Step:
    """The step that sets the ordered limits on the account."""
    reasons = {each.target: each.entitlement for each in decision.changed}
    action = SetLimits(decision.found.id, decision.to_set)
    return Step(action, "sold in Waldur", before=decision.found.limits, reasons=reasons)


def reported_limits_write(
    site: Site, decision: LimitDecision, reason: str = "limits: backend"
) -> Write:
    """The write that reports the account's limits to Waldur."""
    limits = decision.to_report or {}
    notes: dict[str, str] = {}
    for each in decision.changed:
        has = f"{amount_text(each.found)}{'' if each.target == each.name else ' ' + each.target}"
        notes[each.name] = f"{notes[each.name]}, {has}" if each.name in notes else has
    notes = {name: f"the account has {has}" for name, has in notes.items()}
    return limits_write(decision.resource, limits, site.offering.components, reason, notes)


def report_limits(
    site: Site, resources: Iterable[Resource], state: BackendState, *, dry_run: bool = False
) -> tuple[list[Write], list[str]]:
    """Report the backend's limits to Waldur, if the configuration says ``limits: backend``.

    What Waldur rejected once, for this token or for the same limits, is not sent again by this
    process.

    Args:
        site: the offering at work.
        resources: the resources in scope, each with an account of its own.
        state: the backend.
        dry_run: send nothing.

    Returns:
        The writes, and what went wrong.
    """
    authority = site.offering.limits
    if authority == "waldur":
        return [], []  # membership sync sets them on the accounts
    decisions = decide(site, by_account(resources), state, authority)
    decisions = {name: decision.only_reporting() for name, decision in decisions.items()}
    if not dry_run:
        note_unresolved(site, decisions)
    writes = [reported_limits_write(site, d) for d in decisions.values() if d.to_report is not None]
    sent = [write for write in writes if _key(write) not in site.memory.rejected_limits]
    if dry_run:
        return sent, []
    failures = []
    attempts = concurrently(
        lambda w: write_optional(site, w.call.value, lambda: send_write(site, w), w.about), sent
    )
    for attempt in attempts:
        if isinstance(attempt.error, PermanentError):
            site.memory.rejected_limits.add(_key(attempt.item))
        if attempt.error is not None:
            failures.append(f"{attempt.item.about}: {attempt.error}")
    return sent, failures


def _key(write: Write) -> tuple[UUID | None, str]:
    """The resource together with the limits that it would get."""
    return write.uuid, str(write)


def _report(
    site: Site, decisions: Sequence[LimitDecision]
) -> tuple[list[LimitDecision], list[str]]:
    attempts = concurrently(
        lambda d: send_write(site, reported_limits_write(site, d, _BY_HAND)), decisions
    )
    sent = [attempt.item for attempt in attempts if attempt.error is None]
    return sent, [f"{a.item.found.id}: {a.error}" for a in attempts if a.error is not None]


def _set(site: Site, decisions: Sequence[LimitDecision]) -> tuple[list[LimitDecision], list[str]]:
    applied = apply_steps(site, [limit_step(decision) for decision in decisions])
    outcomes = list(zip(decisions, (outcome for _, outcome in applied), strict=True))
    done = [decision for decision, outcome in outcomes if outcome.error is None]
    return done, [str(outcome.error) for _, outcome in outcomes if outcome.error is not None]


def _line(site: Site, decision: LimitDecision) -> str:
    """Old and new value on the side that is changed, and the other side's value."""
    name = decision.found.id
    if decision.to_report is not None:
        return f"{name}  in Waldur: {reported_limits_write(site, decision)}"
    found = decision.found.limits
    changes = [
        f"limit {each.label} {amount_text(found.get(each.target)) or 'none'} -> "
        f"{amount_text(decision.to_set[each.target])} ({each.entitlement})"
        for each in decision.changed
    ]
    return f"{name}  on the account: {'; '.join(changes)}"
