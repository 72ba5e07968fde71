"""Reads and approves open orders, and collects in bulk what planning them needs.

For each order: its resource, possible placements, and the project team. Lists may be a moment old,
so whatever a decision depends on is read individually.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from waldur_site_agent.backends import Access
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.facts import tell_people
from waldur_site_agent.cycles.offering import check_emptied_list, read_offering
from waldur_site_agent.cycles.ordered_limits import orders_with_limits
from waldur_site_agent.cycles.partial_answers import readable, stand_ins
from waldur_site_agent.cycles.site import CycleReport, ScopeFilter, Site
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.errors import (
    DefectError,
    PermanentError,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.model.events import WaldurSnapshot
from waldur_site_agent.model.marketplace import (
    Order,
    OrderState,
    OrderType,
    Resource,
    ResourceState,
    TeamMember,
    WaldurOffering,
    aware,
)
from waldur_site_agent.planning.membership import (
    consent_problem,
    granted_usernames,
    usable_usernames,
    wanted_access,
)
from waldur_site_agent.planning.orders import (
    OrderContext,
    OrderPlan,
)
from waldur_site_agent.planning.plan import Write
from waldur_site_agent.waldur import Listing, concurrently


class OrderStatus(enum.Enum):
    """The result of a cycle for one order."""

    PLANNED = "planned"
    """Dry run: nothing was done."""
    DONE = "done"
    REJECTED = "rejected"
    """The backend decided so; Waldur has the reason."""
    ERRED = "erred"
    """The order cannot be carried out; Waldur has the reason."""
    WAITING = "waiting"
    """Left open; the next cycle continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderResult:
    """The result of one order, with the reason unless it is done."""

    order: Order
    status: OrderStatus
    reason: str = ""
    is_trouble: bool = False
    """Whether it needs attention; waiting for the next pass alone does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersReport(CycleReport):
    """The outcome of one pass over the orders of an offering."""

    results: tuple[OrderResult, ...] = ()
    plans: tuple[OrderPlan, ...] = ()
    waiting: frozenset[str] = frozenset()
    """Dry run only: planned members whom the backend cannot add yet."""
    last_usage: Mapping[UUID, tuple[Write, ...]] = field(default_factory=dict)
    """Dry run only: by order, the usage that would be reported before its completion."""
    snapshot: WaldurSnapshot = field(default_factory=WaldurSnapshot)

    @property
    def has_failures(self) -> bool:
        """Whether some order needs attention or a retry."""
        return any(result.is_trouble for result in self.results)


_OPEN = (OrderState.PENDING_PROVIDER, OrderState.EXECUTING)


def open_orders(site: Site) -> tuple[Order, ...]:
    """The orders that are pending or executing.

    An incomplete list is fine: an order that is missing now is processed in the next cycle.
    """
    return _readable(site, site.waldur.orders(site.offering.waldur_offering_uuid, _OPEN))


def orders_in_scope(
    site: Site, scope_filter: ScopeFilter
) -> tuple[tuple[Order, ...], dict[UUID, str]]:
    """The open orders in scope, and the states of all orders that were read.

    An order in scope that is not listed as open is read individually, to learn whether it has
    ended or is not visible yet. If it turns out to be open it is omitted from both: it is
    processed once the list of this offering shows it.

    Raises:
        TemporaryError: Waldur could not be read.
    """
    listed = open_orders(site)
    if scope_filter.everything:
        check_emptied_list(site, "orders", listed)
        return listed, {order.uuid: order.state for order in listed}
    chosen = tuple(order for order in listed if order.uuid in scope_filter.orders)
    states = {order.uuid: order.state for order in chosen}
    for attempt in concurrently(site.waldur.order, sorted(scope_filter.orders - states.keys())):
        if isinstance(attempt.error, TemporaryError):
            raise attempt.error
        if attempt.value is not None and attempt.value.state not in _OPEN:
            states[attempt.item] = attempt.value.state
    return chosen, states


def _readable(site: Site, listing: Listing[Order]) -> tuple[Order, ...]:
    """The orders that could be decoded; an undecodable one does not stop the others."""
    for error in listing.unreadable:
        reason = str(error)
        site.conditions.note(
            "order skipped: it cannot be decoded",
            reason,
            cause=cause_of(reason),
            level=logging.ERROR,
            reason=reason,
        )
    return listing.items


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of an offering that planning its orders needs."""

    own: Mapping[UUID, Resource]
    """Those of the orders, each read individually."""
    listed: tuple[Resource, ...]
    """The other live ones, as the list shows them."""
    unlisted: tuple[Resource, ...] = ()
    """Live resources of orders that the list lacks, because it is older than they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """What is known of orders before any of them is approved."""

    resources: Mapping[UUID, Resource] = field(default_factory=dict)
    """Resources that were read individually."""
    offering: WaldurOffering | None = None
    names: frozenset[str] | None = None
    """The accounts that the orders are about, with those above; ``None`` if any may be."""


_MOST_FORESEEN = 20
"""Of so many orders the resources are read ahead; of more, the backend reads everything anyway."""


def foresee(site: Site, orders: Sequence[Order]) -> Foresight:
    """Find out which accounts orders are about, unless the backend is read as a whole anyway.

    Raises:
        TemporaryError: the offering could not be read.
    """
    known_types = (*OrderType.OPENING, OrderType.UPDATE)
    is_foreseen = (
        len(orders) <= _MOST_FORESEEN
        and site.backend.capabilities.tells_all
        and all(order.type in known_types for order in orders)
    )
    if not is_foreseen:
        return Foresight()
    resources = read_one_by_one(site, orders)
    opening = any(order.type in OrderType.OPENING for order in orders)
    offering = read_offering(site) if opening else None
    names: set[str] = set()
    for order in orders:
        resource = order.resource_in(resources)
        if resource is None:
            return Foresight(resources=resources, offering=offering)
        context = _order_context(
            site, order, resource, by_project_slug=_by_project_slug(offering), wait=False
        )
        names |= names_concerned(context)
    return Foresight(resources=resources, offering=offering, names=frozenset(names))


def with_executing(site: Site, orders: Iterable[Order], foresight: Foresight) -> Foresight:
    """The same with the resource of each order that seems to be executing, read individually.

    Lists may be a moment old. What follows is a new account or a verdict that nobody takes back,
    and this one answer proves both that the order is executing, and which account it is about.
    """
    executing = [
        order
        for order in orders
        if order.state == OrderState.EXECUTING and order.resource_in(foresight.resources) is None
    ]
    return replace(foresight, resources={**foresight.resources, **read_one_by_one(site, executing)})


def names_concerned(context: OrderContext) -> set[str]:
    """The account of an order's resource, and those that may be made for it, with those above."""
    names = {name for placement in context.placements for _, name in placement.names()}
    names |= {placement.parent for placement in context.placements}
    names |= {above.parent for place in context.placements for above in place.containers}
    return (names | {context.resource.account}) - {""}


