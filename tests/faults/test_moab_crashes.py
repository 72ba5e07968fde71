"""kill -9 at any command of an agent that makes deposits: one more cycle, and no cent more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from harness import Guillotine, KilledError
from harness.moab_house import MoabHouse, a_moab_house
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_moab.simulator import Outage
from waldur_site_agent_sandbox import Order, Project

MOMENT = datetime(2026, 11, 2, tzinfo=UTC)


@dataclass
class Story:
    """An order of a customer of its own, and what must be so in the end."""

    begin: Callable[[MoabHouse, str], Order]
    holds: Callable[[MoabHouse, Order, str], None]


def project(house: MoabHouse, tag: str) -> Project:
    return house.project(f"climate{tag}", f"uni{tag}", ada="ada01", bob="bob01")


def begin_create(house: MoabHouse, tag: str) -> Order:
    return house.order(project(house, tag), "Ocean", deposit=100)


def is_created(house: MoabHouse, order: Order, tag: str) -> None:
    name = house.name_of(order)
    assert house.accounts_of(tag) == {f"c_uni{tag}", f"p_climate{tag}", name}
    assert house.members(order) == {"ada01", "bob01"}
    assert len(house.mam.state.funds_of(name)) == 1
    assert Decimal(100) == house.mam.state.left_of(name)


def changed(house: MoabHouse, tag: str, deposit: int) -> Order:
    resource = house.created(project(house, tag), "Ocean", deposit=100)
    house.mam.charge(resource.backend_id, "ada01", Decimal("12.5"), MOMENT, MOMENT)
    return house.sandbox.customer.place_update_order(resource, {"deposit": deposit})


def begin_raise(house: MoabHouse, tag: str) -> Order:
    return changed(house, tag, 150)


def is_raised(house: MoabHouse, order: Order, _tag: str) -> None:
    name = house.name_of(order)
    (fund,) = house.mam.state.funds_of(name)
    deposits = [t.amount for t in house.mam.state.transactions if t.fund == fund.id]
    assert deposits == [100, 50]
    assert Decimal("137.5") == house.mam.state.left_of(name)
    assert house.resource(order).limits == {"deposit": 150}


def begin_lower(house: MoabHouse, tag: str) -> Order:
    return changed(house, tag, 40)


def is_lowered(house: MoabHouse, order: Order, _tag: str) -> None:
    assert Decimal("27.5") == house.mam.state.left_of(house.name_of(order))
    assert house.resource(order).limits == {"deposit": 40}


def begin_terminate(house: MoabHouse, tag: str) -> Order:
    resource = house.created(project(house, tag), "Ocean")
    return house.sandbox.customer.place_terminate_order(resource)


def is_terminated(house: MoabHouse, order: Order, tag: str) -> None:
    assert house.accounts_of(tag) == {f"c_uni{tag}"}
    assert not house.mam.state.funds_of(house.name_of(order))
    assert house.resource(order).state == "Terminated"


STORIES = {
    "create": Story(begin_create, is_created),
    "raise": Story(begin_raise, is_raised),
    "lower": Story(begin_lower, is_lowered),
    "terminate": Story(begin_terminate, is_terminated),
}


def beheaded(house: MoabHouse, blade: Guillotine) -> MoabHouse:
    """The house, for an agent that dies at one of its commands; requests are another test's."""
    seen = house.with_(mam_runner=blade.runner)
    assert isinstance(seen, MoabHouse)
    return seen


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", STORIES)
def test_an_agent_killed_at_any_command_is_finished_by_the_next_cycle(
    tmp_path: Path, name: str, after_effect: bool
) -> None:
    story = STORIES[name]
    with a_moab_house(tmp_path / "lock") as house:
        story.begin(house, "0")
        counting = Guillotine()
        beheaded(house, counting).cycle()
        assert len(counting.steps) > 8
        for number in range(1, len(counting.steps) + 1):
            tag = str(number)
            order = story.begin(house, tag)
            blade = Guillotine(at=number, after_effect=after_effect)
            with pytest.raises(KilledError):
                beheaded(house, blade).cycle()
            house.cycle()
            where = f"killed at {blade.steps[-1]}"
            assert house.state(order) == "done", where
            assert not house.sandbox.requests.count("*_set_state_erred"), where
            story.holds(house, order, tag)


