"""Collects, in bulk, everything that deciding about the orders in hand needs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.offering_access import check_emptied_list, read_offering
from waldur_site_agent.cycles.order_report import Fate, OrderFate
from waldur_site_agent.cycles.unreadable import readable, stand_ins
from waldur_site_agent.cycles.writing import send_write
from waldur_site_agent.model.errors import (
    DefectError,
    PermanentError,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.model.orders import OrderState, OrderType, ResourceState
from waldur_site_agent.model.placement import ResourceRequest
from waldur_site_agent.planning.access import granted_usernames, usable_usernames
from waldur_site_agent.planning.order_writes import approve_write
from waldur_site_agent.planning.orders import OrderInHand
from waldur_site_agent.waldur import ConflictError, concurrently

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from waldur_site_agent.cycles.scoping import Sight
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Order, Resource
    from waldur_site_agent.model.people import TeamMember
    from waldur_site_agent.model.placement import Placement
    from waldur_site_agent.waldur import Listing

    Team = tuple[TeamMember, ...]

_OPEN = (OrderState.PENDING_PROVIDER, OrderState.EXECUTING)
_NAME_SUFFIXES = ("", *(f"-{number}" for number in range(10)))
_STATE_WHILE_EXECUTING = (OrderType.UPDATE, OrderType.TERMINATE)
"""Orders whose resource leaves the state OK while they are executed."""
_PROCESSING_WAIT_SECONDS = 2.0
_LONGEST_PROCESSING = timedelta(minutes=10)


def open_orders(site: Site) -> tuple[Order, ...]:
    """The orders that wait for the provider or are being executed.

    Part of a list is enough: an order that is not seen now is seen in the next cycle.
    """
    return _readable(site, site.waldur.orders(site.offering.waldur_offering_uuid, _OPEN))


def orders_in_sight(site: Site, sight: Sight) -> tuple[tuple[Order, ...], dict[UUID, str]]:
    """The open orders to look at, and the states of all that were.

    An order in sight that is not in the list of open ones is read by itself, to learn whether it
    is over or not visible yet. What shows as open only then is left out of both: it is taken in
    hand when the list of this very offering has it.

    Raises:
        TemporaryError: Waldur could not be asked.
    """
    listed = open_orders(site)
    if sight.everything:
        check_emptied_list(site, "orders", listed)
        return listed, {order.uuid: order.state for order in listed}
    chosen = tuple(order for order in listed if order.uuid in sight.orders)
    states = {order.uuid: order.state for order in chosen}
    for attempt in concurrently(site.waldur.order, sorted(sight.orders - states.keys())):
        if isinstance(attempt.error, TemporaryError):
            raise attempt.error
        if attempt.value is not None and attempt.value.state not in _OPEN:
            states[attempt.item] = attempt.value.state
    return chosen, states


def _readable(site: Site, listing: Listing[Order]) -> tuple[Order, ...]:
    """The orders that can be understood; one that cannot does not stop the others."""
    for error in listing.unreadable:
        reason = str(error)
        site.conditions.note(
            "order left alone: it cannot be understood",
            reason,
            cause=cause_of(reason),
            level=logging.ERROR,
            reason=reason,
        )
    return listing.items


def approve_pending(
    site: Site, orders: Sequence[Order]
) -> tuple[tuple[Order, ...], tuple[OrderFate, ...]]:
    """Approve what is pending, and read every order by itself before anything is done for it.

    A list may be a moment old: it may show an order as executing that is over, and whose limits
    or whose account are another order's by now. An approval may have been made by somebody else,
    may have got lost on the way, or may leave the order waiting for its start date.

    Returns:
        What is being executed, and the orders that nothing can be done for now, each with why.
    """
    pending = [order for order in orders if order.state == OrderState.PENDING_PROVIDER]
    attempts = concurrently(lambda order: send_write(site, approve_write(order)), pending)
    refusals = {a.item.uuid: a.error for a in attempts if _was_refused(a.error)}
    executing, fates = [], []
    for attempt in concurrently(lambda order: site.waldur.order(order.uuid), orders):
        if attempt.value is None:
            reason = f"order {attempt.item.uuid} could not be read by itself: {attempt.error}"
            fates.append(_left(attempt.item, reason))
        elif attempt.value.state == OrderState.EXECUTING:
            executing.append(attempt.value)
        elif refusal := refusals.get(attempt.item.uuid):
            reason = f"order {attempt.item.uuid} was not approved: {refusal}"
            fates.append(_left(attempt.item, reason))
        elif attempt.item.state == OrderState.PENDING_PROVIDER:
            fates.append(_ended_elsewhere(attempt.value))
    return tuple(executing), tuple(fates)


def _left(order: Order, reason: str) -> OrderFate:
    return OrderFate(order=order, fate=Fate.WAITING, reason=reason, is_trouble=True)


def _ended_elsewhere(order: Order) -> OrderFate:
    """An order that was to be approved and is neither pending nor executing, as it stands."""
    text = f"order {order.uuid} was to be approved and is {order.state} in Waldur"
    match order.state:
        case OrderState.ERRED:
            why = order.error_message or "Waldur gives no reason; its log may"
            reason = f"{text}, though not by the agent: {why}"
            return OrderFate(order=order, fate=Fate.ERRED, reason=reason, is_trouble=True)
        case OrderState.DONE:
            return OrderFate(order=order, fate=Fate.DONE)
        case OrderState.PENDING_START_DATE:
            when = f" on {order.start_date}" if order.start_date else ""
            reason = f"{text}; Waldur lets it begin{when}"
            return OrderFate(order=order, fate=Fate.WAITING, reason=reason)
        case _:
            return _left(order, f"{text}; it is looked at again while it is open")


def _was_refused(error: SiteAgentError | None) -> bool:
    """A conflict means that somebody else was faster, which is fine."""
    return error is not None and not isinstance(error, ConflictError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of an offering, as far as its orders need them."""

    own: Mapping[UUID, Resource]
    """Those of the orders in hand, each read by itself."""
    listed: tuple[Resource, ...]
    """The other live ones, as the list shows them."""
    unlisted: tuple[Resource, ...] = ()
    """Live ones of the orders that the list lacks: it is from before they were made."""


