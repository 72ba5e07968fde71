"""What agents are told of orders and resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.sandbox.events.occurrences import Occurrence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waldur_site_agent.sandbox.records import JsonObject, Order, Resource
    from waldur_site_agent.sandbox.store import Transaction

_OLD_ORDER_STATES = frozenset({"pending-provider", "pending-consumer", "done"})


def offerings_of(tx: Transaction, project: str) -> list[str]:
    """Give the offerings whose agents hear of a project's people and accounts."""
    older = not tx.generation.tells_roles_of_live_resources
    found = (
        row.offering
        for row in tx.world.resources.values()
        if row.project == project and (row.state == "OK" if older else row.state != "Terminated")
    )
    return list(dict.fromkeys(found))


def of_order(tx: Transaction, old: Order | None, new: Order | None) -> Iterator[Occurrence]:
    """Tell of an order's new state; older servers leave some states out."""
    if new is None or (old is not None and old.state == new.state):
        return
    if tx.generation.tells_every_order_state or new.state in _OLD_ORDER_STATES:
        yield order(tx, new)


def order(tx: Transaction, row: Order) -> Occurrence:
    """Tell of an order as it is."""
    resource = tx.world.resources[row.resource]
    project = tx.world.projects[row.project]
    payload: JsonObject = {"order_uuid": row.uuid}
    if tx.generation.reached(7, 6, 5):
        payload["order_state"] = row.state
    return Occurrence(
        object_type="order",
        offering=row.offering,
        payload=payload,
        more={
            "order_type": row.type,
            "resource_uuid": resource.uuid,
            "resource_backend_id": resource.backend_id,
            "resource_name": resource.name,
            "project_uuid": project.uuid,
            "project_name": project.name,
            "attributes": row.attributes,
            "limits": row.limits,
        },
    )


def of_flags(tx: Transaction, old: Resource | None, new: Resource | None) -> Iterator[Occurrence]:
    """Tell of a resource that was paused, downscaled or closed to its members, or is not now."""
    if old is None or new is None or _flags(old) == _flags(new):
        return
    yield resource(tx, new)


def resource(tx: Transaction, row: Resource) -> Occurrence:
    """Tell of a resource as it is."""
    project = tx.world.projects[row.project]
    return Occurrence(
        object_type="resource",
        offering=row.offering,
        payload={
            "resource_uuid": row.uuid,
            "resource_backend_id": row.backend_id,
            **_flags(row),
        },
        more={
            "resource_name": row.name,
            "resource_state": row.state,
            "project_uuid": project.uuid,
            "project_name": project.name,
            "limits": row.limits,
        },
    )


def _flags(row: Resource) -> JsonObject:
    return {
        "downscaled": row.downscaled,
        "restrict_member_access": row.restrict_member_access,
        "paused": row.paused,
    }
