"""Slurm's commands as questions and orders: asks with the right timeout, counts, classifies."""

from __future__ import annotations

import logging
import os
import pwd
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Protocol, runtime_checkable

from waldur_site_agent.backends import TemporaryError, command_line, processes
from waldur_site_agent.backends.command_line import CommandClient
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent_slurm import commands, controller, facts
from waldur_site_agent_slurm import names as usernames
from waldur_site_agent_slurm.answers import DatabaseUnavailableError, failure, remarks_of
from waldur_site_agent_slurm.commands import Argv
from waldur_site_agent_slurm.facts import ROOT, Account, Cluster
from waldur_site_agent_slurm.settings import SlurmSettings

_BLOCK = 1 << 16
_MOST_COMPLAINTS = 1 << 16


class OutputReader:
    """The outputs of one process; both are read at once, so that neither of them can block it."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        """The deadline is ``seconds`` from now; nothing may have been read before."""
        self._process = process
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._rest = b""
        self._complaints = b""
        self._last_complaints = b""

    def lines(self) -> Iterator[str]:
        """Yield the lines of standard output, without their ends; then wait for the end.

        Only a line feed ends a line. What stands after the last one is in :attr:`rest`.

        Raises:
            subprocess.TimeoutExpired: the deadline passed.
        """
        with selectors.DefaultSelector() as selector:
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    selector.register(stream.fileno(), selectors.EVENT_READ, stream)
            while selector.get_map():
                for key, _ in selector.select(self._left()):
                    block = os.read(key.fd, _BLOCK)
                    if not block:
                        selector.unregister(key.fd)
                    elif key.data is self._process.stdout:
                        yield from self._whole_lines(block)
                    else:
                        self._keep_complaint(block)
        self._process.wait(self._left())

    @property
    def rest(self) -> str:
        """The last line, if it had no end."""
        return self._rest.decode("utf-8", "replace")

    @property
    def complaints(self) -> str:
        """Standard error; of a flood, its beginning and its end."""
        return (self._complaints + self._last_complaints).decode("utf-8", "replace")

    def _keep_complaint(self, block: bytes) -> None:
        room = _MOST_COMPLAINTS - len(self._complaints)
        self._complaints += block[:room]
        self._last_complaints = (self._last_complaints + block[room:])[-_MOST_COMPLAINTS:]

    def _whole_lines(self, block: bytes) -> Iterator[str]:
        lines, separator, rest = block.rpartition(b"\n")
        if not separator:
            self._rest += block
            return
        text = (self._rest + lines).decode("utf-8", "replace")
        self._rest = rest
        yield from text.split("\n")

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise subprocess.TimeoutExpired(self._process.args, self._seconds)
        return left


@runtime_checkable
class StreamingRunner(Runner, Protocol):
    """Starts commands that may print more than one wants to keep."""

    def stream(
        self, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
    ) -> CommandResult:
        """Run a command and let ``read`` have its lines as they come, without their ends.

        The result's ``stdout`` is what followed the last line end: empty, unless the output was
        cut off. What was read counts only once the result is known to be good. ``timeout`` is
        in seconds and includes the time that ``read`` takes.

        Raises:
            CommandTimedOutError: it was still running then, and was killed.
            CommandMissingError: it cannot be started.
        """
        ...


def stream(
    runner: Runner, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
) -> CommandResult:
    """Run a command as :meth:`StreamingRunner.stream` does, on any runner."""
    if isinstance(runner, StreamingRunner):
        return runner.stream(argv, timeout, read)
    result = runner.run(argv, timeout)
    lines, separator, rest = result.stdout.rpartition("\n")
    read(iter(lines.split("\n") if separator else ()))
    return replace(result, stdout=rest)


class CommandTimedOutError(processes.CommandTimedOutError, DatabaseUnavailableError):
    """The command hung; a write that hung may have landed, so read before writing again."""


class CommandMissingError(processes.CommandMissingError, DatabaseUnavailableError):
    """The command is not there, or may not be executed."""

    may_pass = False


class ProcessRunner(processes.ProcessRunner):
    """Runs each command in a process group of its own, without a shell and without input."""

    timed_out = CommandTimedOutError
    missing = CommandMissingError

    def __init__(self, directory: Path | None = None, environment: Mapping[str, str] | None = None):
        """Commands are taken from ``directory``; without it they are looked up in PATH.

        ``environment`` replaces the agent's own as the source of what is passed on.
        """
        super().__init__(
            directory,
            environment,
            passed_on=("SLURM_CONF", "SLURM_CONF_SERVER"),
            secrets=("SLURM_JWT",),
            added={"SLURM_TIME_FORMAT": "%s"},  # times are read as epochs
            when_missing=(
                "install the Slurm client commands on this machine or set slurm_bin_path to "
                "their directory"
            ),
            when_hung=_when_hung("command_timeout_seconds"),
        )

    def stream(
        self, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
    ) -> CommandResult:
        """See :class:`StreamingRunner`."""
        command = tuple(argv)
        is_of_accounts = command[0] == "sacctmgr"
        when_hung = _when_hung(f"{'command' if is_of_accounts else 'usage'}_timeout_seconds")
        with self._running(command, timeout, when_hung) as process:
            output = OutputReader(process, timeout)
            lines = output.lines()
            read(lines)
            for _ in lines:  # what read left, and the end of the process
                pass
        return CommandResult(
            command, process.returncode, output.rest, self._masked(output.complaints)
        )


def _when_hung(setting: str) -> str:
    return (
        "slurmdbd or slurmctld hangs or is overloaded: look at their logs; a site with a slow "
        f"database can raise {setting}"
    )


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


def _counted(limits: controller.Limits) -> dict[str, Decimal]:
    kind = "GrpTRESMins "
    return {n.removeprefix(kind): each.used for n, each in limits.items() if n.startswith(kind)}


class SlurmClient(CommandClient):
    """One cluster, seen through its commands. Every failure is a ``TemporaryError``."""

    def __init__(self, runner: Runner, cluster: str | None, timeout: float) -> None:
        super().__init__(runner, timeout)
        self.cluster = cluster
        self._names: dict[str, frozenset[str]] = {}
        self._unreadable: set[str] = set()
        """Accounts of which it was logged that limits cannot be read."""
        self._remarks: set[str] = set()
        """Remarks that were logged; shared by all copies of the client."""

    def label(self, argv: Sequence[str], *, writes: bool) -> str:
        """The program; of sacctmgr also whether it reads or writes."""
        kind = ("write" if writes else "read") if argv[0] == "sacctmgr" else ""
        return f"{argv[0]} {kind}".strip()

    def failure(self, result: CommandResult) -> TemporaryError | None:
        """See :func:`answers.failure`."""
        return failure(result, operating_system_user())

    def checked(self, result: CommandResult) -> CommandResult:
        """Return the result of a command that did not fail, and log what it remarked."""
        self._log_remarks(super().checked(result))
        return result

    def accounts(self, names: Collection[str] | None = None) -> Cluster:
        """Read every account of the cluster, or those of these names, in one process.

        The root account is always read: an answer without it is not complete.
        """
        asked = None if names is None else frozenset({*names, ROOT})
        question = commands.show_accounts(self.cluster, None if asked is None else sorted(asked))
        reading = facts.AccountReading()
        self.stream(question, self._timeout, reading.add)
        cluster = reading.cluster(self.cluster, asked)
        for account in cluster.accounts.values():
            if account.unreadable and account.name not in self._unreadable:
                self._unreadable.add(account.name)
                _log.warning(
                    "limits of account %s cannot be read and are left alone: %s; look at: sacctmgr "
                    "show assoc where account=%s format=account,user,grptresmins",
                    *(ascii(account.name), ascii(", ".join(account.unreadable)), account.name),
                )
        return cluster

    def own_qos(
        self, names: Collection[str] | None = None, needed: Collection[str] = ()
    ) -> dict[str, facts.QosRecord]:
        """Read every QOS with its limits, or those of these names.

        If one that is needed is not in the answer, every QOS is read: absent are those that the
        whole list lacks, too.
        """
        if names is not None:
            found = facts.parse_some_qos(self.ask(commands.show_own_qos(sorted(names))))
            if found.keys() >= {*needed}:
                return found
        return facts.parse_qos(self.ask(commands.show_own_qos()))

    def users(self, names: Iterable[str], cluster: str) -> dict[str, facts.UserRecord]:
        """Read the accounts, the default account and the AdminLevel of users, and of ``root``."""
        found: dict[str, facts.UserRecord] = {}
        for portion in commands.chunks(names):
            question = commands.show_users((*portion, ROOT), self.cluster)
            found |= facts.parse_users(self.ask(question), cluster)
        return found

    def below(self, accounts: Iterable[str], cluster: str) -> frozenset[str]:
        """Read the names of these accounts, which exist, and of all below them.

        Raises:
            TemporaryError: the answer lacks one of them.
        """
        names: set[str] = set()
        for portion in commands.chunks(accounts):
            found = facts.parse_below(self.ask(commands.show_below(portion, self.cluster)), cluster)
            if missing := frozenset(portion) - found:
                raise TemporaryError(
                    f"the list of the accounts below others came back without {min(missing)}: this "
                    "is a failed read; look at: sacctmgr show assoc withsubaccounts "
                    f"account={min(missing)}"
                )
            names |= found
        return frozenset(names)

    def shares(
        self, names: Collection[str] | None = None, *, of_qos: bool
    ) -> dict[str, facts.Share]:
        """Read the fairshare and MaxTRESMins of every account; of its QOS if limits are there.

        With ``names``, only of these accounts.
        """
        asked = None if names is None else sorted({*names, ROOT})
        shares = facts.parse_shares(self.ask(commands.show_shares(self.cluster, asked)))
        if not of_qos:
            return shares
        limits = facts.parse_qos_job_limits(self.ask(commands.show_qos_job_limits()))
        return {name: facts.Share(s.fairshare, limits.get(name, {})) for name, s in shares.items()}

    def counted(self, accounts: Iterable[str], *, of_qos: bool) -> dict[str, dict[str, Decimal]]:
        """Read what slurmctld counts against the limits of accounts, or of their QOS.

        Whole TRES-minutes, rounded down, as slurmctld prints them.
        """
        command = commands.show_counted_of_qos if of_qos else commands.show_counted
        found: dict[str, dict[str, Decimal]] = {}
        for portion in commands.chunks(accounts):
            said = controller.parse_assoc_mgr(self.ask(command(portion, self.cluster)))
            limits = (
                {name: qos.limits for name, qos in said.qos.items()}
                if of_qos
                else {each.account: each.limits for each in said.associations if not each.user}
            )
            found |= {name: _counted(each) for name, each in limits.items()}
        return found

    def controller_started(self) -> str:
        """When slurmctld was started, as it prints it; empty if it does not say."""
        said = facts.parse_configuration(self.ask(commands.show_configuration(self.cluster)))
        return said.get("BOOT_TIME", "")

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

    def stream(self, argv: Argv, timeout: float, read: Callable[[Iterator[str]], None]) -> None:
        """Run a command that changes nothing and may print a lot; ``read`` gets its lines.

        What was read counts only once this has returned.

        Raises:
            TemporaryError: the command failed, hung, or its output was cut off.
        """
        with self.commands.running(self.label(argv, writes=False)):
            result = self.checked(stream(self._runner, argv, timeout, read))
            if result.stdout:
                raise TemporaryError(
                    f"{processes.command_line(argv)} ended in the middle of a line "
                    f"({result.stdout[:80]!a}): its answer is not whole, nothing is taken from it"
                )

    def change(self, argv: Argv, names: int = 1) -> None:
        """Run a command that changes accounts; ``names`` is the number of objects in it."""
        self.write(argv, _SECONDS_PER_NAME * names)

    def _log_remarks(self, result: CommandResult) -> None:
        """Log what a command printed on standard error without failing; each remark once."""
        for remark in remarks_of(result.stderr):
            kind = re.sub(r"[0-9]+", "N", remark)
            if kind not in self._remarks and len(self._remarks) < _MOST_REMARKS:
                self._remarks.add(kind)
                _log.warning("%s printed a remark: %s", result.argv[0], ascii(remark[:400]))


@dataclass(frozen=True, slots=True)
class PollTimeout:
    """How long to wait for jobs to end, and how often to look."""

    seconds: float = 45
    """More than Slurm's KillWait (30 s), which a job that ignores SIGTERM takes."""
    pause: float = 0.3
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def looks(self) -> Iterator[None]:
        """Yield once for each look, pausing in between, until the time is over."""
        deadline = self.clock() + self.seconds
        yield
        while self.clock() < deadline:
            self.sleep(self.pause)
            yield


