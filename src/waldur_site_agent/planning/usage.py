"""Usage: what the backend says against what Waldur has, and so what to send."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from waldur_site_agent.model.marketplace import Component, Resource, WaldurComponent
from waldur_site_agent.model.usage import (
    BillingMonth,
    ComponentUsage,
    ComponentUserUsage,
    Period,
    ResourceUsage,
    UsageReport,
)

MARGIN = timedelta(minutes=10)
"""How far the clocks of the agent and of a server without dates may differ, delays included.

A report that arrives in the wrong month replaces that month's figure, so none is sent nearer to
the border than this.
"""
_SAFE_HOUR = 9
"""At this hour in UTC it is the same day almost everywhere."""


def is_past_in_waldur(month: BillingMonth, now: datetime) -> bool:
    """Whether Waldur has begun a later month already."""
    return month < BillingMonth.of(now, UTC)


def why_not_now(month: BillingMonth, now: datetime, *, accepts_dates: bool) -> str:
    """Why nothing can be sent for the month at this moment; empty when it can.

    Args:
        month: the month of the figures.
        now: the moment of sending.
        accepts_dates: whether the server books a report into the month of its date.
    """
    if BillingMonth.of(now, UTC) < month:
        return f"{month} has not begun in Waldur, whose months are those of UTC"
    if accepts_dates or {BillingMonth.of(now + by, UTC) for by in (-MARGIN, MARGIN)} == {month}:
        return ""
    return f"this server books usage into its current month only, which is not surely {month}"


def booking_date(month: BillingMonth, now: datetime, *known: datetime | None) -> datetime:
    """A moment inside the month, in UTC, by which Waldur books a report.

    For the current month this moment; for a past one a moment on its last day, but none before
    those that are ``known`` to lie within the resource's last plan: its creation, and the dates of
    its newest figures.
    """
    if BillingMonth.of(now, UTC) == month:
        return now.astimezone(UTC)
    end = month.period(UTC).end
    last = end - timedelta(days=1) + timedelta(hours=_SAFE_HOUR)
    return max([last, *(k.astimezone(UTC) for k in known if k is not None and last < k < end)])


_CENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What is reported of one component of one resource, in measured units."""

    total: Decimal = Decimal("0.00")
    user_usages: Mapping[str, Decimal] = field(default_factory=dict)
    """By username; they add up to the total. Whose part rounds to nothing is not here."""


def reportable(
    configured: Mapping[str, Component], found: Iterable[WaldurComponent]
) -> dict[str, Component]:
    """The configured components for which Waldur takes usage: it bills them by use or by limit."""
    counted = {component.type for component in found if component.rules.is_counted}
    return {name: component for name, component in configured.items() if name in counted}


def billed(usage: ResourceUsage, components: Mapping[str, Component]) -> dict[str, Bill]:
    """What to report of a resource, by component; what was not used is reported as zero."""
    return {name: _bill(usage, name, component) for name, component in components.items()}


