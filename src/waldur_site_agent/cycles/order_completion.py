"""Tells Waldur what became of orders, once each.

The answer to a state change may get lost although the change was made. To repeat it blindly can
wreck a finished order (servers accept "erred" for an order that is done), so the order is always
read again first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.cycles.order_report import Fate, OrderFate
from waldur_site_agent.cycles.writing import note_write, send_write
from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.model.orders import OrderState
from waldur_site_agent.planning.order_writes import complete_write, fail_write
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    concurrently,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.errors import SiteAgentError
    from waldur_site_agent.model.orders import Order

    Verdict = tuple[Order, SiteAgentError | None]
    """An order and why it cannot be done; ``None`` when it is done."""


_NOT_THE_ORDERS_FAULT = (AccessDeniedError, NotFoundError, AbsentOperationError)
"""What Waldur says about the token or about itself; the order's owner could not mend it."""


def close_orders(site: Site, verdicts: Sequence[Verdict]) -> list[OrderFate]:
    """Give every order the final state it has earned; those in temporary trouble stay open."""
    attempts = concurrently(lambda verdict: _close(site, *verdict), verdicts)
    return [
        attempt.value or _waiting(attempt.item[0], attempt.error or TemporaryError("unknown"))
        for attempt in attempts
    ]


def _close(site: Site, order: Order, error: SiteAgentError | None) -> OrderFate:
    if error is None:
        return _complete(site, order)
    if isinstance(error, PermanentError) and not isinstance(error, _NOT_THE_ORDERS_FAULT):
        return _fail(site, order, error)
    return _waiting(order, error)


def _complete(site: Site, order: Order) -> OrderFate:
    write = complete_write(order)
    try:
        send_write(site, write)
    except (TemporaryError, ConflictError) as error:
        state = site.waldur.order(order.uuid).state
        if state == OrderState.EXECUTING and isinstance(error, TemporaryError):
            send_write(site, write)
        elif state == OrderState.DONE:
            note_write(site, write)  # the answer was lost, or somebody was faster
        else:
            reason = f"order {order.uuid} is {state} in Waldur and was not completed: {error}"
            return OrderFate(order=order, fate=Fate.WAITING, reason=reason, is_trouble=True)
    return OrderFate(order=order, fate=Fate.DONE)


def _fail(site: Site, order: Order, error: PermanentError) -> OrderFate:
    state = site.waldur.order(order.uuid).state
    write = fail_write(order, str(error))
    if state == OrderState.EXECUTING:
        try:
            send_write(site, write)
        except TemporaryError:
            state = site.waldur.order(order.uuid).state
            if state == OrderState.EXECUTING:
                send_write(site, write)
    elif state != OrderState.ERRED:
        reason = f"order {order.uuid} is {state} in Waldur, so it was not marked erred: {error}"
        return OrderFate(order=order, fate=Fate.WAITING, reason=reason, is_trouble=True)
    return OrderFate(order=order, fate=Fate.ERRED, reason=str(error), is_trouble=True)


def _waiting(order: Order, error: SiteAgentError) -> OrderFate:
    return OrderFate(order=order, fate=Fate.WAITING, reason=str(error), is_trouble=True)