_PROCESSING_WAIT_SECONDS = 2.0


def resources_of(
    site: Site,
    orders: Sequence[Order],
    approved: frozenset[UUID],
    known: Mapping[UUID, Resource],
) -> Resources:
    """All live resources of the offering, and the resources of the orders, after the approvals.

    The resources of orders are read individually: the list may not show a backend_id yet that an
    interrupted run has set, and lacks terminated resources whose orders are still open.

    Waldur moves a resource to Updating or Terminating in a background task, which older servers
    start after the approval. If an order were completed before that task has run, its resource
    would end up in the wrong state, so orders that were approved just now are given a moment.
    ``known`` are resources of orders that were read before the approvals, in this pass.
    """
    listed = _live_resources(site)
    changed = [o for o in orders if o.uuid in approved and o.type != OrderType.CREATE]
    unknown = [o for o in orders if o.marketplace_resource_uuid not in known]
    own = {
        uuid: known[uuid]
        for uuid in (order.marketplace_resource_uuid for order in orders)
        if uuid is not None and uuid in known
    }
    own |= read_one_by_one(site, [*changed, *unknown])
    early = [
        o
        for o in orders
        if o.uuid in approved and _may_not_be_processing_yet(site, o, own, approved)
    ]
    if early:
        site.sleep(_PROCESSING_WAIT_SECONDS)
        own |= read_one_by_one(site, early)
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


