"""Waldur's API: orders, from the provider's side."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from waldur_site_agent_sandbox import rendering, rules, states
from waldur_site_agent_sandbox.http import (
    Call,
    Filter,
    JsonResponse,
    Operation,
    Orderings,
    arrange,
    by_choice,
    by_text,
    by_time,
    by_uuid,
    choose_fields,
    empty_response,
    invalid,
    method_not_allowed,
    not_found,
    page_answer,
    select,
)
from waldur_site_agent_sandbox.records import Order
from waldur_site_agent_sandbox.rules import Visibility

_PATH = "marketplace-orders/"
_AGENT_TYPES = frozenset({"Marketplace.Slurm", "Marketplace.SiteAgent"})
_ORDERINGS: Orderings[Order] = {
    "created": lambda order: str(rendering.timestamp(order.created)),
    "state": lambda order: order.state,
    "cost": lambda _order: "",
    "consumer_reviewed_at": lambda _order: "",
}


def _visible(visibility: Visibility, order: Order) -> bool:
    return visibility.as_provider(order.offering) or visibility.as_consumer(order.project)


def _filters(call: Call) -> list[Filter[Order]]:
    world = call.tx.world
    return [
        by_uuid("offering_uuid", lambda order: order.offering),
        by_uuid("project_uuid", lambda order: order.project),
        by_uuid("resource_uuid", lambda order: order.resource),
        by_uuid("customer_uuid", lambda order: world.projects[order.project].customer),
        by_uuid("provider_uuid", lambda order: world.offerings[order.offering].customer),
        by_choice("state", states.ORDER_STATES, lambda order: order.state),
        by_choice("type", states.ORDER_TYPES, lambda order: order.type),
        by_time("created", lambda order: order.created),
        by_time("modified", lambda order: order.modified),
        by_text("query", lambda o, text: text in {o.uuid, world.projects[o.project].name}),
    ]


def _list(call: Call) -> Response:
    visibility = rules.visibility_of(call.tx, call.user)
    visible = [order for order in call.tx.world.orders.values() if _visible(visibility, order)]
    rows = select(call, visible, _filters(call))
    rows = arrange(call, rows, _ORDERINGS, "created")
    return page_answer(call, rows, lambda row: rendering.order(call.tx, row, call.api))


def _order(call: Call) -> Order:
    order = call.tx.world.orders.get(call.uuid())
    if order is None or not _visible(rules.visibility_of(call.tx, call.user), order):
        raise not_found()
    return order


def _retrieve(call: Call) -> Response:
    whole = rendering.order(call.tx, _order(call), call.api)
    return JsonResponse(choose_fields(call, whole))


def _approved(call: Call, words: str) -> Response:
    kind = call.tx.generation.approve_answer
    if kind == "empty":
        return empty_response()
    return JsonResponse({"detail": words} if kind == "detail" else words)


def _authorized(call: Call, right: str, scopes: frozenset[str] = rules.CUSTOMER) -> Order:
    order = _order(call)
    offering = call.tx.world.offerings[order.offering]
    rules.require(call.tx, call.user, right, offering, scopes)
    return order


def _approve(call: Call) -> Response:
    order = _authorized(call, rules.APPROVE_ORDER)
    attributes = call.fields.get("attributes", {})
    if not isinstance(attributes, dict):
        raise invalid({"attributes": ["Expected a dictionary."]})
    takes_body = call.tx.generation.approve_answer == "detail"
    return _approved(call, states.approve(call.tx, order, attributes if takes_body else {}))


def _reject(call: Call) -> Response:
    order = _authorized(call, rules.REJECT_ORDER)
    comment = str(call.fields.get("provider_rejection_comment", ""))
    states.reject(call.tx, order, comment)
    return empty_response()


def _for_agents(call: Call) -> Order:
    """Return the order if its offering has a type that agents serve."""
    newer = call.tx.generation.accepts_offering_scope
    scopes = rules.OFFERING_OR_CUSTOMER if newer else rules.CUSTOMER
    order = _authorized(call, rules.APPROVE_ORDER, scopes)
    if call.tx.world.offerings[order.offering].type not in _AGENT_TYPES:
        raise method_not_allowed("POST")
    return order


def _set_executing(call: Call) -> Response:
    states.set_executing(call.tx, _for_agents(call))
    return empty_response()


def _set_done(call: Call) -> Response:
    states.set_done(call.tx, _for_agents(call))
    return empty_response()


def _set_erred(call: Call) -> Response:
    order = _for_agents(call)
    message = states.require_text(call.fields, "error_message")
    traceback = states.require_text(call.fields, "error_traceback")
    states.set_erred(call.tx, order, message, traceback)
    return empty_response()


def _retry(call: Call) -> Response:
    states.retry(call.tx, _for_agents(call))
    return empty_response()


def _set_backend_id(call: Call) -> Response:
    order = _authorized(call, rules.SET_BACKEND_ID, rules.OFFERING_OR_CUSTOMER)
    backend_id = str(states.required(call.fields, "backend_id"))
    if backend_id == order.backend_id:
        return JsonResponse({"status": "Order backend_id is not changed."})
    states.set_order(call.tx, order, backend_id=backend_id)
    return JsonResponse({"status": "Order backend_id has been changed."})


def _action(name: str, run: Callable[[Call], Response], since: tuple[int, ...] = ()) -> Operation:
    return Operation(
        f"marketplace_orders_{name}", "POST", f"{_PATH}{{uuid}}/{name}/", run, since=since
    )


OPERATIONS = (
    Operation("marketplace_orders_list", "GET", _PATH, _list),
    Operation("marketplace_orders_retrieve", "GET", f"{_PATH}{{uuid}}/", _retrieve),
    _action("approve_by_provider", _approve),
    _action("reject_by_provider", _reject),
    _action("set_state_executing", _set_executing),
    _action("set_state_done", _set_done),
    _action("set_state_erred", _set_erred),
    _action("retry", _retry, since=(8, 0, 7)),
    _action("set_backend_id", _set_backend_id, since=(7, 8, 5)),
)
