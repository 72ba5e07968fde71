"""Which actions can be carried out together. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetAccess,
    SetLimits,
    SetMemberLimits,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    SlurmAction: TypeAlias = (
        CreateResource
        | SetLimits
        | AddMembers
        | RemoveMembers
        | SetMemberLimits
        | SetAccess
        | DeleteResource
    )

_ORDER = (
    CreateResource,
    SetLimits,
    AddMembers,
    RemoveMembers,
    SetMemberLimits,
    SetAccess,
    DeleteResource,
)
"""The order in which one batch is carried out, each kind for all accounts together."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One action and its place in the list that was asked for; equal to itself alone."""

    index: int
    action: SlurmAction

    @property
    def account(self) -> str:
        """The account as Slurm spells it; not checked yet."""
        return self.action.resource.lower()


def batches(actions: Sequence[SlurmAction]) -> list[list[Task]]:
    """Cut the list where carrying out a batch kind by kind would change what comes out.

    Within a batch two actions on one account either have nothing to do with each other or stand
    in the order of the kinds, and none undoes what another did: one reading at the end of the
    batch shows what became of all of them. Between accounts the order does not matter.
    """
    result: list[list[Task]] = [[]]
    met: dict[str, list[SlurmAction]] = {}
    for index, action in enumerate(actions):
        task = Task(index, action)
        if any(not _go_together(earlier, action) for earlier in met.get(task.account, ())):
            result.append([])
            met = {}
        met.setdefault(task.account, []).append(action)
        result[-1].append(task)
    return result


def _go_together(earlier: SlurmAction, later: SlurmAction) -> bool:
    if DeleteResource in (type(earlier), type(later)):
        return isinstance(earlier, RemoveMembers)
    if isinstance(later, CreateResource):
        return False
    if isinstance(earlier, CreateResource):
        return not isinstance(later, SetLimits)
    one, other = _members(earlier), _members(later)
    if one is None or other is None:
        return type(earlier) is not type(later)
    if one.isdisjoint(other):
        return type(earlier) is not type(later) or isinstance(later, SetMemberLimits)
    return isinstance(earlier, AddMembers) and isinstance(later, SetMemberLimits)


def _members(action: SlurmAction) -> frozenset[str] | None:
    """The users that an action is about; ``None`` when it is about the account."""
    match action:
        case AddMembers() | RemoveMembers():
            return frozenset(member.lower() for member in action.members)
        case SetMemberLimits():
            return frozenset({action.member.lower()})
    return None
