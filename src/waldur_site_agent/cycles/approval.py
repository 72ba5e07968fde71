"""Decides on pending orders: approves them, rejects them with a reason, or leaves them pending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from waldur_site_agent.backends import Decision
from waldur_site_agent.cycles.changes import send_write
from waldur_site_agent.cycles.facts import facts_of_orders
from waldur_site_agent.cycles.order_inputs import OrderResult, OrderStatus, read_one_by_one
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.backend import ResourceFacts
from waldur_site_agent.model.errors import DefectError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import Order, OrderState, Resource, uuid_from_url
from waldur_site_agent.planning.orders import approve_write, reject_write
from waldur_site_agent.planning.plan import Write
from waldur_site_agent.waldur import ConflictError, concurrently


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What is to happen to the open orders, before any of them is carried out."""

    accepted: tuple[Order, ...]
    """Orders that are executing already, or are to be approved."""
    rejected: Mapping[UUID, tuple[Order, str]]
    """Orders to be rejected, with the reason."""
    left: tuple[OrderResult, ...] = ()
    """Orders that stay pending and need somebody, or another pass."""

    @property
    def rejections(self) -> tuple[Write, ...]:
        """The rejections as changes in Waldur."""
        return tuple(reject_write(order, reason) for order, reason in self.rejected.values())


def decide(site: Site, orders: Sequence[Order]) -> Decisions:
    """Decide on every pending order; nothing is changed in Waldur.

    Raises:
        TemporaryError: a resource could not be read; the backend decides in the next pass.
    """
    rule = site.offering.approve_orders
    pending = [order for order in orders if order.state == OrderState.PENDING_PROVIDER]
    if rule == "always" or not pending:
        return Decisions(accepted=tuple(orders), rejected={})
    running = tuple(order for order in orders if order.state != OrderState.PENDING_PROVIDER)
    if rule == "never":
        for order in pending:
            site.conditions.note(
                "order waits for its approval in Waldur", _named(order), order=str(order.uuid)
            )
        return Decisions(accepted=running, rejected={})
    accepted, rejected, left = [*running], {}, []
    facts = facts_of_orders(site, pending, read_one_by_one(site, pending))
    for order in pending:
        try:
            decision = _decision(site, order, facts.get(order.uuid))
        except SiteAgentError as error:
            left.append(_left_open(order, f"{_named(order)}: no decision on it: {error}"))
            continue
        if decision.rejection:
            rejected[order.uuid] = (order, decision.rejection)
        elif decision.waiting_for:
            reason = f"{_named(order)} is not approved yet: {decision.waiting_for}"
            left.append(OrderResult(order=order, status=OrderStatus.WAITING, reason=reason))
        else:
            accepted.append(order)
    return Decisions(accepted=tuple(accepted), rejected=rejected, left=tuple(left))


def _decision(site: Site, order: Order, facts: ResourceFacts | None) -> Decision:
    """What the backend decides on one order.

    Raises:
        TemporaryError: its resource could not be read, or the backend does not know yet.
        DefectError: the backend failed in an unexpected way.
    """
    if facts is None:
        raise TemporaryError("its resource could not be read")
    try:
        return site.backend.decide(order, facts)
    except SiteAgentError:
        raise
    except Exception as error:
        site.log.exception("defect", order=str(order.uuid))
        raise DefectError(f"{type(error).__name__}: {error}") from error


def reject(site: Site, decisions: Decisions) -> tuple[OrderResult, ...]:
    """Reject orders in Waldur. One that is no longer pending was decided on by somebody else."""
    attempts = concurrently(
        lambda pair: send_write(site, reject_write(*pair)), list(decisions.rejected.values())
    )
    results = []
    for attempt in attempts:
        order, reason = attempt.item
        if attempt.error is None:
            site.log.info("order rejected", order=str(order.uuid), type=order.type, reason=reason)
            results.append(OrderResult(order=order, status=OrderStatus.REJECTED, reason=reason))
        elif not isinstance(attempt.error, ConflictError):
            results.append(_left_open(order, f"{_named(order)} was not rejected: {attempt.error}"))
    return tuple(results)


def _named(order: Order) -> str:
    return f"order {order.uuid}"


def approve_pending(
    site: Site, orders: Sequence[Order], resources: Mapping[UUID, Resource]
) -> tuple[tuple[Order, ...], tuple[OrderResult, ...]]:
    """Approve pending orders, and make sure of every order by an individual read.

    A list may be outdated: it may show an order as executing that has ended, and whose limits or
    account belong to a later order by now. Somebody else may have approved the order, the
    approval may have got lost, or it may leave the order waiting for its start date. A resource
    of ``resources``, which were read individually, that shows the order as executing is enough.

    Returns:
        The executing orders, and results for those that cannot be processed now.
    """
    pending = [order for order in orders if order.state == OrderState.PENDING_PROVIDER]
    attempts = concurrently(lambda order: send_write(site, approve_write(order)), pending)
    rejections = {a.item.uuid: a.error for a in attempts if _was_rejected(a.error)}
    executing = [order for order in orders if _is_executing(order, resources)]
    results = []
    doubtful = [order for order in orders if order not in executing]
    for attempt in concurrently(lambda order: site.waldur.order(order.uuid), doubtful):
        if attempt.value is None:
            reason = f"order {attempt.item.uuid} could not be read: {attempt.error}"
            results.append(_left_open(attempt.item, reason))
        elif attempt.value.state == OrderState.EXECUTING:
            executing.append(attempt.value)
        elif rejection := rejections.get(attempt.item.uuid):
            reason = f"order {attempt.item.uuid} was not approved: {rejection}"
            results.append(_left_open(attempt.item, reason))
        elif attempt.item.state == OrderState.PENDING_PROVIDER:
            results.append(_not_approved(attempt.value))
    return tuple(executing), tuple(results)


def _is_executing(order: Order, resources: Mapping[UUID, Resource]) -> bool:
    """Whether the order's resource, read individually, shows it as executing."""
    resource = order.resource_in(resources)
    shown = (resource.order_in_progress if resource is not None else None) or {}
    is_the_same = uuid_from_url(str(shown.get("uuid", ""))) == order.uuid
    return is_the_same and order.state == shown.get("state") == OrderState.EXECUTING


def _left_open(order: Order, reason: str) -> OrderResult:
    return OrderResult(order=order, status=OrderStatus.WAITING, reason=reason, is_trouble=True)


def _not_approved(order: Order) -> OrderResult:
    """The result of an order that is neither pending nor executing after the approval."""
    text = f"order {order.uuid} should have been approved, but is {order.state} in Waldur"
    match order.state:
        case OrderState.ERRED:
            why = order.error_message or "Waldur gives no reason; see its log"
            reason = f"{text}, not set by the agent: {why}"
            return OrderResult(
                order=order, status=OrderStatus.ERRED, reason=reason, is_trouble=True
            )
        case OrderState.DONE:
            return OrderResult(order=order, status=OrderStatus.DONE)
        case OrderState.PENDING_START_DATE:
            when = f" on {order.start_date}" if order.start_date else ""
            reason = f"{text}; Waldur starts it{when}"
            return OrderResult(order=order, status=OrderStatus.WAITING, reason=reason)
        case _:
            return _left_open(order, f"{text}; retried while it is open")


def _was_rejected(error: SiteAgentError | None) -> bool:
    """Whether the approval was rejected; a conflict means that somebody else approved it."""
    return error is not None and not isinstance(error, ConflictError)