def _bill(usage: ResourceUsage, name: str, component: Component) -> Bill:
    factor = Fraction(component.unit_factor)
    exact = {
        user: amounts[name] / factor * _CENTS
        for user, amounts in usage.by_user.items()
        if amounts.get(name)
    }
    cents = round(sum(exact.values(), Fraction(0)))
    user_usages = {user: amount.numerator // amount.denominator for user, amount in exact.items()}
    by_loss = sorted(exact, key=lambda user: (user_usages[user] - exact[user], user))
    for user in by_loss[: cents - sum(user_usages.values())]:
        user_usages[user] += 1
    return Bill(
        total=_decimal(cents),
        user_usages={
            user: _decimal(user_usages[user]) for user in sorted(user_usages) if user_usages[user]
        },
    )


def _decimal(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


RowsByComponent = Mapping[tuple[UUID, str], "RecordedUsage"]
UserUsagesByRow = Mapping[UUID, Mapping[str, Decimal]]

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedUsage:
    """What Waldur has of one component of one resource in one month, in measured units.

    After a change of plan there is a row for each plan; they are billed together, and reports
    change the newest.
    """

    row: UUID
    """The newest."""
    amount: Decimal
    """The sum over all rows."""
    older: tuple[UUID, ...] = ()
    """The rows of former plans."""
    older_amount: Decimal = ZERO
    """What they have together."""
    last_older_amount: Decimal = ZERO
    """What the last of them has."""
    date: datetime | None = None
    """When the newest was reported, or the moment that the report named."""

    @property
    def newest(self) -> Decimal:
        """What the newest row has."""
        return self.amount - self.older_amount

    def counts_twice(self, total: Decimal) -> bool:
        """Whether the newest row holds what the one before it has, too.

        So it is after the first report under a new plan, of which nothing in Waldur's answers told
        before: that report was of the whole month.
        """
        once = self.amount - self.last_older_amount
        return (
            bool(self.older)
            and once <= total < self.amount
            and self.newest >= (self.last_older_amount)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentReport:
    """One component of one resource: its figure, and Waldur's."""

    type: str
    bill: Bill
    found: RecordedUsage | None = None
    is_anomaly: bool = False
    """Lower than what Waldur has, although usage only grows: neither total nor parts are sent."""
    is_changed: bool = False
    """Whether the total is to be sent."""

    @property
    def before(self) -> Decimal | None:
        """Waldur's figure."""
        return self.found.amount if self.found else None

    @property
    def amount(self) -> Decimal:
        """What is sent for the newest row: all that the rows of former plans do not have."""
        return _for_newest(self.bill.total, self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceReport:
    """One resource in one month, components in the order of their types."""

    resource: Resource
    components: tuple[ComponentReport, ...] = ()

    @property
    def account(self) -> str:
        """Its name in the backend."""
        return self.resource.account

    @property
    def is_changed(self) -> bool:
        """Whether some total is to be sent."""
        return any(component.is_changed for component in self.components)

    @property
    def changed_totals(self) -> dict[str, Decimal]:
        """What was used, by the components whose total is to be sent."""
        return {each.type: each.bill.total for each in self.components if each.is_changed}

    @property
    def valid(self) -> tuple[ComponentReport, ...]:
        """The components that are not anomalous."""
        return tuple(component for component in self.components if not component.is_anomaly)

    @property
    def totals(self) -> dict[str, Decimal]:
        """All totals that are sent when one of them is news.

        They go together, because older servers show only what was sent last.
        """
        return {component.type: component.amount for component in self.valid}


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUsageChange:
    """The users' parts of one component of one resource that Waldur does not have so."""

    resource: Resource
    component: str
    users: Mapping[str, tuple[Decimal | None, Decimal]]
    """By username, Waldur's part and the new one."""

    @property
    def account(self) -> str:
        """The resource's name in the backend."""
        return self.resource.account

    @property
    def is_new(self) -> bool:
        """Whether some of them are of users for whom Waldur has no row here."""
        return any(old is None for old, _ in self.users.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthPlan:
    """What one month looks like, and what of it is to be sent; resources by account."""

    month: BillingMonth
    resources: tuple[ResourceReport, ...] = ()
    is_settled: bool = True
    """Whether the figures are final, once the month is over."""
    unfinished: frozenset[str] = frozenset()
    """Accounts of which a later reading of the backend may have more."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Accounts of which nothing is sent, with why: Waldur's figure was not understood."""

    def __bool__(self) -> bool:
        return any(resource.is_changed for resource in self.resources)

    @property
    def anomalies(self) -> list[tuple[str, ComponentReport]]:
        """What is kept back because it is lower than what Waldur has, with its account."""
        return [(r.account, c) for r in self.resources for c in r.components if c.is_anomaly]

    @property
    def expected_user_usages(self) -> int:
        """How many rows of single users Waldur has when everything was reported."""
        return sum(
            len(component.bill.user_usages)
            for resource in self.resources
            for component in resource.components
        )

    def outstanding(self, has_sent: Callable[[str, str], bool]) -> dict[str, Decimal]:
        """By component, what Waldur lacks; ``has_sent`` tells by account and component."""
        lacking: dict[str, Decimal] = defaultdict(Decimal)
        for resource in self.resources:
            for component in resource.components:
                if component.is_changed and not has_sent(resource.account, component.type):
                    lacking[component.type] += component.bill.total - (component.before or ZERO)
        return dict(sorted(lacking.items()))


def recorded_usage(
    rows: Iterable[ComponentUsage], month: BillingMonth
) -> dict[tuple[UUID, str], RecordedUsage]:
    """What Waldur has, by resource and component.

    Rows of other months, which servers send that ignore the filter, are left out.
    """
    groups: dict[tuple[UUID, str], list[ComponentUsage]] = defaultdict(list)
    for row in rows:
        if row.resource_uuid is not None and row.billing_period in (None, month.first_day):
            groups[row.resource_uuid, row.type].append(row)
    return {key: _together(group) for key, group in groups.items()}


def _together(group: list[ComponentUsage]) -> RecordedUsage:
    *older, newest = sorted(group, key=lambda r: (r.date.timestamp() if r.date else 0, r.uuid.int))
    older_amount = sum((row.usage for row in older), ZERO)
    return RecordedUsage(
        row=newest.uuid,
        amount=older_amount + newest.usage,
        older=tuple(row.uuid for row in older),
        older_amount=older_amount,
        last_older_amount=older[-1].usage if older else ZERO,
        date=newest.date,
    )


def recorded_user_usages(rows: Iterable[ComponentUserUsage]) -> dict[UUID, dict[str, Decimal]]:
    """What Waldur has of single users, by the row of the component and by username."""
    user_usages: dict[UUID, dict[str, Decimal]] = defaultdict(dict)
    for row in rows:
        if row.component_usage_uuid is not None:
            user_usages[row.component_usage_uuid][row.username] = row.usage
    return dict(user_usages)


def plan_month(
    month: BillingMonth,
    resources: Mapping[str, Resource],
    report: UsageReport,
    components: Mapping[str, Component],
    found: RowsByComponent,
    *,
    allow_decrease: bool = False,
    report_zero: bool = True,
) -> MonthPlan:
    """Compare a month.

    Args:
        month: which.
        resources: by account; each account stands for one resource.
        report: the backend's figures.
        components: those that Waldur takes.
        found: Waldur's figures.
        allow_decrease: whether a figure may become lower.
        report_zero: whether nothing used is reported where Waldur has no figure at all.
    """
    plans = []
    for account, resource in sorted(resources.items()):
        bills = billed(report.resources[account], components)
        compared = tuple(
            _compare(
                name,
                bills[name],
                found.get((resource.uuid, name)),
                allow_decrease=allow_decrease,
                report_zero=report_zero,
            )
            for name in sorted(bills)
        )
        plans.append(ResourceReport(resource=resource, components=compared))
    return MonthPlan(
        month=month,
        resources=tuple(plans),
        is_settled=report.is_settled,
        unfinished=report.unfinished & resources.keys(),
    )


def _compare(
    name: str, bill: Bill, found: RecordedUsage | None, *, allow_decrease: bool, report_zero: bool
) -> ComponentReport:
    if found is None:
        is_changed = report_zero or bill.total != ZERO
        return ComponentReport(type=name, bill=bill, is_changed=is_changed)
    is_lower = bill.total < found.amount and not found.counts_twice(bill.total)
    is_anomaly = is_lower and not allow_decrease
    return ComponentReport(
        type=name,
        bill=bill,
        found=found,
        is_anomaly=is_anomaly,
        is_changed=not is_anomaly and _for_newest(bill.total, found) != found.newest,
    )


def _for_newest(total: Decimal, found: RecordedUsage | None) -> Decimal:
    return max(ZERO, total - found.older_amount) if found else total


def user_usages_for_newest(
    user_usages: Mapping[str, Decimal], older: Iterable[Mapping[str, Decimal]]
) -> dict[str, Decimal]:
    """The parts of the users in the newest row, given those in the rows of former plans."""
    rest = dict(user_usages)
    for row in older:
        for user, amount in row.items():
            if user in rest:
                rest[user] = max(ZERO, rest[user] - amount)
    return {user: amount for user, amount in rest.items() if amount}


def user_usage_changes(
    user_usages: Mapping[str, Decimal], found: Mapping[str, Decimal]
) -> dict[str, Decimal]:
    """The parts that Waldur does not have so; nothing for users who are not there any more.

    Waldur deletes no part, so a part that is gone is sent as zero.
    """
    gone = {user: ZERO for user, amount in found.items() if amount and user not in user_usages}
    changed = {u: amount for u, amount in user_usages.items() if found.get(u) != amount}
    return dict(sorted({**gone, **changed}.items()))


def counted_from(resource: Resource, month: Period) -> datetime:
    """From when usage counts: a resource's creation; of one that does not tell, this month."""
    return resource.created or month.start
