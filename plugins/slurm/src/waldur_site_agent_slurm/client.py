"""Slurm's commands as questions and orders: asks with the right timeout, counts, classifies."""

from __future__ import annotations

import logging
import os
import pwd
import re
from copy import copy
from typing import TYPE_CHECKING

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.processes import CommandLog, command_line
from waldur_site_agent_slurm import commands, facts
from waldur_site_agent_slurm.answers import remarks_of
from waldur_site_agent_slurm.errors import failure
from waldur_site_agent_slurm.runner import inheriting, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from waldur_site_agent_slurm.commands import Argv
    from waldur_site_agent_slurm.facts import Cluster
    from waldur_site_agent_slurm.runner import CommandResult, Runner

_log = logging.getLogger(__name__)

_MOST_REMARKS = 50
"""Kinds of remarks that are logged; debugging may print any number of them."""
_SECONDS_PER_NAME = 0.5
"""A fresh association takes 0.12 s to remove at 10,000 associations, and more at 50,000."""


def operating_system_user() -> str:
    """Return the name of the user that the agent runs as; its number where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _name(program: str, *, writes: bool) -> str:
    kind = ("write" if writes else "read") if program == "sacctmgr" else ""
    return f"{program} {kind}".strip()


class SlurmClient:
    """One cluster, seen through its commands. Every failure is a ``TemporaryError``."""

    def __init__(self, runner: Runner, cluster: str | None, timeout: float) -> None:
        self._runner = runner
        self.cluster = cluster
        self._timeout = timeout
        self._lock: int | None = None
        self.commands = CommandLog()
        """Counts what is run; shared by all copies of the client."""
        self._names: dict[str, frozenset[str]] = {}
        self._unreadable: set[str] = set()
        """Accounts of which it was logged that limits cannot be read."""
        self._remarks: set[str] = set()
        """Remarks that were logged; shared by all copies of the client."""

    def accounts(self) -> Cluster:
        """Read every account of the cluster, in one process."""
        cluster = facts.parse_accounts(self.ask(commands.show_accounts(self.cluster)), self.cluster)
        for account in cluster.accounts.values():
            if account.unreadable and account.name not in self._unreadable:
                self._unreadable.add(account.name)
                _log.warning(
                    "limits of account %s cannot be read and are left alone: %s; look at: sacctmgr "
                    "show assoc where account=%s format=account,user,grptresmins",
                    *(ascii(account.name), ascii(", ".join(account.unreadable)), account.name),
                )
        return cluster

    def users(self) -> dict[str, facts.UserRecord]:
        """Read everybody's default account and AdminLevel."""
        return facts.parse_users(self.ask(commands.show_users(self.cluster)))

    def coordinators(self, accounts: Iterable[str]) -> dict[str, frozenset[str]]:
        """Read who is a coordinator of these accounts."""
        return {
            account: users
            for portion in commands.chunks(accounts)
            for account, users in facts.parse_coordinators(
                self.ask(commands.show_coordinators(portion))
            ).items()
        }

    def qos_names(self) -> frozenset[str]:
        """Read the names of all QOS, once until :meth:`forget`."""
        if "qos" not in self._names:
            self._names["qos"] = frozenset(facts.parse_names(self.ask(commands.show_qos())))
        return self._names["qos"]

    def tres_names(self) -> frozenset[str]:
        """Read the names of all TRES, once until :meth:`forget`."""
        if "tres" not in self._names:
            self._names["tres"] = facts.parse_tres_names(self.ask(commands.show_tres()))
        return self._names["tres"]

    def keeps_case(self) -> bool:
        """Whether users keep their capitals (``PreserveCaseUser``), once until :meth:`forget`."""
        if "parameters" not in self._names:
            said = self.ask(commands.show_database_configuration())
            values = facts.values_of("Parameters", said)
            words = (word.strip().lower() for value in values for word in value.split(","))
            self._names["parameters"] = frozenset(words)
        return "preservecaseuser" in self._names["parameters"]

    def forget(self) -> None:
        """Forget what was read before, because a new cycle begins."""
        self._names.clear()

    def holding(self, lock: int) -> SlurmClient:
        """Return the same client for the holder of the writer lock.

        Its writing commands inherit the descriptor: should this process be killed, the lock is
        held until the command that it left behind has ended.
        """
        holder = copy(self)
        holder._lock = lock  # noqa: SLF001 - of the same class
        return holder

    def jobs(self, accounts: Iterable[str]) -> tuple[facts.Job, ...]:
        """List the jobs of accounts that are not over."""
        return tuple(
            job
            for portion in commands.chunks(accounts)
            for job in facts.parse_jobs(self.ask(commands.list_jobs(portion, self.cluster)))
        )

    def cancel(self, jobs: Iterable[facts.Job]) -> None:
        """Ask slurmctld to end these jobs."""
        for portion in commands.chunks(job.id for job in jobs):
            self.ask(commands.cancel_jobs(portion, self.cluster))

    def ask(self, argv: Argv) -> str:
        """Run a command that changes no account and return what it printed."""
        with self.commands.running(_name(argv[0], writes=False)):
            return self._checked(self._runner.run(argv, self._timeout)).stdout

    def stream(self, argv: Argv, timeout: float, read: Callable[[Iterator[str]], None]) -> None:
        """Run a command that changes nothing and may print a lot; ``read`` gets its lines.

        What was read counts only once this has returned.

        Raises:
            TemporaryError: the command failed, hung, or its output was cut off.
        """
        with self.commands.running(_name(argv[0], writes=False)):
            result = self._checked(stream(self._runner, argv, timeout, read))
            if result.stdout:
                raise TemporaryError(
                    f"{command_line(argv)} ended in the middle of a line "
                    f"({result.stdout[:80]!a}): its answer is not whole, nothing is taken from it"
                )

    def write(self, argv: Argv, names: int = 1) -> None:
        """Run a command that changes accounts; ``names`` is the number of objects in it.

        That it gave no sign of failure does not prove anything yet: read back.
        """
        timeout = self._timeout + _SECONDS_PER_NAME * names
        with self.commands.running(_name(argv[0], writes=True)), inheriting(self._lock):
            self._checked(self._runner.run(argv, timeout))

    def counts(self) -> Mapping[str, int]:
        """How many processes were started, by program; sacctmgr by reading and writing."""
        return self.commands.counts()

    def _checked(self, result: CommandResult) -> CommandResult:
        error = failure(result, operating_system_user())
        if error is not None:
            raise error
        self._log_remarks(result)
        return result

    def _log_remarks(self, result: CommandResult) -> None:
        """Log what a command printed on standard error without failing; each remark once."""
        for remark in remarks_of(result.stderr):
            kind = re.sub(r"[0-9]+", "N", remark)
            if kind not in self._remarks and len(self._remarks) < _MOST_REMARKS:
                self._remarks.add(kind)
                _log.warning("%s printed a remark: %s", result.argv[0], ascii(remark[:400]))
