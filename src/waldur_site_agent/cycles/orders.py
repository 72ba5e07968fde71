"""order_process: one pass over the orders of an offering."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import CreateResource, DeleteResource, Result
from waldur_site_agent.cycles.order_completion import close_orders
from waldur_site_agent.cycles.order_gathering import (
    approve_pending,
    claims_on,
    open_orders,
    orders_in_hand,
    resources_of,
)
from waldur_site_agent.cycles.order_report import Fate, OrderFate, OrdersReport
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.orders import OrderState, OrderType
from waldur_site_agent.planning.guard import guard
from waldur_site_agent.planning.orders import backend_plan, plan_orders
from waldur_site_agent.waldur import AccessDeniedError, concurrently

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from waldur_site_agent.backends import Action, BackendState, Outcome
    from waldur_site_agent.cycles.order_completion import Verdict
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.errors import SiteAgentError
    from waldur_site_agent.model.orders import Order
    from waldur_site_agent.planning.guard import Guarded
    from waldur_site_agent.planning.orders import OrderPlan

    Errors = dict[UUID, SiteAgentError]
    """By order, the first thing that went wrong."""


def process_orders(site: Site, *, dry_run: bool = False) -> OrdersReport:
    """Carry out every order that waits for the provider.

    Raises:
        TemporaryError: one side could not be read; every order was left as it is.
    """
    seen = open_orders(site)
    if not seen:
        return OrdersReport(offering=site.offering.name)
    state = site.backend.observe()
    if dry_run:
        plans, _ = _decide(site, seen, frozenset(), state)
        return OrdersReport(offering=site.offering.name, plans=plans, fates=_foreseen(plans))
    orders = approve_pending(site, seen)
    approved = frozenset(o.uuid for o in seen if o.state == OrderState.PENDING_PROVIDER)
    plans, waiting = _decide(site, orders, approved, state)
    allowed = _guarded(site, plans, state)
    errors = _carry_out(site, plans, allowed)
    fates = close_orders(site, [_verdict(plan, errors) for plan in plans])
    report = OrdersReport(
        offering=site.offering.name,
        fates=(*fates, *waiting),
        plans=plans,
        refused=allowed.refused,
        refusal=allowed.reason,
    )
    _log(site, report)
    return report


def _decide(
    site: Site, orders: Sequence[Order], approved: frozenset[UUID], state: BackendState
) -> tuple[tuple[OrderPlan, ...], list[OrderFate]]:
    """The plans, and the orders that nothing can be planned for yet."""
    if not orders:
        return (), []
    resources = resources_of(site, orders, approved)
    hands = orders_in_hand(site, orders, resources, approved)
    known = [hand for hand in hands if hand.order.type in _KNOWN_TYPES]
    claims = claims_on(site, known, resources, state)
    plans = plan_orders(known, state, claims, site.offering.components)
    decided = {hand.order.uuid for hand in known}
    return plans, [_not_yet(order) for order in orders if order.uuid not in decided]


_KNOWN_TYPES = (OrderType.CREATE, OrderType.UPDATE, OrderType.TERMINATE)


def _not_yet(order: Order) -> OrderFate:
    if order.type not in _KNOWN_TYPES:
        reason = (
            f'order {order.uuid} of type "{order.type}" is not known to this version of the '
            "agent and was left alone; upgrade the agent or complete the order by hand"
        )
    else:
        reason = f"order {order.uuid}: Waldur does not show its resource yet"
    return OrderFate(order=order, fate=Fate.WAITING, reason=reason, is_trouble=True)


def _guarded(site: Site, plans: Iterable[OrderPlan], state: BackendState) -> Guarded:
    plans = tuple(plans)
    members = sum(len(resource.members) for resource in state.resources.values())
    terminations = sum(plan.order.type == OrderType.TERMINATE for plan in plans)
    return guard(backend_plan(plans), members, terminations, site.thresholds)


def _carry_out(site: Site, plans: Sequence[OrderPlan], allowed: Guarded) -> Errors:
    """Make what is new, tell Waldur its name, and only then do all the rest.

    Waldur must know the name before anything else can fail: a resource without a name is given
    up by Waldur when its order fails, and its account would stay behind.
    """
    errors: Errors = {}
    orders = {id(step.action): step.order for step in allowed.allowed.steps if step.order}
    for step in allowed.refused.steps:
        if step.order:
            errors[step.order] = TemporaryError(f"refused: {allowed.reason}")
    actions = allowed.allowed.actions
    creations = [action for action in actions if isinstance(action, CreateResource)]
    others = [action for action in actions if not isinstance(action, CreateResource)]
    _apply(site, creations, orders, errors)
    _name_resources(site, plans, errors)
    _apply(site, [a for a in others if orders[id(a)] not in errors], orders, errors)
    return errors


def _apply(site: Site, actions: Sequence[Action], orders: dict[int, UUID], errors: Errors) -> None:
    if not actions:
        return
    if site.stopping():
        for action in actions:
            errors.setdefault(orders[id(action)], TemporaryError("the agent is stopping"))
        return
    for outcome in site.backend.apply(actions):
        order = orders[id(outcome.action)]
        _log_outcome(site, order, outcome)
        if outcome.error is not None:
            errors.setdefault(order, outcome.error)


def _log_outcome(site: Site, order: UUID, outcome: Outcome) -> None:
    log = site.log.bind(
        order=str(order),
        action=type(outcome.action).__name__,
        resource=getattr(outcome.action, "resource", ""),
    )
    for left_out in outcome.left_out:
        log.warning("member left out", member=left_out.name, reason=str(left_out.error))
    if outcome.result is Result.FAILED:
        log.warning("action failed", reason=str(outcome.error))
    else:
        members = list(getattr(outcome.action, "members", ()))
        served = [m for m in members if m not in {left.name for left in outcome.left_out}]
        details = {"members": served} if members else {}
        log.info("action applied", result=outcome.result.value, **details)


def _name_resources(site: Site, plans: Sequence[OrderPlan], errors: Errors) -> None:
    unnamed = [
        plan
        for plan in plans
        if plan.order.type == OrderType.CREATE
        and plan.problem is None
        and plan.needs_backend_id
        and plan.order.uuid not in errors
    ]
    attempts = concurrently(
        lambda plan: site.waldur.set_backend_id(plan.hand.resource.uuid, plan.backend_id), unnamed
    )
    for attempt in attempts:
        if attempt.error is not None:
            site.log.warning(
                "account made, but Waldur did not take its name",
                order=str(attempt.item.order.uuid),
                account=attempt.item.backend_id,
                reason=str(attempt.error),
            )
            errors[attempt.item.order.uuid] = attempt.error


def _verdict(plan: OrderPlan, errors: Errors) -> Verdict:
    error = plan.problem or errors.get(plan.order.uuid) or plan.unfinished
    return plan.order, error


def _foreseen(plans: Iterable[OrderPlan]) -> tuple[OrderFate, ...]:
    return tuple(
        OrderFate(
            order=plan.order,
            fate=Fate.PLANNED,
            reason=str(plan.problem or plan.unfinished or plan.note or ""),
            is_trouble=plan.problem is not None,
        )
        for plan in plans
    )


def _log(site: Site, report: OrdersReport) -> None:
    for fate in report.fates:
        log = site.log.bind(
            order=str(fate.order.uuid), type=fate.order.type, resource=fate.order.resource_name
        )
        match fate.fate:
            case Fate.DONE:
                log.info("order done")
            case Fate.ERRED:
                log.error("order erred", reason=fate.reason)
            case _:
                log.warning("order left for the next pass", reason=fate.reason)
    if report.refusal:
        log = site.log.bind(accounts=[_subject(action) for action in report.refused.actions])
        log.error("removals refused", reason=report.refusal)


def _subject(action: Action) -> str:
    return action.resource if isinstance(action, DeleteResource) else str(action)


def repair_stuck_updates(site: Site) -> int:
    """Set resources OK that are Updating although no order is in progress; return how many.

    On some servers the task that marks a resource as Updating may run after the order was
    completed; the resource would then stay Updating for ever and refuse every further order.
    """
    uuid = site.offering.waldur_offering_uuid
    listing = site.waldur.resources(uuid, ("Updating",), with_order_in_progress=True)
    stuck = [r for r in listing.items if r.order_in_progress is None]
    if not stuck:
        return 0
    busy = {order.marketplace_resource_uuid for order in open_orders(site)}
    repaired = 0
    for resource in stuck:
        if resource.uuid in busy:
            continue
        try:
            site.waldur.set_as_ok(resource.uuid)
        except AccessDeniedError as error:
            site.log.warning("stuck resource not set OK", resource=resource.name, reason=str(error))
        else:
            repaired += 1
            site.log.info("resource was left Updating; set OK", resource=resource.name)
    return repaired
