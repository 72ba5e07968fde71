"""Sends the differences of one month to Waldur, safely if the agent is killed at any point.

In the current month per-user usage is sent before the total: as long as the total differs, the
next cycle sends everything again. If Waldur has no record yet, the total goes first, because
per-user usage belongs to its record; a new process counts per-user records and so finds missing
ones. In past months totals go first, because Waldur may reject them; per-user usage is always
compared. Past months of components billed by usage require a staff token: once Waldur has rejected
such a component, the others are reported without it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from uuid import UUID

from waldur_site_agent.cycles.changes import note_write
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.partial_answers import readable
from waldur_site_agent.cycles.site import CycleReport, Site
from waldur_site_agent.model.budget_notices import Budget
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import Component, Resource
from waldur_site_agent.model.usage import BillingMonth, UserUsage
from waldur_site_agent.planning.membership import folded
from waldur_site_agent.planning.plan import Write, usage_write, user_usages_write
from waldur_site_agent.planning.usage import (
    Bill,
    MonthPlan,
    RecordedUsage,
    ResourceReport,
    UserUsageChange,
    booking_date,
    is_past_in_waldur,
    recorded_usage,
    recorded_user_usages,
    user_usage_changes,
    user_usages_for_newest,
    why_not_now,
)
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    NotFoundError,
    PastMonthRefusedError,
    concurrently,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReported:
    """An account whose usage was not reported, and why."""

    account: str
    error: SiteAgentError


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthOutcome:
    """The plan of one month, and its outcome."""

    plan: MonthPlan
    reported: frozenset[str] = frozenset()
    """The accounts whose totals were sent."""
    refused: frozenset[tuple[str, str]] = frozenset()
    """Account and component of totals that Waldur rejected."""
    user_usages: int = 0
    """How many per-user records were sent."""
    user_usage_changes: tuple[UserUsageChange, ...] = ()
    """Dry run only: per-user usage that would be sent, in addition to the totals."""
    failures: tuple[NotReported, ...] = ()
    deferred_reason: str = ""
    """Why nothing can be sent for the month at this moment."""
    rejected_reason: str = ""
    """Why Waldur accepts some or all components of this month from a staff token only."""

    def has_sent(self, account: str, component: str) -> bool:
        """Whether a changed total was accepted."""
        return account in self.reported and (account, component) not in self.refused

    @property
    def not_billed(self) -> dict[str, str]:
        """By component, the usage that Waldur lacks, in measured units."""
        amounts = self.plan.outstanding(self.has_sent)
        return {component: f"{amount:.2f}" for component, amount in amounts.items()}

    @property
    def is_unfinished(self) -> bool:
        """Whether a retry may help."""
        return bool(self.deferred_reason) or any(
            isinstance(failure.error, TemporaryError) for failure in self.failures
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCycleReport(CycleReport):
    """The outcome of one pass over the usage of an offering."""

    months: tuple[MonthOutcome, ...] = ()
    """Oldest first; includes the previous month until it is closed."""
    skipped: tuple[str, ...] = ()
    """Resources for which nothing is reported for now, and why."""
    failures: tuple[str, ...] = ()
    """What went wrong with single resources; the others were reported."""
    days: Mapping[str, tuple[tuple[str, Mapping[str, Decimal]], ...]] | None = None
    """By account, the usage of each day of the current month; ``None`` if it was not read."""
    budgets: tuple[Budget, ...] = ()
    """What is used of limits, if the offering has budgets configured."""

    @property
    def has_failures(self) -> bool:
        """Whether some resource needs a retry, or a decreased total needs attention."""
        return bool(self.failures) or any(outcome.plan.anomalies for outcome in self.months)


def send_month(site: Site, plan: MonthPlan, *, compare_user_usages: bool) -> MonthOutcome:
    """Send what has changed; an error with one resource does not stop the others.

    Args:
        site: the offering at work.
        plan: the month.
        compare_user_usages: whether to compare per-user usage even if no total has changed.

    Raises:
        TemporaryError: a list could not be read.
        PermanentError: a list may not be read.
    """
    skipped = _skipped(plan)
    if not (plan or compare_user_usages):
        return MonthOutcome(plan=plan, failures=skipped)
    sending = _Sending(site, plan)
    if not (plan or sending.has_differing_user_usages()):
        return MonthOutcome(plan=plan, failures=skipped)
    deferred_reason = why_not_yet(site, plan.month)
    if deferred_reason:
        return MonthOutcome(plan=plan, deferred_reason=deferred_reason, failures=skipped)
    if is_past_in_waldur(plan.month, waldurs_time(site)):
        sending.send_past()
    else:
        sending.send_current()
    return MonthOutcome(
        plan=plan,
        reported=frozenset(sending.reported),
        user_usages=sending.user_usages_sent.total(),
        failures=(*skipped, *sending.failures),
        rejected_reason=sending.rejected_reason,
        refused=frozenset(sending.refused),
    )


def preview_month(site: Site, plan: MonthPlan) -> MonthOutcome:
    """What :func:`send_month` would send, including per-user usage; nothing is sent.

    Raises:
        TemporaryError: a list could not be read.
        PermanentError: a list may not be read.
    """
    changes = _Sending(site, plan).differing_user_usages()
    return MonthOutcome(plan=plan, user_usage_changes=tuple(changes), failures=_skipped(plan))


def previewed_writes(outcome: MonthOutcome, components: Mapping[str, Component]) -> Iterator[Write]:
    """The writes of a previewed month: totals, then per-user usage."""
    month = str(outcome.plan.month)
    for resource in outcome.plan.resources:
        if resource.is_changed:
            recorded_usage = {
                c.type: (c.before, c.bill.total) for c in resource.components if c.is_changed
            }
            yield usage_write(resource.resource, month, recorded_usage, components)
    for change in outcome.user_usage_changes:
        yield user_usages_write(change, month, components)


def _skipped(plan: MonthPlan) -> tuple[NotReported, ...]:
    return tuple(
        NotReported(account=account, error=TemporaryError(reason))
        for account, reason in sorted(plan.skipped.items())
    )


_NOT_LISTED_YET = (
    "the total was reported, but Waldur does not list it yet; "
    "per-user usage follows in the next cycle"
)

_INVALID = "components are invalid"
"""In what Waldur says about components whose usage it does not take."""
_STAFF_ONLY = (
    "once a month has ended in UTC, reporting components billed by usage requires a staff token"
)


@dataclass(frozen=True, slots=True)
class _UserUsages:
    """Changed per-user usage, and the component usage record to which it belongs."""

    row: UUID
    change: UserUsageChange


@dataclass
class _Sending:
    site: Site
    plan: MonthPlan
    reported: set[str] = field(default_factory=set)
    user_usages_sent: Counter[str] = field(default_factory=Counter)
    failures: list[NotReported] = field(default_factory=list)
    rejected_reason: str = ""
    refused: set[tuple[str, str]] = field(default_factory=set)
    """Account and component of the totals that Waldur rejects."""
    taken: set[tuple[str, str]] = field(default_factory=set)
    """Account and component of the totals that Waldur accepted."""
    blocked: set[str] = field(default_factory=set)
    """Accounts that are skipped for the rest of the pass."""

    def has_differing_user_usages(self) -> bool:
        """Whether any per-user usage differs from Waldur's record."""
        return bool(self._differing(self._rows()))

    def differing_user_usages(self) -> list[UserUsageChange]:
        """Per-user usage that Waldur lacks, including that of totals still to be sent."""
        differing = [each.change for each in self._differing(self._rows())]
        differing += [
            UserUsageChange(
                resource=resource.resource,
                component=component.type,
                users={user: (None, used) for user, used in component.bill.user_usages.items()},
            )
            for resource in self.plan.resources
            for component in resource.valid
            if component.found is None and component.is_changed and component.bill.user_usages
        ]
        return sorted(differing, key=lambda change: (change.account, change.component))

    def send_current(self) -> None:
        known = self._rows()
        rejected = self._rejected_before()
        self._send_user_usages(self._differing(known))
        self._send_totals(self._changed_resources())
        self._send_user_usages(self._differing({k: r for k, r in known.items() if k in rejected}))
        self._send_user_usages_of_new_records()

    def send_past(self) -> None:
        changed = self._changed_resources()
        self._send_totals(changed[:1])  # shows which components require a staff token
        self._send_totals(changed[1:])
        rows = {key: row for key, row in self._rows().items() if not self._is_staff_only(key[1])}
        if rows:
            self._send_user_usages(self._differing(rows))
        self._send_user_usages_of_new_records()

    def _is_staff_only(self, component: str) -> bool:
        """Whether the month has passed and reporting the component requires a staff token."""
        return component in self.site.memory.staff_only_components and self._is_past()

    @cached_property
    def _recorded_user_usages(self) -> Mapping[UUID, Mapping[str, Decimal]]:
        uuid = self.site.offering.waldur_offering_uuid
        listing = self.site.waldur.component_user_usages(uuid, self.plan.month)
        return recorded_user_usages(readable(self.site, listing, "per-user usages"))

    @cached_property
    def _accounts_in_waldur(self) -> Mapping[str, UUID]:
        """The offering users by username; without them usage is not linked to users."""
        try:
            listing = self.site.waldur.offering_users(self.site.offering.waldur_offering_uuid)
        except SiteAgentError as error:
            event = "usage not linked to offering users"
            self.site.conditions.note(event, event, reason=str(error))
            return {}
        people = Counter(folded(user.username) for user in listing.items)
        names = {folded(user.username): user.uuid for user in listing.items}
        return {name: uuid for name, uuid in names.items() if name and people[name] == 1}

    def _changed_resources(self) -> list[ResourceReport]:
        return [r for r in self.plan.resources if r.is_changed and r.account not in self.blocked]

    def _rows(self) -> dict[tuple[str, str], RecordedUsage]:
        """Waldur's records known to the plan, by account and component."""
        return {
            (resource.account, component.type): component.found
            for resource in self.plan.resources
            for component in resource.valid
            if component.found is not None
        }

    def _send_user_usages_of_new_records(self) -> None:
        """Send per-user usage for records that were just created by sending the total."""
        lacking = {
            (resource.resource.uuid, component.type): (resource.account, component.type)
            for resource in self.plan.resources
            for component in resource.valid
            if component.found is None and component.bill.user_usages
        }
        if not lacking or not self.reported.intersection(name for name, _ in lacking.values()):
            return
        uuid = self.site.offering.waldur_offering_uuid
        listing = self.site.waldur.component_usages(uuid, self.plan.month)
        now_there = recorded_usage(
            readable(self.site, listing, "component usages"), self.plan.month
        )  # undecodable records are retried in the next cycle
        rows = {lacking[key]: found for key, found in now_there.items() if key in lacking}
        self._send_user_usages(self._differing(rows))
        unlisted = {*lacking.values()} & self.taken - rows.keys()
        for account in sorted({account for account, _ in unlisted}):
            self._note(account, TemporaryError(_NOT_LISTED_YET))

    def _differing(self, rows: Mapping[tuple[str, str], RecordedUsage]) -> list[_UserUsages]:
        bills: dict[tuple[str, str], tuple[Resource, Bill]] = {
            (resource.account, component.type): (resource.resource, component.bill)
            for resource in self.plan.resources
            for component in resource.valid
            if resource.account not in self.blocked
            and not (component.is_changed and self._is_refused(resource, component.type))
            and not self._is_staff_only(component.type)
        }
        differing = []
        for key, figure in rows.items():
            if key not in bills:
                continue
            found = self._recorded_user_usages.get(figure.row, {})
            older = [self._recorded_user_usages.get(row, {}) for row in figure.older]
            resource, bill = bills[key]
            changes = user_usage_changes(user_usages_for_newest(bill.user_usages, older), found)
            if changes:
                users = {user: (found.get(user), amount) for user, amount in changes.items()}
                change = UserUsageChange(resource=resource, component=key[1], users=users)
                differing.append(_UserUsages(figure.row, change))
        return differing

    def _rejected_before(self) -> set[tuple[str, str]]:
        """Account and component of the totals that Waldur rejected in the last pass."""
        return {
            (resource.account, component)
            for resource in self.plan.resources
            for component in resource.changed_totals
            if self._is_refused(resource, component)
        }

    def _is_refused(self, resource: ResourceReport, component: str) -> bool:
        """Whether Waldur rejected the total in this pass or the previous one of this process."""
        return _key(self.plan, resource, component) in self.site.memory.rejected_totals

    def _send_user_usages(self, differing: Sequence[_UserUsages]) -> None:
        people = self._accounts_in_waldur if any(each.change.is_new for each in differing) else {}

        def send(user_usages: _UserUsages) -> None:
            self._send_users(
                user_usages,
                [
                    UserUsage(
                        username=name, usage=amount, offering_user_uuid=people.get(folded(name))
                    )
                    for name, (_, amount) in user_usages.change.users.items()
                ],
            )

        first = 1 if self.site.memory.accepts_bulk_user_usage is None else 0  # probes the server
        attempts = [*concurrently(send, differing[:first]), *concurrently(send, differing[first:])]
        for attempt in attempts:
            account = attempt.item.change.account
            if attempt.error is None:
                self.user_usages_sent[account] += len(attempt.item.change.users)
            else:
                self._note(account, attempt.error)
                if isinstance(attempt.error, TemporaryError):
                    self.blocked.add(
                        account
                    )  # if only per-user usage is rejected, the total is still billed

    def _send_users(self, user_usages: _UserUsages, sent: Sequence[UserUsage]) -> None:
        """Send users in bulk, or one by one if the server lacks that or rejects one of them."""
        memory = self.site.memory
        if memory.accepts_bulk_user_usage is not False:
            self._check_before_sending()
            try:
                self._send_in_bulk(user_usages, sent)
            except AbsentOperationError:
                memory.accepts_bulk_user_usage = False
            except (AccessDeniedError, NotFoundError):
                raise
            except PermanentError as error:
                self.site.log.debug(
                    "bulk report of per-user usage rejected; sending one by one", reason=str(error)
                )
            else:
                memory.accepts_bulk_user_usage = True
                return
        refusals: list[PermanentError] = []
        for user_usage in sent:
            self._check_before_sending()
            try:
                self._send_one_user(user_usages, user_usage)
            except PermanentError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    def _send_in_bulk(self, user_usages: _UserUsages, sent: Sequence[UserUsage]) -> None:
        write = self._user_usages_write(user_usages)
        try:
            self.site.waldur.set_user_usages(user_usages.row, sent)
        except TemporaryError as error:  # rejected users are retried one by one
            self.site.journal.record_write(write, error)
            raise
        note_write(self.site, write)

    def _send_one_user(self, user_usages: _UserUsages, user_usage: UserUsage) -> None:
        write = self._user_usages_write(user_usages, [user_usage.username])
        try:
            self.site.waldur.set_user_usage(user_usages.row, user_usage)
        except SiteAgentError as error:
            self.site.journal.record_write(write, error)
            raise
        note_write(self.site, write)

    def _user_usages_write(
        self, user_usages: _UserUsages, users: Collection[str] | None = None
    ) -> Write:
        components = self.site.offering.components
        return user_usages_write(user_usages.change, str(self.plan.month), components, users)

    def _send_totals(self, resources: Iterable[ResourceReport]) -> None:
        for attempt in concurrently(self._send_total, resources):
            resource, error = attempt.item, attempt.error
            if error is None:
                self._note_totals(resource, attempt.value or {})
            elif type(error) is PermanentError:
                self._note_totals(resource, dict.fromkeys(resource.changed_totals, error))
            else:
                self._note(resource.account, error)
                self.blocked.add(resource.account)

    def _note_totals(self, resource: ResourceReport, refused: Mapping[str, PermanentError]) -> None:
        """Record which totals were accepted; per-user usage of rejected ones is not sent."""
        account = resource.account
        rejected = self.site.memory.rejected_totals
        for name in resource.changed_totals:
            key = _key(self.plan, resource, name)
            rejected.add(key) if name in refused else rejected.discard(key)
        self.refused.update((account, name) for name in refused)
        refused = dict(self._without_uncounted(self._without_staff_only(refused)))
        taken = [name for name in resource.changed_totals if (account, name) not in self.refused]
        if taken:
            self.reported.add(account)
            self.taken.update((account, name) for name in taken)
            month = str(self.plan.month)
            before = {each.type: each.before for each in resource.components}
            recorded_usage = {name: (before[name], resource.changed_totals[name]) for name in taken}
            components = self.site.offering.components
            write = usage_write(resource.resource, month, recorded_usage, components)
            changes = [str(change) for change in write.changes]
            self.site.log.info("usage reported", resource=account, month=month, changes=changes)
            self.site.journal.record_write(write, None)
        for text in dict.fromkeys(map(str, refused.values())):
            names = ", ".join(name for name, error in refused.items() if str(error) == text)
            self._note(account, PermanentError(f"{names}: {text}"))

    def _send_total(self, resource: ResourceReport) -> dict[str, PermanentError]:
        """Send all totals together, or one by one if Waldur rejects that.

        Returns:
            By component, why it was rejected while the others were accepted.
        """
        refused: dict[str, PermanentError] = {
            name: PastMonthRefusedError(_STAFF_ONLY)
            for name in resource.changed_totals
            if self._is_staff_only(name)
        }
        totals = {n: each for n, each in resource.totals.items() if not self._is_staff_only(n)}
        changed_totals = [name for name in resource.changed_totals if name not in refused]
        if not changed_totals:
            return refused
        try:
            self._send_amounts(resource, totals)
        except PermanentError as error:
            if isinstance(error, PastMonthRefusedError) and self._is_past():
                if len(totals) == 1:
                    return refused | dict.fromkeys(changed_totals, error)
            elif type(error) is not PermanentError or len(totals) == 1:
                raise
        else:
            return refused
        for name in changed_totals:
            try:
                self._send_amounts(resource, {name: totals[name]})
            except PermanentError as error:
                refused[name] = error
        return refused

    def _without_uncounted(
        self, refused: Iterable[tuple[str, PermanentError]]
    ) -> Iterator[tuple[str, PermanentError]]:
        """The rejections but those of older servers, which count no prepaid components."""
        uncounted = self.site.memory.uncounted_components
        for name, error in refused:
            component = self.site.offering.components.get(name)
            if component is None or not component.is_prepaid or _INVALID not in str(error):
                yield name, error
                continue
            if name not in uncounted:
                self.site.log.warning(
                    "usage of a prepaid component is not reported: this Waldur does not count it",
                    component=name,
                    remedy="newer versions of Waldur take it; limits do not depend on it",
                )
            uncounted.add(name)

    def _without_staff_only(
        self, refused: Mapping[str, PermanentError]
    ) -> Iterator[tuple[str, PermanentError]]:
        """The rejections that are not about the month; those are remembered and logged once."""
        for name, error in refused.items():
            if isinstance(error, PastMonthRefusedError) and self._is_past():
                self.site.memory.staff_only_components.add(name)
                self.rejected_reason = str(error)
            else:
                yield name, error

    def _send_amounts(self, resource: ResourceReport, amounts: Mapping[str, Decimal]) -> None:
        self._check_before_sending()
        when = None
        if self.site.waldur.accepts_usage_dates():
            now = waldurs_time(self.site)
            dates = [each.found.date for each in resource.components if each.found]
            when = booking_date(self.plan.month, now, resource.resource.created, *dates)
        self.site.waldur.set_usage(resource.resource.uuid, amounts, when)

    def _check_before_sending(self) -> None:
        """Check the clocks and the month again: a cycle may cross the end of a month."""
        if self.site.stopping():
            raise TemporaryError("the agent is stopping; the next start continues")
        check_clocks(self.site)
        reason = why_not_yet(self.site, self.plan.month)
        if reason:
            raise TemporaryError(f"not sent: {reason}")

    def _is_past(self) -> bool:
        return is_past_in_waldur(self.plan.month, waldurs_time(self.site))

    def _note(self, account: str, error: SiteAgentError) -> None:
        self.failures.append(NotReported(account=account, error=error))
        reason, month = str(error), str(self.plan.month)
        self.site.conditions.note(
            "usage not reported",
            f"{account} in {month}",
            cause=cause_of(reason, account, month),
            level=logging.ERROR if isinstance(error, PermanentError) else logging.WARNING,
            resource=account,
            month=month,
            reason=reason,
        )