def resources_of(site: Site, orders: Sequence[Order], approved: frozenset[UUID]) -> Resources:
    """All live resources of the offering, and those of the orders, when the approvals are made.

    The resources of orders are read by themselves: the list may not show a name yet that an
    interrupted run gave, and may not have resources that are terminated already, whose orders
    must end, too.

    Waldur moves a resource to Updating or Terminating in a task of its own, which older servers
    start after the approval. An order that is marked done before that task has run ends in a
    muddle, so orders that were approved just now are given a moment to get there.
    """
    listed = _live_resources(site)
    own = _read_one_by_one(site, orders)
    early = [o for o in orders if o.uuid in approved and _is_overtaking(site, o, own, approved)]
    if early:
        site.sleep(_PROCESSING_WAIT_SECONDS)
        own |= _read_one_by_one(site, early)
    ordered = {order.marketplace_resource_uuid for order in orders}
    shown = {resource.uuid for resource in listed}
    return Resources(
        own=own,
        listed=tuple(resource for resource in listed if resource.uuid not in ordered),
        unlisted=tuple(
            resource
            for uuid, resource in own.items()
            if uuid not in shown and resource.state in ResourceState.ALIVE
        ),
    )


def _live_resources(site: Site) -> tuple[Resource, ...]:
    uuid = site.offering.waldur_offering_uuid
    listing = site.waldur.resources(uuid)
    return (*readable(site, listing, "resources"), *stand_ins(listing.unreadable))


def _read_one_by_one(site: Site, orders: Iterable[Order]) -> dict[UUID, Resource]:
    wanted = {o.marketplace_resource_uuid for o in orders if o.marketplace_resource_uuid}
    attempts = concurrently(site.waldur.resource, sorted(wanted))
    return {attempt.item: attempt.value for attempt in attempts if attempt.value is not None}


def _is_overtaking(
    site: Site, order: Order, resources: Mapping[UUID, Resource], approved: frozenset[UUID]
) -> bool:
    """Whether Waldur may still be about to begin with an order that is being executed."""
    resource = resources.get(order.marketplace_resource_uuid or order.uuid)
    if order.type not in _STATE_WHILE_EXECUTING or resource is None:
        return False
    if resource.state != ResourceState.OK:
        return False
    if order.uuid in approved or order.modified is None:
        return order.uuid in approved
    changed = order.modified if order.modified.tzinfo else order.modified.replace(tzinfo=UTC)
    return site.now() - changed < _LONGEST_PROCESSING


