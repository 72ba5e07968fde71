"""Compares the backend's usage with Waldur's records, and plans what to send.

Usage is exact until it is rounded to the two decimals that Waldur stores; per-user usage is rounded
so that it adds up to the total. Also decides when a month can be sent, and with which date.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from waldur_site_agent.model.marketplace import (
    Component,
    Resource,
    WaldurComponent,
    largest_share,
)
from waldur_site_agent.model.usage import (
    BillingMonth,
    ComponentUsage,
    ComponentUserUsage,
    Period,
    ResourceUsage,
    UsageReport,
)

MARGIN = timedelta(minutes=10)
"""How close to the end of a month usage is sent to a server that does not accept dates.

This covers clock differences and delays: a report that arrives in the wrong month would replace
that month's record.
"""
_SAFE_HOUR = 9
"""At this hour in UTC the date is the same almost everywhere."""


def is_past_in_waldur(month: BillingMonth, now: datetime) -> bool:
    """Whether the month has ended in Waldur, whose months are in UTC."""
    return month < BillingMonth.of(now, UTC)


def why_not_now(month: BillingMonth, now: datetime, *, accepts_dates: bool) -> str:
    """Why nothing can be sent for the month at this moment; empty if it can.

    Args:
        month: the month of the usage.
        now: the time of sending.
        accepts_dates: whether the server books a report by its date.
    """
    if BillingMonth.of(now, UTC) < month:
        return f"{month} has not started in Waldur, whose months are in UTC"
    if accepts_dates or {BillingMonth.of(now + by, UTC) for by in (-MARGIN, MARGIN)} == {month}:
        return ""
    return f"this server books usage in its current month only, which may not be {month}"


def booking_date(month: BillingMonth, now: datetime, *known: datetime | None) -> datetime:
    """The date of a report, in UTC, by which Waldur books it.

    For the current month this is now. For a past month it is on the last day, but not before the
    times ``known`` to be within the resource's last plan: its creation and its newest records.
    """
    if BillingMonth.of(now, UTC) == month:
        return now.astimezone(UTC)
    end = month.period(UTC).end
    last = end - timedelta(days=1) + timedelta(hours=_SAFE_HOUR)
    return max([last, *(k.astimezone(UTC) for k in known if k is not None and last < k < end)])


_CENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The usage of one component of one resource as reported, in measured units."""

    total: Decimal = Decimal("0.00")
    user_usages: Mapping[str, Decimal] = field(default_factory=dict)
    """By username; adds up to the total, but for usage of nobody in particular. Users whose usage
    rounds to zero are omitted."""


def reportable(
    configured: Mapping[str, Component], found: Iterable[WaldurComponent]
) -> dict[str, Component]:
    """The configured components for which Waldur accepts usage."""
    counted = {component.type for component in found if component.rules.is_counted}
    return {name: component for name, component in configured.items() if name in counted}


def billed(usage: ResourceUsage, components: Mapping[str, Component]) -> dict[str, Bill]:
    """The usage to report for a resource, by component; unused components are zero."""
    return {name: _bill(usage, component) for name, component in components.items()}


