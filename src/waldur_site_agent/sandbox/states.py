"""The life of orders and resources: what each call does to both."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from waldur_site_agent.sandbox.answers import RefusedError, invalid, server_bug, wrong_state
from waldur_site_agent.sandbox.records import Task

if TYPE_CHECKING:
    from pydantic import JsonValue

    from waldur_site_agent.sandbox.records import JsonObject, Order, Resource
    from waldur_site_agent.sandbox.store import Transaction

ORDER_STATES = (
    "pending-consumer",
    "pending-provider",
    "pending-project",
    "pending-start-date",
    "executing",
    "done",
    "erred",
    "canceled",
    "rejected",
)
ORDER_TYPES = ("Create", "Update", "Terminate", "Restore")
RESOURCE_STATES = ("Creating", "OK", "Erred", "Updating", "Terminating", "Terminated")

IN_WORK = {"Create": "Creating", "Update": "Updating", "Terminate": "Terminating"}
"""The state of a resource while an order of this type is carried out."""


def approve(tx: Transaction, order: Order, attributes: JsonObject) -> str:
    """Accept an order for the provider: it is executing at once, or waits for its start date.

    Returns:
        What the server says about it.

    Raises:
        RefusedError: 409 where it is not pending-provider, 400 where the buyer may not buy.
    """
    _require_state(order, "pending-provider")
    project = tx.world.projects[order.project]
    if project.end_date is not None and project.end_date < tx.now.date():
        raise invalid([f"Project '{project.name}' is expired."])
    if tx.world.customers[project.customer].blocked:
        raise invalid(["Blocked organization is not available."])
    waits = order.start_date is not None and order.start_date > tx.now.date()
    if waits and tx.generation.waits_for_start_date:
        set_order(tx, order, state="pending-start-date")
        return "Order is pending start date."
    if order.fails_at_approval:
        set_order(tx, order, state="erred", error_message=order.fails_at_approval)
    else:
        start(tx, replace(order, attributes={**order.attributes, **attributes}))
    return "Order has been approved and is being processed."


def start(tx: Transaction, order: Order) -> None:
    """Begin to carry an order out; part of it happens in a task, a little later."""
    order = set_order(tx, order, state="executing")
    if not tx.generation.marks_resource_when_ordered:
        put_off(tx, "process_order", order.uuid)
    if order.type == "Create" and tx.generation.names_members_when_ordered:
        put_off(tx, "name_members", order.resource)


def reject(tx: Transaction, order: Order, comment: str) -> None:
    """Refuse an order for the provider: a resource to be made is gone, another one is OK again.

    Raises:
        RefusedError: 409 where it is not pending-provider.
    """
    _require_state(order, "pending-provider")
    set_order(tx, order, state="rejected", provider_rejection_comment=comment)
    resource = tx.world.resources[order.resource]
    if order.type == "Create":
        set_resource(tx, resource, state="Terminated")
    elif resource.state == IN_WORK.get(order.type):
        set_resource(tx, resource, state="OK")


def set_executing(tx: Transaction, order: Order) -> None:
    """Take an order up again, or for the first time without a review.

    Raises:
        RefusedError: 409 in any other state.
    """
    _require_state(order, "pending-consumer", "pending-provider", "erred")
    set_order(tx, order, state="executing")


def retry(tx: Transaction, order: Order) -> None:
    """Take an erred order up again, its resource with it.

    Raises:
        RefusedError: 409 where it is not erred.
    """
    _require_state(order, "erred")
    set_order(tx, order, state="executing", error_message="", error_traceback="")
    resource = tx.world.resources[order.resource]
    set_resource(tx, resource, state=IN_WORK.get(order.type, resource.state))


def set_done(tx: Transaction, order: Order) -> None:
    """Finish an order: its resource is as ordered.

    Raises:
        RefusedError: 409 where it is not executing; 500 where an update meets a limit of a
            component without limits, for which Waldur's message to the customer has no name, or
            one of a component for which the plan has no price.
    """
    _require_state(order, "executing")
    resource = tx.world.resources[order.resource]
    if order.type == "Update":
        offering = tx.world.offerings[order.offering]
        limited = {*resource.limits, *order.limits}
        if limited - offering.limit_types or limited & offering.unpriced_limit_types:
            raise server_bug()
        set_resource(tx, resource, state="OK", limits=order.limits or resource.limits)
    elif order.type == "Terminate":
        set_resource(tx, resource, state="Terminated")
    else:
        set_resource(tx, resource, state="OK")
        put_off(tx, "name_members", resource.uuid)
    set_order(tx, order, state="done", completed_at=tx.now)


def set_erred(tx: Transaction, order: Order, message: str, traceback: str) -> None:
    """Report that an order failed. There is no check of the order's state.

    Raises:
        RefusedError: 500 where a terminated resource would have to come back to life.
    """
    resource = tx.world.resources[order.resource]
    falls = tx.generation.errs_orders_in_any_state or order.state == "executing"
    state = "erred" if falls else order.state
    set_order(tx, order, state=state, error_message=message, error_traceback=traceback)
    never_made = (
        tx.generation.errs_orders_in_any_state
        and order.type == "Create"
        and resource.state == "Creating"
        and not resource.backend_id
    )
    if never_made:
        set_resource(tx, resource, state="Terminated")
    elif order.type == "Terminate":
        set_resource_ok(tx, resource)
    else:
        set_resource(tx, resource, state="Erred")


def set_resource_ok(tx: Transaction, resource: Resource) -> None:
    """Declare a resource healthy and forget its error.

    Raises:
        RefusedError: 500 where it is terminated.
    """
    if resource.state == "Terminated":
        raise server_bug()
    if resource.state != "OK":
        set_resource(tx, resource, state="OK", error_message="", error_traceback="")


def limits_under_policy(tx: Transaction, resource: Resource, wanted: JsonObject) -> JsonObject:
    """What becomes of limits that the provider sets: a policy's own stay as they are, silently."""
    offering = tx.world.offerings[resource.offering]
    if not (tx.generation.drops_limits_under_policy and tx.world.policies_of(offering.uuid)):
        return wanted
    owned = {name: each for name, each in resource.limits.items() if name in offering.limit_types}
    free = {name: each for name, each in wanted.items() if name not in offering.limit_types}
    return {**owned, **free}


