"""Which actions one reading afterwards can judge together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetAccess,
    SetLimits,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MamAction: TypeAlias = (
    CreateResource | DeleteResource | SetLimits | AddMembers | RemoveMembers | SetAccess
)


def batches(actions: Sequence[MamAction]) -> list[list[MamAction]]:
    """Cut the list where an action may undo what one before it did.

    Within a batch no account is the subject of two actions, and none that is deleted is needed
    by another action.
    """
    result: list[list[MamAction]] = [[]]
    for action in actions:
        if any(not _go_together(earlier, action) for earlier in result[-1]):
            result.append([])
        result[-1].append(action)
    return result


def _go_together(one: MamAction, other: MamAction) -> bool:
    if one.resource.lower() == other.resource.lower():
        return False
    if isinstance(one, DeleteResource) == isinstance(other, DeleteResource):
        return True
    return _accounts(one).isdisjoint(_accounts(other))


def _accounts(action: MamAction) -> frozenset[str]:
    names = {action.resource.lower()}
    if isinstance(action, CreateResource):
        names.update(container.id for container in action.placement.containers)
    if isinstance(action, DeleteResource) and action.project_container is not None:
        names.add(action.project_container.lower())
    return frozenset(names)
