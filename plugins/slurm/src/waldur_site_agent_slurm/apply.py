"""What a batch does to the cluster, kind by kind, and whether a reading shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetAccess,
    SetLimits,
    SetMemberLimits,
)
from waldur_site_agent.backends.command_line import Task
from waldur_site_agent_slurm import tres
from waldur_site_agent_slurm.accounts import create_accounts, delete_accounts
from waldur_site_agent_slurm.client import Work
from waldur_site_agent_slurm.facts import Cluster, Member
from waldur_site_agent_slurm.limits import set_access, set_limits, set_member_limits
from waldur_site_agent_slurm.members import add_members, remove_members
from waldur_site_agent_slurm.qos import RESTRICTED, access_of, is_set_to, restriction
from waldur_site_agent_slurm.settings import SlurmSettings

PHASES: Mapping[type, Callable[..., None]] = {
    CreateResource: create_accounts,
    SetLimits: set_limits,
    AddMembers: add_members,
    RemoveMembers: remove_members,
    SetMemberLimits: set_member_limits,
    SetAccess: set_access,
    DeleteResource: delete_accounts,
}
"""In the order of a batch."""


def difference(task: Task[Any], work: Work, cluster: Cluster) -> str:
    """What the cluster shows instead of what an action asked for; empty where that is there."""
    account = cluster.accounts[task.account]
    match task.action:
        case CreateResource(placement=placement) if account.parent != placement.parent:
            return f"it under {account.parent!r}"
        case CreateResource(limits=limits) | SetLimits(limits=limits):
            return _limits(limits, account.limits)
        case SetMemberLimits(member=name, limits=limits):
            member = work.listed_as(name, account.users) or name
            return _limits(limits, account.members.get(member, Member()).limits)
        case SetAccess() as action:
            was_written = task.index in work.ledger.written
            return _access(action, cluster, work.settings, was_written=was_written)
        case _:
            return ""


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
