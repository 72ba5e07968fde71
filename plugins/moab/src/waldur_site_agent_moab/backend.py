"""The MOAB backend: orchestrates reading, locking and applying; decides nothing itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import ClassVar, TypeGuard

from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    Backend,
    BackendResource,
    BackendSettings,
    BackendState,
    Check,
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    Outcome,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    SetMemberLimits,
    TemporaryError,
)
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.processes import ProcessRunner, Runner
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period, UsageReport
from waldur_site_agent_moab import charging, placing
from waldur_site_agent_moab.accounts import DEPOSIT, ignore
from waldur_site_agent_moab.apply import Applying
from waldur_site_agent_moab.client import MamClient, default_lock_file, writer_lock
from waldur_site_agent_moab.diagnosis import diagnose, money_trouble
from waldur_site_agent_moab.facts import Account, Mam, in_cents
from waldur_site_agent_moab.names import is_user_name, user_name
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.work import MamAction

_log = logging.getLogger(__name__)

LOCK_WAIT_SECONDS = 120.0


def process_runner(settings: MoabSettings) -> Runner:
    """Return what starts the ``mam-*`` commands of a site."""
    return ProcessRunner(
        settings.mam_bin_path,
        passed_on=("MAM_HOME", "MAMHOME", "MOABHOMEDIR", "PERL5LIB"),
        when_missing=(
            "run the agent on a head node with the mam-* commands, or set mam_bin_path to their "
            "directory"
        ),
        when_hung=(
            "the accounting manager's server hangs or is overloaded: look at its log; a site with "
            "a slow one can raise command_timeout_seconds"
        ),
    )


class MoabBackend(Backend):
    """Resources are accounts with a fund of their own; the limit is what was deposited for them."""

    Settings: ClassVar[type[BackendSettings]] = MoabSettings
    supports: frozenset[type] = frozenset(
        {
            CreateResource,
            DeleteResource,
            SetLimits,
            AddMembers,
            RemoveMembers,
            CreateHomeDirectories,
        }
    )

    def __init__(
        self,
        settings: BackendSettings,
        components: Mapping[str, Component],
        *,
        runner: Runner | None = None,
        homes: HomeDirectories | None = None,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        """``runner`` and ``homes`` replace what is outside, for tests.

        ``lock_wait_seconds`` bounds the wait for another writer.
        """
        super().__init__(settings, components)
        if not isinstance(settings, MoabSettings):
            raise TypeError(f"MoabSettings expected, got {type(settings).__name__}")
        self._moab = settings
        self._client = MamClient(
            runner or process_runner(settings),
            settings.command_timeout_seconds,
            deposited_falls=settings.deposited_after_withdrawal == "falls",
        )
        self._homes = homes or HomeDirectories(ProcessRunner(), settings, user_name)
        if not settings.enable_user_homedir_account_creation:
            self.supports = self.supports - {CreateHomeDirectories}
        if settings.pause_by_deactivation:
            self.supports = self.supports | {SetAccess}
        self._lock_wait_seconds = lock_wait_seconds
        self._told: frozenset[str] = frozenset()

    def diagnose(self) -> Iterable[Check]:
        """See :meth:`Backend.diagnose`."""
        yield from diagnose(self._client, self._moab, self.components, self._lock_file())
        yield from self._homes.diagnose()

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """See :meth:`Backend.place`; organizations stand for the tree."""
        return placing.place(request, slug, self._moab)

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:  # noqa: ARG002 - one read has all
        """Read everything in at most four processes; ``ids`` would not make it fewer."""
        mam = self._client.read()
        for component in self.components.keys() - {DEPOSIT}:
            ignore(component)
        self._tell_of_money(mam)
        return BackendState(
            resources={name: self._resource(account, mam) for name, account in mam.accounts.items()}
        )

    def counts(self, component: str) -> bool:
        """Jobs are charged deposits, and nothing else."""
        return component == DEPOSIT

    def limits_to_set(
        self, resource: str, limits: Mapping[str, Decimal | None]
    ) -> Mapping[str, Decimal | None]:
        """The deposit alone; a negative one says that Waldur has no price for the resource."""
        deposit = limits.get(DEPOSIT)
        if deposit is None or not deposit < 0:
            return {DEPOSIT: deposit} if DEPOSIT in limits else {}
        _log.warning(
            "%s: a deposit of %s was ordered, which means that no price package exists for it; "
            "nothing is deposited or withdrawn",
            *(resource, deposit),
        )
        return {}

    def limits_agree(self, component: str, wanted: Decimal, found: Decimal) -> bool:  # noqa: ARG002 - for all alike
        """Compare in cents, as amounts are sent; a negative one in Waldur is no limit at all."""
        return wanted < 0 or in_cents(wanted) == found

    def usages(
        self, since: Mapping[str, datetime], periods: Sequence[Period]
    ) -> tuple[UsageReport, ...]:
        """Add up the charges of jobs that ended in each period; one process for all of them."""
        if not periods:
            return ()
        longest_job = timedelta(days=self._moab.longest_job_days)
        charges = self._client.charges(*charging.days_to_ask_for(periods, longest_job))
        return charging.reports(charges, since, periods)

    def usage(self, since: Mapping[str, datetime], period: Period) -> UsageReport:
        """See :meth:`usages`."""
        return self.usages(since, [period])[0]

    def missing_home_directories(self, users: Iterable[str]) -> frozenset[str]:
        """Those the operating system knows whose home directory does not exist."""
        if not self._moab.enable_user_homedir_account_creation:
            return frozenset()
        return self._homes.missing(user for user in users if is_user_name(user))

    def create_home_directories(self, action: CreateHomeDirectories) -> Outcome:
        """Make the home directories that are missing; no lock is needed for that."""
        if CreateHomeDirectories not in self.supports:
            return self._unsupported(action)
        return self._homes.create(action)

    def apply(self, actions: Sequence[Action]) -> Iterable[Outcome]:
        """Carry out the actions one after the other, under the lock.

        Actions whose wanted state is there already start no writing command.
        """
        in_mam = [action for action in actions if self._is_of_mam(action)]
        done = iter(self._apply_in_mam(in_mam))
        return [
            next(done) if self._is_of_mam(action) else self._apply_one(action) for action in actions
        ]

    def watch_commands(self, told: Callable[[str, str, float], None]) -> None:
        """See :meth:`Backend.watch_commands`; home directories are not among them."""
        self._client.commands.tell(told)

    def commands_run(self) -> Mapping[str, int]:
        """Processes, as ``mam read`` and ``mam write``."""
        return self._client.counts()

    def _apply_in_mam(self, actions: Sequence[MamAction]) -> list[Outcome]:
        if not actions:
            return []
        try:
            with writer_lock(self._lock_file(), self._lock_wait_seconds) as lock:
                return Applying(self._client.holding(lock), self._moab).run(actions)
        except TemporaryError as error:
            return [Outcome(action, Result.FAILED, error) for action in actions]

    def _is_of_mam(self, action: Action) -> TypeGuard[MamAction]:
        if isinstance(action, SetAccess):
            return SetAccess in self.supports
        return not isinstance(action, SetMemberLimits | CreateHomeDirectories)

    def _lock_file(self) -> Path:
        return self._moab.lock_file or default_lock_file()

    def _resource(self, account: Account, mam: Mam) -> BackendResource:
        access = None
        if self._moab.pause_by_deactivation:
            access = Access.NORMAL if account.is_active else Access.PAUSED
        limits = _limits(account, mam)
        return BackendResource(
            id=account.key,
            parent=mam.parent_of(account, self._moab.default_account),
            organization=account.organization,
            members=account.users,
            limits=limits,
            limits_are_known=bool(limits),
            access=access,
            is_complete=bool(mam.funds_of(account.key)),
        )

    def _tell_of_money(self, mam: Mam) -> None:
        """Warn of accounts whose money is not understood; again only when something is new."""
        troubles = frozenset(money_trouble(mam, self._moab))
        for trouble in sorted(troubles - self._told):
            _log.warning("%s", trouble)
        self._told = troubles


def _limits(account: Account, mam: Mam) -> dict[str, Decimal]:
    """What was bought; nothing where the account has not exactly one fund, or its books fail."""
    funds = mam.funds_of(account.key)
    if len(funds) != 1 or not funds[0].is_exclusive:
        return {}
    books = mam.books_of(funds[0])
    return {} if books.trouble else {DEPOSIT: books.bought}
