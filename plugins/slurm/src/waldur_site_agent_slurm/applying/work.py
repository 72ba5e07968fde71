"""What the phases of one batch share: the cluster as it stands by now, and what failed so far."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from waldur_site_agent.backends import LeftOut, SiteAgentError
from waldur_site_agent_slurm import usernames
from waldur_site_agent_slurm.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.client import SlurmClient
    from waldur_site_agent_slurm.facts import Account, Cluster
    from waldur_site_agent_slurm.settings import SlurmSettings


@dataclass(frozen=True, slots=True)
class Patience:
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
    left_out: defaultdict[int, list[LeftOut]] = field(default_factory=lambda: defaultdict(list))
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
        self.left_out[task.index].append(LeftOut(name, error))

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
    patience: Patience
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
