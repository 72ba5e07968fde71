"""The MOAB backend: orchestrates reading, locking and applying; decides nothing itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
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
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetAccess,
    SetLimits,
)
from waldur_site_agent.backends.command_line import (
    LOCK_WAIT_SECONDS,
    CommandLineBackend,
    Task,
)
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.locking import default_lock_file
from waldur_site_agent.backends.processes import ProcessRunner, Runner
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period, UsageReport
from waldur_site_agent_moab import charging
from waldur_site_agent_moab.accounts import DEPOSIT, ignore
from waldur_site_agent_moab.apply import PHASES, difference
from waldur_site_agent_moab.client import LOCK_PURPOSE, MamClient, Work
from waldur_site_agent_moab.diagnosis import diagnose, money_trouble
from waldur_site_agent_moab.facts import Account, Mam, in_cents
from waldur_site_agent_moab.names import TREE, user_name
from waldur_site_agent_moab.settings import MoabSettings

_log = logging.getLogger(__name__)


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


class MoabBackend(CommandLineBackend[Mam, Work]):
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
    phases = PHASES
    lock_purpose = LOCK_PURPOSE

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
        if not isinstance(settings, MoabSettings):
            raise TypeError(f"MoabSettings expected, got {type(settings).__name__}")
        super().__init__(
            settings,
            components,
            homes=homes or HomeDirectories(ProcessRunner(), settings, user_name),
            lock_wait_seconds=lock_wait_seconds,
        )
        self._moab = settings
        self._client = MamClient(
            runner or process_runner(settings),
            settings.command_timeout_seconds,
            deposited_falls=settings.deposited_after_withdrawal == "falls",
        )
        if settings.pause_by_deactivation:
            self.supports = self.supports | {SetAccess}
        self._told: frozenset[str] = frozenset()

    def diagnose(self) -> Iterable[Check]:
        """See :meth:`Backend.diagnose`."""
        yield from diagnose(self._client, self._moab, self.components, self.lock_file())
        yield from self.check_homes()

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """See :meth:`Backend.place`; organizations stand for the tree."""
        return TREE.place(request, slug, self._moab)

    def read(self) -> Mam:
        """Read everything in at most four processes."""
        return self._client.read()

    def state_of(self, reading: Mam) -> BackendState:
        """Every account; what cannot be told of its money is logged."""
        for component in self.components.keys() - {DEPOSIT}:
            ignore(component)
        self._tell_of_money(reading)
        return BackendState(
            resources={
                name: self._resource(account, reading) for name, account in reading.accounts.items()
            }
        )

    def lock_file(self) -> Path:
        """The site's own choice, or the file of this machine's agents."""
        return self._moab.lock_file or default_lock_file("waldur-site-agent-moab.lock")

    def begin(self, reading: Mam, lock: int) -> Work:
        """See :meth:`CommandLineBackend.begin`."""
        return Work(now=reading, client=self._client.holding(lock), settings=self._moab)

    def difference(self, task: Task[Any], work: Work, reading: Mam) -> str:  # noqa: ARG002 - the kit's
        """See :meth:`CommandLineBackend.difference`."""
        return difference(task, reading)

    def needs_own_reading(self, action: Action, reading: Mam) -> bool:  # noqa: ARG002 - the kit's
        """Whatever moves money, and deletions."""
        return isinstance(action, CreateResource | SetLimits | DeleteResource)

    def client(self) -> MamClient:
        """What runs the commands."""
        return self._client

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