def orders_in_hand(
    site: Site,
    orders: Sequence[Order],
    by_uuid: Mapping[UUID, Resource],
    approved: frozenset[UUID],
) -> tuple[OrderInHand, ...]:
    """Each order with its resource, its possible places, and the people who are to use it.

    Args:
        site: the offering at work.
        orders: the orders.
        by_uuid: their resources; an order without one is left out.
        approved: the orders that were approved just now.
    """
    creates = [order for order in orders if order.type == OrderType.CREATE]
    usernames: dict[UUID, str] = {}
    teams: dict[UUID, Team | SiteAgentError] = {}
    by_project_slug = False
    if creates:
        offering = read_offering(site)
        by_project_slug = (
            offering.plugin_options.get("account_name_generation_policy") == "project_slug"
        )
        users = readable(site, site.waldur.offering_users(offering.uuid), "offering users")
        usernames = usable_usernames(users)
        teams = _teams(site, creates, by_uuid)
    hands = []
    for order in (_as_understood(site, order) for order in orders):
        resource = by_uuid.get(order.marketplace_resource_uuid or order.uuid)
        if resource is None:
            continue
        too_early = _is_overtaking(site, order, by_uuid, approved)
        hand = _in_hand(site, order, resource, by_project_slug=by_project_slug, wait=too_early)
        hands.append(_with_team(site, hand, usernames, teams.get(_team_of(order, resource))))
    return tuple(hands)


def _as_understood(site: Site, order: Order) -> Order:
    """The order without limits that mean nothing to the backend."""
    return replace(order, limits=site.backend.limits_to_set(order.resource_name, order.limits))


def _team_of(order: Order, resource: Resource) -> UUID:
    """What teams are told apart by: the project, or the resource where no project is shown."""
    return order.project_uuid or resource.project_uuid or resource.uuid


def _teams(
    site: Site, creates: Sequence[Order], resources: Mapping[UUID, Resource]
) -> dict[UUID, Team | SiteAgentError]:
    """One team per project, asked through any of its resources."""
    asked: dict[UUID, UUID] = {}
    for order in creates:
        resource = resources.get(order.marketplace_resource_uuid or order.uuid)
        if resource is not None:
            asked.setdefault(_team_of(order, resource), resource.uuid)
    attempts = concurrently(lambda pair: site.waldur.team(pair[1]), list(asked.items()))
    return {attempt.item[0]: attempt.error or attempt.value or () for attempt in attempts}


def _with_team(
    site: Site, hand: OrderInHand, usernames: dict[UUID, str], team: Team | SiteAgentError | None
) -> OrderInHand:
    if team is None or hand.order.type != OrderType.CREATE or hand.resource.restrict_member_access:
        return hand
    if isinstance(team, SiteAgentError):
        problem = TemporaryError(
            f"{hand.resource.name}: its team could not be read, so nobody was added yet: {team}"
        )
        return replace(hand, team_problem=problem)
    return replace(hand, members=granted_usernames(team, usernames, site.now()))


def _in_hand(
    site: Site, order: Order, resource: Resource, *, by_project_slug: bool, wait: bool
) -> OrderInHand:
    if wait:
        text = f"order {order.uuid}: Waldur has not begun to process it; tried again next time"
        return OrderInHand(order=order, resource=resource, problem=TemporaryError(text))
    try:
        placements = _placements(site, order, resource, by_project_slug=by_project_slug)
    except PermanentError as error:
        problem = error if order.type == OrderType.CREATE else None
        return OrderInHand(order=order, resource=resource, problem=problem)
    except Exception as error:
        site.log.exception("defect", order=str(order.uuid))
        defect = DefectError(f"order {order.uuid}: {type(error).__name__}: {error}")
        return OrderInHand(order=order, resource=resource, problem=defect)
    return OrderInHand(order=order, resource=resource, placements=placements)


def _placements(
    site: Site, order: Order, resource: Resource, *, by_project_slug: bool
) -> tuple[Placement, ...]:
    """Where the resource may stand, best first.

    Raises:
        PermanentError: a slug is missing, or no name that follows from it can be used.
    """
    request = ResourceRequest(
        resource_name=resource.name or order.resource_name,
        project_slug=order.project_slug or resource.project_slug,
        project_name=order.project_name or resource.project_name,
        customer_slug=order.customer_slug or resource.customer_slug,
        customer_name=order.customer_name or resource.customer_name,
    )
    for kind, slug in (("customer", request.customer_slug), ("project", request.project_slug)):
        if not slug.strip():
            raise PermanentError(
                f'"{request.resource_name}": the {kind} has no slug, so its account has no name; '
                f"set the slug of the {kind} in Waldur and order again"
            )
    if not by_project_slug:
        return (site.backend.place(request, resource.slug),)
    placements = [site.backend.place(request, request.project_slug)]
    for suffix in _NAME_SUFFIXES[1:]:
        try:
            placements.append(site.backend.place(request, request.project_slug + suffix))
        except PermanentError:  # the longer name is too long: the shorter ones will have to do
            break
    return tuple(placements)
