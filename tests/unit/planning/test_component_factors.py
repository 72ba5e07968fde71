"""Measured units to backend units and back: every combination of factor, mapping and period."""

from __future__ import annotations

import math
from calendar import monthrange
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import BackendResource
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.model.marketplace import Component, Resource, Term, backend_components
from waldur_site_agent.model.usage import ResourceUsage
from waldur_site_agent.planning.limits import (
    Authority,
    LimitDecision,
    LimitPrecision,
    decide_limits,
    initial_limits,
    limit_changes,
    limit_differences,
    of_resource,
    ordered_limits,
    unlimited_components,
)
from waldur_site_agent.planning.usage import billed
from waldur_site_agent_slurm import tres

SLURM = LimitPrecision(settable=lambda _, amount: tres.rounded_up(amount), agree=tres.agree)
NODE = {"cpu": {"factor": 7680}, "gres/gpu": {"factor": 240}}
PERIODS = (None, "month", "quarterly", "annual", "total")


def component(name: str = "product", kind: str = "limit", **keys: Any) -> Component:
    described = {"measured_unit": "node-hours", "label": "Node", "accounting_type": kind, **keys}
    return ComponentSettings.model_validate(described).component(name)


@dataclass(frozen=True)
class Row:
    """One combination of keys, and what it must come to."""

    keys: dict[str, Any]
    sold: str
    limits: dict[str, int]
    """What Slurm is told for the sold amount."""
    used: dict[str, int] = field(default_factory=dict)
    """TRES-minutes that were used, and ..."""
    bill: str = "0"
    """... what Waldur is told of them."""


TABLE = (
    # the component is a TRES itself
    Row({}, "10", {"product": 10}, {"product": 7}, "7"),
    Row({"unit_factor": 60000}, "1.5", {"product": 90000}, {"product": 90000}, "1.5"),
    Row({"unit_factor": 61440}, "0.01", {"product": 615}, {"product": 615}, "0.01"),
    Row({"unit_factor": "0.5"}, "3", {"product": 2}, {"product": 1}, "2"),
    Row({"unit_factor": "0.001"}, "1", {"product": 1}, {"product": 1}, "1000"),
    # usage is divided by another number than limits are multiplied by
    Row(
        {"unit_factor": 60, "unit_factor_reporting": 3600},
        "5",
        {"product": 300},
        {"product": 1800},
        "0.5",
    ),
    Row({"unit_factor_reporting": "0.25"}, "5", {"product": 5}, {"product": 1}, "4"),
    # one target
    Row({"target_components": {"cpu": {"factor": 60}}}, "10", {"cpu": 600}, {"cpu": 90}, "1.5"),
    Row({"target_components": {"cpu": {}}}, "10", {"cpu": 10}, {"cpu": 9}, "9"),
    Row({"target_components": {"cpu": {"factor": "0.3"}}}, "5", {"cpu": 2}, {"cpu": 1}, "3.33"),
    # the factors of the component itself have no effect beside targets
    Row(
        {
            "unit_factor": 60,
            "unit_factor_reporting": 7,
            "target_components": {"cpu": {"factor": 60}},
        },
        "10",
        {"cpu": 600},
        {"cpu": 90},
        "1.5",
    ),
    # several targets: a whole node counts once, half a node with all its GPUs counts whole
    Row(
        {"target_components": NODE},
        "10",
        {"cpu": 76800, "gres/gpu": 2400},
        {"cpu": 7680, "gres/gpu": 240},
        "1",
    ),
    Row(
        {"target_components": NODE},
        "0.25",
        {"cpu": 1920, "gres/gpu": 60},
        {"cpu": 3840, "gres/gpu": 240},
        "1",
    ),
    Row({"target_components": NODE}, "1", {"cpu": 7680, "gres/gpu": 240}, {"cpu": 3840}, "0.5"),
    Row({"target_components": NODE}, "0", {"cpu": 0, "gres/gpu": 0}, {}, "0"),
    Row(
        {"target_components": {"cpu": {"factor": "0.4"}, "mem": {"factor": "1.6"}, "node": {}}},
        "4",
        {"cpu": 2, "mem": 7, "node": 4},
        {"cpu": 1, "mem": 1, "node": 1},
        "2.5",
    ),
)


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.keys}-{row.sold}")
def test_limits_and_usage_follow_the_factors_and_no_period(row: Row, period: str | None) -> None:
    components = {"product": component(limit_period=period, **row.keys)}
    sold = {"product": Decimal(row.sold)}
    assert SLURM.limits(initial_limits(sold, components)) == row.limits
    assert limit_changes(ordered_limits(sold, components), {}, SLURM) == row.limits
    usage = ResourceUsage(by_user={"ada": {name: Fraction(n) for name, n in row.used.items()}})
    assert billed(usage, components)["product"].total == Decimal(row.bill)


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.keys}-{row.sold}")
def test_a_cap_and_a_limit_of_a_person_come_to_the_same(row: Row, period: str | None) -> None:
    capped = component(kind="usage", limit=row.sold, limit_period=period, **row.keys)
    assert SLURM.limits(initial_limits({}, {"product": capped})) == row.limits
    parts = backend_components({"product": capped})
    person = {name: part.to_backend(Decimal(row.sold)) for name, part in parts.items()}
    assert SLURM.limits(person) == row.limits


