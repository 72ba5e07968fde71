"""What backends that are driven by commands have in common.

One writer at a time, one reading, the actions kind by kind, a reading afterwards, and a verdict on
each action from what that reading shows. A plugin brings the reading, the commands and the phases.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from waldur_site_agent.backends import locking
from waldur_site_agent.backends.actions import (
    Action,
    AddMembers,
    CreateHomeDirectories,
    CreateProjectDirectory,
    CreateResource,
    DeleteResource,
    Outcome,
    RemoveMembers,
    Result,
)
from waldur_site_agent.backends.backend_settings import BackendSettings
from waldur_site_agent.backends.batches import (
    AnyTask,
    BackendUnavailableError,
    Ledger,
    R,
    Reading,
    Task,
    W,
    Work,
    batches,
)
from waldur_site_agent.backends.checks import Check, DirectoryReport
from waldur_site_agent.backends.command_line_settings import CommandLineSettings
from waldur_site_agent.backends.contract import Backend
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.leases import Leases
from waldur_site_agent.backends.processes import (
    CommandLog,
    CommandMissingError,
    CommandResult,
    CommandTimedOutError,
    Runner,
    inheriting,
)
from waldur_site_agent.backends.project_directories import ProjectDirectories
from waldur_site_agent.backends.state import BackendState
from waldur_site_agent.backends.system_users import system_user
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.standing import Standing, UserStanding

__all__ = [
    "LOCK_WAIT_SECONDS",
    "AnyTask",
    "BackendUnavailableError",
    "CommandClient",
    "CommandLineBackend",
    "Ledger",
    "Reading",
    "Task",
    "Work",
    "batches",
    "listed",
]

_log = logging.getLogger(__name__)

LOCK_WAIT_SECONDS = 120.0
_READING_LASTS_SECONDS = 60.0
"""How long the agent builds on a reading; the lock does not keep administrators from writing."""
_SHOWN = 5
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 15.0

Argv = Sequence[str]
Client = TypeVar("Client", bound="CommandClient")


class CommandClient:
    """Runs the commands of one backend, counts them and raises what :meth:`failure` finds."""

    unavailable: ClassVar[type[BackendUnavailableError]] = BackendUnavailableError
    """What a command that hangs, or cannot be started, is taken for."""

    def __init__(self, runner: Runner, timeout: float) -> None:
        self._runner = runner
        self._timeout = timeout
        self._lock: int | None = None
        self.ask_before_writing: Callable[[], None] | None = None
        """Called before each writing command; raises where this agent may write no more."""
        self.commands = CommandLog()
        """Counts what is run; shared by all copies of the client."""

    def failure(self, result: CommandResult) -> SiteAgentError | None:
        """What a finished command says went wrong; success still has to be read back."""
        raise NotImplementedError

    def label(self, argv: Argv, *, writes: bool) -> str:
        """The name under which a command is counted."""
        return f"{argv[0]} {'write' if writes else 'read'}"

    def holding(self: Client, lock: int) -> Client:
        """Return the same client for the holder of the writer lock.

        Its writing commands inherit the descriptor: should this process be killed, the lock is
        held until the command that it left behind has ended.
        """
        holder = copy(self)
        holder._lock = lock  # noqa: SLF001 - of the same class
        return holder

    def ask(self, argv: Argv) -> str:
        """Run a command that changes nothing and return what it printed."""
        with self.commands.running(self.label(argv, writes=False)):
            return self._run(argv, self._timeout).stdout

    def write(self, argv: Argv, extra_seconds: float = 0) -> None:
        """Run a command that changes something.

        That it gave no sign of failure does not prove anything yet: read back.

        Raises:
            TemporaryError: this agent may not write any more; nothing was started.
        """
        if self.ask_before_writing is not None:
            self.ask_before_writing()
        with self.commands.running(self.label(argv, writes=True)), inheriting(self._lock):
            self._run(argv, self._timeout + extra_seconds)

    def checked(self, result: CommandResult) -> CommandResult:
        """Return the result of a command that did not fail.

        Raises:
            SiteAgentError: it failed.
        """
        error = self.failure(result)
        if error is not None:
            raise error
        return result

    def _run(self, argv: Argv, timeout: float) -> CommandResult:
        try:
            result = self._runner.run(argv, timeout)
        except self.unavailable:
            raise
        except (CommandTimedOutError, CommandMissingError) as error:
            away = self.unavailable(error.problem, remedy=error.remedy)
            away.may_pass = isinstance(error, CommandTimedOutError)
            raise away from error
        return self.checked(result)

    def counts(self) -> Mapping[str, int]:
        """How many processes were started, by :meth:`label`."""
        return self.commands.counts()


class _Session(Generic[R]):
    """The reading, and once something was written the lock, that the parts of a pass share."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._lock: locking.HeldLock | None = None
        self._reading: R | None = None
        self._read_at = 0.0
        self._mark: locking.Mark | None = None

    def lock(self, hold: Callable[[], AbstractContextManager[locking.HeldLock]]) -> int:
        """Take the lock, unless the session has it; it is held until the session ends."""
        if self._lock is None:
            self._lock = self._stack.enter_context(hold())
            if self._mark is None or self._lock.before != self._mark:
                self._reading = None  # somebody may have written since
        return self._lock.descriptor

    def read(self, path: Path | None, read: Callable[[], R]) -> R:
        """Read, and keep the reading for those who write later."""
        self._reading = None
        if self._lock is None:
            self._mark = None if path is None else locking.mark_of_free_lock(path)
        began = time.monotonic()
        reading = read()
        self.keep(reading, began)
        return reading

    def keep(self, reading: R | None, read_at: float) -> None:
        """Hand a reading on to the next part of the pass; ``None``: it has to read anew."""
        self._reading, self._read_at = reading, read_at

    def reading(self) -> R | None:
        """What the holder of the lock may build on."""
        if time.monotonic() - self._read_at > _READING_LASTS_SECONDS:
            return None
        return self._reading

    def close(self) -> None:
        """Let go of the lock."""
        self._stack.close()