@pytest.mark.parametrize("age", [2, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", STORIES)
def test_lists_a_moment_old_after_a_kill_pay_nothing_twice(
    tmp_path: Path, name: str, age: int
) -> None:
    story = STORIES[name]
    with a_moab_house(tmp_path / "lock") as house:
        story.begin(house, "0")
        counting = Guillotine()
        with house.lists_a_moment_old(age):
            beheaded(house, counting).cycle()
        for number in range(1, len(counting.steps) + 1):
            tag = str(number)
            order = story.begin(house, tag)
            with contextlib.suppress(KilledError):
                beheaded(house, Guillotine(at=number, after_effect=True)).cycle()
            with house.lists_a_moment_old(age), contextlib.suppress(TemporaryError):
                house.cycle()
            house.cycle()
            where = f"killed at {number}"
            assert house.state(order) == "done", where
            assert not house.sandbox.requests.count("*_set_state_erred"), where
            story.holds(house, order, tag)


def test_a_raise_that_a_list_still_shows_is_not_paid_again(tmp_path: Path) -> None:
    with a_moab_house(tmp_path / "lock") as house:
        order = begin_raise(house, "")
        house.cycle()
        is_raised(house, order, "")
        side = house.sandbox.customer
        lowered = side.place_update_order(house.resource(order), {"deposit": 120})
        house.cycle()
        assert house.state(lowered) == "done"
        left = house.mam.state.left_of(house.name_of(order))
        deposits = house.mam.commands_run["mam-deposit"]
        for age in range(1, 10):
            with house.lists_a_moment_old(age), contextlib.suppress(TemporaryError):
                house.cycle()
        assert house.mam.state.left_of(house.name_of(order)) == left
        assert house.mam.commands_run["mam-deposit"] == deposits


@pytest.mark.parametrize("name", STORIES)
def test_answers_that_get_lost_err_nothing_and_pay_nothing_twice(tmp_path: Path, name: str) -> None:
    story = STORIES[name]
    with a_moab_house(tmp_path / "lock") as house:
        order = story.begin(house, "")
        for commands in range(4, 14, 2):
            with house.mam.outage(Outage.LOST_ANSWER, after_commands=commands):
                house.cycle()
        house.cycle()
        assert house.state(order) == "done"
        assert not house.sandbox.requests.count("*_set_state_erred")
        story.holds(house, order, "")


def test_orders_and_a_second_cycle_cost_a_bounded_number_of_commands(tmp_path: Path) -> None:
    with a_moab_house(tmp_path / "lock") as house:
        shared = project(house, "")
        orders = [house.order(shared, f"run {number}") for number in range(5)]
        house.cycle()
        assert {house.state(order) for order in orders} == {"done"}
        writes = {
            "mam-create-account": 7,
            "mam-create-fund": 5,
            "mam-deposit": 5,
            "mam-modify-account": 10,
        }
        assert writes == {n: house.mam.commands_run[n] for n in writes}
        assert house.mam.commands_run["mam-list-accounts"] <= 6
        house.forget()
        house.sync()
        house.forget()
        assert not house.sync().failed
        assert dict(house.mam.commands_run) == {
            "mam-list-accounts": 1,
            "mam-list-funds": 1,
            "mam-list-allocations": 1,
        }
        assert not house.sandbox.requests.count("*set_*")


def test_a_limit_below_what_was_used_errs_the_order_with_the_lowest_possible_one(
    tmp_path: Path,
) -> None:
    with a_moab_house(tmp_path / "lock") as house:
        order = changed(house, "", 5)
        house.cycle()
        assert house.state(order) == "erred"
        told = house.sandbox.customer.current(order).error_message
        assert "the limit cannot become 5: 12.5 of the 100 bought are used" in told
        assert Decimal("87.5") == house.mam.state.left_of(house.name_of(order))


def test_an_order_without_a_price_package_is_done_without_a_deposit(tmp_path: Path) -> None:
    with a_moab_house(tmp_path / "lock") as house:
        order = house.order(house.project(ada="ada01"), "Ocean", deposit=-1)
        house.cycle()
        assert house.state(order) == "done"
        assert house.members(order) == {"ada01"}
        assert not house.sync().failed
        assert house.resource(order).limits == {"deposit": -1}
        assert house.mam.commands_run["mam-deposit"] == 0