def process(tx: Transaction, order: Order) -> None:
    """Do what an old server does some time after an approval, without a look at the order."""
    resource = tx.world.resources[order.resource]
    target = IN_WORK.get(order.type)
    if target is None or order.type == "Create":
        return
    if resource.state == "Terminated":
        message = f"Can't switch from state 'Terminated' to '{target}'"
        set_order(tx, order, state="erred", error_message=message)
    else:
        set_resource(tx, resource, state=target)


def put_off(tx: Transaction, kind: str, subject: str) -> None:
    """Leave something to the worker."""
    tx.world.put(Task(uuid=tx.new_uuid(), created=tx.now, kind=kind, subject=subject))


def set_order(tx: Transaction, order: Order, **changes: object) -> Order:
    """Store a changed order."""
    changed = replace(order, modified=tx.now, **changes)  # type: ignore[arg-type]  # field names
    tx.world.put(changed)
    return changed


def set_resource(tx: Transaction, resource: Resource, **changes: object) -> Resource:
    """Store a changed resource."""
    changed = replace(resource, modified=tx.now, **changes)  # type: ignore[arg-type]  # field names
    tx.world.put(changed)
    return changed


def require_text(fields: JsonObject, name: str) -> str:
    """Give a text that the server takes for granted.

    Raises:
        RefusedError: 500 where it is missing.
    """
    if name not in fields:
        raise server_bug()
    return str(fields[name])


def required(fields: JsonObject, name: str) -> JsonValue:
    """Give a value that must be there.

    Raises:
        RefusedError: 400 that names it.
    """
    if name not in fields:
        raise invalid({name: ["This field is required."]})
    if fields[name] is None:
        raise invalid({name: ["This field may not be null."]})
    return fields[name]


def _require_state(order: Order, *valid: str) -> None:
    if order.state not in valid:
        raise wrong_state(*valid)


def pending_order_exists() -> RefusedError:
    """400: one order at a time."""
    return RefusedError(HTTPStatus.BAD_REQUEST, ["Pending order for resource already exists."])
