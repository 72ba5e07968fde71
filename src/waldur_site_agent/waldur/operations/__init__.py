"""What the gateway can ask Waldur: one value for each operation of the REST API.

The identifiers are those of Waldur's OpenAPI document, against which the contract tests check
this table.
"""

from __future__ import annotations

from waldur_site_agent.waldur.operation import Operation
from waldur_site_agent.waldur.operations import (
    events,
    identities,
    imports,
    offering_users,
    offerings,
    orders,
    people,
    resources,
    server,
    usage,
)

OPERATIONS: tuple[Operation[object | None], ...] = tuple(
    operation
    for subject in (
        server,
        offerings,
        orders,
        resources,
        people,
        offering_users,
        usage,
        identities,
        events,
        imports,
    )
    for operation in vars(subject).values()
    if isinstance(operation, Operation)
)
"""All of them, for tests and for documentation."""
