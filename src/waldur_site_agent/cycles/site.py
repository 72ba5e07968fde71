"""What every cycle is given, and what it returns.

``Site`` is one offering with its Waldur, its backend, clock and log; ``CycleReport`` is what a
cycle returns.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from typing import Protocol
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from waldur_site_agent.backends import (
    Backend,
    BackendSettings,
    Outcome,
    UsernameBackend,
)
from waldur_site_agent.backends.usernames import NoUsernames
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.conditions import Conditions
from waldur_site_agent.cycles.usernames import GivenUsernames
from waldur_site_agent.model.backend import (
    Everything,
    ImportScope,
    OrderScope,
    ProjectScope,
    ResourceScope,
    Scope,
    UserScope,
)
from waldur_site_agent.model.budget_notices import Budget, BudgetNotice
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import (
    OfferingUser,
    OfferingUserState,
    Resource,
    TeamMember,
)
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.planning.plan import (
    Plan,
    Step,
    Thresholds,
    Write,
)
from waldur_site_agent.planning.usernames import PENDING
from waldur_site_agent.waldur import Waldur


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """The result of a one-off command, one line per object."""

    done: tuple[str, ...] = ()
    """What was done or, in a dry run, would be done."""
    trouble: tuple[str, ...] = ()
    """What went wrong."""
    remarks: tuple[str, ...] = ()
    """What was noticed but not changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleReport:
    """The outcome of one pass over an offering; subclasses add the details of each job."""

    offering: str
    refused: Plan = field(default_factory=Plan)
    refused_reason: str = ""
    """Why the guard refused part of the plan; empty if it did not."""
    digest: str = ""
    """What names the refused part, and nothing else, for ``allow``."""
    trouble: str = ""
    """Why the pass was aborted; empty if it was not."""
    writes: tuple[Write, ...] = ()
    """Dry run only: what would be changed in Waldur."""
    requests: int = 0
    """The number of requests sent to Waldur."""
    commands: int = 0
    """The number of backend commands run."""

    @property
    def impairment(self) -> str:
        """What the pass could not do for the whole offering although it completed; for health."""
        return ""

    @property
    def has_failures(self) -> bool:
        """Whether part of the work failed and needs attention or a retry."""
        return False

    @property
    def failed(self) -> bool:
        """Whether anything failed and needs attention or a retry."""
        return bool(self.trouble) or self.has_failures


WHOLE_OFFERING: frozenset[Scope] = frozenset({Everything()})
"""The scope of the polling modes."""

_TRIED_BY_FULL_PASSES = PENDING | {OfferingUserState.ERROR_CREATING}


@dataclass(frozen=True, slots=True)
class ScopeFilter:
    """Selects the orders, resources, projects and users that a pass covers."""

    everything: bool = False
    orders: frozenset[UUID] = frozenset()
    resources: frozenset[UUID] = frozenset()
    projects: frozenset[UUID] = frozenset()
    users: frozenset[UUID] = frozenset()
    imports: frozenset[UUID] = frozenset()

    @classmethod
    def of(cls, scopes: Collection[Scope]) -> ScopeFilter:
        """The union of the scopes."""
        return cls(
            everything=Everything() in scopes,
            orders=frozenset(s.uuid for s in scopes if isinstance(s, OrderScope)),
            resources=frozenset(s.uuid for s in scopes if isinstance(s, ResourceScope)),
            projects=frozenset(s.uuid for s in scopes if isinstance(s, ProjectScope)),
            users=frozenset(s.uuid for s in scopes if isinstance(s, UserScope)),
            imports=frozenset(s.uuid for s in scopes if isinstance(s, ImportScope)),
        )

    def holds_user(self, user: OfferingUser) -> bool:
        """Whether this user's own account is in scope."""
        return self.everything or user.user_uuid in self.users

    def names_user(self, user: OfferingUser) -> bool:
        """Whether the username backend may be asked about this user now.

        New project members always qualify. Users who are waiting for a decision of the site are
        only retried by full passes and by events about them.
        """
        return self.holds_user(user) or user.state not in _TRIED_BY_FULL_PASSES

    def choose(self, resources: Iterable[Resource]) -> list[Resource]:
        """The resources in scope, and all that share an account with them.

        Syncing only some of the resources of an account would remove the members that the others
        grant. If a user is in scope, every resource is: which of them the user may access is
        known only after the teams were read.
        """
        listed = list(resources)
        if self.everything or self.users:
            return listed
        accounts = {
            resource.account
            for resource in listed
            if resource.uuid in self.resources or resource.project_uuid in self.projects
        }
        return [resource for resource in listed if resource.account in accounts]

    def holds_account(
        self, resources: Iterable[Resource], people: Collection[str], names: Collection[str]
    ) -> bool:
        """Whether an account is in scope.

        Args:
            resources: the resources that the account belongs to.
            people: the current and the wanted members of the account.
            names: the usernames of the users in scope.
        """
        return (
            self.everything
            or any(r.uuid in self.resources or r.project_uuid in self.projects for r in resources)
            or any(name in people for name in names)
        )


