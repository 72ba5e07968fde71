"""What every cycle works with: one offering, its Waldur, its backend, and the time."""

from __future__ import annotations

import enum
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from waldur_site_agent.backends import Backend, BackendSettings, Outcome, UsernameBackend
from waldur_site_agent.backends.contract import NoUsernames
from waldur_site_agent.config import Offering
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
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import OfferingUser, OfferingUserState, Resource
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.planning.plan import Plan, Step, Thresholds
from waldur_site_agent.planning.usernames import PENDING
from waldur_site_agent.planning.writes import Write
from waldur_site_agent.waldur import Waldur


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What a command did once, by hand: a line for each object."""

    done: tuple[str, ...] = ()
    """What was done, or would be."""
    trouble: tuple[str, ...] = ()
    """What went wrong."""
    remarks: tuple[str, ...] = ()
    """What was seen and left as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleReport:
    """The outcome of one pass over an offering; what was done is told by its subclasses."""

    offering: str
    refused: Plan = field(default_factory=Plan)
    refused_reason: str = ""
    """Why the guard refused a part of the plan; empty when it did not."""
    trouble: str = ""
    """Why the pass as a whole was cut short; empty when it was not."""
    writes: tuple[Write, ...] = ()
    """Of a dry run: what would be changed in Waldur."""
    requests: int = 0
    """How many requests to Waldur the pass took."""
    commands: int = 0
    """How many commands of the backend it took."""

    @property
    def impairment(self) -> str:
        """What the pass could not do for anybody, although it went through; for health."""
        return ""

    @property
    def has_failures(self) -> bool:
        """Whether some part of the work needs a human or another try."""
        return False

    @property
    def failed(self) -> bool:
        """Whether anything at all needs a human or another try."""
        return bool(self.trouble) or self.has_failures


WHOLE_OFFERING: frozenset[Scope] = frozenset({Everything()})
"""What the polling modes look at."""

_TRIED_BY_FULL_PASSES = PENDING | {OfferingUserState.ERROR_CREATING}


@dataclass(frozen=True, slots=True)
class ScopeFilter:
    """The union of some scopes."""

    everything: bool = False
    orders: frozenset[UUID] = frozenset()
    resources: frozenset[UUID] = frozenset()
    projects: frozenset[UUID] = frozenset()
    users: frozenset[UUID] = frozenset()
    imports: frozenset[UUID] = frozenset()

    @classmethod
    def of(cls, scopes: Collection[Scope]) -> ScopeFilter:
        """What all the scopes together look at."""
        return cls(
            everything=Everything() in scopes,
            orders=frozenset(s.uuid for s in scopes if isinstance(s, OrderScope)),
            resources=frozenset(s.uuid for s in scopes if isinstance(s, ResourceScope)),
            projects=frozenset(s.uuid for s in scopes if isinstance(s, ProjectScope)),
            users=frozenset(s.uuid for s in scopes if isinstance(s, UserScope)),
            imports=frozenset(s.uuid for s in scopes if isinstance(s, ImportScope)),
        )

    def holds_user(self, user: OfferingUser) -> bool:
        """Whether this person's own account is looked at."""
        return self.everything or user.user_uuid in self.users

    def names_user(self, user: OfferingUser) -> bool:
        """Whether this person may get a username now.

        A project's newcomers may, whatever woke the pass; who waits for something that the site
        has to find out is asked about by full passes only, and when an event is about them.
        """
        return self.holds_user(user) or user.state not in _TRIED_BY_FULL_PASSES

    def choose(self, resources: Iterable[Resource]) -> list[Resource]:
        """The resources to look at: those in scope, and all that share an account with them.

        Half of the resources of an account would take the members of the other half away. Where
        a person is looked at, everything is: who may use what is known only after it was read.
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
        """Whether an account is looked at.

        Args:
            resources: the resources that the account belongs to.
            people: who is in the account or is to be.
            names: the usernames of the people in scope.
        """
        return (
            self.everything
            or any(r.uuid in self.resources or r.project_uuid in self.projects for r in resources)
            or any(name in people for name in names)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaldurSnapshot:
    """What a pass read in Waldur, so that it can be held against what an event announced.

    What a pass did not look at is missing here, which is not the same as empty.
    """

    orders: Mapping[UUID, str] = field(default_factory=dict)
    """The states of orders."""
    roles: Mapping[UUID, frozenset[tuple[UUID, str]]] = field(default_factory=dict)
    """By project, the people and the short names of their roles."""
    resources: Mapping[UUID, Resource] = field(default_factory=dict)
    users: Mapping[UUID, OfferingUser] = field(default_factory=dict)
    """By person."""
    accounts: Mapping[UUID, frozenset[str]] = field(default_factory=dict)
    """By project, the usernames of the service and course accounts that work."""


def short_role(name: str) -> str:
    """A role's name as all lists are made to spell it: ``PROJECT.ADMIN`` is ``admin``."""
    return name.strip().lower().removeprefix("project.")


