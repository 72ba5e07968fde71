"""Whether an action's wanted state is what is there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent_moab.applying.depositing import DEPOSIT
from waldur_site_agent_moab.money import in_cents

if TYPE_CHECKING:
    from collections.abc import Collection
    from decimal import Decimal

    from waldur_site_agent_moab.applying.batches import MamAction
    from waldur_site_agent_moab.applying.work import Progress
    from waldur_site_agent_moab.holdings import Account, Mam


def outcome_of(action: MamAction, progress: Progress, mam: Mam) -> Outcome:
    """Return what became of an action, from its failure or from what was read back."""
    left_out = tuple(progress.left_out)
    error = progress.error
    if error is None and (missing := _missing(action, progress, mam)):
        error = TemporaryError(
            f"{action.resource}: the commands succeeded, but reading back shows {missing}; it is "
            "tried again; if it stays so, somebody else is changing this account"
        )
    if error is not None:
        return Outcome(action, Result.FAILED, error, left_out)
    result = Result.DONE if progress.has_written else Result.UNCHANGED
    return Outcome(action, result, None, left_out)


def _missing(action: MamAction, progress: Progress, mam: Mam) -> str:
    account = mam.accounts.get(action.resource.lower())
    unserved = {entry.name for entry in progress.left_out}
    lacking = ""
    match action:
        case DeleteResource():
            lacking = "that the account still exists" if account else ""
        case RemoveMembers():
            served = _served(action.members, unserved)
            still = {m for m in served if account is not None and account.listed_as(m) is not None}
            lacking = _listed("still in it", still)
        case _ if account is None:
            lacking = "that there is no such account"
        case AddMembers():
            served = _served(action.members, unserved)
            lacking = _listed("not in it", {m for m in served if account.listed_as(m) is None})
        case SetAccess() if account.is_active is not (action.access is Access.NORMAL):
            lacking = f"it {'active' if account.is_active else 'inactive'}"
        case CreateResource() | SetLimits():
            lacking = _money(account, action.limits.get(DEPOSIT), mam)
    return lacking


def _money(account: Account, wanted: Decimal | None, mam: Mam) -> str:
    if wanted is None:
        return ""
    try:
        bought = mam.books_of(mam.fund_of(account.key)).bought
    except PermanentError as error:
        return str(error)
    return "" if bought == in_cents(wanted) else f"{bought:f} bought instead of {wanted:f}"


def _served(members: Collection[str], unserved: Collection[str]) -> frozenset[str]:
    return frozenset(member for member in members if member not in unserved)


def _listed(where: str, names: Collection[str]) -> str:
    most = 5
    shown = ", ".join(sorted(names)[:most]) + (", ..." if len(names) > most else "")
    return f"{shown} {where}" if names else ""