@dataclass(slots=True, kw_only=True)
class Work(command_line.Work[Cluster]):
    """Everything a phase works with."""

    client: SlurmClient
    settings: SlurmSettings
    user_exists: Callable[[str], bool]
    patience: PollTimeout
    system_name: Callable[[str], str] = str
    """A user's name as the operating system has it."""
    added: dict[str, frozenset[str]] = field(default_factory=dict)
    """By account, those who got an association in this batch."""

    @property
    def only(self) -> str | None:
        """The cluster to name in commands; ``None`` where slurmdbd has just one."""
        return self.settings.cluster

    def listed_as(self, name: str, users: Collection[str]) -> str | None:
        """How a user is listed among ``users``; see :func:`usernames.listed_as`."""
        return usernames.listed_as(name, users, self.client.keeps_case, self._are_two_people)

    def _are_two_people(self, name: str, other: str) -> bool:
        return usernames.are_two_people(name, other, self.user_exists, self.system_name)

    def records_of(self, users: Collection[str]) -> dict[str, facts.UserRecord]:
        """What slurmdbd knows of users, whose accounts are then known here, too.

        Only the user root proves that whoever is missing does not exist. Where a site has removed
        that user, every account is read instead.
        """
        records = self.client.users(users, self.now.name) if users else {}
        if ROOT not in records and not records.keys() >= {*users} and not self.now.covers(None):
            self.now = self.now.joined(self.client.accounts())
        accounts = {user: record.accounts for user, record in records.items()}
        self.now = replace(self.now, elsewhere={**self.now.elsewhere, **accounts})
        return records

    def note(self, account: Account) -> None:
        """Remember an account as the commands so far should have left it."""
        self.now = self.now.with_account(account)

    def note_parent(self, account: str, parent: str) -> None:
        """Remember where an account is, as the commands so far should have left it."""
        self.note(replace(self.now.accounts[account], parent=parent))

    def note_members(self, account: str, users: Iterable[str]) -> None:
        """Remember users as members, as the commands so far should have left it."""
        known = self.now.accounts[account]
        self.note(replace(known, users=known.users | {*users}))

    def forget(self, name: str) -> None:
        """Remember that an account should be gone by now."""
        self.now = self.now.without_account(name)


LOCK_PURPOSE = (
    "Slurm's database takes one writer at a time: look at that process if it should have ended, "
    "or, where it has, at the sacctmgr that it left running"
)
