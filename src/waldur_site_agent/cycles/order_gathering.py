"""Collects, in bulk, everything that deciding about the orders in hand needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.orders import OrderState, OrderType, ResourceState
from waldur_site_agent.model.placement import ResourceRequest
from waldur_site_agent.planning.access import granted_usernames, usable_usernames
from waldur_site_agent.planning.orders import OrderInHand, claims_of
from waldur_site_agent.waldur import concurrently

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Order, Resource
    from waldur_site_agent.model.people import TeamMember
    from waldur_site_agent.model.placement import Placement
    from waldur_site_agent.planning.orders import Claims

    Team = tuple[TeamMember, ...]

_OPEN = (OrderState.PENDING_PROVIDER, OrderState.EXECUTING)
_NAME_SUFFIXES = ("", *(f"-{number}" for number in range(10)))
_STATE_WHILE_EXECUTING = {
    OrderType.UPDATE: ResourceState.UPDATING,
    OrderType.TERMINATE: ResourceState.TERMINATING,
}
_PROCESSING_WAIT_SECONDS = 2.0


def open_orders(site: Site) -> tuple[Order, ...]:
    """The orders that wait for the provider or are being executed.

    Part of a list is enough: an order that is not seen now is seen in the next cycle.
    """
    return site.waldur.orders(site.offering.waldur_offering_uuid, _OPEN).items


def approve_pending(site: Site, orders: Sequence[Order]) -> tuple[Order, ...]:
    """Approve what is pending; return what is being executed, as Waldur says after it.

    The list is read again because an approval may have been made by somebody else, may have got
    lost on the way, or may leave the order waiting for its start date.
    """
    pending = [order for order in orders if order.state == OrderState.PENDING_PROVIDER]
    if not pending:
        return _executing(orders)
    attempts = concurrently(lambda order: site.waldur.approve_order(order.uuid), pending)
    for attempt in attempts:
        if attempt.error is not None:
            site.log.warning(
                "order not approved", order=str(attempt.item.uuid), reason=str(attempt.error)
            )
    uuid = site.offering.waldur_offering_uuid
    return _executing(site.waldur.orders(uuid, (OrderState.EXECUTING,)).items)


def _executing(orders: Iterable[Order]) -> tuple[Order, ...]:
    return tuple(order for order in orders if order.state == OrderState.EXECUTING)


def resources_of(site: Site, orders: Sequence[Order], approved: frozenset[UUID]) -> list[Resource]:
    """All live resources of the offering, read when Waldur is through with the approvals.

    Waldur moves a resource to Updating or Terminating in a task of its own, which older servers
    start after the approval. An order that is marked done before that task has run ends in a
    muddle, so orders that were approved just now are given a moment to get there.
    """
    uuid = site.offering.waldur_offering_uuid
    resources = site.waldur.resources(uuid).require_complete("resources")
    if any(_is_overtaking(order, resources) for order in orders if order.uuid in approved):
        site.sleep(_PROCESSING_WAIT_SECONDS)
        resources = site.waldur.resources(uuid).require_complete("resources")
    return list(resources)


def _is_overtaking(order: Order, resources: Iterable[Resource]) -> bool:
    expected = _STATE_WHILE_EXECUTING.get(order.type)
    states = [r.state for r in resources if r.uuid == order.marketplace_resource_uuid]
    return expected is not None and states == [ResourceState.OK]


def orders_in_hand(
    site: Site, orders: Sequence[Order], resources: Sequence[Resource], approved: frozenset[UUID]
) -> tuple[OrderInHand, ...]:
    """Each order with its resource, its possible places, and the people who are to use it."""
    by_uuid = {resource.uuid: resource for resource in resources}
    creates = [order for order in orders if order.type == OrderType.CREATE]
    usernames: dict[UUID, str] = {}
    teams: dict[UUID | None, Team | SiteAgentError] = {}
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
    for order in orders:
        resource = by_uuid.get(order.marketplace_resource_uuid or order.uuid)
        if resource is None:
            continue
        too_early = order.uuid in approved and _is_overtaking(order, resources)
        hand = _in_hand(site, order, resource, by_project_slug=by_project_slug, wait=too_early)
        hands.append(_with_team(site, hand, usernames, teams.get(order.project_uuid)))
    return tuple(hands)


def _teams(
    site: Site, creates: Sequence[Order], resources: dict[UUID, Resource]
) -> dict[UUID | None, Team | SiteAgentError]:
    """One team per project, asked through any of its resources."""
    asked: dict[UUID | None, UUID] = {}
    for order in creates:
        resource = order.marketplace_resource_uuid
        if resource is not None and resource in resources:
            asked.setdefault(order.project_uuid, resource)
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
    for attempt in concurrently(lambda name: _namesakes(site, name), doubtful):
        if attempt.error is not None:
            raise TemporaryError(
                f'who owns account "{attempt.item}" is not known: {attempt.error}'
            ) from attempt.error
        everywhere += attempt.value or ()
    return claims_of(everywhere)


def _namesakes(site: Site, name: str) -> tuple[Resource, ...]:
    return site.waldur.resources_named(name).require_complete(f'resources named "{name}"')


def _doubtful_names(hand: OrderInHand, state: BackendState) -> set[str]:
    if hand.problem is not None:
        return set()
    own = hand.resource.backend_id.strip().lower()
    if hand.order.type == OrderType.TERMINATE and own in state.resources:
        return {own}
    if hand.order.type != OrderType.CREATE or own:
        return set()
    return {placement.id for placement in hand.placements if placement.id in state.resources}
