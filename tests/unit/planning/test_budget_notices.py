"""When a budget is told of, and what is noted so that it is told once."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from waldur_site_agent.model.budget_notices import Budget, Consumption
from waldur_site_agent.model.marketplace import Component, Resource
from waldur_site_agent.planning.budget_notices import (
    NOTED,
    BudgetChange,
    budget_changes,
    budgets_of,
)

UUID_OF = UUID(int=1)


def resource(metadata: Mapping[str, Any] | None = None) -> Resource:
    return Resource(
        uuid=UUID_OF, name="Ocean", backend_id="a_ocean", backend_metadata=metadata or {}
    )


def budget(used: str, limit: str = "100", component: str = "cpu") -> Budget:
    return Budget(
        resource=UUID_OF,
        account="a_ocean",
        title="Ocean",
        project="climate",
        ends_on=None,
        component=component,
        label="CPU",
        unit="k-Hours",
        limit=Decimal(limit),
        used=Decimal(used),
    )


class Told:
    """What a resource's metadata say, and what was told, pass by pass."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {"other": "stays"}

    def __call__(self, *budgets: Budget, percent: tuple[int, ...] = (80, 100)) -> list[int]:
        changes = budget_changes({"a_ocean": resource(self.metadata)}, budgets, percent)
        told: list[int] = []
        for change in changes:
            self.metadata = change.metadata(self.metadata)
            told += [notice.percent for notice in change.notices]
        assert self.metadata["other"] == "stays"
        return told


def test_each_crossing_is_told_once() -> None:
    told = Told()
    steps = [("79.99", []), ("80", [80]), ("81", []), ("99.9", []), ("100", [100]), ("150", [])]
    for used, expected in steps:
        assert told(budget(used)) == expected, used


def test_a_step_over_several_thresholds_is_told_as_the_highest() -> None:
    told = Told()
    assert told(budget("120")) == [100]
    assert told(budget("120")) == []


def test_usage_that_wavers_around_a_threshold_is_told_once() -> None:
    told = Told()
    assert [told(budget(used)) for used in ("81", "79", "80.5", "76", "81")] == [
        [80],
        [],
        [],
        [],
        [],
    ]


def test_a_new_period_begins_anew() -> None:
    told = Told()
    assert [told(budget(used)) for used in ("100", "3", "85", "101")] == [[100], [], [80], [100]]
    assert told.metadata[NOTED] == {"cpu": {"percent": 100, "limit": "100"}}
    assert told(budget("0")) == []
    assert NOTED not in told.metadata


def test_a_raised_limit_begins_anew_from_what_is_reached() -> None:
    told = Told()
    assert told(budget("100")) == [100]
    assert told(budget("100", "120")) == []  # 83 %: the owner has just ordered more
    assert told(budget("119", "120")) == []
    assert told(budget("120", "120")) == [100]


def test_a_lowered_limit_is_told_at_once() -> None:
    told = Told()
    assert told(budget("50")) == []
    assert told(budget("50", "50")) == [100]


def test_components_are_told_of_separately() -> None:
    told = Told()
    assert told(budget("80"), budget("10", component="mem")) == [80]
    assert told(budget("80"), budget("90", component="mem")) == [80]


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_of_nothing_is_no_budget(limit: str) -> None:
    assert Told()(budget("5", limit)) == []


@pytest.mark.parametrize(
    "noted", ["text", 7, [], {"cpu": "80"}, {"cpu": {}}, {"cpu": {"percent": "x", "limit": "1"}}]
)
def test_a_note_that_somebody_has_broken_is_replaced(noted: object) -> None:
    told = Told()
    told.metadata[NOTED] = noted
    assert told(budget("85")) == [80]
    assert told(budget("85")) == []


def test_no_news_is_no_change() -> None:
    changes: tuple[BudgetChange, ...] = budget_changes(
        {"a_ocean": resource()}, [budget("10")], (80, 100)
    )
    assert changes == ()


def component(name: str, factor: int, targets: Mapping[str, int] | None = None) -> Component:
    return Component(
        type=name,
        measured_unit="k-Hours",
        label=name.upper(),
        accounting_type="limit",
        unit_factor=Decimal(factor),
        targets={key: Decimal(value) for key, value in (targets or {}).items()},
    )


def test_amounts_are_in_measured_units() -> None:
    used = {"a_ocean": {"cpu": Consumption(Decimal(600_000), Decimal(480_000))}}
    (found,) = budgets_of({"a_ocean": resource()}, [component("cpu", 60_000)], used)
    assert [found.limit, found.used, found.left] == [10, 8, 2]
    assert found.share == Decimal("0.8")


def test_of_several_parts_the_one_that_is_used_most_decides() -> None:
    node = component("node", 1, {"cpu": 7680, "gres/gpu": 240})
    used = {
        "a_ocean": {
            "cpu": Consumption(Decimal(76_800), Decimal(7_680)),
            "gres/gpu": Consumption(Decimal(2_400), Decimal(2_160)),
        }
    }
    (found,) = budgets_of({"a_ocean": resource()}, [node], used)
    assert found.component == "node"
    assert [found.limit, found.used] == [10, 9]


def test_accounts_and_components_without_a_limit_have_no_budget() -> None:
    used = {"a_ocean": {"mem": Consumption(Decimal(1), Decimal(1))}}
    assert budgets_of({"a_ocean": resource(), "b": resource()}, [component("cpu", 1)], used) == ()
