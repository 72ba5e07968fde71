"""What an accounting manager holds, as one consistent reading. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from waldur_site_agent.backends import PermanentError
from waldur_site_agent_moab.money import Books

if TYPE_CHECKING:
    from collections.abc import Mapping


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

    def listed_as(self, user: str) -> str | None:
        """How a user is listed: by this name, or by one that alone differs in case only."""
        if user in self.users:
            return user
        alike = [name for name in self.users if name.lower() == user.lower()]
        return alike[0] if len(alike) == 1 else None


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
