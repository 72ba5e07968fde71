"""The Slurm backend: reads, locks, applies batches kind by kind, and reads back."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    BackendResource,
    BackendSettings,
    BackendState,
    Check,
    CheckStatus,
    Consumption,
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    Grant,
    MoveContainer,
    PermanentError,
    RemoveMembers,
    ResetUsage,
    SetAccess,
    SetBudget,
    SetLimits,
    SetMemberLimits,
    Standing,
    processes,
    resource_of,
)
from waldur_site_agent.backends.command_line import (
    LOCK_WAIT_SECONDS,
    AnyTask,
    CommandLineBackend,
    Task,
    listed,
)
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.locking import default_lock_file
from waldur_site_agent.backends.processes import Runner
from waldur_site_agent.backends.project_directories import directories_of
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.marketplace import Component, WaldurOffering
from waldur_site_agent.model.usage import Period, UsageReport
from waldur_site_agent_slurm import tres
from waldur_site_agent_slurm.account_qos import is_complete, is_ours
from waldur_site_agent_slurm.accounts import create_accounts, delete_accounts, is_closed
from waldur_site_agent_slurm.budgets import (
    budget_difference,
    counted_usage,
    read_consumption,
    reset_usage,
    set_budgets,
    share_of,
)
from waldur_site_agent_slurm.client import (
    LOCK_PURPOSE,
    PollTimeout,
    ProcessRunner,
    SlurmClient,
    Work,
)
from waldur_site_agent_slurm.diagnosis import diagnose, jobs_of_others
from waldur_site_agent_slurm.facts import ROOT, Account, Cluster, Member
from waldur_site_agent_slurm.grants import grant_of, is_given
from waldur_site_agent_slurm.limits import limits_of, set_access, set_limits, set_member_limits
from waldur_site_agent_slurm.members import add_members, remove_members
from waldur_site_agent_slurm.moves import move_containers, not_moved
from waldur_site_agent_slurm.names import (
    TREE,
    account_name,
    are_two_people,
    is_account_name,
    is_user_name,
    user_name,
)
from waldur_site_agent_slurm.qos import (
    RESTRICTED,
    access_of,
    is_set_to,
    qos_names,
    remembered,
    restriction,
)
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.standing import Subject, standing
from waldur_site_agent_slurm.usage import JobReader, differences, reports, rules_of

FEW_ACCOUNTS = 20
"""Up to so many are read by name; of more the whole cluster is read."""
FEW_USERS = 5
"""Up to so many are asked for by name, to learn which accounts they are in."""

PHASES: Mapping[type, Callable[..., None]] = {
    CreateResource: create_accounts,
    MoveContainer: move_containers,
    SetLimits: set_limits,
    AddMembers: add_members,
    RemoveMembers: remove_members,
    SetMemberLimits: set_member_limits,
    SetAccess: set_access,
    ResetUsage: reset_usage,
    SetBudget: set_budgets,
    DeleteResource: delete_accounts,
}
"""In the order of a batch."""


def difference(task: Task[Any], work: Work, cluster: Cluster) -> str:
    """What the cluster shows instead of what an action asked for; empty where that is there."""
    if isinstance(task.action, MoveContainer):
        return not_moved(task.action, cluster)
    return _difference(task, work, cluster)


def _difference(task: Task[Any], work: Work, cluster: Cluster) -> str:
    account = cluster.accounts[task.account]
    match task.action:
        case CreateResource() as action:
            return _creation(action, account, cluster, work.settings)
        case SetLimits() | SetBudget() | SetMemberLimits():
            return _limits_differ(task, work, cluster)
        case AddMembers(grant=grant):
            return _grant(grant, task, work, account)
        case SetAccess() as action:
            was_written = task.index in work.ledger.written
            return _access(action, cluster, work.settings, was_written=was_written)
        case _:
            return ""


def _limits_differ(task: Task[Any], work: Work, cluster: Cluster) -> str:
    account = cluster.accounts[task.account]
    match task.action:
        case SetBudget() as action:
            return budget_difference(action, cluster, work.settings)
        case SetMemberLimits(member=name, limits=limits):
            member = work.listed_as(name, account.users) or name
            return _limits(limits, account.members.get(member, Member()).limits)
        case _:
            return _limits(task.action.limits, limits_of(account, cluster, work.settings))


def _creation(
    action: CreateResource, account: Account, cluster: Cluster, settings: SlurmSettings
) -> str:
    if account.parent != action.placement.parent:
        return f"it under {account.parent!r}"
    if not is_complete(account, cluster, settings):
        return "it without a QOS of its own"
    return _limits(action.limits, limits_of(account, cluster, settings))


def _grant(grant: Grant, task: AnyTask, work: Work, account: Account) -> str:
    """Those who were added just now without what they should have got."""
    added = work.added.get(task.account, frozenset())
    lacking = {u for u in added if not is_given(account.members.get(u, Member()), grant)}
    return listed(f"there without {grant}", lacking)


def _limits(wanted: Mapping[str, Decimal | None], found: Mapping[str, Decimal]) -> str:
    wrong = [
        name
        for name, amount in wanted.items()
        if not tres.is_set_to(name, found, None if amount is None else int(amount))
    ]
    shown = ", ".join(f"{n}={found.get(n, 'nothing')}" for n in sorted(wrong))
    return f"other limits ({shown})" if wrong else ""


def _access(
    action: SetAccess, cluster: Cluster, settings: SlurmSettings, *, was_written: bool
) -> str:
    account = cluster.accounts[action.resource.lower()]
    shown = (
        f"QOS {cluster.qos_of(account.name) or 'none'}, "
        f"DefaultQOS {account.default_qos or 'none'}, "
        f"GrpSubmitJobs {'none' if account.submit_limit is None else account.submit_limit}"
    )
    if action.access is Access.NORMAL:
        is_restricted = access_of(account, cluster, settings) in RESTRICTED
        return f"it still restricted ({shown})" if is_restricted else ""
    target = restriction(action.access, account, settings, action.restore)
    if not was_written or is_set_to(account, target.setup):
        return ""
    return shown


_NO_LIMITS: Mapping[str, Mapping[str, Decimal]] = {}


def _has_own_qos(name: str, cluster: Cluster) -> bool:
    account = cluster.find(name)
    return account is not None and name in qos_names(account.qos)


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


def _lock_file_of(cluster: str) -> Path:
    return default_lock_file(f"waldur-site-agent-slurm-{cluster}.lock")


class SlurmBackend(CommandLineBackend[Cluster, Work]):
    """Resources are accounts, members are associations, limits are GrpTRESMins."""

    Settings: ClassVar[type[BackendSettings]] = SlurmSettings
    supports: frozenset[type] = frozenset(
        {
            CreateResource,
            DeleteResource,
            MoveContainer,
            SetLimits,
            AddMembers,
            RemoveMembers,
            SetMemberLimits,
            SetAccess,
            SetBudget,
            ResetUsage,
            CreateHomeDirectories,
        }
    )
    phases = PHASES
    lock_purpose = LOCK_PURPOSE

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
        if not isinstance(settings, SlurmSettings):
            raise TypeError(f"SlurmSettings expected, got {type(settings).__name__}")
        super().__init__(
            settings,
            components,
            homes=homes or HomeDirectories(processes.ProcessRunner(), settings, user_name),
            directories=directories_of(settings, processes.ProcessRunner(), account_name),
            lock_wait_seconds=lock_wait_seconds,
        )
        self._slurm = settings
        if not settings.periodic_limits.enabled:
            self.supports = self.supports - {SetBudget, ResetUsage}
        self.capabilities = replace(self.capabilities, keeps_deleted=settings.soft_delete)
        self.budget_limit_type = settings.periodic_limits.limit_type
        chosen = runner or ProcessRunner(settings.slurm_bin_path)
        self._client = SlurmClient(chosen, settings.cluster, settings.command_timeout_seconds)
        self._user_exists = user_exists or system_user_exists
        self._system_name = system_name or system_user_name
        self._known: dict[str, bool] = {}
        self._above: dict[str, str] = {}
        """The account above each in earlier readings: only what to ask for together."""
        self._patience = patience or PollTimeout()
        self._cluster_name = settings.cluster
        self._cluster_was_read = False
        self._jobs = JobReader(self._client, settings.usage_timeout_seconds, clock, now)
        self._jobs_are_shown = False

    def diagnose(self) -> Iterable[Check]:
        """See :meth:`Backend.diagnose`."""
        yield from diagnose(self._client, self._slurm, self.components, self.lock_file)
        yield from self.check_setup_of_directories()

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """See :meth:`Backend.place`; the settings say what the tree is like."""
        return TREE.place(request, slug, self._slurm)

    def grant(self, offering: WaldurOffering, attributes: Mapping[str, Any]) -> Grant:
        """See :meth:`Backend.grant`; partitions and QOS of associations."""
        return grant_of(self._slurm, offering, attributes)

    def access_to_set(self, access: Access) -> Access:
        """See :meth:`Backend.access_to_set`; without QOS for it, downscaled is paused."""
        is_paused = access is Access.DOWNSCALED and not self._slurm.downscales_by_qos
        return Access.PAUSED if is_paused else access

    def is_of_a_customer(self, account: BackendResource) -> bool:
        """See :meth:`Backend.is_of_a_customer`; without ``customer_prefix`` nothing looks so."""
        prefix = self._slurm.customer_prefix.lower()
        is_kept = account.id in self._slurm.shape.kept
        return bool(prefix) and account.id.startswith(prefix) and not is_kept

    def read(self) -> Cluster:
        """Read the whole cluster in one process."""
        cluster = self._client.accounts()
        self._above.clear()
        return self._with_qos(cluster, None)

    def accounts_to_read(self, ids: Iterable[str]) -> frozenset[str] | None:
        """Those accounts, if they are few and have usual names."""
        names = frozenset(name.lower() for name in ids) - {ROOT}
        is_few = len(names) <= FEW_ACCOUNTS
        return names if is_few and all(map(is_account_name, names)) else None

    def accounts_needed(self, actions: Iterable[Action]) -> frozenset[str] | None:
        """Those of the actions, with those above new ones; all for deletions and moves."""
        names: set[str] = set()
        for action in actions:
            match action:
                case DeleteResource() | MoveContainer():
                    return None
                case CreateResource(placement=placement):
                    names |= {name for _, name in placement.names()} | {placement.parent}
                    names |= {container.parent for container in placement.containers} - {""}
                case _:
                    names.add(resource_of(action))
        return self.accounts_to_read(names)

    def read_some(self, names: frozenset[str]) -> Cluster:
        """Read these accounts, those above them and the one that new users get.

        An account that is missing is asked for once more.
        """
        asked = self._with_those_above({*names, self._slurm.default_account})
        cluster = self._client.accounts(asked)
        missing = {name for name in names if cluster.find(name) is None}
        while True:
            above = {a.parent for a in cluster.accounts.values() if a.parent is not None}
            missing |= above.difference(cluster.asked or ())
            if not missing:
                break
            if not all(map(is_account_name, missing)):
                return self.read()
            cluster = cluster.joined(self._client.accounts(missing))
            missing = set()
        return self._with_qos(cluster, names)

    def covers(self, reading: Cluster, names: frozenset[str] | None) -> bool:
        """See :meth:`CommandLineBackend.covers`."""
        return reading.covers(names)

    def resources_with(self, users: Iterable[str]) -> frozenset[str] | None:
        """See :meth:`Backend.resources_with`; asks slurmdbd for the users, in any spelling."""
        names = frozenset(users)
        if self._cluster_name is None or not all(map(is_user_name, names)):
            return None
        if len(names) > FEW_USERS:
            return None
        asked = names | {name.lower() for name in names}
        records = self._client.users(sorted(asked), self._cluster_name)
        if ROOT not in records and not asked <= records.keys():
            return None  # nothing proves that the answer has all of them
        return frozenset().union(*(records[name].accounts for name in asked & records.keys()))

    def _with_those_above(self, names: Iterable[str]) -> set[str]:
        """The names with those of the accounts that were above them in earlier readings."""
        found: set[str] = set()
        waiting = {name for name in names if is_account_name(name)}
        while waiting:
            found |= waiting
            above = {self._above.get(name, ROOT) for name in waiting}
            waiting = {name for name in above - found if is_account_name(name)}
        return found

    def _with_qos(self, cluster: Cluster, names: frozenset[str] | None) -> Cluster:
        """The reading with QOS and shares, of these accounts or of all."""
        some = None if names is None else {*cluster.accounts, *names} - {ROOT}
        if self._slurm.qos_management.enabled:
            have_own = names is not None and all(_has_own_qos(name, cluster) for name in names)
            qos = self._client.own_qos(some if have_own else None, names or ())
            cluster = replace(cluster, qos=qos)
        self._above |= {a.name: a.parent for a in cluster.accounts.values() if a.parent}
        if self._slurm.periodic_limits.enabled:
            shares = self._client.shares(some, of_qos=self._slurm.limits_are_on_qos)
            cluster = replace(cluster, shares=shares)
        self._cluster_name = cluster.name
        self._cluster_was_read = True
        return cluster

    def explain(self, resources: Iterable[str], users: Iterable[str] = ()) -> Standing:
        """See :meth:`Backend.explain`; from slurmdbd and from what slurmctld enforces."""
        accounts = tuple(name.strip().lower() for name in resources)
        subject = Subject(accounts=accounts, users=tuple(users))
        return standing(self._client, self.read(), subject, self._user_exists)

    def consumption(self, resources: Iterable[str]) -> Mapping[str, Mapping[str, Consumption]]:
        """See :meth:`Backend.consumption`; as slurmctld adds up, with decay if the site has it."""
        return read_consumption(self._client, (name.strip().lower() for name in resources))

    def state_of(self, reading: Cluster) -> BackendState:
        """Every account that can be used in the cluster; equal metadata is in memory once."""
        shared: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
        resources = {}
        for name, account in reading.accounts.items():
            if account.associated:
                notes = remembered(account, reading, self._slurm)
                metadata = shared.setdefault(tuple(notes.items()), notes)
                resources[name] = self._resource(account, reading, metadata)
        return BackendState(resources=resources)

    def forget(self) -> None:
        """Forget what was found out besides the accounts, because a new pass begins."""
        super().forget()
        self._known.clear()
        self._client.forget()

    def is_deleted(self, account: str, reading: Cluster) -> bool:
        """Whether an account is gone, or closed where the site keeps them."""
        found = reading.accounts.get(account)
        if found is None or reading.members_of(account) is None:
            return True
        is_alone = found.name not in reading.qos or not is_ours(reading.qos[found.name], found)
        return self._slurm.soft_delete and is_closed(found) and is_alone

    def lock_file(self) -> Path:
        """The site's own choice, or a file named after the cluster, which may take a reading."""
        return self.lock_file_if_known() or _lock_file_of(self.read().name)

    def lock_file_if_known(self) -> Path | None:
        """The same; ``None`` where it would take a reading."""
        if self._slurm.lock_file is not None or not self._cluster_name:
            return self._slurm.lock_file
        return _lock_file_of(self._cluster_name)

    def begin(self, reading: Cluster, lock: int) -> Work:
        """See :meth:`CommandLineBackend.begin`."""
        return Work(
            now=reading,
            client=self._client.holding(lock),
            settings=self._slurm,
            user_exists=self._user_exists,
            patience=self._patience,
            system_name=self._system_name,
        )

    def difference(self, task: Task[Any], work: Work, reading: Cluster) -> str:
        """See :meth:`CommandLineBackend.difference`."""
        return difference(task, work, reading)

    def needs_own_reading(self, action: Action, reading: Cluster) -> bool:
        """Deletions, moves, and removals by which a user may go from the cluster as a whole."""
        match action:
            case MoveContainer():
                return True
            case RemoveMembers():
                account = reading.accounts.get(action.resource.lower())
                members = account.members.values() if account is not None else ()
                return any(member.associations > 1 for member in members)
            case _:
                return super().needs_own_reading(action, reading)

    def client(self) -> SlurmClient:
        """What runs the commands."""
        return self._client

    def not_yet_usable(self, users: Iterable[str]) -> frozenset[str]:
        """Those the operating system does not know; unusable names are another matter."""
        if not self._slurm.require_system_user:
            return frozenset()
        usable = frozenset(user for user in users if is_user_name(user))
        for name in usable - self._known.keys():
            self._known[name] = self._user_exists(name)
        return frozenset(name for name in usable if not self._known[name])

    def is_listed_as(self, name: str, listed: str) -> bool:
        """See :meth:`Backend.is_listed_as`; asks slurmdbd for ``PreserveCaseUser``."""
        return not self._client.keeps_case() and not are_two_people(
            name, listed, self._user_exists, self._system_name
        )

    def settable_limit(self, component: str, amount: Decimal) -> Decimal:  # noqa: ARG002 - all alike
        """Round up: Slurm keeps whole TRES-minutes."""
        return tres.rounded_up(amount)

    def limits_agree(self, component: str, wanted: Decimal, found: Decimal) -> bool:
        """Compare as Slurm prints: memory comes with two decimals of its suffix."""
        return tres.agree(component, wanted, found)

    def usages(
        self, since: Mapping[str, datetime], periods: Sequence[Period]
    ) -> tuple[UsageReport, ...]:
        """Read every job of all periods with one sacct; see docs/usage.md for what counts."""
        if since and any(period.start < period.end for period in periods):
            self._require_all_jobs_shown()
        rules = rules_of(self._slurm)
        counted = [name.lower() for name in self.components]
        return reports(
            lambda spans, begins: self._jobs.sums(spans, begins, counted, rules),
            since,
            periods,
            tuple(self.components),
        )

    def counted_usage(self, resources: Iterable[str]) -> Mapping[str, Mapping[str, Decimal]]:
        """See :meth:`Backend.counted_usage`; asks slurmctld, which keeps RawUsage."""
        return counted_usage(self._client, resources, self._slurm)

    def counts_loaded_at(self) -> str:
        """See :meth:`Backend.counts_loaded_at`; when slurmctld was started.

        It saves its counts every five minutes; killed before, it starts with the former ones.
        """
        return self._client.controller_started()

    def verify_usage(self, period: Period) -> Iterable[str]:
        """Compare with sreport where ``usage_check`` is set; every account is compared."""
        if not self._slurm.usage_check:
            return ()
        counted = [name.lower() for name in self.components]
        timeout = self._slurm.usage_timeout_seconds
        return differences(self._client, self._jobs, period, counted, timeout)

    def _require_all_jobs_shown(self) -> None:
        """Make sure, once, that sacct's answer has everything: it says nothing of what it lacks."""
        if self._slurm.cluster is not None and not self._cluster_was_read:
            self.read()  # of a cluster that does not exist it has no word of complaint
        if not self._jobs_are_shown:
            check = jobs_of_others(self._client)
            if check.verdict is CheckStatus.FAILED:
                raise PermanentError(f"usage cannot be read: {check.detail}; {check.remedy}")
            self._jobs_are_shown = True

    def _unreadable(self, account: Account, cluster: Cluster) -> tuple[str, ...]:
        record = cluster.qos.get(account.name) if self._slurm.limits_are_on_qos else None
        return account.unreadable if record is None else record.unreadable

    def _resource(
        self, account: Account, cluster: Cluster, metadata: Mapping[str, str]
    ) -> BackendResource:
        return BackendResource(
            id=account.name,
            parent=account.parent,
            organization=account.organization,
            members=account.users,
            limits=limits_of(account, cluster, self._slurm),
            limits_are_known=not self._unreadable(account, cluster),
            is_complete=is_complete(account, cluster, self._slurm),
            member_limits={
                user: member.limits for user, member in account.members.items() if member.limits
            }
            or _NO_LIMITS,
            job_limits=share_of(account.name, cluster).job_limits,
            share=share_of(account.name, cluster).fairshare,
            access=access_of(account, cluster, self._slurm),
            metadata=metadata,
        )
