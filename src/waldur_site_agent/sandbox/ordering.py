"""The buyer's rules: what may be ordered, and what an order does to a resource at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.sandbox import states
from waldur_site_agent.sandbox.answers import RefusedError, invalid, wrong_state
from waldur_site_agent.sandbox.records import Order, Resource
from waldur_site_agent.sandbox.slugs import new_slug

if TYPE_CHECKING:
    from datetime import date

    from waldur_site_agent.sandbox.records import JsonObject, Offering, Project
    from waldur_site_agent.sandbox.store import Transaction


def place_create(
    tx: Transaction,
    offering: Offering,
    project: Project,
    name: str,
    *,
    limits: JsonObject,
    attributes: JsonObject,
    start_date: date | None,
    state: str,
) -> Order:
    """Order a new resource; it exists from now on, in state Creating.

    Raises:
        RefusedError: 400 for a limit that the offering does not have.
    """
    _check_limits(offering, limits)
    resource = Resource(
        uuid=tx.new_uuid(),
        created=tx.now,
        modified=tx.now,
        name=name,
        slug=new_slug(name, (row.slug for row in tx.world.resources.values())),
        offering=offering.uuid,
        project=project.uuid,
        state="Creating",
        limits=limits,
        attributes={"name": name, **attributes},
    )
    tx.world.put(resource)
    return _place(tx, resource, "Create", state, limits, resource.attributes, start_date)


def place_update(
    tx: Transaction,
    resource: Resource,
    limits: JsonObject,
    *,
    attributes: JsonObject,
    start_date: date | None,
    state: str,
) -> Order:
    """Order other limits. The resource keeps the old ones until the order is done.

    Raises:
        RefusedError: 409 where the resource is not OK; 400 where another order is open, where
            nothing would change, or for a limit that the offering does not have.
    """
    if resource.state != "OK":
        raise wrong_state("OK")
    if tx.world.order_in_progress(resource.uuid):
        raise states.pending_order_exists()
    _check_limits(tx.world.offerings[resource.offering], limits)
    if limits == resource.limits:
        raise invalid(["New limits are the same as the current ones."])
    old: JsonObject = {"old_limits": resource.limits} if limits else {}
    return _place(tx, resource, "Update", state, limits, {**old, **attributes}, start_date)


def place_terminate(
    tx: Transaction, resource: Resource, *, attributes: JsonObject, state: str
) -> Order:
    """Order the end of a resource.

    Raises:
        RefusedError: 409 where it is neither OK nor Erred; 400 where another order is open.
    """
    if resource.state not in {"OK", "Erred"}:
        raise wrong_state("OK", "Erred")
    if tx.world.order_in_progress(resource.uuid):
        raise states.pending_order_exists()
    return _place(tx, resource, "Terminate", state, {}, attributes, None)


def approve_as_consumer(tx: Transaction, order: Order) -> Order:
    """Pass an order on to the provider.

    Raises:
        RefusedError: 409 where it is not waiting for that.
    """
    if order.state != "pending-consumer":
        raise wrong_state("pending-consumer")
    return _show_provider(tx, states.set_order(tx, order, state="pending-provider"))


def withdraw(tx: Transaction, order: Order) -> None:
    """Delete an order that nobody works on yet; its resource is left behind as it is.

    Raises:
        RefusedError: 409 where it is too late.
    """
    if not order.state.startswith("pending-"):
        raise wrong_state("pending-consumer", "pending-provider")
    tx.world.remove(order)


def _place(
    tx: Transaction,
    resource: Resource,
    kind: str,
    state: str,
    limits: JsonObject,
    attributes: JsonObject,
    start_date: date | None,
) -> Order:
    order = Order(
        uuid=tx.new_uuid(),
        created=tx.now,
        modified=tx.now,
        type=kind,
        state=state,
        offering=resource.offering,
        project=resource.project,
        resource=resource.uuid,
        limits=limits,
        attributes=attributes,
        start_date=start_date,
    )
    tx.world.put(order)
    marks = tx.generation.marks_resource_when_ordered and resource.state != "Erred"
    if marks and kind != "Create":
        tx.world.put(replace(resource, state=states.IN_WORK[kind], modified=tx.now))
    return _show_provider(tx, order)


def _show_provider(tx: Transaction, order: Order) -> Order:
    ready = order.type == "Create" and order.state == "pending-provider"
    if ready and tx.generation.names_members_when_ordered:
        states.put_off(tx, "name_members", order.resource)
    return order


def _check_limits(offering: Offering, limits: JsonObject) -> None:
    unknown = sorted(set(limits) - offering.limit_types)
    if unknown:
        raise RefusedError(400, {"limits": [f"Invalid components: {', '.join(unknown)}."]})
