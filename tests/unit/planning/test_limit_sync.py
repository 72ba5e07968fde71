"""Who follows whom where limits differ, and that nothing is left to do afterwards."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import BackendResource
from waldur_site_agent.model.marketplace import Component, Resource
from waldur_site_agent.planning.limits import (
    Authority,
    LimitDecision,
    LimitPrecision,
    decide_limits,
    limit_differences,
    unlimited_components,
)
from waldur_site_agent_slurm import tres


def component(name: str, factor: int, kind: str = "limit", cap: int | None = None) -> Component:
    return Component(
        type=name,
        measured_unit="k-Hours",
        label=name,
        accounting_type=kind,
        unit_factor=Decimal(factor),
        limit=None if cap is None else Decimal(cap),
    )


SLURM = LimitPrecision(settable=lambda _, amount: tres.rounded_up(amount), agree=tres.agree)
COMPONENTS = {
    "cpu": component("cpu", 60000),
    "mem": component("mem", 61440),
    "gres/gpu": component("gres/gpu", 60, "usage", 100),
    "node": component("node", 60, "usage"),
}


def amounts(**values: float) -> dict[str, Decimal]:
    return {name: Decimal(str(value)) for name, value in values.items()}


def sold(**values: float) -> Resource:
    return Resource(uuid=UUID(int=1), state="OK", backend_id="a", limits=amounts(**values))


def account(**values: float) -> BackendResource:
    return BackendResource(id="a", limits={"gres/gpu": Decimal(6000), **amounts(**values)})


def decision(resource: Resource, found: BackendResource, authority: Authority) -> LimitDecision:
    differences = limit_differences(resource, found, COMPONENTS, SLURM)
    return decide_limits(resource, found, differences, authority)


def carried_out(
    resource: Resource, found: BackendResource, authority: Authority
) -> tuple[Resource, BackendResource]:
    """Both sides after the decision; the account as sacctmgr prints it, with lost digits."""
    made = decision(resource, found, authority)
    printed = {n: tres.parse(f"{n}={tres.printed(n, int(v))}")[n] for n, v in made.to_set.items()}
    limits = made.to_report if made.to_report is not None else resource.limits
    return replace(resource, limits=limits), replace(found, limits={**found.limits, **printed})


def test_the_backend_wins_by_default_and_waldurs_other_limits_are_sent_back() -> None:
    made = decision(sold(cpu=120, mem=2, other=7), account(cpu=1200000, mem=122880), "backend")
    assert made.to_report == amounts(cpu=20, mem=2, other=7)
    assert (made.to_set, made.left) == ({}, ())


def test_where_waldur_wins_the_account_gets_what_was_sold() -> None:
    made = decision(sold(cpu=120, mem=2), account(cpu=1200000, mem=122880), "waldur")
    assert made.to_set == {"cpu": 7200000}
    assert made.to_report is None
    assert [str(d) for d in made.changed] == [
        "limit cpu: Waldur has 120 k-Hours (7200000), the account 1200000 (20 k-Hours)"
    ]


def test_where_differences_are_reported_nothing_changes_and_both_values_are_shown() -> None:
    made = decision(sold(cpu=120, mem=2), account(cpu=1200000, mem=122880), "report")
    assert not made.changes_something
    assert made.left == (
        (
            "limit cpu: Waldur has 120 k-Hours (7200000), the account 1200000 (20 k-Hours); "
            "left unchanged (limits: report)"
        ),
    )


@pytest.mark.parametrize("authority", ["backend", "report"])
def test_a_limit_that_the_account_lacks_is_named_with_the_command_that_sets_it(
    authority: Authority,
) -> None:
    made = decision(sold(cpu=10, mem=2), account(cpu=600000), authority)
    assert not made.changes_something
    assert made.left == (
        (
            "limit mem: Waldur has 2 k-Hours (122880), the account none; "
            '"waldur-site-agent limits sync --to backend" sets it'
        ),
    )


def test_a_limit_that_the_account_lacks_is_set_where_waldur_wins_even_if_it_is_zero() -> None:
    assert decision(sold(cpu=10, mem=0), account(cpu=600000), "waldur").to_set == {"mem": 0}


def test_a_cap_that_came_into_the_file_later_is_set_but_the_sites_own_is_kept() -> None:
    without = BackendResource(id="a", limits=amounts(cpu=600000, mem=122880))
    assert decision(sold(cpu=10, mem=2), without, "waldur").to_set == {"gres/gpu": 6000}
    (left,) = decision(sold(cpu=10, mem=2), without, "backend").left
    assert left.startswith("limit gres/gpu: the file has 100 k-Hours (6000), the account none; ")
    other = replace(without, limits={**without.limits, "gres/gpu": Decimal(7)})
    assert decision(sold(cpu=10, mem=2), other, "waldur").to_set == {}


def test_a_limit_that_waldur_does_not_name_stays_on_the_account() -> None:
    made = decision(sold(cpu=10), account(cpu=600000, mem=61440), "waldur")
    assert not made.changes_something
    assert made.left[0].endswith("left unchanged: Waldur has none")
    told = decision(sold(cpu=10), account(cpu=600000, mem=61440), "backend").to_report
    assert told == amounts(cpu=10, mem=1)


def test_a_limit_that_two_decimals_cannot_tell_stays_untold_and_is_shown() -> None:
    made = decision(sold(cpu=3, mem=2), account(cpu=1, mem=122880), "backend")
    assert made.to_report is None
    assert made.left == (
        (
            "limit cpu: Waldur has 3 k-Hours (180000), the account 1 (about 0 k-Hours); "
            "left unchanged: it needs more than two decimals"
        ),
    )


def test_a_negative_limit_of_waldur_is_never_set() -> None:
    assert not decision(sold(cpu=-1, mem=2), account(mem=122880), "waldur").changes_something


def test_what_neither_side_limits_is_named_as_unlimited() -> None:
    assert unlimited_components(sold(cpu=10), account(cpu=600000), COMPONENTS) == ("mem",)


def test_an_obstacle_leaves_both_sides_and_keeps_both_values() -> None:
    made = decision(sold(cpu=120, mem=2), account(cpu=1200000, mem=122880), "waldur")
    blocked = made.blocked("an order is in progress")
    assert not blocked.changes_something
    assert blocked.left == (
        (
            "limit cpu: Waldur has 120 k-Hours (7200000), the account 1200000 (20 k-Hours); "
            "left unchanged: an order is in progress"
        ),
    )


values = st.one_of(st.none(), st.integers(0, 10**4), st.decimals(0, 10**4, places=2))
found_values = st.one_of(st.none(), st.integers(0, tres.LARGEST_MEMORY))


@pytest.mark.guarantee("membership: Limits")
@given(values, values, found_values, found_values, st.sampled_from(["backend", "waldur", "report"]))
def test_planning_twice_plans_nothing(
    cpu: Decimal | None,
    mem: Decimal | None,
    has_cpu: int | None,
    has_mem: int | None,
    authority: Authority,
) -> None:
    wanted = {"cpu": cpu, "mem": mem}
    has = {"cpu": has_cpu, "mem": has_mem}
    resource = replace(
        sold(), limits={n: Decimal(v) if v is not None else None for n, v in wanted.items()}
    )
    printed = {
        name: tres.parse(f"{name}={tres.printed(name, value)}")[name]
        for name, value in has.items()
        if value is not None
    }
    found = BackendResource(id="a", limits=printed)
    differences = limit_differences(resource, found, COMPONENTS, SLURM)
    first = decide_limits(resource, found, differences, authority)
    if any(value != value.to_integral_value() for value in first.to_set.values()):
        return  # Slurm refuses what is not whole, so nothing is carried out
    again = decision(*carried_out(resource, found, authority), authority)
    assert not again.changes_something
    if authority == "backend":
        assert first.to_set == {}
    else:
        assert first.to_report is None
