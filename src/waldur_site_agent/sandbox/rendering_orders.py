"""Orders and resources as JSON; they name the offering, the project and each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.sandbox.rendering import day, of_generation, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from waldur_site_agent.sandbox.records import JsonObject, Order, Resource
    from waldur_site_agent.sandbox.store import Transaction


_EMPTY_RESOURCE: JsonObject = {
    "description": "",
    "effective_id": "",
    "limit_usage": {},
    "end_date": None,
    "plan_uuid": None,
    "resource_uuid": None,
    "resource_type": None,
    "options": None,
    "report": [],
    "endpoints": [],
    "usage_limit_restriction": "",
    "has_api_keys": False,
    "offering_backend_id": "",
}
"""What a resource has in Waldur and never here."""


def order(tx: Transaction, row: Order, api: str) -> JsonObject:
    """Print an order."""
    resource = tx.world.resources.get(row.resource)
    return of_generation(
        tx,
        "order",
        {
            "url": f"{api}marketplace-orders/{row.uuid}/",
            "uuid": row.uuid,
            "slug": f"order-{row.uuid[:6]}",
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "completed_at": timestamp(row.completed_at),
            "type": row.type,
            "state": row.state,
            "limits": row.limits,
            "attributes": row.attributes,
            "start_date": day(row.start_date),
            "backend_id": row.backend_id,
            "error_message": row.error_message,
            "error_traceback": row.error_traceback,
            "provider_rejection_comment": row.provider_rejection_comment,
            "marketplace_resource_uuid": row.resource,
            "resource_uuid": None,
            "resource_type": None,
            "resource_name": resource.name if resource else "",
            "plan_uuid": None,
            "cost": "0.0000000000",
            "output": "",
            "request_comment": None,
            "termination_comment": None,
            "can_terminate": row.state in {"pending-consumer", "pending-provider"},
            "order_subtype": None,
            "auto_approved": False,
            **_offering_side(tx, row.offering, api),
            **_consumer_side(tx, row.project),
        },
    )


def resource(tx: Transaction, row: Resource, api: str, wants: Callable[[str], bool]) -> JsonObject:
    """Print a resource for its provider; the orders in it only where the client wants them."""
    whole: JsonObject = {
        **_EMPTY_RESOURCE,
        "url": f"{api}marketplace-provider-resources/{row.uuid}/",
        "uuid": row.uuid,
        "created": timestamp(row.created),
        "modified": timestamp(row.modified),
        "name": row.name,
        "slug": row.slug,
        "state": row.state,
        "backend_id": row.backend_id,
        "backend_metadata": row.backend_metadata,
        "limits": row.limits,
        "current_usages": row.current_usages,
        "attributes": row.attributes,
        "paused": row.paused,
        "downscaled": row.downscaled,
        "restrict_member_access": row.restrict_member_access,
        "error_message": row.error_message,
        "error_traceback": row.error_traceback,
        "last_sync": timestamp(row.last_sync or row.created),
        "offering_slug": tx.world.offerings[row.offering].slug,
        "offering_state": tx.world.offerings[row.offering].state,
        "project": f"{api}projects/{row.project}/",
        "project_end_date": day(tx.world.projects[row.project].end_date),
        **_offering_side(tx, row.offering, api),
        **_consumer_side(tx, row.project),
    }
    if wants("order_in_progress"):
        in_progress = tx.world.order_in_progress(row.uuid)
        whole["order_in_progress"] = order(tx, in_progress, api) if in_progress else None
    if wants("creation_order"):
        creations = (o for o in tx.world.orders_of(row.uuid) if o.type == "Create")
        creation = next(creations, None)
        whole["creation_order"] = order(tx, creation, api) if creation else None
    return of_generation(tx, "resource", whole)


def _offering_side(tx: Transaction, uuid: str, api: str) -> JsonObject:
    place = tx.world.offerings[uuid]
    provider_ = tx.world.customers[place.customer]
    return {
        "offering": f"{api}marketplace-provider-offerings/{place.uuid}/",
        "offering_uuid": place.uuid,
        "offering_name": place.name,
        "offering_type": place.type,
        "offering_shared": place.shared,
        "offering_plugin_options": place.plugin_options,
        "provider_uuid": provider_.uuid,
        "provider_name": provider_.name,
        "provider_slug": provider_.slug,
    }


def _consumer_side(tx: Transaction, uuid: str) -> JsonObject:
    project = tx.world.projects[uuid]
    customer = tx.world.customers[project.customer]
    return {
        "project_uuid": project.uuid,
        "project_name": project.name,
        "project_slug": project.slug,
        "project_description": project.description,
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
        "customer_slug": customer.slug,
    }