class Retries:
    """The pauses of a pass while its backend is away: they grow, and end after some seconds."""

    def __init__(self, pause: Callable[[float], None] | None, seconds: float) -> None:
        self._pause = pause
        self._left = seconds
        self._next = _FIRST_PAUSE_SECONDS
        self._since: float | None = None

    def wait(self, error: SiteAgentError) -> bool:
        """Pause before another try; return ``False`` at once where there is no point in one."""
        if not (isinstance(error, BackendUnavailableError) and error.may_pass):
            return False
        now = time.monotonic()
        if self._since is not None:  # the try itself took time, too: commands may hang
            self._left -= now - self._since
        if self._pause is None or self._left <= 0:
            return False
        seconds = min(self._next, self._left)
        _log.info("trying again in %.0f s: %s", seconds, error)
        self._next = min(2 * self._next, _LONGEST_PAUSE_SECONDS)
        self._left -= seconds
        self._pause(seconds)
        self._since = time.monotonic()
        return True


class CommandLineBackend(Backend, Generic[R, W]):
    """A backend that reads everything at once and changes it by commands."""

    phases: ClassVar[Mapping[type, Callable[..., None]]]
    """By kind of action, in the order of a batch: ``phase(work, tasks)`` carries out its tasks,
    for all accounts together. Phases without a task are not entered."""
    lock_purpose: ClassVar[str]
    """What the writer lock protects and what to do about a holder, for messages."""

    def __init__(
        self,
        settings: BackendSettings,
        components: Mapping[str, Component],
        *,
        homes: HomeDirectories | None = None,
        directories: ProjectDirectories | None = None,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        super().__init__(settings, components)
        self._homes = homes
        if not (
            homes is not None
            and isinstance(settings, CommandLineSettings)
            and settings.enable_user_homedir_account_creation
        ):
            self.supports = self.supports - {CreateHomeDirectories}
        self._directories = directories
        if directories is not None:
            self.supports = self.supports | {CreateProjectDirectory}
            self.capabilities = replace(self.capabilities, makes_project_directories=True)
        self._lock_wait_seconds = lock_wait_seconds
        self._session: _Session[R] | None = None
        self._retry_seconds = 0.0
        if isinstance(settings, CommandLineSettings):
            self._retry_seconds = settings.retry_seconds
            self.capabilities = replace(
                self.capabilities,
                names_once=settings.check_backend_id_uniqueness,
                more_names=settings.backend_id_max_retries,
            )
        self._pause: Callable[[float], None] | None = None

    @abstractmethod
    def read(self) -> R:
        """Read every account anew.

        Raises:
            TemporaryError: it failed or is not known to be complete.
        """

    def read_some(self, names: frozenset[str]) -> R:  # noqa: ARG002 - for overriding
        """Read these accounts anew and what changing them needs; this default reads everything.

        Whatever is missing in the reading does not exist: an answer that may be short is failed,
        and what is missing was asked for a second time.

        Raises:
            TemporaryError: it failed or is not known to be complete.
        """
        return self.read()

    def accounts_to_read(self, ids: Iterable[str]) -> frozenset[str] | None:  # noqa: ARG002 - as above
        """The accounts to read where these are asked for; ``None``, as by default: all."""
        return None

    def accounts_needed(self, actions: Iterable[Action]) -> frozenset[str] | None:  # noqa: ARG002 - as above
        """The accounts to be read for some actions; ``None``, as by default: all."""
        return None

    def covers(self, reading: R, names: frozenset[str] | None) -> bool:  # noqa: ARG002 - as above
        """Whether a reading has these accounts (``None``: all), as far as they exist."""
        return True

    @abstractmethod
    def state_of(self, reading: R) -> BackendState:
        """The reading in the terms of the contract."""

    @abstractmethod
    def lock_file(self) -> Path:
        """Where the writers of this backend queue up.

        Raises:
            TemporaryError: that took a reading, which failed.
        """

    @abstractmethod
    def begin(self, reading: R, lock: int) -> W:
        """What a batch works with; writing commands are to inherit the lock."""

    @abstractmethod
    def difference(self, task: AnyTask, work: W, reading: R) -> str:
        """What a reading shows instead of what an action asked for; empty where that is there.

        Members and the existence of the account have been compared already.
        """

    @abstractmethod
    def client(self) -> CommandClient:
        """What runs the commands."""

    def lock_file_if_known(self) -> Path | None:
        """The same as :meth:`lock_file`, without reading for it."""
        return self.lock_file()

    def is_deleted(self, account: str, reading: R) -> bool:
        """Whether a reading shows what ``DeleteResource`` asked for."""
        return reading.members_of(account) is None

    def needs_own_reading(self, action: Action, reading: R) -> bool:  # noqa: ARG002 - for overriding
        """Whether an action cannot be undone, so that it never builds on an earlier reading."""
        return isinstance(action, DeleteResource)

    def forget(self) -> None:
        """Forget what was found out besides the accounts, because a new pass begins."""

    @contextmanager
    def session(self) -> Iterator[None]:
        """See :meth:`Backend.session`."""
        self._session = _Session()
        try:
            yield
        finally:
            session, self._session = self._session, None
            session.close()

    def explain(self, resources: Iterable[str], users: Iterable[str] = ()) -> Standing:
        """See :meth:`Backend.explain`; with what the operating system says of the users."""
        people = tuple(users)
        found = {name: UserStanding(details=system_user(name).details) for name in people}
        return replace(super().explain(resources, people), users=found)

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:
        """Read everything at once, or the accounts named by ``ids`` where the plugin can."""
        self.forget()
        read = partial(self.read_patiently, None if ids is None else self.accounts_to_read(ids))
        if self._session is None:
            return self.state_of(read())
        return self.state_of(self._session.read(self.lock_file_if_known(), read))

    def apply(self, actions: Sequence[Action]) -> Iterable[Outcome]:
        """Carry out the actions, grouped, under the lock; read afterwards, and judge by that.

        Actions whose wanted state is there already start no writing command.
        """
        if self._homes is not None:
            for action in actions:
                if isinstance(action, AddMembers | RemoveMembers):
                    self._homes.look_again(action.members)
        done = iter(self._apply([action for action in actions if self._has_phase(action)]))
        return [
            next(done) if self._has_phase(action) else self._apply_one(action) for action in actions
        ]

    def missing_home_directories(self, users: Iterable[str]) -> frozenset[str]:
        """Those the operating system knows whose home directory does not exist."""
        if self._homes is None or CreateHomeDirectories not in self.supports:
            return frozenset()
        return self._homes.missing(self._homes.usable(users))

    def create_home_directories(self, action: CreateHomeDirectories) -> Outcome:
        """Make the home directories that are missing; no lock is needed for that."""
        if self._homes is None or CreateHomeDirectories not in self.supports:
            return self._unsupported(action)
        return self._homes.create(action)

    def unset_quotas(self, users: Iterable[str]) -> frozenset[str]:
        """See :meth:`Backend.unset_quotas`."""
        if self._homes is None or CreateHomeDirectories not in self.supports:
            return frozenset()
        return self._homes.unset_quotas(self._homes.usable(users))

    def create_project_directory(self, action: CreateProjectDirectory) -> Outcome:
        """Make an account's directory; no lock of the backend is needed for that."""
        if self._directories is None:
            return self._unsupported(action)
        return self._directories.create(action)

    def unfinished_directories(self, resources: Iterable[str]) -> frozenset[str]:
        """See :meth:`Backend.unfinished_directories`."""
        return frozenset() if self._directories is None else self._directories.unfinished(resources)

    def check_directories(
        self,
        resources: Iterable[str],
        users: Iterable[str],
        *,
        repair: bool = False,
        replace_quotas: bool = False,
    ) -> Iterator[DirectoryReport]:
        """See :meth:`Backend.check_directories`."""
        if self._directories is not None:
            yield from self._directories.check(
                resources, repair=repair, replace_quotas=replace_quotas
            )
        if self._homes is not None and CreateHomeDirectories in self.supports:
            names = self._homes.usable(users)
            yield from self._homes.check(names, repair=repair, replace_quotas=replace_quotas)

    def check_setup_of_directories(self) -> Iterator[Check]:
        """What :meth:`diagnose` says of home and project directories."""
        if self._homes is not None:
            yield from self._homes.diagnose()
        if self._directories is not None:
            yield from self._directories.diagnose()

    def pause_with(self, pause: Callable[[float], None]) -> None:
        """See :meth:`Backend.pause_with`; without it nothing is tried again within a pass."""
        self._pause = pause

    def retries(self) -> Retries:
        """How long to put up with the backend being away, from now on."""
        return Retries(self._pause, self._retry_seconds)

    def read_patiently(self, names: frozenset[str] | None) -> R:
        """Read accounts anew, and again after a pause if the backend is away for a moment.

        ``names`` of ``None`` means all accounts.
        """
        retries = self.retries()
        while True:
            try:
                return self.read() if names is None else self.read_some(names)
            except self.client().unavailable as error:
                if not retries.wait(error):
                    raise

    def watch_commands(self, told: Callable[[str, str, float], None]) -> None:
        """See :meth:`Backend.watch_commands`; home directories are not among them."""
        self.client().commands.tell(told)

    def commands_run(self) -> Mapping[str, int]:
        """Processes, by what the client calls them."""
        return self.client().counts()

    def _has_phase(self, action: Action) -> bool:
        return type(action) in self.phases and type(action) in self.supports

    def _apply(self, actions: Sequence[Action]) -> list[Outcome]:
        if not actions:
            return []
        try:
            with self._writing() as lock:
                return _Run(self, lock, self._session).run(actions)
        except TemporaryError as error:
            return [Outcome(action, Result.FAILED, error) for action in actions]

    @contextmanager
    def _writing(self) -> Iterator[int]:
        if self._session is not None:
            yield self._session.lock(self._hold)
            return
        with self._hold() as held:
            yield held.descriptor

    def _hold(self) -> AbstractContextManager[locking.HeldLock]:
        if self.leases is not None:
            return self._hold_lease(self.leases)
        return locking.held_lock(self.lock_file(), self._lock_wait_seconds, self.lock_purpose)

    @contextmanager
    def _hold_lease(self, leases: Leases) -> Iterator[locking.HeldLock]:
        """Let one agent of all hosts write, and on this host no agent without coordination."""
        path, seconds, client = self.lock_file(), self._lock_wait_seconds, self.client()
        with (
            leases.writer(path.name, seconds, self.lock_purpose) as (lease, held),
            locking.shared_lock(path, seconds, self.lock_purpose),
        ):
            client.ask_before_writing = lease.ask
            try:
                yield held
            finally:
                client.ask_before_writing = None


class _HaltedError(Exception):
    """The rest of the actions has no chance; carries the outcomes of the current batch."""

    def __init__(
        self, outcomes: list[Outcome], cause: TemporaryError, written: Collection[int]
    ) -> None:
        super().__init__(str(cause))
        self.outcomes = outcomes
        self.cause = cause
        self.written = frozenset(written)
        """Tasks that a command was run for, by index."""


class _Run(Generic[R, W]):
    """Carries out one list of actions; the caller holds the lock."""

    def __init__(
        self, backend: CommandLineBackend[R, W], lock: int, session: _Session[R] | None
    ) -> None:
        self._backend = backend
        self._lock = lock
        self._session = session
        self._reading = None if session is None else session.reading()
        self._is_handed_on = self._reading is not None
        self._not_made: dict[str, SiteAgentError] = {}
        self._names: frozenset[str] | None = None
        """The accounts that are read; ``None``: all."""

    def run(self, actions: Sequence[Action]) -> list[Outcome]:
        """Return one outcome for each action, in their order."""
        self._names = self._backend.accounts_needed(actions)
        if self._reading is not None and not self._backend.covers(self._reading, self._names):
            self._reading, self._is_handed_on = None, False
        outcomes: list[Outcome] = []
        halted: TemporaryError | None = None
        for batch in batches(actions):
            if halted is None:
                try:
                    outcomes += self._batch(batch)
                    continue
                except _HaltedError as error:
                    outcomes += error.outcomes
                    halted = error.cause
                    continue
                except TemporaryError as error:
                    halted = error
            outcomes += [Outcome(task.action, Result.FAILED, halted) for task in batch]
        if halted is not None and self._session is not None:
            self._session.keep(None, 0)
        return outcomes

    def _batch(self, batch: Sequence[AnyTask]) -> list[Outcome]:
        """Carry out a batch, and again after a pause if the backend was away for a moment.

        The next try begins with a reading: what the last one wrote may have landed.
        """
        retries = self._backend.retries()
        written: set[int] = set()
        while True:
            try:
                return _counted(batch, self._try(batch), written)
            except self._backend.client().unavailable as error:
                if not retries.wait(error):
                    raise
            except _HaltedError as error:
                written |= error.written
                if not retries.wait(error.cause):
                    error.outcomes = _counted(batch, error.outcomes, written)
                    raise
            self._reading = None

    def _try(self, batch: Sequence[AnyTask]) -> list[Outcome]:
        """Carry out a batch, and again with a reading of its own what failed for good.

        Raises:
            TemporaryError: nothing could be read, nothing was begun.
            _HaltedError: the backend went away.
        """
        reading = self._reading
        if reading is None or (
            self._is_handed_on
            and any(self._backend.needs_own_reading(task.action, reading) for task in batch)
        ):
            reading = self._read()
        handed_on = self._is_handed_on
        done, work = self._attempt(batch, reading)
        if not handed_on:
            return done
        again = [
            task
            for task, outcome in zip(batch, done, strict=True)
            if isinstance(outcome.error, PermanentError) and task.index not in work.ledger.written
        ]
        if not again:
            return done
        corrected, _ = self._attempt(again, self._read() if self._is_handed_on else self._now())
        by_task = dict(zip(again, corrected, strict=True))
        return [by_task.get(task, outcome) for task, outcome in zip(batch, done, strict=True)]

    def _now(self) -> R:
        return self._read() if self._reading is None else self._reading

    def _read(self) -> R:
        began = time.monotonic()
        names, backend = self._names, self._backend
        self._reading = backend.read() if names is None else backend.read_some(names)
        self._is_handed_on = False
        if self._session is not None:
            self._session.keep(self._reading, began)
        return self._reading

    def _attempt(self, batch: Sequence[AnyTask], reading: R) -> tuple[list[Outcome], W]:
        work = self._backend.begin(reading, self._lock)
        for task in batch:
            if isinstance(task.action, CreateResource):
                self._not_made.pop(task.account, None)
        self._refuse_what_was_not_made(work, batch)
        try:
            for kind, phase in self._backend.phases.items():
                tasks = [task for task in work.ledger.alive(batch) if type(task.action) is kind]
                if tasks:
                    phase(work, tasks)
                    self._note_what_was_not_made(work, tasks)
                    self._refuse_what_was_not_made(work, batch)
            if work.ledger.written:
                reading = self._read()
        except TemporaryError as error:
            outcomes = self._unconfirmed(batch, work, reading, error)
            raise _HaltedError(outcomes, error, work.ledger.written) from error
        return [self._outcome(task, work, reading) for task in batch], work

    def _note_what_was_not_made(self, work: W, tasks: Iterable[AnyTask]) -> None:
        for task in tasks:
            if isinstance(task.action, CreateResource) and task.index in work.ledger.errors:
                self._not_made.setdefault(task.account, work.ledger.errors[task.index])

    def _refuse_what_was_not_made(self, work: W, batch: Iterable[AnyTask]) -> None:
        """An account that was refused or could not be made may be somebody else's."""
        for task in batch:
            error = self._not_made.get(task.account)
            if error is not None:
                family = PermanentError if isinstance(error, PermanentError) else TemporaryError
                text = f"{task.account}: left alone because it could not be made: {error}"
                work.ledger.errors.setdefault(task.index, family(text))

    def _unconfirmed(
        self, batch: Iterable[AnyTask], work: W, before: R, error: TemporaryError
    ) -> list[Outcome]:
        """Outcomes when the backend went away: what no reading has confirmed has failed."""
        outcomes = []
        for task in batch:
            if task.index not in work.ledger.errors:
                judged = self._outcome(task, work, before)
                if judged.result is Result.UNCHANGED:
                    outcomes.append(judged)
                    continue
                work.ledger.errors[task.index] = error
            outcomes.append(self._outcome(task, work, before))
        return outcomes

    def _outcome(self, task: AnyTask, work: W, reading: R) -> Outcome:
        """What became of a task, from its failure or from what was read afterwards."""
        ledger = work.ledger
        skipped = tuple(ledger.skipped.get(task.index, ()))
        error = ledger.errors.get(task.index)
        if error is None and (shown := self._difference(task, work, reading)):
            error = TemporaryError(
                f"{task.account}: the commands succeeded, but reading back shows {shown}; "
                "it is tried again; if it stays so, somebody else is changing this account"
            )
        if error is not None:
            return Outcome(task.action, Result.FAILED, error, skipped)
        result = Result.DONE if task.index in ledger.written else Result.UNCHANGED
        return Outcome(task.action, result, None, skipped)

    def _difference(self, task: AnyTask, work: W, reading: R) -> str:
        users = reading.members_of(task.account)
        unserved = {entry.name for entry in work.ledger.skipped.get(task.index, ())}
        match task.action:
            case DeleteResource():
                is_gone = self._backend.is_deleted(task.account, reading)
                return "" if is_gone else "that the account still exists"
            case RemoveMembers(members=members):
                present = users or frozenset()
                served = {member for member in members if member not in unserved}
                return listed("still in it", {m for m in served if work.listed_as(m, present)})
            case _ if users is None:
                return "that there is no such account"
            case AddMembers(members=members):
                served = {member for member in members if member not in unserved}
                absent = {m for m in served if not work.listed_as(m, users)}
                shown = listed("not in it", absent)
                return shown or self._backend.difference(task, work, reading)
            case _:
                return self._backend.difference(task, work, reading)


def _counted(
    batch: Iterable[AnyTask], outcomes: Iterable[Outcome], written: Collection[int]
) -> list[Outcome]:
    """The outcomes of the last try, with what an earlier one has written counted as done."""
    return [
        replace(outcome, result=Result.DONE)
        if outcome.result is Result.UNCHANGED and task.index in written
        else outcome
        for task, outcome in zip(batch, outcomes, strict=True)
    ]


def listed(where: str, names: Collection[str]) -> str:
    """Say where some users are, as a part of a message; empty for nobody."""
    shown = ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{shown} {where}" if names else ""
