"""The Slurm backend: orchestrates reading, locking and applying; decides nothing itself."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import ClassVar, TypeGuard

from waldur_site_agent.backends import (
    Action,
    AddMembers,
    Backend,
    BackendResource,
    BackendSettings,
    BackendState,
    Check,
    CheckStatus,
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    SetMemberLimits,
    TemporaryError,
    processes,
)
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.processes import Runner
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period, UsageReport
from waldur_site_agent_slurm import placing, tres
from waldur_site_agent_slurm.apply import Applying
from waldur_site_agent_slurm.client import (
    ProcessRunner,
    SlurmClient,
    default_lock_file,
    writer_lock,
)
from waldur_site_agent_slurm.diagnosis import diagnose, jobs_of_others
from waldur_site_agent_slurm.facts import Account, Cluster
from waldur_site_agent_slurm.names import is_user_name, user_name
from waldur_site_agent_slurm.qos import access_of, remembered
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.usage import JobReader, differences, reports, rules_of
from waldur_site_agent_slurm.usernames import are_two_people
from waldur_site_agent_slurm.work import PollTimeout, SlurmAction

LOCK_WAIT_SECONDS = 120.0


def system_user_name(name: str) -> str:
    """Return a user's name as the operating system has it, or ``name`` where it knows none."""
    try:
        return pwd.getpwnam(name).pw_name
    except (KeyError, ValueError):
        return name


def system_user_exists(name: str) -> bool:
    """Whether the operating system knows a user, asked in this process."""
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return False
    return True


