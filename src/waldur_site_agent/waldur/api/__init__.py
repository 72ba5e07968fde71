"""What the gateway can ask Waldur: one value for each operation of the REST API.

The identifiers are those of Waldur's OpenAPI document, against which the contract tests check
this table.
"""

from __future__ import annotations

from waldur_site_agent.waldur.api import (
    agents,
    imports,
    offerings,
    orders,
    people,
    resources,
    usage,
)
from waldur_site_agent.waldur.operation import Operation

OPERATIONS: tuple[Operation[object | None], ...] = tuple(
    operation
    for subject in (
        agents,
        offerings,
        orders,
        resources,
        people,
        people,
        usage,
        agents,
        agents,
        imports,
    )
    for operation in vars(subject).values()
    if isinstance(operation, Operation)
)
"""All of them, for tests and for documentation."""
