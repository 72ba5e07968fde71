"""What Waldur is told about orders, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.orders import OrderState, OrderType
from waldur_site_agent.planning.writes import Call, Change, Write, backend_id_write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from waldur_site_agent.model.orders import Order
    from waldur_site_agent.planning.orders import OrderPlan


def order_writes(plan: OrderPlan, last_usage: Iterable[Write] = ()) -> tuple[Write, ...]:
    """What is written about an order if every step of its plan goes well, in this order.

    ``last_usage`` is what is reported of a resource that ends, before its order is done.
    """
    writes = []
    if plan.order.state == OrderState.PENDING_PROVIDER:
        writes.append(approve_write(plan.order))
    if plan.order.type == OrderType.CREATE and plan.problem is None and plan.needs_backend_id:
        writes.append(backend_id_write(plan.hand.resource, plan.backend_id))
    writes += last_usage
    problem = plan.problem or plan.unfinished
    if problem is None:
        writes.append(complete_write(plan.order))
    elif isinstance(problem, PermanentError):
        writes.append(fail_write(plan.order, str(problem)))
    return tuple(writes)


def approve_write(order: Order) -> Write:
    """Take an order in hand."""
    return _state(order, Call.APPROVE_ORDER, order.state, OrderState.EXECUTING)


def complete_write(order: Order) -> Write:
    """Mark an order as done."""
    return _state(order, Call.COMPLETE_ORDER, OrderState.EXECUTING, OrderState.DONE)


def fail_write(order: Order, message: str) -> Write:
    """Mark an order as erred, with the reason for its owner."""
    return _state(order, Call.FAIL_ORDER, OrderState.EXECUTING, OrderState.ERRED, message)


def _state(order: Order, call: Call, old: str, new: str, reason: str = "") -> Write:
    return Write(
        call=call,
        uuid=order.uuid,
        about=order.resource_name or str(order.uuid),
        changes=(Change("order", old, new),),
        reason=reason or f"{order.type} order {order.uuid}",
        value=reason or None,
    )
