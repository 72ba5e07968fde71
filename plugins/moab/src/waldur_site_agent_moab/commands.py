"""Questions and changes become argument vectors. Pure.

Names in them were checked before (:mod:`waldur_site_agent_moab.names`) or come from the accounting
manager itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import TypeAlias

from waldur_site_agent_moab import facts
from waldur_site_agent_moab.facts import in_cents

Argv: TypeAlias = tuple[str, ...]


def show_version() -> Argv:
    """Ask for the version of the commands."""
    return ("mam-list-accounts", "--version")


def list_accounts() -> Argv:
    """Ask for every account, with its users."""
    return _list("mam-list-accounts", facts.ACCOUNT_COLUMNS)


def list_funds() -> Argv:
    """Ask for every fund."""
    return _list("mam-list-funds", facts.FUND_COLUMNS)


def list_allocations(fund: str | None) -> Argv:
    """Ask for the allocations of one fund, or of all."""
    of_fund = ("-f", _filled(fund)) if fund is not None else ()
    return _list("mam-list-allocations", facts.ALLOCATION_COLUMNS, *of_fund)


def list_withdrawals() -> Argv:
    """Ask for everything that was ever withdrawn."""
    return _list("mam-list-transactions", facts.WITHDRAWAL_COLUMNS, "-A", "Withdraw")


def list_charges(start: date, end: date) -> Argv:
    """Ask for the usage records of all accounts between two days."""
    span = ("-s", start.isoformat(), "-e", end.isoformat())
    return _list("mam-list-usagerecords", facts.CHARGE_COLUMNS, *span)


def create_account(name: str, title: str, organization: str) -> Argv:
    """Make an account."""
    return (
        *("mam-create-account", "-a", _filled(name)),
        *("-d", _filled(title), "-o", _filled(organization)),
    )


def delete_account(name: str) -> Argv:
    """Delete an account."""
    return ("mam-delete-account", "-a", _filled(name))


def create_fund(account: str) -> Argv:
    """Make a fund that pays for one account."""
    return ("mam-create-fund", "-a", _filled(account))


def delete_fund(fund: str) -> Argv:
    """Delete a fund with what is left in it."""
    return ("mam-delete-fund", "-f", _filled(fund))


def deposit(fund: str, account: str, amount: Decimal) -> Argv:
    """Add to a fund."""
    return ("mam-deposit", "-f", _filled(fund), "-a", _filled(account), "-z", _amount(amount))


def withdraw(fund: str, amount: Decimal) -> Argv:
    """Take back from a fund."""
    return ("mam-withdraw", "-f", _filled(fund), "-z", _amount(amount))


def add_user(account: str, user: str) -> Argv:
    """Let a user charge an account."""
    return ("mam-modify-account", "-a", _filled(account), "--add-user", _filled(user))


def remove_user(account: str, user: str) -> Argv:
    """No longer let a user charge an account."""
    return ("mam-modify-account", "-a", _filled(account), "--del-user", _filled(user))


def set_active(account: str, *, active: bool) -> Argv:
    """Switch an account on or off."""
    return ("mam-modify-account", "-a", _filled(account), "-A", str(active))


def _list(program: str, columns: Sequence[str], *conditions: str) -> Argv:
    return (program, *conditions, "--raw", "--quiet", "--show", ",".join(columns))


def _amount(amount: Decimal) -> str:
    if amount <= 0 or in_cents(amount) != amount:
        raise ValueError(f"an amount is more than nothing, in whole cents: {amount}")
    return f"{in_cents(amount):f}"


def _filled(word: str) -> str:
    if not word or word.startswith("-"):
        raise ValueError(f"an empty word or one that looks like an option: {word!r}")
    return word