class Observer(Protocol):
    """Observes the work on one offering in one mode, for health and metrics; never raises."""

    def cycle_began(self) -> None:
        """A pass has started."""

    def cycle_ended(self, report: CycleReport, seconds: float) -> None:
        """A pass has ended, successfully or not."""

    def action(self, outcome: Outcome) -> None:
        """An action was applied or has failed."""

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """A request ended; ``status`` is the HTTP status, or ``"error"`` without a response."""

    def command(self, command: str, result: str, seconds: float) -> None:
        """A backend command has ended; ``result`` is one word."""


class NoObserver:
    """Observes nothing; for one-off commands and tests."""

    def cycle_began(self) -> None:
        """See :class:`Observer`."""

    def cycle_ended(self, report: CycleReport, seconds: float) -> None:
        """See :class:`Observer`."""

    def action(self, outcome: Outcome) -> None:
        """See :class:`Observer`."""

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """See :class:`Observer`."""

    def command(self, command: str, result: str, seconds: float) -> None:
        """See :class:`Observer`."""


@dataclass(frozen=True, slots=True)
class RefusedPlan:
    """What the guard refused, as it is shown to whoever may allow it."""

    digest: str
    offering: str
    job: str
    reason: str
    changes: Mapping[str, Sequence[str]]
    """By account, who would be removed; in brackets, what would become of the account itself."""
    at: float
    """When it was refused last; epoch."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Somebody's word that one refused plan may be carried out, once."""

    digest: str
    offering: str
    job: str
    by: str
    at: float
    """When it was given; epoch."""


class AllowanceStore(Protocol):
    """Where refused plans are recorded and allowances are found."""

    def take(self, digest: str) -> Allowance | None:
        """The allowance for a plan, which is then used up."""

    def record(self, plan: RefusedPlan) -> None:
        """Keep a plan that was refused."""

    def settle(self, offering: str, job: str, keep: str = "") -> None:
        """Drop the refused plans of a job that a complete pass did not come to again."""


class NoAllowances:
    """Nothing is allowed by digest; for one-off commands and tests."""

    def take(self, digest: str) -> Allowance | None:  # noqa: ARG002 - the protocol's
        """See :class:`AllowanceStore`."""
        return None

    def record(self, plan: RefusedPlan) -> None:
        """See :class:`AllowanceStore`."""

    def settle(self, offering: str, job: str, keep: str = "") -> None:
        """See :class:`AllowanceStore`."""


class CycleJournal(Protocol):
    """The journal of one offering in one mode; never raises."""

    def begin_cycle(self) -> None:
        """Give the entries that follow a mark of their own."""

    def record(self, step: Step, outcome: Outcome) -> None:
        """Record an action that was applied or has failed."""

    def record_write(self, write: Write, error: SiteAgentError | None) -> None:
        """Record a change in Waldur, or the error if Waldur rejected it."""

    def record_allowance(self, allowance: Allowance) -> None:
        """Record that an allowance is used."""


class NoJournal:
    """Records nothing; for one-off commands and tests."""

    def begin_cycle(self) -> None:
        """See :class:`CycleJournal`."""

    def record(self, step: Step, outcome: Outcome) -> None:
        """See :class:`CycleJournal`."""

    def record_write(self, write: Write, error: SiteAgentError | None) -> None:
        """See :class:`CycleJournal`."""

    def record_allowance(self, allowance: Allowance) -> None:
        """See :class:`CycleJournal`."""


class UnreportedUsage(enum.Enum):
    """What happens to a termination whose last usage this token may not report."""

    WAIT = "wait"
    """The order stays executing, except for past months, which only staff may report."""
    WAIT_FOR_PAST_MONTHS = "wait_for_past_months"
    """The order stays executing for past months, too."""
    COMPLETE = "complete"
    """The order is completed; the usage is never billed."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _never() -> bool:
    return False


@dataclass(slots=True, kw_only=True)
class MonthMemory:
    """What the process remembers about reporting the usage of one billing month."""

    closed: bool = False
    """Everything that Waldur accepts has been reported; nothing is left to do."""
    verified: bool = False
    """The month was compared with the backend's second source."""
    staff_only_logged: bool = False
    """The log already says that the remainder requires a staff token."""
    closing_comparisons: int = 0
    """How often per-user usage was compared since the month ended: at first, and at the end."""
    counted_resources: int = 0
    """How many resources there were when Waldur's per-user records were counted."""
    compared_on: date | None = None
    """The day on which all per-user usage of the current month was last compared."""


