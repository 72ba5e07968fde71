"""Whether an action's wanted state is what the cluster has. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateResource,
    DeleteResource,
    Outcome,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    SetMemberLimits,
    TemporaryError,
)
from waldur_site_agent_slurm import tres
from waldur_site_agent_slurm.facts import Member
from waldur_site_agent_slurm.qos import RESTRICTED, access_of, is_set_to, restriction

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from decimal import Decimal

    from waldur_site_agent_slurm.applying.batches import SlurmAction, Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.facts import Cluster
    from waldur_site_agent_slurm.settings import SlurmSettings


def outcome_of(task: Task, work: Work, cluster: Cluster) -> Outcome:
    """Return what became of a task, from its failure or from the cluster as it was read back."""
    ledger = work.ledger
    left_out = tuple(ledger.left_out.get(task.index, ()))
    error = ledger.errors.get(task.index)
    if error is None:
        unserved = {entry.name for entry in left_out}
        missing = _missing(task.action, unserved, cluster, work)
        if isinstance(task.action, SetAccess) and not missing:
            was_written = task.index in ledger.written
            missing = _access(task.action, cluster, work.settings, was_written=was_written)
        if missing:
            error = TemporaryError(
                f"{task.account}: Slurm's commands succeeded, but reading back shows {missing}; "
                "it is tried again; if it stays so, somebody else is changing this account"
            )
    if error is not None:
        return Outcome(task.action, Result.FAILED, error, left_out)
    result = Result.DONE if task.index in ledger.written else Result.UNCHANGED
    return Outcome(task.action, result, None, left_out)


def _missing(action: SlurmAction, unserved: Collection[str], cluster: Cluster, work: Work) -> str:
    account = cluster.find(action.resource.lower())
    lacking = ""
    match action:
        case DeleteResource():
            lacking = "that the account still exists" if account else ""
        case RemoveMembers():
            present = account.users if account else frozenset()
            still = {m for m in _served(action.members, unserved) if work.listed_as(m, present)}
            lacking = _members("still in it", still)
        case _ if account is None:
            lacking = "that there is no such account"
        case AddMembers():
            served = _served(action.members, unserved)
            lacking = _members(
                "not in it", {m for m in served if work.listed_as(m, account.users) is None}
            )
        case CreateResource() if account.parent != action.placement.parent:
            lacking = f"it under {account.parent!r}"
        case CreateResource() | SetLimits():
            lacking = _limits(action.limits, account.limits)
        case SetMemberLimits():
            member = work.listed_as(action.member, account.users) or action.member
            found = account.members.get(member, Member()).limits
            lacking = _limits(action.limits, found)
    return lacking


def _limits(wanted: Mapping[str, Decimal | None], found: Mapping[str, Decimal]) -> str:
    wrong = [
        name
        for name, amount in wanted.items()
        if not tres.is_set_to(name, found, None if amount is None else int(amount))
    ]
    shown = ", ".join(f"{n}={found.get(n, 'nothing')}" for n in sorted(wrong))
    return f"other limits ({shown})" if wrong else ""


def _access(
    action: SetAccess, cluster: Cluster, settings: SlurmSettings, *, was_written: bool
) -> str:
    account = cluster.accounts[action.resource.lower()]
    effective = cluster.qos_of(account.name)
    shown = f"QOS {effective or 'none'}, DefaultQOS {account.default_qos or 'none'}"
    if action.access is Access.NORMAL:
        is_restricted = access_of(effective, settings) in RESTRICTED
        return f"it still restricted ({shown})" if is_restricted else ""
    if not was_written or is_set_to(account, restriction(action.access, settings).qos):
        return ""
    return shown


def _served(members: Collection[str], unserved: Collection[str]) -> frozenset[str]:
    return frozenset(member for member in members if member not in unserved)


def _members(where: str, names: Collection[str]) -> str:
    most = 5
    shown = ", ".join(sorted(names)[:most]) + (", ..." if len(names) > most else "")
    return f"{shown} {where}" if names else ""