class Watch(Protocol):
    """Told of every step of the work on one offering in one mode; never raises."""

    def cycle_began(self) -> None:
        """A pass begins."""

    def cycle_ended(self, report: CycleReport, seconds: float) -> None:
        """A pass ended, well or not, after so many seconds."""

    def action(self, outcome: Outcome) -> None:
        """An action was carried out or has failed."""

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """Waldur answered; ``status`` is the HTTP status, or ``"error"`` without an answer."""

    def command(self, command: str, result: str, seconds: float) -> None:
        """A command of the backend ended; ``result`` is one word."""


class NoWatch:
    """Nobody watches: commands that run once, and tests."""

    def cycle_began(self) -> None:
        """See :class:`Watch`."""

    def cycle_ended(self, report: CycleReport, seconds: float) -> None:
        """See :class:`Watch`."""

    def action(self, outcome: Outcome) -> None:
        """See :class:`Watch`."""

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """See :class:`Watch`."""

    def command(self, command: str, result: str, seconds: float) -> None:
        """See :class:`Watch`."""


REPEAT_AFTER = timedelta(days=1)
_MOST_NAMED = 10
_UUID = re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", re.IGNORECASE)


def cause_of(reason: str, *names: str) -> str:
    """What a reason has in common with the same reason about another object.

    Args:
        reason: the words about one object.
        names: the names of that object.
    """
    cause = _UUID.sub("…", reason)
    for name in sorted(filter(None, names), key=len, reverse=True):
        cause = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "…", cause)
    return cause


@dataclass(frozen=True, slots=True)
class _Noted:
    fields: Mapping[str, object]
    level: int


@dataclass(slots=True)
class _Logged:
    subjects: frozenset[str]
    since: datetime
    last: datetime
    level: int


_Key = tuple[str, str]
"""The event and its cause."""


@dataclass(slots=True)
class Conditions:
    """The conditions of one offering in one mode. Not to be shared by threads."""

    _noted: dict[_Key, dict[str, _Noted]] = field(default_factory=dict)
    _logged: dict[_Key, _Logged] = field(default_factory=dict)

    def note(
        self,
        event: str,
        subject: str,
        *,
        cause: str = "",
        level: int = logging.WARNING,
        **fields: object,
    ) -> None:
        """Note that a condition holds in this cycle.

        Args:
            event: the text of the log's line.
            subject: what it is about: an order, an account, a person.
            cause: what makes several subjects one line.
            level: of the log.
            fields: what the line says about the subject; ``reason`` is the field for a cause.
        """
        self._noted.setdefault((event, cause), {}).setdefault(subject, _Noted(fields, level))

    def settle(self, log: FilteringBoundLogger, now: datetime, *, complete: bool) -> None:
        """Log what has changed since the cycle before, and what a day has passed over.

        Args:
            log: where to.
            now: the time.
            complete: whether the cycle looked at everything and went through: what it did not
                note has then ended.
        """
        noted, self._noted = self._noted, {}
        for key, found in noted.items():
            self._log_one(log, now, key, found, complete=complete)
        if complete:
            for event, cause in self._logged.keys() - noted.keys():
                ended = self._logged.pop((event, cause))
                _log_end(log, event, ended)

    def _log_one(
        self,
        log: FilteringBoundLogger,
        now: datetime,
        key: _Key,
        found: Mapping[str, _Noted],
        *,
        complete: bool,
    ) -> None:
        logged = self._logged.get(key)
        before = logged.subjects if logged else frozenset[str]()
        new = found.keys() - before
        subjects = frozenset(found) if complete else before | found.keys()
        level = max(each.level for each in found.values())
        if logged is None:
            logged = self._logged[key] = _Logged(subjects, now, now, level)
        elif new or now - logged.last >= REPEAT_AFTER:
            log = log.bind(since=logged.since.isoformat(timespec="seconds"))
            logged.last = now
        else:
            logged.subjects = subjects
            return
        logged.subjects = subjects
        order = [*sorted(new), *sorted(found.keys() - new)]
        log.log(level, key[0], **_fields(found, order, len(subjects)))


def _fields(found: Mapping[str, _Noted], order: list[str], count: int) -> dict[str, object]:
    """What one line says about all subjects: what they have in common, and their names."""
    first = found[order[0]].fields
    if count == 1:
        return dict(first)
    others = [found[name].fields for name in order]
    common = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
    for words in ("reason", "error"):  # they have one cause: the words about one stand for it
        if words in first:
            common[words] = first[words]
    return {**common, "count": count, "affected": order[:_MOST_NAMED]}