def prepaid(row: Row, months: int, period: str | None = None) -> dict[str, Component]:
    """The component of a row, paid in advance for so many months, from the middle of one."""
    end = date(2027 + (4 + months) // 12, (4 + months) % 12 + 1, 15)
    resource = Resource(
        uuid=UUID(int=1), created=datetime(2027, 5, 15, 23, 59, tzinfo=UTC), end_date=end
    )
    made = component(kind="one", limit_period=period, **row.keys)
    return of_resource({"product": made}, resource)


@pytest.mark.parametrize(
    ("months", "period"), [(1, None), (2, "month"), (7, "quarterly"), (12, "annual"), (36, "total")]
)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.keys}-{row.sold}")
def test_a_prepaid_limit_counts_once_for_each_month_and_usage_does_not(
    row: Row, period: str | None, months: int
) -> None:
    targets = row.keys.get("target_components") or {"product": row.keys}
    key = "factor" if "target_components" in row.keys else "unit_factor"
    exact = {n: Fraction(str(t.get(key, 1))) * Fraction(row.sold) for n, t in targets.items()}
    components = prepaid(row, months, period)
    sold = {"product": Decimal(row.sold)}
    limits = {name: math.ceil(amount * months) for name, amount in exact.items()}
    assert SLURM.limits(initial_limits(sold, components)) == limits
    assert SLURM.limits(ordered_limits(sold, components)) == limits
    usage = ResourceUsage(by_user={"ada": {name: Fraction(n) for name, n in row.used.items()}})
    assert billed(usage, components)["product"].total == Decimal(row.bill)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.keys}-{row.sold}")
def test_the_months_are_never_counted_twice(row: Row) -> None:
    once = prepaid(row, 6)
    (term,) = {each.term for each in once.values()}
    assert term is not None
    again = {name: each.for_term(term) for name, each in once.items()}
    assert again == once
    ordinary = {"product": component(**row.keys)}
    resource = Resource(uuid=UUID(int=1), end_date=date(2030, 1, 1))
    assert of_resource(ordinary, resource) == ordinary


