"""Which actions can be carried out together. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetLimits,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    SlurmAction: TypeAlias = (
        CreateResource | SetLimits | AddMembers | RemoveMembers | DeleteResource
    )

PHASES: tuple[type, ...] = (CreateResource, SetLimits, AddMembers, RemoveMembers, DeleteResource)
"""The order in which one batch is carried out, each kind for all accounts together."""


@dataclass(frozen=True, slots=True)
class Task:
    """One action and its place in the list that was asked for."""

    index: int
    action: SlurmAction

    @property
    def account(self) -> str:
        """The account as Slurm spells it; not checked yet."""
        return self.action.resource.lower()


def batches(actions: Sequence[SlurmAction]) -> list[list[Task]]:
    """Cut the list where carrying out a batch kind by kind would change what comes out.

    Within a batch an account meets its actions in the order of the list, each kind at most once,
    and no action undoes what another of the batch did: one reading at the end of the batch shows
    what became of all of them. Between accounts the order does not matter.
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
    match earlier, later:
        case (CreateResource(), AddMembers() | RemoveMembers()):
            return True
        case (SetLimits(), AddMembers() | RemoveMembers()):
            return True
        case (AddMembers(), RemoveMembers()):
            joining = {member.lower() for member in earlier.members}
            return joining.isdisjoint(member.lower() for member in later.members)
        case (RemoveMembers(), DeleteResource()):
            return True
    return False
