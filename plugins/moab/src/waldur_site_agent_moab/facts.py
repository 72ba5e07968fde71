"""What the ``mam-*`` commands print becomes values. Pure: no process, no clock.

Everything is read strictly: a line that is not understood is a failed read, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent_moab.holdings import Account, Fund
from waldur_site_agent_moab.money import Books

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ACCOUNT_COLUMNS = ("Name", "Active", "Users", "Organization")
FUND_COLUMNS = ("Id", "Constraints")
"""In both, the last one is free text that may hold the column separator: it must stay last."""
ALLOCATION_COLUMNS = ("Id", "Fund", "Amount", "Deposited", "Active")
WITHDRAWAL_COLUMNS = ("Fund", "Amount")
CHARGE_COLUMNS = ("Account", "User", "StartTime", "EndTime", "Charge")

_TRUTH = {"True": True, "False": False}
_AMOUNT = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_DIGITS = re.compile(r"[0-9]{1,11}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A portion of a fund."""

    fund: str
    amount: Decimal
    deposited: Decimal
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one finished job cost."""

    account: str
    """In lower case."""
    user: str
    start: datetime | None
    end: datetime | None
    """``None`` while the record has no end."""
    amount: Decimal


def parse_accounts(output: str) -> dict[str, Account]:
    """Read the answer to :func:`commands.list_accounts`, by the name in lower case.

    Of two accounts whose names differ in capitals alone, the one in lower case counts: the
    agent makes no other.

    Raises:
        TemporaryError: the answer is empty, cut or not understood.
    """
    accounts: dict[str, Account] = {}
    for name, active, users, organization in _rows(output, ACCOUNT_COLUMNS, "accounts"):
        if not name:
            raise _misunderstood("accounts", f"an account without a name: {users!r}")
        account = Account(
            name=name,
            organization=organization.strip().lower(),
            is_active=_truth(active, "accounts"),
            users=frozenset(_users(users)),
        )
        if account.key not in accounts or name == account.key:
            accounts[account.key] = account
    if not accounts:
        raise TemporaryError(
            "the list of accounts came back empty: this is a failed read, not an empty "
            "accounting manager; check that mam-list-accounts shows accounts to the user that "
            "runs the agent (on a new system, make the first one by hand)"
        )
    return accounts


def parse_funds(output: str) -> dict[str, Fund]:
    """Read the answer to :func:`commands.list_funds`, by id.

    Raises:
        TemporaryError: the answer is cut or not understood.
    """
    return {
        number: _fund(_number(number, "funds"), constraints)
        for number, constraints in _rows(output, FUND_COLUMNS, "funds")
    }


def parse_allocations(output: str) -> tuple[Allocation, ...]:
    """Read the answer to :func:`commands.list_allocations`.

    Raises:
        TemporaryError: the answer is cut or not understood.
    """
    what = "allocations"
    return tuple(
        Allocation(
            fund=_number(fund, what),
            amount=_amount(amount, what),
            deposited=_amount(deposited, what),
            is_active=_truth(active, what),
        )
        for _, fund, amount, deposited, active in _rows(output, ALLOCATION_COLUMNS, what)
    )


def parse_withdrawals(output: str) -> dict[str, Decimal]:
    """Read the answer to :func:`commands.list_withdrawals`: what was taken back, by fund.

    Raises:
        TemporaryError: the answer is cut or not understood.
    """
    taken: dict[str, Decimal] = {}
    for fund, amount in _rows(output, WITHDRAWAL_COLUMNS, "withdrawals"):
        number = _number(fund, "withdrawals")
        # some listings show what left the fund as a negative number
        taken[number] = taken.get(number, Decimal(0)) + abs(_amount(amount, "withdrawals"))
    return taken


def parse_charges(output: str) -> Iterator[Charge]:
    """Read the answer to :func:`commands.list_charges`.

    Raises:
        TemporaryError: the answer is cut or not understood.
    """
    what = "usage records"
    for account, user, start, end, amount in _rows(output, CHARGE_COLUMNS, what):
        yield Charge(
            account=account.strip().lower(),
            user=user.strip().lower(),
            start=_moment(start, what),
            end=_moment(end, what),
            amount=_amount(amount or "0", what),
        )


def books_of(
    allocations: Iterable[Allocation], withdrawn: Mapping[str, Decimal] | None
) -> dict[str, Books]:
    """Add up the figures of each fund; ``None``: the withdrawals are not known."""
    books: dict[str, Books] = {}
    for allocation in allocations:
        so_far = books.get(allocation.fund, Books())
        books[allocation.fund] = Books(
            deposited=so_far.deposited + allocation.deposited,
            left=so_far.left + allocation.amount,
            usable=so_far.usable + (allocation.amount if allocation.is_active else 0),
            withdrawn=None if withdrawn is None else withdrawn.get(allocation.fund, Decimal(0)),
        )
    return books


def _rows(output: str, columns: tuple[str, ...], what: str) -> Iterator[list[str]]:
    if output and not output.endswith("\n"):
        raise _misunderstood(what, f"the last line is cut: {output[-60:]!r}")
    separators = len(columns) - 1
    for line in output.split("\n")[:-1]:
        row = line.removesuffix("\r").split("|", separators)
        if len(row) != len(columns):
            raise _misunderstood(what, f"a line has not the columns {', '.join(columns)}: {line!r}")
        yield row


def _fund(number: str, constraints: str) -> Fund:
    """Constraints are ``Name=value``, separated by commas; ``!`` before the name excludes."""
    parts = [part.strip() for part in constraints.split(",") if part.strip()]
    pairs = [part.partition("=") for part in parts]
    accounts = [value.strip().lower() for name, equals, value in pairs
                if equals and name.strip() == "Account" and value.strip()]  # fmt: skip
    return Fund(
        id=number,
        accounts=frozenset(accounts),
        is_exclusive=len(parts) == 1 and len(accounts) == 1,
    )


def _users(text: str) -> Iterator[str]:
    for entry in text.split(","):
        word = entry.strip()
        if word and not word.startswith("-"):
            yield word.removeprefix("+")


def _truth(text: str, what: str) -> bool:
    if text.strip() not in _TRUTH:
        raise _misunderstood(what, f"{text!r} is neither True nor False")
    return _TRUTH[text.strip()]


def _number(text: str, what: str) -> str:
    if not _DIGITS.fullmatch(text.strip()):
        raise _misunderstood(what, f"{text!r} is not the id of a fund")
    return text.strip()


def _amount(text: str, what: str) -> Decimal:
    if not _AMOUNT.fullmatch(text.strip()):
        raise _misunderstood(what, f"{text!r} is not an amount")
    return Decimal(text.strip())


def _moment(text: str, what: str) -> datetime | None:
    """Unformatted times are seconds since 1970; nothing or 0 stands for no time."""
    word = text.strip()
    if not word:
        return None
    if not _DIGITS.fullmatch(word):
        raise _misunderstood(what, f"{text!r} is not a time in seconds since 1970")
    return datetime.fromtimestamp(int(word), UTC) if int(word) else None


def _misunderstood(what: str, why: str) -> TemporaryError:
    return TemporaryError(
        f"the list of {what} is not understood ({why}); nothing was decided from it: run the "
        "command of the log by hand, and compare with docs/moab.md"
    )