def _bill(usage: ResourceUsage, component: Component) -> Bill:
    """Usage in cents, rounded once; users get their shares of the total.

    Where a component has several targets, the users' own amounts may add up to more than the total
    (one used the cores, another the GPUs of the same node-hours). They are lowered in proportion.
    """
    factors = component.usage_factors
    own = {user: largest_share(amounts, factors) for user, amounts in usage.by_user.items()}
    total, together = largest_share(usage.total, factors), sum(own.values(), Fraction(0))
    exact = {user: amount * total / together * _CENTS for user, amount in own.items() if amount}
    cents = round(total * _CENTS)
    user_usages = {user: amount.numerator // amount.denominator for user, amount in exact.items()}
    by_loss = sorted(exact, key=lambda user: (user_usages[user] - exact[user], user))
    for user in by_loss[: cents - sum(user_usages.values())]:
        user_usages[user] += 1
    return Bill(
        total=_decimal(cents),
        user_usages={
            user: _decimal(user_usages[user])
            for user in sorted(user_usages)
            if user_usages[user] and user  # "" is nobody's: part of the total alone
        },
    )


def _decimal(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


RowsByComponent = Mapping[tuple[UUID, str], "RecordedUsage"]

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedUsage:
    """Waldur's records for one component of one resource in one month, in measured units.

    After a plan change there is one record per plan; they are billed together, and reports update
    the newest.
    """

    row: UUID
    """The newest record."""
    amount: Decimal
    """The sum over all records."""
    older: tuple[UUID, ...] = ()
    """The records of former plans."""
    older_amount: Decimal = ZERO
    """The sum over these."""
    last_older_amount: Decimal = ZERO
    """The amount of the last of these."""
    date: datetime | None = None
    """The date of the newest record."""

    @property
    def newest(self) -> Decimal:
        """The amount of the newest record."""
        return self.amount - self.older_amount

    def counts_twice(self, total: Decimal) -> bool:
        """Whether the newest record includes the usage of the one before it.

        This happens with the first report after a plan change. Waldur's responses do not show the
        change beforehand, so that report covers the whole month.
        """
        once = self.amount - self.last_older_amount
        return (
            bool(self.older)
            and once <= total < self.amount
            and self.newest >= (self.last_older_amount)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentReport:
    """One component of one resource: its usage, and Waldur's records."""

    type: str
    bill: Bill
    found: RecordedUsage | None = None
    is_anomaly: bool = False
    """The usage has decreased, which should not happen: nothing is sent."""
    is_changed: bool = False
    """Whether the total will be sent."""

    @property
    def before(self) -> Decimal | None:
        """The usage recorded in Waldur."""
        return self.found.amount if self.found else None

    @property
    def amount(self) -> Decimal:
        """The amount sent for the newest record: the usage without that of former plans."""
        return _for_newest(self.bill.total, self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceReport:
    """One resource in one month, with components sorted by type."""

    resource: Resource
    components: tuple[ComponentReport, ...] = ()

    @property
    def account(self) -> str:
        """Its name in the backend."""
        return self.resource.account

    @property
    def is_changed(self) -> bool:
        """Whether some total will be sent."""
        return any(component.is_changed for component in self.components)

    @property
    def changed_totals(self) -> dict[str, Decimal]:
        """The usage by component, of components whose total will be sent."""
        return {each.type: each.bill.total for each in self.components if each.is_changed}

    @property
    def valid(self) -> tuple[ComponentReport, ...]:
        """The components whose usage has not decreased."""
        return tuple(component for component in self.components if not component.is_anomaly)

    @property
    def totals(self) -> dict[str, Decimal]:
        """The totals that are sent if any of them has changed.

        They are sent together, because older servers show only the last report.
        """
        return {component.type: component.amount for component in self.valid}


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUsageChange:
    """Changed per-user usage of one component of one resource."""

    resource: Resource
    component: str
    users: Mapping[str, tuple[Decimal | None, Decimal]]
    """By username, the usage in Waldur and the new one."""

    @property
    def account(self) -> str:
        """The resource's name in the backend."""
        return self.resource.account

    @property
    def is_new(self) -> bool:
        """Whether Waldur has no record yet for some of these users."""
        return any(old is None for old, _ in self.users.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthPlan:
    """The usage of one month and what to send; resources sorted by account."""

    month: BillingMonth
    resources: tuple[ResourceReport, ...] = ()
    is_settled: bool = True
    """Whether the usage is final, once the month has ended."""
    unfinished: frozenset[str] = frozenset()
    """Accounts for which a later read of the backend may show more usage."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Accounts for which nothing is sent, with the reason."""

    def __bool__(self) -> bool:
        return any(resource.is_changed for resource in self.resources)

    @property
    def anomalies(self) -> list[tuple[str, ComponentReport]]:
        """The components whose usage has decreased, with their account."""
        return [(r.account, c) for r in self.resources for c in r.components if c.is_anomaly]

    @property
    def expected_user_usages(self) -> int:
        """The number of per-user records once everything was reported."""
        return sum(
            len(component.bill.user_usages)
            for resource in self.resources
            for component in resource.components
        )

    def outstanding(self, has_sent: Callable[[str, str], bool]) -> dict[str, Decimal]:
        """By component, the usage not sent according to ``has_sent(account, component)``."""
        lacking: dict[str, Decimal] = defaultdict(Decimal)
        for resource in self.resources:
            for component in resource.components:
                if component.is_changed and not has_sent(resource.account, component.type):
                    lacking[component.type] += component.bill.total - (component.before or ZERO)
        return dict(sorted(lacking.items()))


def recorded_usage(
    rows: Iterable[ComponentUsage], month: BillingMonth
) -> dict[tuple[UUID, str], RecordedUsage]:
    """Waldur's records, by resource and component.

    Records of other months, sent by servers that ignore the filter, are omitted.
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
    """Waldur's per-user records, by component usage record and username."""
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
    allow_decrease: bool,
    report_zero: bool = True,
) -> MonthPlan:
    """Compare the usage of a month.

    Args:
        month: the month.
        resources: by account; each account belongs to one resource.
        report: the backend's usage.
        components: the components that Waldur accepts.
        found: Waldur's records.
        allow_decrease: whether usage may decrease.
        report_zero: whether zero usage is reported if Waldur has no record.
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
    """Per-user usage for the newest record, given the records of former plans."""
    rest = dict(user_usages)
    for row in older:
        for user, amount in row.items():
            if user in rest:
                rest[user] = max(ZERO, rest[user] - amount)
    return {user: amount for user, amount in rest.items() if amount}


def user_usage_changes(
    user_usages: Mapping[str, Decimal], found: Mapping[str, Decimal]
) -> dict[str, Decimal]:
    """Per-user usage that differs from Waldur's; zero for users without usage.

    Waldur does not delete per-user records, so they are set to zero.
    """
    gone = {user: ZERO for user, amount in found.items() if amount and user not in user_usages}
    changed = {u: amount for u, amount in user_usages.items() if found.get(u) != amount}
    return dict(sorted({**gone, **changed}.items()))


def counted_from(resource: Resource, month: Period) -> datetime:
    """The start of usage: the resource's creation or, if unknown, the start of the month."""
    return resource.created or month.start
