"""How exact usage becomes what Waldur is told, to the cent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.model.marketplace import Component, Resource, WaldurComponent
from waldur_site_agent.model.usage import (
    BillingMonth,
    ComponentUsage,
    ComponentUserUsage,
    Period,
    ResourceUsage,
    UsageReport,
)
from waldur_site_agent.planning.usage import (
    MARGIN,
    Bill,
    ComponentReport,
    MonthPlan,
    billed,
    booking_date,
    counted_from,
    is_past_in_waldur,
    plan_month,
    recorded_usage,
    recorded_user_usages,
    reportable,
    user_usage_changes,
    user_usages_for_newest,
    why_not_now,
)

OCTOBER = BillingMonth(2026, 10)
FACTORS = st.one_of(
    st.sampled_from([Decimal(1), Decimal(60), Decimal(60000), Decimal(61440), Decimal("0.5")]),
    st.decimals("0.001", "1000000", places=3),
)
AMOUNTS = st.fractions(min_value=0, max_value=10**12, max_denominator=60)
USERS = st.dictionaries(st.text(min_size=1, max_size=8), AMOUNTS, max_size=12)


def component(factor: Decimal | int = 1, name: str = "cpu") -> Component:
    return Component(
        type=name,
        measured_unit="unit",
        label=name,
        accounting_type="usage",
        unit_factor=Decimal(factor),
    )


def usage_of(by_user: dict[str, Fraction], name: str = "cpu") -> ResourceUsage:
    return ResourceUsage(by_user={user: {name: amount} for user, amount in by_user.items()})


def bill_of(by_user: dict[str, Fraction], factor: Decimal | int = 1) -> Bill:
    return billed(usage_of(by_user), {"cpu": component(factor)})["cpu"]


@pytest.mark.guarantee("Usage of a month is what the accounting database holds for it")
@given(USERS, FACTORS)
def test_parts_within_a_cent_add_up_to_the_exact_sum_rounded_once_whoever_is_named_first(
    by_user: dict[str, Fraction], factor: Decimal
) -> None:
    bill = bill_of(by_user, factor)
    assert sum(bill.user_usages.values(), Decimal(0)) == bill.total
    assert all(part > 0 for part in bill.user_usages.values())
    exact = sum(by_user.values(), Fraction(0)) / Fraction(factor)
    assert abs(Fraction(bill.total) - exact) <= Fraction(1, 200)
    for user, amount in by_user.items():
        part = Fraction(bill.user_usages.get(user, Decimal(0)))
        assert abs(part - amount / Fraction(factor)) < Fraction(1, 100)
    assert bill == bill_of(dict(reversed(by_user.items())), factor)


@given(USERS, USERS, FACTORS)
def test_a_total_never_shrinks_while_usage_grows(
    before: dict[str, Fraction], more: dict[str, Fraction], factor: Decimal
) -> None:
    after = {
        user: before.get(user, Fraction(0)) + more.get(user, Fraction(0))
        for user in before.keys() | more.keys()
    }
    assert bill_of(after, factor).total >= bill_of(before, factor).total


def test_halves_are_rounded_to_the_even_cent() -> None:
    assert bill_of({"ada": Fraction(5, 1000)}).total == Decimal("0.00")
    assert bill_of({"ada": Fraction(15, 1000)}).total == Decimal("0.02")
    assert bill_of({"ada": Fraction(25, 1000)}).total == Decimal("0.02")


def test_the_missing_cents_go_to_the_largest_remainders_and_ties_to_the_first_name() -> None:
    thirds = bill_of({name: Fraction(1, 3) for name in ("bob", "ada", "cyd")})
    assert thirds.total == Decimal("1.00")
    assert thirds.user_usages == {
        "ada": Decimal("0.34"),
        "bob": Decimal("0.33"),
        "cyd": Decimal("0.33"),
    }
    mixed = bill_of({"ada": Fraction("0.014"), "bob": Fraction("0.016")})
    assert mixed.user_usages == {"ada": Decimal("0.01"), "bob": Decimal("0.02")}


def test_minutes_become_the_measured_unit() -> None:
    bill = bill_of({"ada": Fraction(61440 * 3), "bob": Fraction(30720)}, 61440)
    assert bill.total == Decimal("3.50")
    assert bill.user_usages == {"ada": Decimal("3.00"), "bob": Decimal("0.50")}


def test_what_was_not_used_is_reported_as_zero() -> None:
    usage = usage_of({"ada": Fraction(6)}, "mem")
    bills = billed(usage, {"cpu": component(name="cpu"), "mem": component(name="mem")})
    assert bills["cpu"] == Bill()
    assert bills["mem"].total == 6


def test_only_components_that_waldur_bills_by_use_or_limit_are_reported() -> None:
    configured = {name: component(name=name) for name in ("cpu", "mem", "gres/gpu", "node")}
    found = [
        WaldurComponent(type="cpu", billing_type="usage"),
        WaldurComponent(type="mem", billing_type="limit"),
        WaldurComponent(type="node", billing_type="fixed"),
    ]
    assert [*reportable(configured, found)] == ["cpu", "mem"]


def resource() -> Resource:
    return Resource(uuid=uuid4(), backend_id="a_ocean-1", state="OK")


def row(
    of: Resource, usage: str, name: str = "cpu", month: BillingMonth = OCTOBER
) -> ComponentUsage:
    return ComponentUsage(
        uuid=uuid4(),
        type=name,
        usage=Decimal(usage),
        resource_uuid=of.uuid,
        billing_period=month.first_day,
    )


def compared(
    of: Resource, used: int, rows: list[ComponentUsage], *, allow_decrease: bool = False
) -> MonthPlan:
    usage = {"ada": {"cpu": Fraction(used), "mem": Fraction(7)}}
    report = UsageReport(
        period=OCTOBER.period(UTC), resources={of.account: ResourceUsage(by_user=usage)}
    )
    components = {name: component(name=name) for name in ("cpu", "mem")}
    found = recorded_usage(rows, OCTOBER)
    return plan_month(
        OCTOBER, {of.account: of}, report, components, found, allow_decrease=allow_decrease
    )


def test_what_waldur_has_already_is_no_news() -> None:
    ocean = resource()
    plan = compared(ocean, 5, [row(ocean, "5.00"), row(ocean, "7.00", "mem")])
    assert not plan
    assert plan.expected_user_usages == 2


def test_one_difference_sends_all_totals_of_the_resource() -> None:
    ocean = resource()
    plan = compared(ocean, 6, [row(ocean, "5.00"), row(ocean, "7.00", "mem")])
    assert plan.resources[0].totals == {"cpu": 6, "mem": 7}


def test_a_lower_figure_is_an_anomaly_and_the_others_are_sent_without_it() -> None:
    ocean = resource()
    rows = [row(ocean, "9.00"), row(ocean, "1.00", "mem")]
    report = compared(ocean, 5, rows).resources[0]
    assert [c.type for c in report.components if c.is_anomaly] == ["cpu"]
    assert report.is_changed
    assert report.totals == {"mem": 7}
    allowed = compared(ocean, 5, rows, allow_decrease=True).resources[0]
    assert allowed.totals == {"cpu": 5, "mem": 7}


def at(day: int, row: ComponentUsage) -> ComponentUsage:
    return replace(row, date=datetime(2026, 10, day, tzinfo=UTC))


def of_cpu(used: int, *amounts: str, allow_decrease: bool = False) -> ComponentReport:
    """The report of cpu where Waldur has rows of so much, the newest last, but listed first."""
    ocean = resource()
    rows = [at(day, row(ocean, amount)) for day, amount in enumerate(amounts, start=1)]
    plan = compared(ocean, used, rows[::-1], allow_decrease=allow_decrease)
    cpu = plan.resources[0].components[0]
    assert cpu.found is not None
    assert (cpu.found.row, cpu.found.older) == (rows[-1].uuid, tuple(r.uuid for r in rows[:-1]))
    return cpu


def test_all_rows_of_a_month_together_are_what_was_used() -> None:
    same = of_cpu(12, "5.00", "3.00", "4.00")
    assert same.before == 12
    assert not same.is_changed
    more = of_cpu(13, "5.00", "3.00", "4.00")
    assert more.is_changed
    assert more.amount == 5


@pytest.mark.parametrize("rows", [("5.00", "3.00", "5.00"), ("60.00", "50.00"), ("9.00", "0.00")])
def test_rows_that_are_more_than_was_used_are_left_alone(rows: tuple[str, ...]) -> None:
    assert of_cpu(8, *rows).is_anomaly
    lowered = of_cpu(8, *rows, allow_decrease=True)
    assert not lowered.is_anomaly
    assert lowered.amount == max(0, 8 - sum(Decimal(row) for row in rows[:-1]))
    assert lowered.is_changed == (lowered.amount != Decimal(rows[-1]))


@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=4), st.integers(0, 50), st.integers(0, 50)
)
def test_a_month_that_the_first_report_of_a_new_plan_counts_twice_is_put_right_by_the_next(
    rows: list[int], more: int, later: int
) -> None:
    used = sum(rows) + more
    meant_for_the_row_before = used - sum(rows[:-1])
    after = of_cpu(used + later, *(f"{amount}.00" for amount in (*rows, meant_for_the_row_before)))
    assert not after.is_anomaly
    assert after.amount + sum(rows) == used + later


def test_the_parts_of_former_plans_are_not_counted_again() -> None:
    parts = {"ada": Decimal(5), "bob": Decimal(3), "cyd": Decimal(1)}
    older = [{"ada": Decimal(2), "bob": Decimal(4)}, {"ada": Decimal(1), "dan": Decimal(9)}]
    assert user_usages_for_newest(parts, older) == {"ada": Decimal(2), "cyd": Decimal(1)}


def test_rows_of_other_months_do_not_count() -> None:
    ocean = resource()
    september = row(ocean, "9.00", month=OCTOBER.previous)
    assert recorded_usage([september], OCTOBER) == {}


def test_the_part_of_somebody_who_is_gone_is_sent_as_zero_once() -> None:
    bill = Bill(total=Decimal(5), user_usages={"ada": Decimal(2), "bob": Decimal(3)})
    found = {"ada": Decimal("2.00"), "cyd": Decimal(4), "dan": Decimal("0.00")}
    assert user_usage_changes(bill.user_usages, found) == {"bob": 3, "cyd": 0}


@given(USERS, st.dictionaries(st.text(min_size=1, max_size=8), st.decimals(0, 100, places=2)))
def test_parts_that_were_sent_are_not_sent_again(
    by_user: dict[str, Fraction], found: dict[str, Decimal]
) -> None:
    bill = bill_of(by_user)
    assert (
        user_usage_changes(
            bill.user_usages, {**found, **user_usage_changes(bill.user_usages, found)}
        )
        == {}
    )


def test_parts_belong_to_the_row_of_their_component() -> None:
    rows = [
        ComponentUserUsage(
            uuid=uuid4(), username="ada", usage=Decimal(1), component_usage_uuid=UUID(int=number)
        )
        for number in (1, 2)
    ]
    assert recorded_user_usages(rows) == {UUID(int=1): {"ada": 1}, UUID(int=2): {"ada": 1}}


MONTHS = st.builds(BillingMonth, st.integers(2020, 2040), st.integers(1, 12))
ZONES = st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Niue", "Europe/Tallinn"])
MOMENTS = st.integers(1_577_836_800, 2_208_988_800).map(lambda s: datetime.fromtimestamp(s, UTC))


@given(MONTHS, MOMENTS, st.none() | MOMENTS)
def test_a_report_is_booked_in_the_month_it_is_about(
    month: BillingMonth, now: datetime, created: datetime | None
) -> None:
    assert BillingMonth.of(booking_date(month, now, created), UTC) == month


def test_a_past_month_is_booked_on_its_last_day_or_when_the_resource_was_made() -> None:
    now = datetime(2026, 11, 3, tzinfo=UTC)
    assert booking_date(OCTOBER, now, None) == datetime(2026, 10, 31, 9, tzinfo=UTC)
    late = datetime(2026, 10, 31, 22, tzinfo=UTC)
    assert booking_date(OCTOBER, now, late) == late


def test_a_past_month_is_booked_under_the_plan_of_its_newest_figure() -> None:
    now, late = datetime(2026, 11, 3, tzinfo=UTC), datetime(2026, 10, 31, 16, tzinfo=UTC)
    assert booking_date(OCTOBER, now, None, late - timedelta(days=9), late, now) == late


@given(MOMENTS, ZONES)
def test_a_server_without_dates_is_sent_only_what_it_surely_books_right(
    now: datetime, zone: str
) -> None:
    month = BillingMonth.of(now, ZoneInfo(zone))
    if not why_not_now(month, now, accepts_dates=False):
        arrivals = (now - MARGIN, now, now + MARGIN)
        assert {BillingMonth.of(arrival, UTC) for arrival in arrivals} == {month}


@pytest.mark.parametrize(
    ("zone", "now", "is_past", "with_dates", "without"),
    [
        ("UTC", "2026-10-31T23:49", False, True, True),
        ("UTC", "2026-10-31T23:51", False, True, False),
        ("UTC", "2026-11-01T00:09", False, True, False),
        ("Pacific/Niue", "2026-11-01T09:00", True, True, False),
        ("Pacific/Kiritimati", "2026-10-31T12:00", False, False, False),
    ],
    ids=["before midnight", "just before", "just after", "west of it", "east of it"],
)
def test_at_the_borders_of_a_month(
    zone: str, now: str, is_past: bool, with_dates: bool, without: bool
) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    month = BillingMonth.of(moment, ZoneInfo(zone))
    assert is_past_in_waldur(month, moment) == is_past
    assert (not why_not_now(month, moment, accepts_dates=True)) == with_dates
    assert (not why_not_now(month, moment, accepts_dates=False)) == without


@given(st.integers(2020, 2040), st.sampled_from(["Europe/Tallinn", "America/New_York", "UTC"]))
def test_the_months_of_a_year_leave_no_gap(year: int, zone: str) -> None:
    tz = ZoneInfo(zone)
    periods: list[Period] = [BillingMonth(year, month).period(tz) for month in range(1, 13)]
    for earlier, later in pairwise(periods):
        assert earlier.end == later.start
    length = periods[-1].end.timestamp() - periods[0].start.timestamp()
    assert timedelta(seconds=length) in (timedelta(days=365), timedelta(days=366))


def test_a_resource_counts_from_its_creation_and_one_without_any_from_the_month() -> None:
    month = OCTOBER.period(UTC)
    made = datetime(2026, 10, 7, tzinfo=UTC)
    assert counted_from(replace(resource(), created=made), month) == made
    assert counted_from(resource(), month) == month.start