@dataclass(slots=True, kw_only=True)
class Memory:
    """What one process remembers between the cycles of one offering.

    It saves requests and keeps log lines from being repeated. It is empty after a restart, and
    may be lost at any time without harm.
    """

    nonempty_lists: set[str] = field(default_factory=set)
    """Lists that had entries when they were last read, such as ``orders``."""
    denied_calls: dict[str, datetime] = field(default_factory=dict)
    """When Waldur last denied this token an optional call, by the call's name."""
    rejected_limits: set[tuple[UUID | None, str]] = field(default_factory=set)
    """Resource and limits (as text) of reports that Waldur rejected."""
    reported_budgets: dict[UUID, str] = field(default_factory=dict)
    """By resource, the failure to set its budget that was last reported to Waldur."""
    removals_since_full_pass: int = 0
    """Members removed by partial passes; the guard counts them together."""
    moves_since_full_pass: int = 0
    """The same, of accounts of projects that were moved."""
    members_at_full_pass: int | None = None
    """How many members the offering's accounts had in the last pass over all of them."""
    stuck_update_checks: int = 0
    """In how many more passes to look for resources stuck in Updating."""
    offered_accounts: dict[str, datetime] = field(default_factory=dict)
    """When an account was offered for import; Waldur's list may not show it yet."""
    unreported_components_logged: bool = False
    """The log already names the components that Waldur does not count."""
    uncounted_components: set[str] = field(default_factory=set)
    """Prepaid components whose usage this Waldur does not take."""
    logged_plan_changes: set[UUID] = field(default_factory=set)
    """Usage records that the log already names as one of several for the same month."""
    accepts_bulk_user_usage: bool | None = None
    """Whether the server has ``set_user_usages``; ``None`` until it was tried."""
    staff_only_components: set[str] = field(default_factory=set)
    """Components whose past months Waldur accepts from a staff token only."""
    rejected_totals: set[tuple[UUID, BillingMonth, str]] = field(default_factory=set)
    """Resource, month and component of totals that Waldur rejected when they were last sent."""
    months: dict[BillingMonth, MonthMemory] = field(default_factory=dict)
    days_read: datetime | None = None
    """When usage was last read by day."""

    def month(self, month: BillingMonth) -> MonthMemory:
        """What is remembered about one billing month."""
        return self.months.setdefault(month, MonthMemory())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """Another configured offering that reports usage of the same cluster.

    It has some of the same components, and may belong to another Waldur.
    """

    offering: Offering
    waldur: Waldur


class BudgetChannels(Protocol):
    """Where budgets are told."""

    def tell(self, notice: BudgetNotice, people: Sequence[TeamMember]) -> None:
        """Tell of a crossing by all channels.

        Raises:
            TemporaryError: one of them did not take it; tell it again.
        """

    def publish(self, budgets: Sequence[Budget]) -> None:
        """Replace the file of budgets.

        Raises:
            TemporaryError: it cannot be written.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One offering and everything its cycles need; the same for all cycles of a process."""

    offering: Offering
    waldur: Waldur
    backend: Backend
    thresholds: Thresholds
    log: FilteringBoundLogger
    now: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], None] = time.sleep
    stopping: Callable[[], bool] = _never
    """Whether the agent was asked to stop: finish the current object, start no other."""
    may_write: Callable[[], None] | None = None
    """Asked before each batch of actions; raises a ``TemporaryError`` when another agent may have
    taken over the offering."""
    journal: CycleJournal = field(default_factory=NoJournal)
    """Where changes on either side are recorded, if the site keeps a journal."""
    allowances: AllowanceStore = field(default_factory=NoAllowances)
    """Allowances for refused plans."""
    observer: Observer = field(default_factory=NoObserver)
    """Observes actions, requests and commands, for health and metrics."""
    usernames: UsernameBackend = field(default_factory=lambda: NoUsernames(BackendSettings()))
    """Finds or generates usernames; the default does neither."""
    conditions: Conditions = field(default_factory=Conditions)
    """Conditions that last for several cycles; logged when they change."""
    memory: Memory = field(default_factory=Memory)
    """What this process remembers between cycles; losing it costs requests and log lines only."""
    given: GivenUsernames = field(default_factory=GivenUsernames)
    """The usernames that this process assigned; lists may not show them yet."""
    named: set[UUID] = field(default_factory=set)
    """The resources whose backend_id this process set; lists may not show it yet."""
    server_calls: dict[str, int] = field(default_factory=dict)
    """Which optional API calls the server has; shared by all offerings of that server."""
    wants_days: bool = False
    """Whether usage is also read by day, for plots."""
    siblings: tuple[Sibling, ...] = ()
    """Offerings that might share an account by mistake, so that usage would be billed twice."""
    zone: tzinfo = UTC
    """The time zone of billing months."""
    unreported_usage: UnreportedUsage = UnreportedUsage.WAIT
    """What happens to a termination whose last usage this token may not report."""
    refuses_missing_limits: bool = False
    """Whether orders fail that leave out the limit of a component that is sold by limit."""
    remove_unknown_users: bool = False
    """Whether account members unknown to Waldur are removed, not just reported."""
    recreate: bool = False
    """Whether accounts that the backend has lost are made again."""
    budgets: BudgetChannels | None = None
    """Where budgets are told; ``None`` if the offering has none configured."""
