"""What a batch does in the accounting manager, kind by kind, and whether a reading shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateResource,
    DeleteResource,
    PermanentError,
    RemoveMembers,
    SetAccess,
    SetLimits,
)
from waldur_site_agent.backends.command_line import Task
from waldur_site_agent_moab.accounts import (
    DEPOSIT,
    add_members,
    create,
    delete,
    remove_members,
    set_access,
    set_limits,
)
from waldur_site_agent_moab.client import Work
from waldur_site_agent_moab.facts import Account, Mam, in_cents


def _one_by_one(carry_out: Callable[[Work, Task[Any]], None]) -> Callable[..., None]:
    def phase(work: Work, tasks: Iterable[Task[Any]]) -> None:
        for task in tasks:
            with work.ledger.attempt(task):
                carry_out(work, task)

    return phase


PHASES: Mapping[type, Callable[..., None]] = {
    CreateResource: _one_by_one(create),
    SetLimits: _one_by_one(set_limits),
    AddMembers: _one_by_one(add_members),
    RemoveMembers: _one_by_one(remove_members),
    SetAccess: _one_by_one(set_access),
    DeleteResource: _one_by_one(delete),
}
"""In the order of a batch."""


def difference(task: Task[Any], mam: Mam) -> str:
    """What the manager shows instead of what an action asked for; empty where that is there."""
    account = mam.accounts[task.account]
    match task.action:
        case SetAccess(access=access) if account.is_active is not (access is Access.NORMAL):
            return f"it {'active' if account.is_active else 'inactive'}"
        case CreateResource(limits=limits) | SetLimits(limits=limits):
            return _money(account, limits.get(DEPOSIT), mam)
        case _:
            return ""


def _money(account: Account, wanted: Decimal | None, mam: Mam) -> str:
    if wanted is None:
        return ""
    try:
        bought = mam.books_of(mam.fund_of(account.key)).bought
    except PermanentError as error:
        return str(error)
    return "" if bought == in_cents(wanted) else f"{bought:f} bought instead of {wanted:f}"
