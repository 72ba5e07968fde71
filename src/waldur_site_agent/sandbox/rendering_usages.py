"""Usage as JSON: amounts are texts with two decimals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.sandbox.rendering import day, of_generation, timestamp

if TYPE_CHECKING:
    from waldur_site_agent.sandbox.records import Component, JsonObject
    from waldur_site_agent.sandbox.records_usage import ComponentUsage, UserUsage
    from waldur_site_agent.sandbox.store import Transaction


def usage(tx: Transaction, row: ComponentUsage) -> JsonObject:
    """Print what was used of a component in a month."""
    component = _component(tx, row)
    return of_generation(
        tx,
        "component_usage",
        {
            "uuid": row.uuid,
            "created": timestamp(row.created),
            "description": row.description,
            "type": row.component_type,
            "name": component.name if component else "",
            "measured_unit": component.measured_unit if component else "",
            "usage": f"{row.usage:.2f}",
            "date": timestamp(row.reported),
            "recurring": row.recurring,
            "missing_usage_policy": "reuse" if row.recurring else "none",
            "billing_period": day(row.billing_period),
            "modified_by": _number_of(tx, row.modified_by),
            **_place(tx, row),
        },
    )


def user_usage(tx: Transaction, row: UserUsage, api: str) -> JsonObject:
    """Print one person's part."""
    parent = tx.world.component_usages[row.component_usage]
    component = _component(tx, parent)
    account = f"{api}marketplace-offering-users/{row.account}/" if row.account else None
    return of_generation(
        tx,
        "user_usage",
        {
            "uuid": row.uuid,
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "user": account,
            "username": row.username,
            "component_usage": f"{api}marketplace-component-usages/{parent.uuid}/",
            "component_type": parent.component_type,
            "usage": f"{row.usage:.2f}",
            "measured_unit": component.measured_unit if component else "",
            "description": "",
            "backend_id": "",
            "date": timestamp(parent.reported),
            "billing_period": day(parent.billing_period),
            **_place(tx, parent),
        },
    )


def _place(tx: Transaction, row: ComponentUsage) -> JsonObject:
    resource = tx.world.resources[row.resource]
    offering = tx.world.offerings[resource.offering]
    project = tx.world.projects[resource.project]
    customer = tx.world.customers[project.customer]
    return {
        "resource_uuid": resource.uuid,
        "resource_name": resource.name,
        "offering_uuid": offering.uuid,
        "offering_name": offering.name,
        "project_uuid": project.uuid,
        "project_name": project.name,
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
    }


def _component(tx: Transaction, row: ComponentUsage) -> Component | None:
    components = tx.world.offerings[tx.world.resources[row.resource].offering].components
    return next((each for each in components if each.type == row.component_type), None)


def _number_of(tx: Transaction, user: str) -> int | None:
    """Give the number that the database knows a user by."""
    return list(tx.world.users).index(user) + 1 if user in tx.world.users else None
