"""What the ``mam-*`` commands print becomes values. Pure: no process, no clock.

Everything is read strictly: a line that is not understood is a failed read, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from waldur_site_agent.backends import PermanentError, TemporaryError

_CENT = Decimal("0.01")
_ZERO = Decimal(0)


def in_cents(amount: Decimal) -> Decimal:
    """Round to two decimals, half to even, without trailing zeros: as amounts are sent."""
    return _shown(amount.quantize(_CENT, ROUND_HALF_EVEN))


def _shown(cents: Decimal) -> Decimal:
    return cents.quantize(Decimal(1)) if cents == cents.to_integral_value() else cents.normalize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The figures of one fund, over all its allocations."""

    deposited: Decimal = _ZERO
    """The sum of ``Deposited``."""
    left: Decimal = _ZERO
    """The sum of ``Amount``, of expired allocations too."""
    usable: Decimal = _ZERO
    """The same of active allocations alone: only this can be withdrawn."""
    withdrawn: Decimal | None = _ZERO
    """What was ever taken back and is still contained in ``deposited``; ``None``: not known."""

    @property
    def trouble(self) -> str:
        """Why it is not known what was bought; empty when it is."""
        if self.withdrawn is None and self.deposited != self.left:
            return (
                "its withdrawals could not be read, so it is not known how much of what was "
                "deposited was taken back; the log says what mam-list-transactions answered"
            )
        bought = self.deposited - (self.withdrawn or _ZERO)
        if bought < self.left:
            return (
                f"its books do not balance: {self.deposited:f} deposited, "
                f"{self.withdrawn or _ZERO:f} withdrawn, yet {self.left:f} left; look at "
                "mam-list-allocations and mam-list-transactions of the fund, and at "
                "deposited_after_withdrawal of backend_settings"
            )
        return ""

    @property
    def bought(self) -> Decimal:
        """What was deposited and not taken back: the resource's limit, in whole cents.

        Parts of a cent, which only a deposit by hand can bring, are dropped: so a change of
        whole cents changes the result by as much.

        Raises:
            PermanentError: it is not known.
        """
        if self.trouble:
            raise PermanentError(self.trouble)
        exact = self.deposited - (self.withdrawn or _ZERO)
        return _shown(exact.quantize(_CENT, ROUND_FLOOR))

    @property
    def returnable(self) -> Decimal:
        """What can be taken back, in whole cents."""
        return _shown(max(self.usable, _ZERO).quantize(_CENT, ROUND_FLOOR))

    @property
    def lowest(self) -> Decimal:
        """What the limit can be lowered to: everything but what can still be taken back."""
        return self.bought - self.returnable


def change_to(wanted: Decimal | None, books: Books) -> Decimal:
    """What to deposit, or as a negative number to withdraw, so that ``wanted`` was bought.

    ``None`` takes back everything that can be.

    Raises:
        PermanentError: the limit would be below what was used, or the books are not understood.
    """
    if wanted is None:
        return -books.returnable
    change = in_cents(wanted) - books.bought
    if -change > books.returnable:
        raise PermanentError(
            f"the limit cannot become {in_cents(wanted):f}: {books.lowest:f} of the "
            f"{books.bought:f} bought are used up or expired, so {books.lowest:f} is the lowest "
            "possible; nothing was changed"
        )
    return change


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account. Its name is compared in lower case and sent as it is spelled."""

    name: str
    """As it is spelled."""
    organization: str = ""
    """In lower case."""
    is_active: bool = True
    users: frozenset[str] = frozenset()
    """As they are spelled; memberships that are switched off are not here."""

    @property
    def key(self) -> str:
        """The name as it is compared."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fund:
    """One fund and whom it may pay for."""

    id: str
    accounts: frozenset[str] = frozenset()
    """The accounts that it is constrained to, in lower case."""
    is_exclusive: bool = False
    """Whether there is nothing else that it is constrained to, or free for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mam:
    """Every account and fund, from one complete read."""

    accounts: Mapping[str, Account]
    funds: Mapping[str, Fund] = field(default_factory=dict)
    books: Mapping[str, Books] = field(default_factory=dict)
    """By fund; a fund without an allocation has empty books."""

    def members_of(self, account: str) -> frozenset[str] | None:
        """The users of an account; ``None`` where there is no such account."""
        found = self.accounts.get(account)
        return None if found is None else found.users

    def children(self, name: str) -> tuple[str, ...]:
        """The accounts whose organization is this account, sorted; itself left out."""
        found = (a.key for a in self.accounts.values() if a.organization == name)
        return tuple(sorted(key for key in found if key != name))

    def parent_of(self, account: Account, default_account: str) -> str | None:
        """The account above: the organization, or at the top the default account if there is one.

        ``None`` where the organization is no account that can be read.
        """
        above = account.organization
        if above in self.accounts and above != account.key:
            return above
        is_top = above == account.key and account.key != default_account
        return default_account if is_top and default_account in self.accounts else None

    def funds_of(self, name: str) -> tuple[Fund, ...]:
        """The funds that are constrained to this account, among others perhaps; in their order."""
        return tuple(fund for fund in self.funds.values() if name in fund.accounts)

    def books_of(self, fund: Fund) -> Books:
        """The figures of a fund."""
        return self.books.get(fund.id, Books())

    def fund_of(self, name: str) -> Fund:
        """The fund that is this account's, and nobody else's.

        Raises:
            PermanentError: there is none, or not exactly one; the text says what to do.
        """
        funds = self.funds_of(name)
        if not funds:
            raise PermanentError(
                f'{name}: account "{name}" has no fund, so nothing can be deposited; '
                f"make one: mam-create-fund -a {name}"
            )
        ids = ", ".join(fund.id for fund in funds)
        if len(funds) > 1:
            raise PermanentError(
                f'{name}: account "{name}" has {len(funds)} funds ({ids}), and it is not known '
                "which one its deposits belong to; leave one of them to this account"
            )
        if not funds[0].is_exclusive:
            raise PermanentError(
                f'{name}: the fund {ids} of account "{name}" has other constraints too, so its '
                "money is not this account's alone; give the account a fund of its own"
            )
        return funds[0]

    def with_account(self, account: Account) -> Mam:
        """The same with one account added or replaced."""
        return replace(self, accounts={**self.accounts, account.key: account})

    def without_account(self, name: str) -> Mam:
        """The same without an account and its funds."""
        gone = {fund.id for fund in self.funds_of(name)}
        return replace(
            self,
            accounts={key: account for key, account in self.accounts.items() if key != name},
            funds={key: fund for key, fund in self.funds.items() if key not in gone},
        )


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
