"""What the phases of one batch share: the cluster as it stands by now, and what failed so far."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetAccess,
    SetLimits,
    SetMemberLimits,
    SiteAgentError,
    Skipped,
)
from waldur_site_agent_slurm import usernames
from waldur_site_agent_slurm.answers import DatabaseUnavailableError
from waldur_site_agent_slurm.client import SlurmClient
from waldur_site_agent_slurm.facts import Account, Cluster
from waldur_site_agent_slurm.settings import SlurmSettings


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


@dataclass(slots=True)
class Ledger:
    """What became of the tasks of a batch so far."""

    errors: dict[int, SiteAgentError] = field(default_factory=dict)
    skipped: defaultdict[int, list[Skipped]] = field(default_factory=lambda: defaultdict(list))
    written: set[int] = field(default_factory=set)
    """Tasks for which a writing command was started."""

    @contextmanager
    def attempt(self, *tasks: Task) -> Iterator[None]:
        """Note a failure of the body as the failure of these tasks, and go on.

        Raises:
            DatabaseUnavailableError: nothing that follows has a chance.
        """
        try:
            yield
        except SiteAgentError as error:
            for task in tasks:
                self.errors.setdefault(task.index, error)
            if isinstance(error, DatabaseUnavailableError):
                raise

    def writes(self, *tasks: Task) -> None:
        """Note that a writing command is about to be started for these tasks."""
        self.written.update(task.index for task in tasks)

    def leave_out(self, task: Task, name: str, error: SiteAgentError) -> None:
        """Note that one member is not served, while the others are."""
        self.skipped[task.index].append(Skipped(name, error))

    def alive(self, tasks: Iterable[Task]) -> list[Task]:
        """Those that have not failed."""
        return [task for task in tasks if task.index not in self.errors]


@dataclass(slots=True)
class Work:
    """Everything a phase works with."""

    client: SlurmClient
    settings: SlurmSettings
    cluster: Cluster
    """The cluster as read, with what the commands since then should have changed."""
    user_exists: Callable[[str], bool]
    patience: PollTimeout
    system_name: Callable[[str], str] = str
    """A user's name as the operating system has it."""
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def only(self) -> str | None:
        """The cluster to name in commands; ``None`` where slurmdbd has just one."""
        return self.settings.cluster

    def listed_as(self, name: str, users: Collection[str]) -> str | None:
        """How a user is listed among ``users``; see :func:`usernames.listed_as`."""
        return usernames.listed_as(name, users, self.client.keeps_case, self._are_two_people)

    def _are_two_people(self, name: str, other: str) -> bool:
        return usernames.are_two_people(name, other, self.user_exists, self.system_name)

    def note(self, account: Account) -> None:
        """Remember an account as the commands so far should have left it."""
        self.cluster = self.cluster.with_account(account)

    def note_members(self, account: str, users: Iterable[str]) -> None:
        """Remember users as members, as the commands so far should have left it."""
        known = self.cluster.accounts[account]
        self.note(replace(known, users=known.users.union(users)))

    def forget(self, name: str) -> None:
        """Remember that an account should be gone by now."""
        self.cluster = self.cluster.without_account(name)


SlurmAction: TypeAlias = (
    CreateResource
    | SetLimits
    | AddMembers
    | RemoveMembers
    | SetMemberLimits
    | SetAccess
    | DeleteResource
)

_ORDER = (
    CreateResource,
    SetLimits,
    AddMembers,
    RemoveMembers,
    SetMemberLimits,
    SetAccess,
    DeleteResource,
)
"""The order in which one batch is carried out, each kind for all accounts together."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One action and its place in the list that was asked for; equal to itself alone."""

    index: int
    action: SlurmAction

    @property
    def account(self) -> str:
        """The account as Slurm spells it; not checked yet."""
        return self.action.resource.lower()


def batches(actions: Sequence[SlurmAction]) -> list[list[Task]]:
    """Cut the list where carrying out a batch kind by kind would change what comes out.

    Within a batch two actions on one account either have nothing to do with each other or stand
    in the order of the kinds, and none undoes what another did: one reading at the end of the
    batch shows what became of all of them. Between accounts the order does not matter.
    """
    result: list[list[Task]] = [[]]
    met: dict[str, list[SlurmAction]] = {}
    for index, action in enumerate(actions):
        task = Task(index, action)
        if any(not _go_together(earlier, action) for earlier in met.get(task.account, ())):
            result.append([])
            met = {}
        met.setdefault(task.account, []).append(action)
        result[-1].append(task)
    return result


def _go_together(earlier: SlurmAction, later: SlurmAction) -> bool:
    if DeleteResource in (type(earlier), type(later)):
        return isinstance(earlier, RemoveMembers)
    if isinstance(later, CreateResource):
        return False
    if isinstance(earlier, CreateResource):
        return not isinstance(later, SetLimits)
    one, other = _members(earlier), _members(later)
    if one is None or other is None:
        return type(earlier) is not type(later)
    if one.isdisjoint(other):
        return type(earlier) is not type(later) or isinstance(later, SetMemberLimits)
    return isinstance(earlier, AddMembers) and isinstance(later, SetMemberLimits)


def _members(action: SlurmAction) -> frozenset[str] | None:
    """The users that an action is about; ``None`` when it is about the account."""
    match action:
        case AddMembers() | RemoveMembers():
            return frozenset(member.lower() for member in action.members)
        case SetMemberLimits():
            return frozenset({action.member.lower()})
    return None