def read_one_by_one(site: Site, orders: Iterable[Order]) -> dict[UUID, Resource]:
    """The resources of orders, each read individually; those that cannot be read are left out."""
    wanted = {o.marketplace_resource_uuid for o in orders if o.marketplace_resource_uuid}
    attempts = concurrently(site.waldur.resource, sorted(wanted))
    return {attempt.item: attempt.value for attempt in attempts if attempt.value is not None}


_STATE_WHILE_EXECUTING = (OrderType.UPDATE, OrderType.TERMINATE)
"""Orders whose resource leaves the state OK while they are executing."""

_LONGEST_PROCESSING = timedelta(minutes=10)


def _may_not_be_processing_yet(
    site: Site, order: Order, resources: Mapping[UUID, Resource], approved: frozenset[UUID]
) -> bool:
    """Whether Waldur may not have started to process an executing order yet."""
    resource = order.resource_in(resources)
    if order.type not in _STATE_WHILE_EXECUTING or resource is None:
        return False
    if resource.state != ResourceState.OK:
        return False
    if order.uuid in approved or order.modified is None:
        return order.uuid in approved
    return site.now() - aware(order.modified) < _LONGEST_PROCESSING


Team = tuple[TeamMember, ...]


def order_contexts(
    site: Site,
    orders: Sequence[Order],
    by_uuid: Mapping[UUID, Resource],
    approved: frozenset[UUID],
    offering: WaldurOffering | None,
) -> tuple[OrderContext, ...]:
    """Each order with its resource, its possible placements, and the members of the team.

    Args:
        site: the offering at work.
        orders: the orders.
        by_uuid: their resources; orders without one are omitted.
        approved: the orders that were approved just now.
        offering: the offering, if it was read in this pass.
    """
    creates = [order for order in orders if order.type in OrderType.OPENING]
    usernames: dict[UUID, str] = {}
    teams: dict[UUID, Team | SiteAgentError] = {}
    offering = (offering or read_offering(site)) if creates else None
    if offering is not None:
        needs_all = site.backend.capabilities.needs_facts
        listing = site.waldur.offering_users(offering.uuid, whole=needs_all)
        users = readable(site, listing, "offering users")
        with_consent = site.offering.require_consent
        usernames = usable_usernames(users, with_consent=with_consent)
        teams = _teams(site, creates, by_uuid)
        if with_consent and (problem := consent_problem(users)):
            teams = dict.fromkeys(teams, TemporaryError(problem))
        known = {key: team for key, team in teams.items() if not isinstance(team, SiteAgentError)}
        tell_people(site, users, known)
    contexts = []
    limits = orders_with_limits(site, orders, by_uuid)
    for order in limits.orders:
        resource = order.resource_in(by_uuid)
        if resource is None:
            continue
        too_early = _may_not_be_processing_yet(site, order, by_uuid, approved)
        context = _order_context(
            site, order, resource, by_project_slug=_by_project_slug(offering), wait=too_early
        )
        if offering is not None:
            context = _with_grant(site, offering, context)
        context = replace(
            context,
            problem=context.problem or limits.problems.get(order.uuid),
            missing_limits=limits.missing.get(order.uuid, ()),
        )
        contexts.append(_with_team(site, context, usernames, teams.get(_team_of(order, resource))))
    return tuple(contexts)


