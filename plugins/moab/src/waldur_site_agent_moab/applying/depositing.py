"""Deposits and withdrawals. Each is computed from figures that were read immediately before.

The caller holds the writer lock, so between that reading and the command no other agent writes,
and a command that a killed agent left behind has ended. What has landed is found by reading, so
repeating an interrupted change deposits nothing twice.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

from waldur_site_agent.backends import PermanentError
from waldur_site_agent_moab import commands
from waldur_site_agent_moab.money import change_to

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from waldur_site_agent.backends import SetLimits
    from waldur_site_agent_moab.applying.work import Work
    from waldur_site_agent_moab.money import Books

DEPOSIT = "deposit"
"""The only component: the money, or whatever the site counts in, that a resource may spend."""

_log = logging.getLogger(__name__)


def set_limits(work: Work, action: SetLimits) -> None:
    """Deposit or withdraw until what was bought is the wanted limit."""
    name = work.account(action.resource).key
    wanted = checked_deposit(name, action.limits)
    if DEPOSIT in action.limits:
        set_deposit(work, name, wanted)


def checked_deposit(name: str, limits: Mapping[str, Decimal | None]) -> Decimal | None:
    """Return the limit of ``deposit``; other components are named once and ignored.

    Raises:
        PermanentError: it is negative or not a number.
    """
    for component in limits.keys() - {DEPOSIT}:
        ignore(component)
    wanted = limits.get(DEPOSIT)
    if wanted is not None and not (wanted.is_finite() and wanted >= 0):
        raise PermanentError(
            f"{name}: a deposit of {wanted} is impossible; it must be zero or more: correct the "
            "limit in Waldur and order again"
        )
    return wanted


def set_deposit(work: Work, name: str, wanted: Decimal | None) -> None:
    """Carry out the difference between what was bought and what is wanted.

    Raises:
        PermanentError: the account's money is not understood, or the limit too low.
    """
    fund = work.mam.fund_of(name)
    if not _change(name, wanted, work.mam.books_of(fund)):
        return
    before = work.client.books(fund.id)
    change = _change(name, wanted, before)
    if change > 0:
        work.write(commands.deposit(fund.id, work.account(name).name, change))
        _log.info("deposited %s in fund %s of %s", f"{change:f}", fund.id, name)
    if change < 0:
        work.write(commands.withdraw(fund.id, -change))
        _log.info("withdrew %s from fund %s of %s", f"{-change:f}", fund.id, name)
        _check_the_setting(work, name, fund.id, before)


def _change(name: str, wanted: Decimal | None, books: Books) -> Decimal:
    try:
        return change_to(wanted, books)
    except PermanentError as error:
        raise PermanentError(f"{name}: {error}") from error


def _check_the_setting(work: Work, name: str, fund: str, before: Books) -> None:
    """Stop when a withdrawal shows that ``deposited_after_withdrawal`` is set wrongly."""
    after = work.client.books(fund)
    falls = after.deposited < before.deposited
    expected = work.settings.deposited_after_withdrawal
    if falls != (expected == "falls"):
        found = "falls" if falls else "stays"
        raise PermanentError(
            f"{name}: the withdrawal from fund {fund} was made, and shows that Deposited {found} "
            f"here; set deposited_after_withdrawal: {found} in backend_settings before any other "
            f"limit is changed: deposits are computed wrongly with {expected!r}"
        )


@cache
def ignore(component: str) -> None:
    """Say once per process that a component is not for this backend."""
    _log.warning("component %s is ignored: MOAB has no other component than %s", component, DEPOSIT)
