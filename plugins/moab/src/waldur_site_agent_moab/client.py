"""The ``mam-*`` commands as questions and orders: asks, counts, classifies."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from copy import copy
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

from waldur_site_agent.backends import TemporaryError, locking
from waldur_site_agent.backends.processes import (
    CommandLog,
    CommandMissingError,
    CommandResult,
    CommandTimedOutError,
    Runner,
    described,
    inheriting,
)
from waldur_site_agent_moab import commands, facts
from waldur_site_agent_moab.commands import Argv
from waldur_site_agent_moab.facts import Allocation, Books, Charge, Fund, Mam, books_of

_PURPOSE = (
    "deposits are made by one agent at a time: look at that process if it should have ended, or, "
    "where it has, at the mam command that it left running"
)


def default_lock_file() -> Path:
    """Return the lock file of this machine's agents, in the first usable directory."""
    return locking.default_lock_file("waldur-site-agent-moab.lock")


def writer_lock(path: Path, wait_seconds: float) -> AbstractContextManager[int]:
    """Hold the lock while the body runs; gives the descriptor, for writing commands to inherit.

    Raises:
        TemporaryError: another writer held it all the time, or the file cannot be used.
    """
    return locking.exclusive_lock(path, wait_seconds, _PURPOSE)


def probe_lock(path: Path) -> None:
    """Check that the lock file can be opened, without waiting for anybody.

    Raises:
        TemporaryError: it can be neither opened nor made.
    """
    os.close(locking.open_lock(path))


class MamUnavailableError(TemporaryError):
    """No command has a chance at the moment: what is left is not even tried."""


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
        MamUnavailableError,
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

_WRITING = ("mam-create-", "mam-delete-", "mam-modify-", "mam-deposit", "mam-withdraw")


class MamClient:
    """One accounting manager, seen through its commands. Every failure is a ``TemporaryError``."""

    def __init__(self, runner: Runner, timeout: float, *, deposited_falls: bool = False) -> None:
        """``deposited_falls``: a withdrawal lowers ``Deposited``, so withdrawals need no asking."""
        self._runner = runner
        self._timeout = timeout
        self._deposited_falls = deposited_falls
        self._lock: int | None = None
        self.commands = CommandLog()
        """Counts what is run; shared by all copies of the client."""

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

    def holding(self, lock: int) -> MamClient:
        """Return the same client for the holder of the writer lock.

        Its writing commands inherit the descriptor: should this process be killed, the lock is
        held until the command that it left behind has ended.
        """
        holder = copy(self)
        holder._lock = lock  # noqa: SLF001 - of the same class
        return holder

    def ask(self, argv: Argv) -> str:
        """Run a command that changes nothing and return what it printed."""
        return self._run(argv).stdout

    def write(self, argv: Argv) -> None:
        """Run a command that changes something.

        That it gave no sign of failure does not prove anything yet: read back.
        """
        with inheriting(self._lock):
            self._run(argv)

    def counts(self) -> Mapping[str, int]:
        """How many processes were started: ``mam read`` and ``mam write``."""
        return self.commands.counts()

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

    def _run(self, argv: Argv) -> CommandResult:
        kind = "write" if argv[0].startswith(_WRITING) else "read"
        with self.commands.running(f"mam {kind}"):
            try:
                result = self._runner.run(argv, self._timeout)
            except (CommandTimedOutError, CommandMissingError) as error:
                raise MamUnavailableError(str(error)) from error
            error_found = failure(result)
            if error_found is not None:
                raise error_found
        return result
