"""Collects, in bulk, everything that deciding about the orders in hand needs."""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from waldur_site_agent.backends import BackendState
from waldur_site_agent.cycles.applying import send_write
from waldur_site_agent.cycles.offering import check_emptied_list, read_offering
from waldur_site_agent.cycles.partial_answers import readable, stand_ins
from waldur_site_agent.cycles.site import CycleReport, ScopeFilter, Site, WaldurSnapshot, cause_of
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.errors import (
    DefectError,
    PermanentError,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.model.marketplace import (
    Order,
    OrderState,
    OrderType,
    Resource,
    ResourceState,
    TeamMember,
)
from waldur_site_agent.planning.access import granted_usernames, usable_usernames
from waldur_site_agent.planning.orders import (
    Claims,
    OrderContext,
    OrderPlan,
    approve_write,
    claims_of,
)
from waldur_site_agent.planning.writes import Write
from waldur_site_agent.waldur import ConflictError, Listing, NotFoundError, concurrently


def claims_on(
    site: Site, contexts: Sequence[OrderContext], resources: Resources, state: BackendState
) -> Claims:
    """Who carries which name in Waldur.

    The offering's own resources are known. For an account that exists and that an order might
    adopt or delete, every offering that the token can see is asked too: another one may share
    the backend.

    Raises:
        TemporaryError: an answer did not come; to guess here could give one project's account
            to another.
    """
    doubtful = {name for context in contexts for name in _doubtful_names(context, state)}
    known = [*resources.own.values(), *resources.listed]
    everywhere = [*known, *_namesakes_of(site, doubtful)]
    unnamed = {
        n for context in contexts if not context.resource.account for n in _names_of(context)
    }
    if doubtful & unnamed - {resource.account for resource in everywhere}:
        everywhere += recently_named(site, resources.listed)
    alive = _alive(everywhere)
    taken = {resource.account for resource in alive}
    return claims_of([*alive, *_used_since_the_order(site, contexts, taken)])


def defer_doubtful_names(
    contexts: Iterable[OrderContext], resources: Resources, state: BackendState
) -> Iterator[OrderContext]:
    """The hands; while the list is from before some of their resources, no doubtful name is given.

    Whoever was made between them and has a name would be missing from such a list, too.
    """
    for context in contexts:
        if not resources.unlisted or not (_has_a_choice(context) or _may_adopt(context, state)):
            yield context
            continue
        missing = resources.unlisted[0]
        problem = TemporaryError(
            f"{context.resource.name}: no account name is chosen yet, because Waldur's list of "
            f'resources does not show "{missing.name}" ({missing.uuid}) yet, and so may lack '
            "others that have the name already; tried again next time"
        )
        yield replace(context, problem=problem)


def confirmed_claims(
    site: Site, contexts: Iterable[OrderContext], resources: Resources, state: BackendState
) -> Claims:
    """As :func:`claims_on`; whoever has a name that an order wants is read by itself.

    Raises:
        TemporaryError: an answer did not come.
    """
    contexts = tuple(contexts)
    names = {
        name for context in contexts for name in (context.resource.account, *_names_of(context))
    } - {""}
    listed = {
        resource.uuid
        for resource in (*resources.listed, *_namesakes_of(site, names & state.resources.keys()))
        if resource.account in names
    }
    claimants = _read(site, listed - resources.own.keys())
    return claims_of(_alive([*resources.own.values(), *claimants]))


def namesakes(site: Site, name: str) -> tuple[Resource, ...]:
    """Resources of any offering that carry the name, in the spellings that people use."""
    listings = [site.waldur.resources_named(spelling) for spelling in (name, name.upper())]
    return tuple(
        resource
        for listing in listings
        for resource in (
            *listing.require_every_page(f'resources named "{name}"'),
            *stand_ins(listing.unreadable, name),
        )
    )


def recently_named(site: Site, listed: Iterable[Resource]) -> list[Resource]:
    """Read by themselves the resources that a list shows without a name, and those named here.

    The second are resources that this process has given a name, which no list may show yet.

    Raises:
        TemporaryError: an answer did not come.
    """
    listed = tuple(listed)
    shown = {resource.uuid for resource in listed if resource.account}
    unnamed = {resource.uuid for resource in listed if not resource.account}
    return _read(site, (unnamed | site.named) - shown)


def _read(site: Site, uuids: Iterable[UUID]) -> list[Resource]:
    """Resources as they are now; those that are gone, or not this token's business, are left out.

    Raises:
        TemporaryError: an answer did not come.
    """
    found = []
    for attempt in concurrently(site.waldur.resource, sorted(uuids)):
        if attempt.value is not None:
            found.append(attempt.value)
        elif not isinstance(attempt.error, NotFoundError):
            raise TemporaryError(
                f"the account of resource {attempt.item} is not known: {attempt.error}"
            ) from attempt.error
    return found


def _namesakes_of(site: Site, names: Collection[str]) -> list[Resource]:
    found: list[Resource] = []
    for attempt in concurrently(lambda name: namesakes(site, name), sorted(names)):
        if attempt.error is not None:
            raise TemporaryError(
                f'who owns account "{attempt.item}" is not known: {attempt.error}'
            ) from attempt.error
        found += attempt.value or ()
    return found


def _used_since_the_order(
    site: Site, contexts: Iterable[OrderContext], taken: Collection[str]
) -> Iterator[Resource]:
    """Terminated resources that had a name after the order that could be given it was placed.

    A resource's usage counts from its order on, by the name of its account: what a predecessor of
    the same name used in between would be billed to both. Only names that follow from the
    project's slug are ever given again, and only those have alternatives.

    Raises:
        TemporaryError: an answer did not come.
    """
    choosing = [context for context in contexts if _has_a_choice(context)]
    rivals = Counter(context.placements[0].id for context in choosing)
    for context in choosing:
        free = 0
        for name in (placement.id for placement in context.placements if placement.id not in taken):
            listing = site.waldur.resources_named(name, (ResourceState.TERMINATED,))
            ended = listing.require_every_page(f'terminated resources named "{name}"')
            used = [
                resource for resource in ended if _ended_after(resource, context.resource.created)
            ]
            yield from used
            free += not used
            if free == rivals[context.placements[0].id]:
                break


def _has_a_choice(context: OrderContext) -> bool:
    """Whether the order is to give its resource one of several names."""
    is_open = context.order.type == OrderType.CREATE and context.problem is None
    return is_open and not context.resource.account and len(context.placements) > 1


def _may_adopt(context: OrderContext, state: BackendState) -> bool:
    """Whether the order might give its resource an account that exists."""
    is_nameless = context.order.type == OrderType.CREATE and not context.resource.account
    return is_nameless and bool(_doubtful_names(context, state))


def _ended_after(resource: Resource, moment: datetime | None) -> bool:
    """Whether it may have; in doubt it has."""
    return moment is None or resource.modified is None or resource.modified >= moment


def _alive(resources: Iterable[Resource]) -> list[Resource]:
    return [resource for resource in resources if resource.state != ResourceState.TERMINATED]


def _doubtful_names(context: OrderContext, state: BackendState) -> set[str]:
    """Accounts that exist and that the order might take over, change for others, or delete."""
    if context.problem is not None or context.order.type == OrderType.UPDATE:
        return set()
    own = context.resource.account
    return ({own} if own else _names_of(context)) & state.resources.keys()


def _names_of(context: OrderContext) -> set[str]:
    return {placement.id for placement in context.placements}


class OrderStatus(enum.Enum):
    """What a cycle made of an order."""

    PLANNED = "planned"
    """Dry run: nothing was done."""
    DONE = "done"
    ERRED = "erred"
    """It will not work, and Waldur knows why: from the agent, or by itself."""
    WAITING = "waiting"
    """Left as it is; the next cycle goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderResult:
    """What became of one order, with the reason where it is not plainly done."""

    order: Order
    status: OrderStatus
    reason: str = ""
    is_trouble: bool = False
    """Whether somebody should look at it; waiting for the next pass by itself is no trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersReport(CycleReport):
    """The outcome of one pass over the orders of an offering."""

    results: tuple[OrderResult, ...] = ()
    plans: tuple[OrderPlan, ...] = ()
    waiting: frozenset[str] = frozenset()
    """Of a dry run: whom the backend could not add yet, of those whom its plans add."""
    last_usage: Mapping[UUID, tuple[Write, ...]] = field(default_factory=dict)
    """Of a dry run: by order, the usage that is reported before it is marked done."""
    snapshot: WaldurSnapshot = field(default_factory=WaldurSnapshot)

    @property
    def has_failures(self) -> bool:
        """Whether some order needs a human or another try."""
        return any(result.is_trouble for result in self.results)


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


def orders_in_scope(
    site: Site, scope_filter: ScopeFilter
) -> tuple[tuple[Order, ...], dict[UUID, str]]:
    """The open orders to look at, and the states of all that were.

    An order in scope that is not in the list of open ones is read by itself, to learn whether it
    is over or not visible yet. What shows as open only then is left out of both: it is taken in
    hand when the list of this very offering has it.

    Raises:
        TemporaryError: Waldur could not be asked.
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
) -> tuple[tuple[Order, ...], tuple[OrderResult, ...]]:
    """Approve what is pending, and read every order by itself before anything is done for it.

    A list may be a moment old: it may show an order as executing that is over, and whose limits
    or whose account are another order's by now. An approval may have been made by somebody else,
    may have got lost on the way, or may leave the order waiting for its start date.

    Returns:
        What is being executed, and the orders that nothing can be done for now, each with why.
    """
    pending = [order for order in orders if order.state == OrderState.PENDING_PROVIDER]
    attempts = concurrently(lambda order: send_write(site, approve_write(order)), pending)
    rejections = {a.item.uuid: a.error for a in attempts if _was_rejected(a.error)}
    executing, results = [], []
    for attempt in concurrently(lambda order: site.waldur.order(order.uuid), orders):
        if attempt.value is None:
            reason = f"order {attempt.item.uuid} could not be read by itself: {attempt.error}"
            results.append(_left_open(attempt.item, reason))
        elif attempt.value.state == OrderState.EXECUTING:
            executing.append(attempt.value)
        elif rejection := rejections.get(attempt.item.uuid):
            reason = f"order {attempt.item.uuid} was not approved: {rejection}"
            results.append(_left_open(attempt.item, reason))
        elif attempt.item.state == OrderState.PENDING_PROVIDER:
            results.append(_not_approved(attempt.value))
    return tuple(executing), tuple(results)


def _left_open(order: Order, reason: str) -> OrderResult:
    return OrderResult(order=order, status=OrderStatus.WAITING, reason=reason, is_trouble=True)


def _not_approved(order: Order) -> OrderResult:
    """An order that was to be approved and is neither pending nor executing, as it stands."""
    text = f"order {order.uuid} was to be approved and is {order.state} in Waldur"
    match order.state:
        case OrderState.ERRED:
            why = order.error_message or "Waldur gives no reason; its log may"
            reason = f"{text}, though not by the agent: {why}"
            return OrderResult(
                order=order, status=OrderStatus.ERRED, reason=reason, is_trouble=True
            )
        case OrderState.DONE:
            return OrderResult(order=order, status=OrderStatus.DONE)
        case OrderState.PENDING_START_DATE:
            when = f" on {order.start_date}" if order.start_date else ""
            reason = f"{text}; Waldur lets it begin{when}"
            return OrderResult(order=order, status=OrderStatus.WAITING, reason=reason)
        case _:
            return _left_open(order, f"{text}; it is looked at again while it is open")


def _was_rejected(error: SiteAgentError | None) -> bool:
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
    early = [
        o
        for o in orders
        if o.uuid in approved and _may_not_be_processing_yet(site, o, own, approved)
    ]
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


def _may_not_be_processing_yet(
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


def order_contexts(
    site: Site,
    orders: Sequence[Order],
    by_uuid: Mapping[UUID, Resource],
    approved: frozenset[UUID],
) -> tuple[OrderContext, ...]:
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
    contexts = []
    for order in (_with_supported_limits(site, order) for order in orders):
        resource = by_uuid.get(order.marketplace_resource_uuid or order.uuid)
        if resource is None:
            continue
        too_early = _may_not_be_processing_yet(site, order, by_uuid, approved)
        context = _order_context(
            site, order, resource, by_project_slug=by_project_slug, wait=too_early
        )
        contexts.append(_with_team(site, context, usernames, teams.get(_team_of(order, resource))))
    return tuple(contexts)


def _with_supported_limits(site: Site, order: Order) -> Order:
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
    site: Site,
    context: OrderContext,
    usernames: dict[UUID, str],
    team: Team | SiteAgentError | None,
) -> OrderContext:
    if (
        team is None
        or context.order.type != OrderType.CREATE
        or context.resource.restrict_member_access
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
        text = f"order {order.uuid}: Waldur has not begun to process it; tried again next time"
        return OrderContext(order=order, resource=resource, problem=TemporaryError(text))
    try:
        placements = _placements(site, order, resource, by_project_slug=by_project_slug)
    except PermanentError as error:
        problem = error if order.type == OrderType.CREATE else None
        return OrderContext(order=order, resource=resource, problem=problem)
    except Exception as error:
        site.log.exception("defect", order=str(order.uuid))
        defect = DefectError(f"order {order.uuid}: {type(error).__name__}: {error}")
        return OrderContext(order=order, resource=resource, problem=defect)
    return OrderContext(order=order, resource=resource, placements=placements)


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
