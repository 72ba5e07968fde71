"""Decides about limits that differ; before one is changed, its resource is read by itself.

Nothing is decided while an order does, where several resources share an account, or where a
periodic policy of Waldur owns the limits.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from waldur_site_agent.backends import SetLimits
from waldur_site_agent.cycles.claims import namesakes
from waldur_site_agent.cycles.offering_access import read_offering
from waldur_site_agent.cycles.optional_calls import ask_optional, is_unavailable
from waldur_site_agent.cycles.order_gathering import open_orders
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.offerings import AccountingType
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.limit_sync import decide_limits, limit_differences
from waldur_site_agent.planning.writes import Call
from waldur_site_agent.waldur import AbsentOperationError, concurrently

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from waldur_site_agent.backends import BackendResource, BackendState
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.offerings import Component
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.limit_sync import Authority, LimitDecision

    Decisions = dict[str, LimitDecision]
    """By account; accounts on which both sides agree are not there."""

_WITHOUT_ORDER = (ResourceState.OK, ResourceState.ERRED)


def decide(
    site: Site,
    groups: Mapping[str, Sequence[Resource]],
    state: BackendState,
    authority: Authority,
    *,
    uncertain: Collection[str] = (),
) -> Decisions:
    """Compare the limits of accounts, and decide which side follows where they differ.

    Args:
        site: the offering at work.
        groups: the resources of each account that is looked at.
        state: the backend.
        authority: which side's limits count.
        uncertain: accounts of which not every resource was understood.
    """
    decisions: Decisions = {}
    for name, resources in sorted(groups.items()):
        found = state.resources.get(name)
        if found is None or not found.is_complete:
            continue
        for resource in resources:
            decision = _decided(site, resource, found, authority)
            if decision is None or name in decisions:
                continue
            if len(resources) > 1:
                decision = decision.blocked(f"{len(resources)} resources share the account")
            elif any(each.state not in _WITHOUT_ORDER for each in resources):
                decision = decision.blocked("an order is in progress")
            elif not found.limits_are_known:
                decision = decision.blocked("not every limit of the account can be read")
            elif name in uncertain:
                decision = decision.blocked("one of its resources is not understood")
            decisions[name] = decision
    return _confirmed(site, decisions, authority)


def limited_components(site: Site) -> dict[str, Component]:
    """The configured components whose limits mean something to the backend."""
    return {
        name: component
        for name, component in site.offering.components.items()
        if name in site.backend.limits_to_set("", {name: Decimal(0)})
    }


def note_left(site: Site, decisions: Mapping[str, LimitDecision]) -> None:
    """Say in the log which differences stay."""
    for name, decision in decisions.items():
        for reason in decision.left:
            site.conditions.note("limits differ", f"{name} {reason}", resource=name, reason=reason)


def _decided(
    site: Site, resource: Resource, found: BackendResource, authority: Authority
) -> LimitDecision | None:
    agree, supported = site.backend.limits_agree, SetLimits in site.backend.supports
    differences = limit_differences(resource, found, limited_components(site), agree)
    if not differences:
        return None
    decision = decide_limits(resource, found, differences, authority)
    if decision.to_set and not supported:
        return decision.blocked("the backend sets no limits")
    return decision


def _confirmed(site: Site, decisions: Decisions, authority: Authority) -> Decisions:
    """The decisions after a fresh look at what is to be changed; lists may be a moment old."""
    changing = {name: d for name, d in decisions.items() if d.changes_something}
    if not changing:
        return decisions
    obstacle, deciding = _obstacle_to_all(site, authority)
    if not obstacle and authority == "backend":
        changing, obstacle = _sold_by_limit(site, changing)
    if obstacle:
        blocked = {name: decision.blocked(obstacle) for name, decision in changing.items()}
        return {**decisions, **blocked}
    confirmed = {**decisions, **changing}
    attempts = concurrently(
        lambda item: _looked_at(site, item[1], deciding),
        {name: d for name, d in changing.items() if d.changes_something}.items(),
    )
    for attempt in attempts:
        name, decision = attempt.item
        obstacle = f"it could not be read again: {attempt.error}"
        confirmed[name] = attempt.value or decision.blocked(obstacle)
    return confirmed


def _sold_by_limit(site: Site, decisions: Decisions) -> tuple[Decisions, str]:
    """The decisions without components that Waldur does not sell by limit; or why none is known.

    On many servers a limit of any other component makes each later order of the resource fail.
    """
    try:
        components = read_offering(site).components
    except SiteAgentError as error:
        return decisions, f"what Waldur sells by limit could not be read: {error}"
    sold = {each.type for each in components if each.billing_type == AccountingType.LIMIT}
    others = limited_components(site).keys() - sold
    reason = "Waldur does not sell it by limit; correct accounting_type in the file or in Waldur"
    return {name: d.not_telling(others, reason) for name, d in decisions.items()}, ""


def _looked_at(site: Site, decision: LimitDecision, deciding: Collection[UUID]) -> LimitDecision:
    """The decision, blocked where the resource by itself says something else.

    Raises:
        SiteAgentError: it could not be read.
    """
    resource = site.waldur.resource(decision.resource.uuid)
    name = decision.found.id
    busy = resource.order_in_progress is not None or resource.uuid in deciding
    if busy or resource.state not in _WITHOUT_ORDER:
        return decision.blocked("an order is in progress")
    listed = decision.resource
    if resource.account != name or dict(resource.limits) != dict(listed.limits):
        # the backend was read before that, so the two readings are of different times
        return decision.blocked("Waldur changed meanwhile; the next cycle looks again")
    if decision.to_set:
        others = [each for each in namesakes(site, name) if each.uuid != resource.uuid]
        if others:
            return decision.blocked(f"the account also belongs to resource {others[0].uuid}")
    return decision


def _obstacle_to_all(site: Site, authority: Authority) -> tuple[str, frozenset[UUID]]:
    """Why no limit may be changed now; and the resources about which an order decides."""
    if authority == "backend" and is_unavailable(site, Call.SET_LIMITS.value):
        return "Waldur does not take limits from this token", frozenset()
    uuid = site.offering.waldur_offering_uuid
    try:
        policies = ask_optional(
            site, "periodic_policies", lambda: site.waldur.periodic_policies(uuid)
        ).items
    except AbsentOperationError:
        policies = ()
    except SiteAgentError as error:
        return f"whether a periodic policy owns the limits could not be read: {error}", frozenset()
    if policies:
        return "a periodic policy of Waldur owns the limits", frozenset()
    try:
        orders = open_orders(site)
    except PermanentError:  # this token is not shown orders; the resource shows its own
        orders = ()
    except SiteAgentError as error:
        return f"whether orders decide about them could not be read: {error}", frozenset()
    resources = (order.marketplace_resource_uuid for order in orders)
    return "", frozenset(uuid for uuid in resources if uuid is not None)
