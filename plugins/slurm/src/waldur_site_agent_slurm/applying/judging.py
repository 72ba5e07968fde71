"""Whether an action's wanted state is what the cluster has. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    Outcome,
    RemoveMembers,
    Result,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent_slurm import tres

if TYPE_CHECKING:
    from collections.abc import Collection

    from waldur_site_agent_slurm.applying.batches import SlurmAction, Task
    from waldur_site_agent_slurm.applying.work import Ledger
    from waldur_site_agent_slurm.facts import Account, Cluster


def outcome_of(task: Task, ledger: Ledger, cluster: Cluster) -> Outcome:
    """Return what became of a task, from its failure or from the cluster as it was read back."""
    left_out = tuple(ledger.left_out.get(task.index, ()))
    error = ledger.errors.get(task.index)
    if error is None:
        unserved = {entry.name for entry in left_out}
        missing = _missing(task.action, unserved, cluster)
        if missing:
            error = TemporaryError(
                f"{task.account}: Slurm's commands succeeded, but reading back shows {missing}; "
                "it is tried again; if it stays so, somebody else is changing this account"
            )
    if error is not None:
        return Outcome(task.action, Result.FAILED, error, left_out)
    result = Result.DONE if task.index in ledger.written else Result.UNCHANGED
    return Outcome(task.action, result, None, left_out)


def _missing(action: SlurmAction, unserved: Collection[str], cluster: Cluster) -> str:
    account = cluster.find(action.resource.lower())
    lacking = ""
    match action:
        case DeleteResource():
            lacking = "that the account still exists" if account else ""
        case RemoveMembers():
            present = account.users if account else frozenset()
            lacking = _members("still in it", _served(action.members, unserved) & present)
        case _ if account is None:
            lacking = "that there is no such account"
        case AddMembers():
            lacking = _members("not in it", _served(action.members, unserved) - account.users)
        case CreateResource() if account.parent != action.placement.parent:
            lacking = f"it under {account.parent!r}"
        case CreateResource() | SetLimits():
            lacking = _limits(action, account)
    return lacking


def _limits(action: CreateResource | SetLimits, account: Account) -> str:
    wrong = [
        name
        for name, amount in action.limits.items()
        if not tres.is_set_to(name, account.limits, None if amount is None else int(amount))
    ]
    found = ", ".join(f"{n}={account.limits.get(n, 'nothing')}" for n in sorted(wrong))
    return f"other limits ({found})" if wrong else ""


def _served(members: Collection[str], unserved: Collection[str]) -> frozenset[str]:
    return frozenset(member.lower() for member in members if member not in unserved)


def _members(where: str, names: Collection[str]) -> str:
    most = 5
    shown = ", ".join(sorted(names)[:most]) + (", ..." if len(names) > most else "")
    return f"{shown} {where}" if names else ""