def _key(
    plan: MonthPlan, resource: ResourceReport, component: str
) -> tuple[UUID, BillingMonth, str]:
    return resource.resource.uuid, plan.month, component


TOLERANCE = timedelta(minutes=5)
"""How far the two clocks may differ.

Running jobs are counted up to now. With a clock that is ahead too much would be billed, since
decreases are not sent.
"""


def check_clocks(site: Site, effect: str = "usage not reported") -> None:
    """Refuse to report usage, or to begin a period, with a wrong clock.

    Raises:
        TemporaryError: the clocks of this machine and of Waldur differ too much.
    """
    ahead = timedelta(seconds=site.waldur.clock_ahead_seconds() or 0)
    if abs(ahead) <= TOLERANCE:
        return
    here = site.now().astimezone(UTC)
    raise TemporaryError(
        f"{effect}: this machine's clock says {_text(here)}, Waldur's says "
        f"{_text(here + ahead)}; correct the wrong one (NTP: chronyc, timedatectl)"
    )


def waldurs_time(site: Site) -> datetime:
    """The current time by the server's clock, which decides about billing months."""
    return site.now() + timedelta(seconds=site.waldur.clock_ahead_seconds() or 0)


def why_not_yet(site: Site, month: BillingMonth) -> str:
    """Why nothing can be sent for the month at this moment; empty if it can.

    Whether the server accepts dates is probed only if the answer depends on it.

    Raises:
        TemporaryError: the server could not be reached.
        AccessDeniedError: the token may not report usage.
    """
    now = waldurs_time(site)
    if not why_not_now(month, now, accepts_dates=False):
        return ""
    return why_not_now(month, now, accepts_dates=site.waldur.accepts_usage_dates())


def is_never_accepted(site: Site, month: BillingMonth) -> bool:
    """Whether nothing can be sent for the month at this moment, as far as known already."""
    accepts_dates = site.waldur.usage_dates_accepted is not False
    return bool(why_not_now(month, waldurs_time(site), accepts_dates=accepts_dates))


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
