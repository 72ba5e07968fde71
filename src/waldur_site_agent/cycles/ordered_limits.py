"""The limits that open orders ask for; where they have none, those of the resource or plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import Order, OrderType, Resource
from waldur_site_agent.planning.limits import limited_by, supported_limits
from waldur_site_agent.planning.orders import OrderPlan, has_no_limits, limits_to_set


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedLimits:
    """Orders with the limits that are to be set for them."""

    orders: tuple[Order, ...]
    problems: Mapping[UUID, SiteAgentError]
    """By order, why its limits are not known: its plan could not be read, so it has to wait, or a
    limit is missing, and the site refuses that."""
    missing: Mapping[UUID, tuple[str, ...]]
    """By order, the components sold by limit that it leaves out, where the site allows that."""


def orders_with_limits(
    site: Site, orders: Iterable[Order], by_uuid: Mapping[UUID, Resource]
) -> OrderedLimits:
    """The orders with every limit that is to be set, as far as the backend supports them.

    The plans of the offering are read only if an order depends on one.

    Args:
        site: the offering at work.
        orders: the orders.
        by_uuid: their resources.
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
    missing: dict[UUID, tuple[str, ...]] = {}
    for order in completed:
        resource = resources[order.uuid]
        if resource is None or order.uuid in problems:
            continue
        names = _missing(site, order, resource)
        if names and site.refuses_missing_limits:
            problems[order.uuid] = _refusal(order, resource, names)
        elif names:
            missing[order.uuid] = names
    return OrderedLimits(orders=completed, problems=problems, missing=missing)


def _missing(site: Site, order: Order, resource: Resource) -> tuple[str, ...]:
    """The components sold by limit that an order leaves out.

    Waldur bills what was ordered, so that what has no limit is used for nothing. An update may
    leave out all limits, or what the resource does not have either.
    """
    if order.type == OrderType.TERMINATE:
        return ()
    components = limited_by(site.backend, site.offering.components)
    needed = {name for name, each in components.items() if each.rules.is_limited}
    if order.type == OrderType.UPDATE:
        had = {name for name, limit in resource.limits.items() if limit is not None}
        needed = needed & had if order.limits else set()
    return tuple(sorted(name for name in needed if order.limits.get(name) is None))


def _refusal(order: Order, resource: Resource, missing: Iterable[str]) -> PermanentError:
    named = ", ".join(f'"{name}"' for name in missing)
    text = f"{order.resource_name or resource.name}: the order has no limit of component {named}"
    remedy = "order a limit of each component, or set safety.missing_limits: unlimited"
    return PermanentError(text, remedy=remedy)


def warn_of_missing_limits(site: Site, plans: Iterable[OrderPlan]) -> None:
    """Log the orders that were carried out although they leave out a limit."""
    for plan in plans:
        if plan.context.missing_limits:
            site.log.warning(
                "order without a limit carried out",
                order=str(plan.order.uuid),
                account=plan.backend_id,
                reason=plan.missing_limits_text,
                remedy="set the limit of the resource in Waldur; safety.missing_limits: refuse "
                "lets such orders fail",
            )


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