class SlurmBackend(Backend):
    """Resources are accounts, members are associations, limits are GrpTRESMins."""

    Settings: ClassVar[type[BackendSettings]] = SlurmSettings
    supports: frozenset[type] = frozenset(
        {
            CreateResource,
            DeleteResource,
            SetLimits,
            AddMembers,
            RemoveMembers,
            SetMemberLimits,
            SetAccess,
            CreateHomeDirectories,
        }
    )

    def __init__(
        self,
        settings: BackendSettings,
        components: Mapping[str, Component],
        *,
        runner: Runner | None = None,
        user_exists: Callable[[str], bool] | None = None,
        system_name: Callable[[str], str] | None = None,
        homes: HomeDirectories | None = None,
        patience: PollTimeout | None = None,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """All but ``settings`` and ``components`` replaces what is outside, for tests.

        ``patience`` bounds the wait for cancelled jobs, ``lock_wait_seconds`` that for another
        writer of the same cluster.
        """
        super().__init__(settings, components)
        if not isinstance(settings, SlurmSettings):
            raise TypeError(f"SlurmSettings expected, got {type(settings).__name__}")
        self._slurm = settings
        chosen = runner or ProcessRunner(settings.slurm_bin_path)
        self._client = SlurmClient(chosen, settings.cluster, settings.command_timeout_seconds)
        self._user_exists = user_exists or system_user_exists
        self._system_name = system_name or system_user_name
        self._homes = homes or HomeDirectories(processes.ProcessRunner(), settings, user_name)
        if not settings.enable_user_homedir_account_creation:
            self.supports = self.supports - {CreateHomeDirectories}
        self._known: dict[str, bool] = {}
        self._homeless: dict[str, bool] = {}
        self._patience = patience or PollTimeout()
        self._lock_wait_seconds = lock_wait_seconds
        self._cluster_name = settings.cluster
        self._cluster_was_read = False
        self._jobs = JobReader(self._client, settings.usage_timeout_seconds, clock, now)
        self._jobs_are_shown = False

    def diagnose(self) -> Iterable[Check]:
        """See :meth:`Backend.diagnose`."""
        yield from diagnose(self._client, self._slurm, self.components, self._lock_file)
        yield from self._homes.diagnose()

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """See :meth:`Backend.place`; the tree is default_account, customer, project, allocation."""
        return placing.place(request, slug, self._slurm)

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:  # noqa: ARG002 - one read has all
        """Read the whole cluster in one process; ``ids`` would not make it cheaper."""
        self._known.clear()
        self._homeless.clear()
        self._client.forget()
        cluster = self._read()
        return BackendState(
            resources={
                name: self._resource(account, cluster)
                for name, account in cluster.accounts.items()
                if account.associated
            }
        )

    def not_yet_usable(self, users: Iterable[str]) -> frozenset[str]:
        """Those the operating system does not know; unusable names are another matter."""
        if not self._slurm.require_system_user:
            return frozenset()
        usable = frozenset(user for user in users if is_user_name(user))
        for name in usable - self._known.keys():
            self._known[name] = self._user_exists(name)
        return frozenset(name for name in usable if not self._known[name])

    def missing_home_directories(self, users: Iterable[str]) -> frozenset[str]:
        """Those the operating system knows whose home directory does not exist."""
        if not self._slurm.enable_user_homedir_account_creation:
            return frozenset()
        usable = frozenset(user for user in users if is_user_name(user))
        unseen = usable - self._homeless.keys()
        lacking = self._homes.missing(unseen)
        self._homeless |= {name: name in lacking for name in unseen}
        return frozenset(name for name in usable if self._homeless[name])

    def is_listed_as(self, name: str, listed: str) -> bool:
        """See :meth:`Backend.is_listed_as`; asks slurmdbd for ``PreserveCaseUser``."""
        return not self._client.keeps_case() and not are_two_people(
            name, listed, self._user_exists, self._system_name
        )

    def limits_agree(self, component: str, wanted: Decimal, found: Decimal) -> bool:
        """Compare as Slurm prints: memory comes with two decimals of its suffix."""
        return tres.agree(component, wanted, found)

    def create_home_directories(self, action: CreateHomeDirectories) -> Outcome:
        """Make the home directories that are missing; no lock is needed for that."""
        if CreateHomeDirectories not in self.supports:
            return self._unsupported(action)
        self._homeless.clear()
        return self._homes.create(action)

    def apply(self, actions: Sequence[Action]) -> Iterable[Outcome]:
        """Carry out the actions, grouped; one reading before and one after, under the lock.

        Actions whose wanted state the cluster already has start no writing command.
        """
        in_slurm = [action for action in actions if _is_of_slurm(action)]
        done = iter(self._apply_in_slurm(in_slurm))
        return [
            next(done) if _is_of_slurm(action) else self._apply_one(action) for action in actions
        ]

    def watch_commands(self, told: Callable[[str, str, float], None]) -> None:
        """See :meth:`Backend.watch_commands`; home directories are not among them."""
        self._client.commands.tell(told)

    def usages(
        self, since: Mapping[str, datetime], periods: Sequence[Period]
    ) -> tuple[UsageReport, ...]:
        """Read every job of all periods with one sacct; see docs/usage.md for what counts."""
        if since and any(period.start < period.end for period in periods):
            self._require_sight()
        rules = rules_of(self._slurm)
        counted = [name.lower() for name in self.components]
        return reports(
            lambda spans, begins: self._jobs.sums(spans, begins, counted, rules),
            since,
            periods,
            tuple(self.components),
        )

    def verify_usage(self, period: Period) -> Iterable[str]:
        """Compare with sreport where ``usage_check`` is set; every account is compared."""
        if not self._slurm.usage_check:
            return ()
        counted = [name.lower() for name in self.components]
        timeout = self._slurm.usage_timeout_seconds
        return differences(self._client, self._jobs, period, counted, timeout)

    def commands_run(self) -> Mapping[str, int]:
        """Processes by program; sacctmgr as ``sacctmgr read`` and ``sacctmgr write``."""
        return self._client.counts()

    def _apply_in_slurm(self, actions: Sequence[SlurmAction]) -> list[Outcome]:
        if not actions:
            return []
        try:
            with writer_lock(self._lock_file(), self._lock_wait_seconds) as lock:
                client = self._client.holding(lock)
                applying = Applying(
                    client, self._slurm, self._user_exists, self._patience, self._system_name
                )
                return applying.run(actions)
        except TemporaryError as error:
            return [Outcome(action, Result.FAILED, error) for action in actions]

    def _read(self) -> Cluster:
        cluster = self._client.accounts()
        self._cluster_name = cluster.name
        self._cluster_was_read = True
        return cluster

    def _require_sight(self) -> None:
        """Make sure, once, that sacct's answer has everything: it says nothing of what it lacks."""
        if self._slurm.cluster is not None and not self._cluster_was_read:
            self._read()  # of a cluster that does not exist it has no word of complaint
        if not self._jobs_are_shown:
            check = jobs_of_others(self._client)
            if check.verdict is CheckStatus.FAILED:
                raise PermanentError(f"usage cannot be read: {check.detail}; {check.remedy}")
            self._jobs_are_shown = True

    def _lock_file(self) -> Path:
        """The site's own choice, or a file named after the cluster, which may take a reading."""
        if self._slurm.lock_file is not None:
            return self._slurm.lock_file
        return default_lock_file(self._cluster_name or self._read().name)

    def _resource(self, account: Account, cluster: Cluster) -> BackendResource:
        return BackendResource(
            id=account.name,
            parent=account.parent,
            organization=account.organization,
            members=account.users,
            limits=account.limits,
            limits_are_known=not account.unreadable,
            member_limits={
                user: member.limits for user, member in account.members.items() if member.limits
            },
            access=access_of(cluster.qos_of(account.name), self._slurm),
            metadata=remembered(account, cluster),
        )


def _is_of_slurm(action: Action) -> TypeGuard[SlurmAction]:
    return not isinstance(action, CreateHomeDirectories)
