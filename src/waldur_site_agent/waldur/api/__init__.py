"""The operations of Waldur's REST API that the gateway uses, one module per subject.

Their identifiers are those of Waldur's OpenAPI document, against which the contract tests check
them.
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
    for subject in (agents, offerings, orders, resources, people, usage, imports)
    for operation in vars(subject).values()
    if isinstance(operation, Operation)
)
"""All operations, for tests and for documentation."""