def _by_project_slug(offering: WaldurOffering | None) -> bool:
    """Whether accounts are named after the project; only create orders need to know."""
    options = {} if offering is None else offering.plugin_options
    return bool(options.get("account_name_generation_policy") == "project_slug")


def _with_grant(site: Site, offering: WaldurOffering, context: OrderContext) -> OrderContext:
    """The context with what the members get by the order; it fails if they cannot."""
    if context.order.type not in OrderType.OPENING or context.problem is not None:
        return context
    attributes = {**context.resource.attributes, **context.order.attributes}
    try:
        return replace(context, grant=site.backend.grant(offering, attributes))
    except PermanentError as error:
        return replace(context, problem=error)


def _team_of(order: Order, resource: Resource) -> UUID:
    """The key of a team: its project, or the resource if Waldur shows no project."""
    return order.project_uuid or resource.project_uuid or resource.uuid


def _teams(
    site: Site, creates: Sequence[Order], resources: Mapping[UUID, Resource]
) -> dict[UUID, Team | SiteAgentError]:
    """One team per project, read through any of its resources."""
    asked: dict[UUID, UUID] = {}
    for order in creates:
        resource = order.resource_in(resources)
        if resource is not None:
            asked.setdefault(_team_of(order, resource), resource.uuid)
    attempts = concurrently(lambda pair: site.waldur.team(pair[1]), list(asked.items()))
    return {attempt.item[0]: attempt.error or attempt.value or () for attempt in attempts}


def _with_team(
    site: Site,
    context: OrderContext,
    usernames: dict[UUID, str],
    team: Team | SiteAgentError | None,
) -> OrderContext:
    if (
        team is None
        or context.order.type not in OrderType.OPENING
        or context.resource.restrict_member_access
        or wanted_access(context.resource) is not Access.NORMAL  # membership_sync restricts first
        or not site.backend.capabilities.tells_members  # membership_sync remembers who it added
    ):
        return context
    if isinstance(team, SiteAgentError):
        problem = TemporaryError(
            f"{context.resource.name}: its team could not be read, so nobody was added yet: {team}"
        )
        return replace(context, team_problem=problem)
    return replace(context, members=granted_usernames(team, usernames, site.now()))


def _order_context(
    site: Site, order: Order, resource: Resource, *, by_project_slug: bool, wait: bool
) -> OrderContext:
    if wait:
        text = f"order {order.uuid}: Waldur has not started to process it; retried in the next pass"
        return OrderContext(order=order, resource=resource, problem=TemporaryError(text))
    try:
        placements = _placements(site, order, resource, by_project_slug=by_project_slug)
    except PermanentError as error:
        problem = error if order.type in OrderType.OPENING else None
        return OrderContext(order=order, resource=resource, problem=problem)
    except Exception as error:
        site.log.exception("defect", order=str(order.uuid))
        defect = DefectError(f"order {order.uuid}: {type(error).__name__}: {error}")
        return OrderContext(order=order, resource=resource, problem=defect)
    return OrderContext(order=order, resource=resource, placements=placements)


def _placements(
    site: Site, order: Order, resource: Resource, *, by_project_slug: bool
) -> tuple[Placement, ...]:
    """The possible placements of the resource, preferred ones first.

    Raises:
        PermanentError: a slug is missing, or no valid account name can be derived from it.
    """
    request = ResourceRequest.of(resource, order)
    if kind := request.lacks_slug_of:
        raise PermanentError(
            f'"{request.resource_name}": the {kind} has no slug to name its account by; '
            f"set the slug of the {kind} in Waldur and order again"
        )
    if not by_project_slug:
        return (site.backend.place(request, resource.slug),)
    placements = [site.backend.place(request, request.project_slug)]
    for number in range(site.backend.capabilities.more_names):
        try:
            placements.append(site.backend.place(request, f"{request.project_slug}-{number}"))
        except PermanentError:  # longer names exceed the limit; use the shorter ones
            break
    return tuple(placements)
