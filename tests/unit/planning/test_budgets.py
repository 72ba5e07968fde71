"""What a periodic policy makes of a limit: units, carry-over, grace, periods."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import BackendResource, ResetUsage, SetBudget
from waldur_site_agent.model.budgets import PeriodicPolicy
from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.model.marketplace import Component, Resource, WaldurComponent
from waldur_site_agent.planning.budgets import (
    BUDGET,
    BudgetNote,
    BudgetPeriod,
    Opening,
    Terms,
    budget_of,
    kind_of_period,
    needs_opening,
    plan_budget,
    plan_end,
)

POLICY = PeriodicPolicy(
    uuid=UUID(int=1),
    period=3,
    limit_type="GrpTRESMins",
    carryover_enabled=True,
    carryover_factor=Decimal(50),
    grace_ratio=Decimal("0.2"),
    raw_usage_reset=True,
    tres_billing_enabled=False,
)
NOVEMBER = datetime(2026, 11, 20, 12, tzinfo=UTC)
MONTH, QUARTER, YEAR, TOTAL = 2, 3, 4, 1
EAST = "Europe/Tallinn"
PERIODS = {MONTH: "2026-11", QUARTER: "2026-Q4", YEAR: "2026", TOTAL: "total"}


def component(name: str, factor: str, **targets: str) -> Component:
    return Component(
        type=name,
        measured_unit="units",
        label=name,
        accounting_type="limit",
        unit_factor=Decimal(factor),
        targets={key.replace("gpu", "gres/gpu"): Decimal(f) for key, f in targets.items()},
    )


def terms(*components: Component, kind: int = QUARTER, policy: PeriodicPolicy = POLICY) -> Terms:
    period = BudgetPeriod.at(kind, NOVEMBER, UTC)
    return Terms(policy=policy, period=period, components={c.type: c for c in components})


def note(kind: int = QUARTER, **used: str) -> BudgetNote:
    amounts = {name: Decimal(amount) for name, amount in used.items()}
    return BudgetNote(period=PERIODS[kind], used_before=amounts, is_reset=kind != TOTAL)


UNITS: dict[str, tuple[Component, dict[str, int]]] = {
    "cpu-minutes": (component("cpu", "1"), {"cpu": 1}),
    "cpu-hours": (component("cpu", "60"), {"cpu": 60}),
    "cpu k-hours": (component("cpu", "60000"), {"cpu": 60_000}),
    "GB-hours": (component("mem", "61440"), {"mem": 61_440}),
    "GPU-days": (component("gres/gpu", "1440"), {"gres/gpu": 1440}),
    "half hours": (component("cpu", "30"), {"cpu": 30}),
    "node-hours of parts": (
        component("node_hours", "1", cpu="7680", gpu="240"),
        {"cpu": 7680, "gres/gpu": 240},
    ),
    "node-hours, whose own factor has no effect": (
        component("node_hours", "60", node="60", mem="983040"),
        {"node": 60, "mem": 983_040},
    ),
}
"""What is sold, and the TRES-minutes of one unit (memory: MiB-minutes)."""


@pytest.mark.guarantee("budgets: Units")
@pytest.mark.parametrize(("unit", "kind"), [*product(UNITS, PERIODS)])
def test_a_sold_unit_is_as_many_tres_minutes_whatever_the_period(unit: str, kind: int) -> None:
    sold, minutes = UNITS[unit]
    plain = replace(POLICY, carryover_enabled=False, grace_ratio=Decimal(0))
    found = budget_of({sold.type: Decimal(7)}, terms(sold, kind=kind, policy=plain), note(kind))
    assert {name: 7 * each for name, each in minutes.items()} == found.limits


@pytest.mark.guarantee("budgets: Units")
@pytest.mark.parametrize(("unit", "kind"), [*product(UNITS, PERIODS)])
def test_carry_over_and_grace_are_added_once_to_every_part(unit: str, kind: int) -> None:
    sold, minutes = UNITS[unit]
    used = note(kind, **{sold.type.replace("/", "_"): "0"})
    used = replace(used, used_before={sold.type: Decimal(6)})
    found = budget_of({sold.type: Decimal(10)}, terms(sold, kind=kind), used)
    carried = 0 if kind == TOTAL else 4
    expected = {name: (10 + carried) * each * Decimal("1.2") for name, each in minutes.items()}
    assert expected == found.limits
    assert {sold.type: 10 + carried} == found.totals


CPU, MEM, GPU = component("cpu", "60"), component("mem", "61440"), component("gres/gpu", "60")


@pytest.mark.parametrize(
    ("used", "carried"),
    [("0", "5"), ("5", "5"), ("7.5", "2.5"), ("10", "0"), ("11", "0")],
)
def test_the_unused_is_carried_over_up_to_the_factor(used: str, carried: str) -> None:
    found = budget_of({"cpu": Decimal(10)}, terms(CPU), note(cpu=used))
    assert {"cpu": 10 + Decimal(carried)} == found.totals


def test_billing_units_follow_from_the_parts_with_memory_by_the_gibibyte() -> None:
    policy = replace(
        POLICY,
        carryover_enabled=False,
        grace_ratio=Decimal(0),
        tres_billing_enabled=True,
        tres_billing_weights={"CPU": 0.5, "Mem": 0.25, "GRES/gpu": 2.0},
    )
    sold = {"cpu": Decimal(10), "mem": Decimal(8), "gres/gpu": Decimal(3)}
    found = budget_of(sold, terms(CPU, MEM, GPU, policy=policy), note())
    assert found.limits["billing"] == (10 * 0.5 + 8 * 0.25 + 3 * 2) * 60


def test_a_policy_whose_weights_fit_no_component_limits_no_billing_units() -> None:
    policy = replace(POLICY, tres_billing_enabled=True, tres_billing_weights={"energy": 1})
    found = budget_of({"cpu": Decimal(10)}, terms(CPU, policy=policy), note())
    assert found.limits.keys() == {"cpu"}


def test_the_share_is_a_third_of_what_is_sold_and_at_least_one() -> None:
    plain = replace(POLICY, carryover_enabled=False)
    sold = terms(CPU, MEM, policy=plain)
    assert budget_of({"cpu": Decimal(10), "mem": Decimal(1)}, sold, note()).share == 3
    assert budget_of({"cpu": Decimal("0.5")}, sold, note()).share == 1


@pytest.mark.parametrize(
    ("kind", "moment", "zone", "label", "first", "end"),
    [
        (MONTH, "2026-12-31T23:30:00+00:00", "UTC", "2026-12", "2026-12-01", "2027-01-01"),
        (MONTH, "2026-12-31T23:30:00+00:00", EAST, "2027-01", "2027-01-01", "2027-02-01"),
        (QUARTER, "2026-01-01T00:00:00+00:00", "UTC", "2026-Q1", "2026-01-01", "2026-04-01"),
        (QUARTER, "2026-03-31T23:59:59+00:00", "UTC", "2026-Q1", "2026-01-01", "2026-04-01"),
        (QUARTER, "2026-12-01T00:00:00+00:00", "UTC", "2026-Q4", "2026-10-01", "2027-01-01"),
        (YEAR, "2026-07-01T00:00:00+00:00", "UTC", "2026", "2026-01-01", "2027-01-01"),
    ],
)  # fmt: skip
def test_periods_are_those_of_the_calendar(
    kind: int, moment: str, zone: str, label: str, first: str, end: str
) -> None:
    period = BudgetPeriod.at(kind, datetime.fromisoformat(moment), ZoneInfo(zone))
    span = period.span(ZoneInfo(zone))
    assert (label, first, end) == (period.label, f"{span.start:%Y-%m-%d}", f"{span.end:%Y-%m-%d}")
    assert span.start.hour == 0


@given(
    st.sampled_from([MONTH, QUARTER, YEAR]),
    st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis
)
def test_a_period_follows_the_one_before_and_is_read_from_its_label(
    kind: int, moment: datetime
) -> None:
    period = BudgetPeriod.at(kind, moment, UTC)
    assert period == BudgetPeriod.parse(period.label)
    assert period.previous is not None
    assert period.previous.span(UTC).end == period.span(UTC).start
    assert period.span(UTC).start <= moment < period.span(UTC).end


def of_waldur(*periods: str | None) -> list[WaldurComponent]:
    limited = [
        WaldurComponent(type=f"c{n}", billing_type="limit", limit_period=each)
        for n, each in enumerate(periods)
    ]
    return [*limited, WaldurComponent(type="u", billing_type="usage", limit_period="annual")]


@pytest.mark.parametrize(
    ("periods", "kind"),
    [(("month", "month"), MONTH), (("month", None), MONTH), (("month", "annual"), QUARTER),
     ((None,), QUARTER), (("quarterly",), QUARTER), (("total",), TOTAL)],
)  # fmt: skip
def test_the_period_of_all_limit_components_takes_precedence(
    periods: tuple[str | None, ...], kind: int
) -> None:
    assert kind_of_period(POLICY, of_waldur(*periods)) == kind


def test_a_period_that_is_not_known_is_refused() -> None:
    with pytest.raises(PermanentError, match="periods of kind 9 are not known"):
        BudgetPeriod.at(9, NOVEMBER, UTC)


RESOURCE = Resource(uuid=UUID(int=2), name="Run", backend_id="run", limits={"cpu": Decimal(10)})
OPENING = Opening(
    used_before={"cpu": Decimal(6)}, used={"cpu": Decimal(90)}, counted={"cpu": Decimal(450)}
)


def account(**limits: str) -> BackendResource:
    amounts = {name: Decimal(amount) for name, amount in limits.items()}
    return BackendResource(id="run", limits=amounts, share=1)


def test_a_period_that_opens_resets_notes_and_limits_in_this_order() -> None:
    plan = plan_budget(RESOURCE, account(cpu="600"), terms(CPU), OPENING)
    reset, setting = [step.action for step in plan.steps]
    assert ResetUsage("run", "2026-Q4", {"cpu": Decimal(90)}) == reset
    # (10 + 4 carried over) hours and 20 % grace are 1008 minutes; 90 were used before the reset
    assert SetBudget("run", {"cpu": Decimal(918)}, share=4) == setting
    assert plan.note is not None
    assert {"cpu": Decimal(90)} == plan.note.deducted
    assert plan.note.share_before == 1


def noted(plan_note: BudgetNote) -> Resource:
    return replace(RESOURCE, backend_metadata={"qos": "normal", BUDGET: plan_note.written()})


def test_planning_twice_plans_nothing() -> None:
    plan = plan_budget(RESOURCE, account(cpu="600"), terms(CPU), OPENING)
    assert plan.note is not None
    after = noted(plan.note)
    assert not needs_opening(after, terms(CPU))
    second = plan_budget(after, replace(account(cpu="918"), share=4), terms(CPU))
    assert not second.changes_something


@pytest.mark.parametrize("counted", ["90", "30", "0"])
def test_what_was_reset_already_is_not_reset_again_and_the_missing_is_deducted(
    counted: str,
) -> None:
    """After a kill between reset and note, or where Slurm resets by itself."""
    opening = replace(OPENING, counted={"cpu": Decimal(counted)})
    plan = plan_budget(RESOURCE, account(cpu="600"), terms(CPU), opening)
    assert [SetBudget] == [type(step.action) for step in plan.steps]
    assert plan.note is not None
    missing = 90 - Decimal(counted)
    assert ({"cpu": missing} if missing else {}) == plan.note.deducted


@pytest.mark.parametrize("kind", PERIODS)
def test_without_reset_in_the_policy_nothing_is_reset_or_deducted(kind: int) -> None:
    policy = replace(POLICY, raw_usage_reset=False)
    plan = plan_budget(RESOURCE, account(), terms(CPU, kind=kind, policy=policy), OPENING)
    assert [SetBudget] == [type(step.action) for step in plan.steps]
    assert plan.note is not None
    assert plan.note.deducted == {}


def test_a_clock_that_went_back_changes_nothing() -> None:
    future = replace(note(), period="2027-Q1")
    plan = plan_budget(noted(future), account(cpu="600"), terms(CPU), OPENING)
    assert isinstance(plan.problem, TemporaryError)
    assert not plan.changes_something


def test_a_shorter_period_within_the_noted_one_opens_and_a_longer_one_deducts() -> None:
    assert needs_opening(noted(note(QUARTER)), terms(CPU, kind=MONTH))
    month = note(MONTH)
    opening = Opening(used_before={}, used={"cpu": Decimal(500)}, counted={"cpu": Decimal(100)})
    plan = plan_budget(noted(month), account(), terms(CPU, kind=QUARTER), opening)
    assert plan.note is not None
    assert {"cpu": Decimal(400)} == plan.note.deducted


def test_the_end_of_a_policy_brings_back_what_was_sold_and_the_share() -> None:
    had = replace(note(), share_before=7, billing=True)
    found = replace(account(cpu="918", billing="20"), share=4)
    plan = plan_end(noted(had), found, {"cpu": CPU})
    (step,) = plan.steps
    assert SetBudget("run", {"cpu": Decimal(600), "billing": None}, share=7) == step.action
    assert plan.note_write is not None
    assert plan.note_write.value == {"qos": "normal"}


def test_limits_of_single_jobs_are_set_and_taken_back() -> None:
    policy = replace(POLICY, limit_type="MaxTRESMins", raw_usage_reset=False)
    plan = plan_budget(RESOURCE, account(cpu="600"), terms(CPU, policy=policy), OPENING)
    (step,) = plan.steps
    assert SetBudget("run", {"cpu": Decimal(1008)}, per_job=True, share=4) == step.action
    assert plan.note is not None
    found = replace(account(cpu="600"), job_limits={"cpu": Decimal(1008)}, share=4)
    ended = plan_end(noted(plan.note), found, {"cpu": CPU})
    assert SetBudget("run", {"cpu": None}, per_job=True) == ended.steps[0].action


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (replace(POLICY, limit_type="GrpTRES"), "does not limit what is used in a period"),
        (replace(POLICY, apply_to_all=False), "for some organization groups only"),
        (replace(POLICY, carryover_factor=None), "does not say how much"),
    ],
)
def test_a_policy_that_cannot_be_applied_says_why(policy: PeriodicPolicy, why: str) -> None:
    assert why in terms(CPU, policy=policy).problem()


UNREADABLE = ["text", {"period": "soon"}, {"period": "2026-Q4", "deducted": {"cpu": "-1"}}]


@pytest.mark.parametrize("found", UNREADABLE)
def test_a_note_that_cannot_be_read_opens_the_period_again(found: object) -> None:
    assert needs_opening(replace(RESOURCE, backend_metadata={BUDGET: found}), terms(CPU))


AMOUNTS = st.decimals(0, 10**6, places=2)


@given(AMOUNTS, AMOUNTS, AMOUNTS)
def test_a_budget_is_never_negative_and_never_more_than_everything_together(
    sold: Decimal, used: Decimal, deducted: Decimal
) -> None:
    had = replace(note(), used_before={"cpu": used}, deducted={"cpu": deducted})
    found = budget_of({"cpu": sold}, terms(CPU), had).limits["cpu"]
    assert 0 <= found <= sold * 60 * Decimal("1.5") * Decimal("1.2")
    again = BudgetNote.read({BUDGET: had.written()})
    assert again == had