@pytest.mark.parametrize("authority", ["backend", "waldur"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.keys}-{row.sold}")
def test_a_prepaid_limit_that_was_read_back_is_no_difference(
    row: Row, authority: Authority
) -> None:
    sold = {"product": Decimal(row.sold)}
    resource = Resource(
        uuid=UUID(int=1),
        limits=sold,
        created=datetime(2027, 1, 15, tzinfo=UTC),
        end_date=date(2027, 7, 15),
    )
    components = {"product": component(kind="one", **row.keys)}
    limits = SLURM.limits(initial_limits(sold, of_resource(components, resource)))
    account = BackendResource(id="a", limits=limits)
    assert limit_differences(resource, account, components, SLURM) == ()
    shorter = replace(resource, end_date=date(2028, 7, 15))
    differences = limit_differences(shorter, account, components, SLURM)
    made = decide_limits(shorter, account, differences, authority)
    wanted = SLURM.limits(initial_limits(sold, of_resource(components, shorter)))
    assert made.to_report is None
    assert {**limits, **made.to_set} == wanted


@pytest.mark.parametrize(
    ("start", "end", "months"),
    [
        ("2027-01-15", "2027-07-15", 6),
        ("2027-01-15", "2027-07-16", 7),
        ("2027-01-15", "2027-07-14", 6),
        ("2027-01-31", "2027-02-28", 1),
        ("2027-01-31", "2027-03-01", 2),
        ("2027-01-28", "2027-02-28", 1),
        ("2027-01-15", "2028-01-15", 12),
        ("2027-01-15", "2030-01-15", 36),
        ("2027-01-15", "2027-01-16", 1),
        ("2027-01-15", "2027-01-15", 1),
        ("2027-01-15", "2026-01-15", 1),
        ("2028-02-29", "2029-02-28", 12),
    ],
)
def test_months_are_counted_as_waldur_charges_them(start: str, end: str, months: int) -> None:
    assert Term(date.fromisoformat(start), date.fromisoformat(end)).months == months


@given(start=st.dates(date(2020, 1, 1), date(2050, 1, 1)), months=st.integers(1, 60))
def test_a_term_of_so_many_months_has_so_many(start: date, months: int) -> None:
    number = start.month - 1 + months
    year, month = start.year + number // 12, number % 12 + 1
    day = min(start.day, monthrange(year, month)[1])  # the last day of a shorter month
    assert Term(start, date(year, month, day)).months == months


def test_the_day_of_an_order_is_that_of_waldurs_clock() -> None:
    late = datetime(2027, 2, 1, 1, 30, tzinfo=timezone(timedelta(hours=3)))
    assert Term.of(late, date(2027, 7, 31)).months == 6


@pytest.mark.parametrize(
    "resource",
    [
        Resource(uuid=UUID(int=1)),
        Resource(uuid=UUID(int=1), created=datetime(2027, 1, 15, tzinfo=UTC)),
    ],
)
def test_an_unknown_term_counts_as_one_month_and_changes_nothing_that_is_there(
    resource: Resource,
) -> None:
    components = {"product": component(kind="one", unit_factor=60)}
    sold = {"product": Decimal(10)}
    resource = replace(resource, limits=sold)
    assert initial_limits(sold, of_resource(components, resource)) == {"product": 600}
    account = BackendResource(id="a", limits={"product": Decimal(3600)})
    differences = limit_differences(resource, account, components)
    for authority in ("backend", "waldur", "report"):
        made = decide_limits(resource, account, differences, authority)
        assert not made.changes_something


def test_a_neighbour_of_a_mapped_component_keeps_its_own_factor() -> None:
    """Version 1 dropped it, and memory came out 61440 times too low."""
    memory = component("mem", unit_factor=61440)
    components = {"product": component(target_components=NODE), "mem": memory}
    limits = initial_limits({"product": Decimal(1), "mem": Decimal(5)}, components)
    assert limits == {"cpu": 7680, "gres/gpu": 240, "mem": 307200}


FACTOR = st.decimals("0.01", "100000", places=2)
TARGETS = st.dictionaries(st.sampled_from(["cpu", "mem", "gres/gpu", "node"]), FACTOR, min_size=1)
SOLD = st.decimals("0", "1000000", places=2)
USE = st.dictionaries(st.sampled_from(["cpu", "mem", "gres/gpu", "node"]), st.fractions(0, 10**9))
PEOPLE = st.dictionaries(st.sampled_from("abcdef"), USE, max_size=6)


def mapped(targets: dict[str, Decimal]) -> dict[str, Component]:
    return {"product": component(target_components={n: {"factor": f} for n, f in targets.items()})}


@given(targets=TARGETS, sold=SOLD)
def test_nobody_gets_less_than_was_bought_nor_a_whole_unit_more_and_using_it_up_costs_what_was_sold(
    targets: dict[str, Decimal], sold: Decimal
) -> None:
    components = mapped(targets)
    exact = ordered_limits({"product": sold}, components)
    limits = SLURM.limits(exact)
    for name, factor in targets.items():
        assert 0 <= limits[name] - sold * factor < 1
    usage = ResourceUsage(by_user={"ada": {name: Fraction(n) for name, n in exact.items()}})
    assert billed(usage, components)["product"].total == sold


@pytest.mark.guarantee("usage: From exact amounts to cents")
@given(targets=TARGETS, people=PEOPLE, more=USE)
def test_users_add_up_to_the_total_and_a_bill_never_falls_while_usage_grows(
    targets: dict[str, Decimal], people: dict[str, dict[str, Fraction]], more: dict[str, Fraction]
) -> None:
    components = mapped(targets)
    before = billed(ResourceUsage(by_user=people), components)["product"]
    later = billed(ResourceUsage(by_user={**people, "late": more}), components)["product"]
    for bill in (before, later):
        assert sum(bill.user_usages.values(), Decimal(0)) == bill.total
    assert later.total >= before.total


def test_users_of_different_targets_share_the_total() -> None:
    usage = {"ada": {"cpu": Fraction(7680)}, "bob": {"gres/gpu": Fraction(240)}}
    bill = billed(ResourceUsage(by_user=usage), {"product": component(target_components=NODE)})
    assert bill["product"].total == 1
    assert bill["product"].user_usages == {"ada": Decimal("0.5"), "bob": Decimal("0.5")}


# Two sides that differ

COMPONENTS = {"product": component(target_components=NODE)}
BOTH: dict[str, Any] = {"cpu": 76800, "gres/gpu": 2400}


def decision(found: dict[str, Any], authority: Authority, sold: object = 10) -> LimitDecision:
    limits = {} if sold is None else {"product": Decimal(str(sold))}
    resource = Resource(uuid=UUID(int=1), state="OK", backend_id="a", limits=limits)
    account = BackendResource(id="a", limits={n: Decimal(v) for n, v in found.items()})
    differences = limit_differences(resource, account, COMPONENTS, SLURM)
    return decide_limits(resource, account, differences, authority)


@pytest.mark.parametrize("authority", ["backend", "waldur", "report"])
def test_limits_of_all_targets_as_sold_are_no_difference(authority: Authority) -> None:
    made = decision(BOTH, authority)
    assert (made.changed, made.left, made.changes_something) == ((), (), False)


def test_where_waldur_wins_only_the_target_that_differs_is_set() -> None:
    assert decision({**BOTH, "gres/gpu": 1200}, "waldur").to_set == {"gres/gpu": 2400}
    assert decision({"cpu": 76800}, "waldur").to_set == {"gres/gpu": 2400}


def test_where_the_account_wins_limits_of_one_amount_are_reported() -> None:
    made = decision({"cpu": 38400, "gres/gpu": 1200}, "backend")
    assert made.to_report == {"product": Decimal(5)}
    assert made.left == ()


def test_limits_that_are_no_one_amount_stay_and_are_shown() -> None:
    made = decision({**BOTH, "cpu": 38400}, "backend")
    assert made.to_report is None
    (left,) = made.left
    assert left == (
        "limit product (cpu): Waldur has 10 node-hours (76800), the account 38400 (5 node-hours); "
        "left unchanged: the limits of its targets are not those of one amount"
    )


def test_a_component_is_unlimited_only_if_no_target_has_a_limit() -> None:
    resource = Resource(uuid=UUID(int=1))
    some = BackendResource(id="a", limits={"cpu": Decimal(1)})
    assert unlimited_components(resource, some, COMPONENTS) == ()
    assert unlimited_components(resource, BackendResource(id="a"), COMPONENTS) == ("product",)


@pytest.mark.parametrize("factor", ["1", "0.3", "60"])
def test_a_rounded_limit_is_no_difference_the_next_time(factor: str) -> None:
    components = {"product": component(target_components={"cpu": {"factor": factor}})}
    resource = Resource(uuid=UUID(int=1), limits={"product": Decimal("1.33")})
    limits = SLURM.limits(ordered_limits(resource.limits, components))
    account = BackendResource(id="a", limits=limits)
    assert limit_differences(resource, account, components, SLURM) == ()
