"""The limits that open orders ask for; where they have none, those of the resource or plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import Order, OrderType, Resource
from waldur_site_agent.planning.limits import limited_by, supported_limits
from waldur_site_agent.planning.orders import has_no_limits, limits_to_set


def orders_with_limits(
    site: Site, orders: Iterable[Order], by_uuid: Mapping[UUID, Resource]
) -> tuple[tuple[Order, ...], dict[UUID, SiteAgentError]]:
    """The orders with every limit that is to be set, as far as the backend supports them.

    The plans of the offering are read only if an order depends on one.

    Args:
        site: the offering at work.
        orders: the orders.
        by_uuid: their resources.

    Returns:
        The orders, and by order, why its limits are not known: its plan could not be read, so it
        has to wait, or a limit is missing, and the site refuses that.
    """
    resources = {order.uuid: order.resource_in(by_uuid) for order in orders}
    by_plan = {order.uuid for order in _by_plan(site, orders, resources)}
    quotas: Mapping[UUID, Mapping[str, Decimal | None]] = {}
    problems: dict[UUID, SiteAgentError] = {}
    try:
        if by_plan:
            plans = site.waldur.plans(site.offering.waldur_offering_uuid)
            quotas = {plan.uuid: plan.quotas for plan in plans}
    except SiteAgentError as error:
        text = f"the limits of its plan could not be read: {error}"
        problems = dict.fromkeys(by_plan, TemporaryError(text))
    completed = tuple(
        order if resource is None else _with_limits(site, order, resource, quotas)
        for order in orders
        for resource in (resources[order.uuid],)
    )
    for order in completed:
        resource = resources[order.uuid]
        if resource is not None and order.uuid not in problems:
            problems |= _missing(site, order, resource)
    return completed, problems


def _missing(site: Site, order: Order, resource: Resource) -> dict[UUID, SiteAgentError]:
    """Why an order cannot be carried out that leaves out a limit, where the site refuses that.

    Waldur bills what was ordered, so that what has no limit would be unlimited for nothing. An
    update may leave out all limits, or what the resource does not have either.
    """
    if not site.refuses_missing_limits or order.type == OrderType.TERMINATE:
        return {}
    components = limited_by(site.backend, site.offering.components)
    needed = {name for name, each in components.items() if each.rules.is_limited}
    if order.type == OrderType.UPDATE:
        had = {name for name, limit in resource.limits.items() if limit is not None}
        needed = needed & had if order.limits else set()
    missing = sorted(name for name in needed if order.limits.get(name) is None)
    if not missing:
        return {}
    named = ", ".join(f'"{name}"' for name in missing)
    text = f"{order.resource_name or resource.name}: the order has no limit of component {named}"
    remedy = "order a limit of each component, or set safety.missing_limits: unlimited"
    return {order.uuid: PermanentError(text, remedy=remedy)}


def _by_plan(
    site: Site, orders: Iterable[Order], resources: Mapping[UUID, Resource | None]
) -> Iterator[Order]:
    """The orders whose limits are those of a plan."""
    for order in orders:
        resource = resources[order.uuid]
        if (
            resource is not None
            and order.type != OrderType.TERMINATE
            and _plan_of(order, resource) is not None
            and has_no_limits(order, resource, site.offering.components)
        ):
            yield order


def _plan_of(order: Order, resource: Resource) -> UUID | None:
    return order.plan_uuid or resource.plan_uuid


def _with_limits(
    site: Site,
    order: Order,
    resource: Resource,
    quotas: Mapping[UUID, Mapping[str, Decimal | None]],
) -> Order:
    plan = _plan_of(order, resource)
    included = {} if plan is None else quotas.get(plan, {})
    components = site.offering.components
    limits = limits_to_set(order, resource, components, included)
    return replace(
        order, limits=supported_limits(site.backend, order.resource_name, limits, components)
    )