def _log_end(log: FilteringBoundLogger, event: str, ended: _Logged) -> None:
    if ended.level < logging.WARNING:
        return
    since = ended.since.isoformat(timespec="seconds")
    affected: Iterable[str] = sorted(ended.subjects)[:_MOST_NAMED]
    log.info("resolved", condition=event, count=len(ended.subjects), affected=affected, since=since)


def note_failures(site: Site, event: str, failures: Iterable[str]) -> None:
    """Note what no line of the log names yet, in words that begin with the object's name."""
    for failure in failures:
        name = failure.partition(":")[0]
        cause = cause_of(failure, name)
        site.conditions.note(event, name, cause=cause, resource=name, reason=failure)


class UnreportedUsage(enum.Enum):
    """What becomes of a termination whose last usage another token could report."""

    WAIT = "wait"
    """It stays executing, but not for the rest of past months, which is for staff alone."""
    WAIT_FOR_PAST_MONTHS = "wait_for_past_months"
    """It stays executing for that, too."""
    COMPLETE = "complete"
    """It is completed; the usage is never billed."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _never() -> bool:
    return False


def _forget(_step: Step, _outcome: Outcome) -> None:
    return


def _forget_write(_write: Write, _error: SiteAgentError | None) -> None:
    return


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
    removals_since_full_pass: int = 0
    """Members removed by partial passes; the guard counts them together."""
    stuck_update_checks: int = 0
    """In how many more passes to look for resources stuck in Updating."""
    offered_accounts: dict[str, datetime] = field(default_factory=dict)
    """When an account was offered for import; Waldur's list may not show it yet."""
    unreported_components_logged: bool = False
    """The log already names the components that Waldur does not count."""
    logged_plan_changes: set[UUID] = field(default_factory=set)
    """Usage records that the log already names as one of several for the same month."""
    accepts_bulk_user_usage: bool | None = None
    """Whether the server has ``set_user_usages``; ``None`` until it was tried."""
    staff_only_components: set[str] = field(default_factory=set)
    """Components whose past months Waldur accepts from a staff token only."""
    rejected_totals: set[tuple[UUID, BillingMonth, str]] = field(default_factory=set)
    """Resource, month and component of totals that Waldur rejected when they were last sent."""
    months: dict[BillingMonth, MonthMemory] = field(default_factory=dict)

    def month(self, month: BillingMonth) -> MonthMemory:
        """What is remembered about one billing month."""
        return self.months.setdefault(month, MonthMemory())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """Another offering of the file, at the same or at another Waldur.

    It reports usage of the same machine, and has some of the same components.
    """

    offering: Offering
    waldur: Waldur


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One offering at work; the same for all its cycles in one process."""

    offering: Offering
    waldur: Waldur
    backend: Backend
    thresholds: Thresholds
    log: FilteringBoundLogger
    now: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], None] = time.sleep
    stopping: Callable[[], bool] = _never
    """Whether the agent was asked to stop: the object in hand is finished, no new one begun."""
    record: Callable[[Step, Outcome], None] = _forget
    """Writes an applied action into the journal, where the site keeps one."""
    record_write: Callable[[Write, SiteAgentError | None], None] = _forget_write
    """The same for a change in Waldur, and for what Waldur said instead of making it."""
    watch: Watch = field(default_factory=NoWatch)
    """Told of everything that comes back, for health and metrics."""
    usernames: UsernameBackend = field(default_factory=lambda: NoUsernames(BackendSettings()))
    """Gives people their usernames; by default it gives none."""
    conditions: Conditions = field(default_factory=Conditions)
    """What lasts for many cycles and is logged when it changes; lives as long as the process."""
    memory: Memory = field(default_factory=Memory)
    """What this process remembers between cycles; losing it costs requests and log lines only."""
    given: GivenUsernames = field(default_factory=GivenUsernames)
    """The usernames that this process gave; lists may not show them yet."""
    named: set[UUID] = field(default_factory=set)
    """The resources that this process gave a name; lists may not show it yet."""
    server_calls: dict[str, int] = field(default_factory=dict)
    """Which optional calls the server has; shared by all work at that server."""
    siblings: tuple[Sibling, ...] = ()
    """With whom accounts may be shared by mistake, so that both would be billed."""
    zone: tzinfo = UTC
    """Where billing months begin and end."""
    unreported_usage: UnreportedUsage = UnreportedUsage.WAIT
    """What becomes of a termination whose last usage this token may not report."""
    remove_unknown_users: bool = False
    """Whether users of an account that Waldur does not know are removed, not only reported."""
