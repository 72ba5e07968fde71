"""The ``mam-*`` commands as questions and orders: asks, counts, classifies."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TypeAlias

from waldur_site_agent.backends import PermanentError, TemporaryError, command_line
from waldur_site_agent.backends.command_line import (
    AnyTask,
    BackendUnavailableError,
    CommandClient,
)
from waldur_site_agent.backends.processes import (
    CommandResult,
    CommandTimedOutError,
    Runner,
    described,
)
from waldur_site_agent_moab import commands, facts
from waldur_site_agent_moab.commands import Argv
from waldur_site_agent_moab.facts import Account, Allocation, Books, Charge, Fund, Mam, books_of
from waldur_site_agent_moab.names import account_name
from waldur_site_agent_moab.settings import MoabSettings

LOCK_PURPOSE = (
    "deposits are made by one agent at a time: look at that process if it should have ended, or, "
    "where it has, at the mam command that it left running"
)


class MamUnavailableError(BackendUnavailableError):
    """No command has a chance at the moment: what is left is not even tried."""


class MamNotPermittedError(MamUnavailableError):
    """This user may not use the accounting manager: what is left is not even tried."""

    may_pass = False


class UserUnknownError(TemporaryError):
    """The accounting manager does not know a user."""


_Family: TypeAlias = type[TemporaryError]

_KNOWN: tuple[tuple[tuple[str, ...], _Family, str, str], ...] = (
    (
        ("connection refused", "unable to connect", "failed to connect", "could not connect",
         "connection timed out", "no route to host", "failed sending message"),
        MamUnavailableError,
        "the accounting manager cannot be reached",
        "start its server (mam-server) and look at its log; nothing was lost",
    ),
    (
        ("permission denied", "not authorized", "unauthorized", "authentication failed",
         "failed to authenticate", "invalid signature", "access denied"),
        MamNotPermittedError,
        "this user may not do that in the accounting manager",
        "run the agent as root on a head node, or give its user the role of an administrator",
    ),
    (
        ("insufficient", "not enough"),
        TemporaryError,
        "the fund holds less than was to be taken back",
        "jobs were charged meanwhile; the amount is computed anew in the next cycle",
    ),
)  # fmt: skip


def failure(result: CommandResult) -> TemporaryError | None:
    """Return what went wrong, or ``None`` when the command gives no sign of failure.

    Success still has to be confirmed by reading back.
    """
    if result.exit_code == 0:
        return None
    said = f"{result.stderr}\n{result.stdout}".lower()
    for texts, family, what, remedy in _KNOWN:
        if any(text in said for text in texts):
            return family(f"{what}: {described(result)}", remedy=remedy)
    if "--add-user" in result.argv and "user" in said and "does not exist" in said:
        user = result.argv[-1]
        return UserUnknownError(
            f"the accounting manager does not know the user {user}: {described(result)}",
            remedy=f"make it: mam-create-user -u {user}",
        )
    return TemporaryError(
        f"the accounting manager gave an answer that is not understood: {described(result)}",
        remedy="run the command by hand to see more",
    )


_log = logging.getLogger(__name__)


class MamClient(CommandClient):
    """One accounting manager, seen through its commands. Every failure is a ``TemporaryError``."""

    unavailable = MamUnavailableError

    def __init__(self, runner: Runner, timeout: float, *, deposited_falls: bool) -> None:
        """``deposited_falls``: a withdrawal lowers ``Deposited``, so withdrawals need no asking."""
        super().__init__(runner, timeout)
        self._deposited_falls = deposited_falls

    def label(self, argv: Sequence[str], *, writes: bool) -> str:  # noqa: ARG002 - all are mam-*
        """``mam read`` or ``mam write``."""
        return f"mam {'write' if writes else 'read'}"

    def failure(self, result: CommandResult) -> TemporaryError | None:
        """See :func:`failure`."""
        return failure(result)

    def write(self, argv: Sequence[str], extra_seconds: float = 0) -> None:
        """Run a command that changes something; one that hangs is not repeated within the pass.

        The server may still carry it out, and a deposit that is made twice adds twice.
        """
        try:
            super().write(argv, extra_seconds)
        except MamUnavailableError as error:
            if isinstance(error.__cause__, CommandTimedOutError):
                error.may_pass = False
            raise

    def read(self) -> Mam:
        """Read every account, fund and allocation; at most four processes.

        Raises:
            TemporaryError: a list could not be read or is not understood.
        """
        accounts = facts.parse_accounts(self.ask(commands.list_accounts()))
        return Mam(accounts=accounts, funds=self.funds(), books=self._books(None))

    def funds(self) -> dict[str, Fund]:
        """Read every fund."""
        return facts.parse_funds(self.ask(commands.list_funds()))

    def books(self, fund: str) -> Books:
        """Read the figures of one fund anew."""
        return self._books(fund).get(fund, Books())

    def charges(self, start: date, end: date) -> Iterator[Charge]:
        """Read the usage records of all accounts that have to do with a span of days."""
        return facts.parse_charges(self.ask(commands.list_charges(start, end)))

    def withdrawals(self) -> dict[str, Decimal]:
        """Read what was ever withdrawn, by fund."""
        return facts.parse_withdrawals(self.ask(commands.list_withdrawals()))

    def _books(self, fund: str | None) -> dict[str, Books]:
        allocations = facts.parse_allocations(self.ask(commands.list_allocations(fund)))
        return books_of(allocations, self._withdrawn(allocations))

    def _withdrawn(self, allocations: tuple[Allocation, ...]) -> dict[str, Decimal] | None:
        """What was taken back, by fund; asked only where something is missing from a deposit."""
        if self._deposited_falls or all(a.amount == a.deposited for a in allocations):
            return {}
        try:
            return self.withdrawals()
        except MamUnavailableError:
            raise
        except TemporaryError as error:
            _log.warning("the withdrawals could not be read: %s", error)
            return None


@dataclass(slots=True, kw_only=True)
class Work(command_line.Work[Mam]):
    """Everything that one batch is carried out with."""

    client: MamClient
    settings: MoabSettings

    def write(self, task: AnyTask, argv: Argv) -> None:
        """Run a writing command for a task."""
        self.ledger.writes(task)
        self.client.write(argv)

    def account(self, name: str) -> Account:
        """The account that an action is about.

        Raises:
            PermanentError: the name cannot be used, or there is no such account.
        """
        key = account_name(name, "account")
        account = self.now.accounts.get(key)
        if account is None:
            raise PermanentError(
                f'{key}: there is no account "{key}" in the accounting manager; it was removed, '
                "or never made"
            )
        return account
