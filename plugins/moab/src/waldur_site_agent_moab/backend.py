"""The MOAB backend: reads, locks, applies batches kind by kind, and turns charges into usage."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
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
    PermanentError,
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
from waldur_site_agent.backends.project_directories import directories_of
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period, ResourceUsage, UsageReport
from waldur_site_agent_moab.accounts import (
    DEPOSIT,
    add_members,
    create,
    delete,
    ignore,
    remove_members,
    set_access,
    set_limits,
)
from waldur_site_agent_moab.client import LOCK_PURPOSE, MamClient, Work
from waldur_site_agent_moab.diagnosis import diagnose, money_trouble
from waldur_site_agent_moab.facts import Account, Charge, Mam, in_cents
from waldur_site_agent_moab.names import TREE, account_name, user_name
from waldur_site_agent_moab.settings import MoabSettings


def _one_by_one(carry_out: Callable[[Work, Task[Any]], None]) -> Callable[..., None]:
    def phase(work: Work, tasks: Iterable[Task[Any]]) -> None:
        for task in tasks:
            with work.ledger.attempt(task):
                carry_out(work, task)

    return phase


PHASES: Mapping[type, Callable[..., None]] = {
    CreateResource: _one_by_one(create),
    SetLimits: _one_by_one(set_limits),
    AddMembers: _one_by_one(add_members),
    RemoveMembers: _one_by_one(remove_members),
    SetAccess: _one_by_one(set_access),
    DeleteResource: _one_by_one(delete),
}
"""In the order of a batch."""


def difference(task: Task[Any], mam: Mam) -> str:
    """What the manager shows instead of what an action asked for; empty where that is there."""
    account = mam.accounts[task.account]
    match task.action:
        case SetAccess(access=access) if account.is_active is not (access is Access.NORMAL):
            return f"it {'active' if account.is_active else 'inactive'}"
        case CreateResource(limits=limits) | SetLimits(limits=limits):
            return _money(account, limits.get(DEPOSIT), mam)
        case _:
            return ""


def _money(account: Account, wanted: Decimal | None, mam: Mam) -> str:
    if wanted is None:
        return ""
    try:
        bought = mam.books_of(mam.fund_of(account.key)).bought
    except PermanentError as error:
        return str(error)
    return "" if bought == in_cents(wanted) else f"{bought:f} bought instead of {wanted:f}"


def days_to_ask_for(periods: Sequence[Period], longest_job: timedelta) -> tuple[date, date]:
    """The days whose usage records hold every job that ended in one of the periods.

    Whether the list goes by a job's start or by its end differs between versions, and so does
    the time zone of its days: so a longest job is added before, and two days on both sides.
    """
    margin = timedelta(days=2)
    start = min(period.start.astimezone(UTC) for period in periods) - longest_job - margin
    end = max(period.end.astimezone(UTC) for period in periods) + margin
    return start.date(), end.date()


def reports(
    charges: Iterable[Charge], since: Mapping[str, datetime], periods: Sequence[Period]
) -> tuple[UsageReport, ...]:
    """Add up what was charged, by period, account and user.

    A charge is booked when its job ends, whole, and belongs to the period of that moment. A job
    that started before the moment in ``since`` belonged to an earlier account of the same name.
    """
    books = [_Book(since, period) for period in periods]
    for charge in charges:
        if charge.amount:
            for book in books:
                book.enter(charge)
    return tuple(book.report() for book in books)


class _Book:
    """What is added up for one period."""

    def __init__(self, since: Mapping[str, datetime], period: Period) -> None:
        self._since = {name.lower(): (name, moment) for name, moment in since.items()}
        self._period = period
        self._amounts: dict[str, defaultdict[str, Fraction]] = {
            name: defaultdict(Fraction) for name in since
        }
        self._without_user: list[Fraction] = []

    def enter(self, charge: Charge) -> None:
        """Count a charge, if it belongs here."""
        name, since = self._since.get(charge.account, ("", None))
        if since is None or charge.end is None:
            return
        if not self._period.start <= charge.end < self._period.end:
            return
        if (charge.start or charge.end) < since:
            return
        amount = Fraction(charge.amount)
        if charge.user:
            self._amounts[name][charge.user] += amount
        else:
            self._without_user.append(amount)

    def report(self) -> UsageReport:
        """What came together."""
        remarks = []
        if self._without_user:
            total = float(sum(self._without_user))
            remarks.append(
                f"{len(self._without_user)} usage records of {total:.2f} in total name no user "
                "and are not counted; look at mam-list-usagerecords"
            )
        return UsageReport(
            period=self._period,
            resources={
                name: ResourceUsage(
                    by_user={user: {DEPOSIT: amount} for user, amount in users.items()}
                )
                for name, users in self._amounts.items()
            },
            remarks=tuple(remarks),
        )


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
            directories=directories_of(settings, ProcessRunner(), account_name),
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
        yield from self.check_setup_of_directories()

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
        charges = self._client.charges(*days_to_ask_for(periods, longest_job))
        return reports(charges, since, periods)

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
