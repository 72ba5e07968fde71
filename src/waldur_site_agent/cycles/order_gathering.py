"""Collects, in bulk, everything that deciding about the orders in hand needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.order_report import Fate, OrderFate
from waldur_site_agent.model.errors import (
    DefectError,
    PermanentError,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.model.orders import OrderState, OrderType, ResourceState
from waldur_site_agent.model.placement import ResourceRequest
from waldur_site_agent.planning.access import granted_usernames, usable_usernames
from waldur_site_agent.planning.orders import OrderInHand, claims_of
from waldur_site_agent.waldur import ConflictError, concurrently

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.scoping import Sight
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Order, Resource
    from waldur_site_agent.model.people import TeamMember
    from waldur_site_agent.model.placement import Placement
    from waldur_site_agent.planning.orders import Claims
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
        site.log.error("order left alone: it cannot be understood", reason=str(error))
    return listing.items


def approve_pending(
    site: Site, orders: Sequence[Order]
) -> tuple[tuple[Order, ...], tuple[OrderFate, ...]]:
    """Approve what is pending.

    The list is read again because an approval may have been made by somebody else, may have got
    lost on the way, or may leave the order waiting for its start date.

    Returns:
        What is being executed, as Waldur says after the approvals, and what it refused to approve.
    """
    pending = [order for order in orders if order.state == OrderState.PENDING_PROVIDER]
    if not pending:
        return _executing(orders), ()
    attempts = concurrently(lambda order: site.waldur.approve_order(order.uuid), pending)
    uuid = site.offering.waldur_offering_uuid
    executing = _executing(_readable(site, site.waldur.orders(uuid, (OrderState.EXECUTING,))))
    approved = {order.uuid for order in executing}
    refused = tuple(
        OrderFate(
            order=attempt.item,
            fate=Fate.WAITING,
            reason=f"order {attempt.item.uuid} was not approved: {attempt.error}",
            is_trouble=True,
        )
        for attempt in attempts
        if _was_refused(attempt.error) and attempt.item.uuid not in approved
    )
    return executing, refused


def _was_refused(error: SiteAgentError | None) -> bool:
    """A conflict means that somebody else was faster, which is fine."""
    return error is not None and not isinstance(error, ConflictError)


def _executing(orders: Iterable[Order]) -> tuple[Order, ...]:
    return tuple(order for order in orders if order.state == OrderState.EXECUTING)


def resources_of(site: Site, orders: Sequence[Order], approved: frozenset[UUID]) -> list[Resource]:
    """All live resources of the offering, read when Waldur is through with the approvals.

    Waldur moves a resource to Updating or Terminating in a task of its own, which older servers
    start after the approval. An order that is marked done before that task has run ends in a
    muddle, so orders that were approved just now are given a moment to get there.
    """
    resources = _live_resources(site)
    if any(_is_overtaking(site, o, resources, approved) for o in orders if o.uuid in approved):
        site.sleep(_PROCESSING_WAIT_SECONDS)
        resources = _live_resources(site)
    return [*resources, *_ended_resources(site, orders, resources)]


def _live_resources(site: Site) -> tuple[Resource, ...]:
    uuid = site.offering.waldur_offering_uuid
    return site.waldur.resources(uuid).require_complete("resources")


def _ended_resources(
    site: Site, orders: Iterable[Order], resources: Iterable[Resource]
) -> list[Resource]:
    """The resources of orders that are not among the live ones: their orders must end, too."""
    known = {resource.uuid for resource in resources}
    missing = {
        order.marketplace_resource_uuid
        for order in orders
        if order.marketplace_resource_uuid and order.marketplace_resource_uuid not in known
    }
    attempts = concurrently(site.waldur.resource, sorted(missing))
    return [attempt.value for attempt in attempts if attempt.value is not None]


def _is_overtaking(
    site: Site, order: Order, resources: Iterable[Resource], approved: frozenset[UUID]
) -> bool:
    """Whether Waldur may still be about to begin with an order that is being executed."""
    states = [r.state for r in resources if r.uuid == order.marketplace_resource_uuid]
    if order.type not in _STATE_WHILE_EXECUTING or states != [ResourceState.OK]:
        return False
    if order.uuid in approved or order.modified is None:
        return order.uuid in approved
    changed = order.modified if order.modified.tzinfo else order.modified.replace(tzinfo=UTC)
    return site.now() - changed < _LONGEST_PROCESSING


def orders_in_hand(
    site: Site, orders: Sequence[Order], resources: Sequence[Resource], approved: frozenset[UUID]
) -> tuple[OrderInHand, ...]:
    """Each order with its resource, its possible places, and the people who are to use it."""
    by_uuid = {resource.uuid: resource for resource in resources}
    creates = [order for order in orders if order.type == OrderType.CREATE]
    usernames: dict[UUID, str] = {}
    teams: dict[UUID, Team | SiteAgentError] = {}
    by_project_slug = False
    if creates:
        offering = site.waldur.offering(site.offering.waldur_offering_uuid)
        by_project_slug = (
            offering.plugin_options.get("account_name_generation_policy") == "project_slug"
        )
        users = site.waldur.offering_users(offering.uuid).require_complete("offering users")
        usernames = usable_usernames(users)
        teams = _teams(site, creates, by_uuid)
    hands = []
    for order in (_as_understood(site, order) for order in orders):
        resource = by_uuid.get(order.marketplace_resource_uuid or order.uuid)
        if resource is None:
            continue
        too_early = _is_overtaking(site, order, resources, approved)
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
    site: Site, creates: Sequence[Order], resources: dict[UUID, Resource]
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


def claims_on(
    site: Site, hands: Sequence[OrderInHand], resources: Sequence[Resource], state: BackendState
) -> Claims:
    """Who carries which name in Waldur.

    The offering's own resources are known. For an account that exists and that an order might
    adopt or delete, every offering that the token can see is asked too: another one may share
    the backend.

    Raises:
        TemporaryError: an answer did not come; to guess here could give one project's account
            to another.
    """
    doubtful = sorted({name for hand in hands for name in _doubtful_names(hand, state)})
    everywhere = list(resources)
    for attempt in concurrently(lambda name: namesakes(site, name), doubtful):
        if attempt.error is not None:
            raise TemporaryError(
                f'who owns account "{attempt.item}" is not known: {attempt.error}'
            ) from attempt.error
        everywhere += attempt.value or ()
    return claims_of(everywhere)


def namesakes(site: Site, name: str) -> tuple[Resource, ...]:
    """Resources of any offering that carry the name, in the spellings that people use."""
    listings = [site.waldur.resources_named(spelling) for spelling in (name, name.upper())]
    return tuple(
        resource
        for listing in listings
        for resource in listing.require_complete(f'resources named "{name}"')
    )


def _doubtful_names(hand: OrderInHand, state: BackendState) -> set[str]:
    """Accounts that exist and that the order might take over, change for others, or delete."""
    if hand.problem is not None or hand.order.type == OrderType.UPDATE:
        return set()
    own = hand.resource.account
    names = {own} if own else {placement.id for placement in hand.placements}
    return names & state.resources.keys()
