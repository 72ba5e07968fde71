"""kill -9 at any command of an agent that makes deposits: one more cycle, and no cent more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from harness import KilledError, KillSwitch
from harness.moab_testbed import SimulatedMoabSite, a_simulated_moab_site
from waldur_site_agent.backends.processes import CommandResult, CommandTimedOutError, Runner
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_moab.simulator import Outage
from waldur_site_agent_sandbox import Order, Project

MOMENT = datetime(2026, 11, 2, tzinfo=UTC)


@dataclass
class Story:
    """An order of a customer of its own, and what must be so in the end."""

    begin: Callable[[SimulatedMoabSite, str], Order]
    holds: Callable[[SimulatedMoabSite, Order, str], None]


def project(testbed: SimulatedMoabSite, tag: str) -> Project:
    return testbed.project(f"climate{tag}", f"uni{tag}", ada="ada01", bob="bob01")


def begin_create(testbed: SimulatedMoabSite, tag: str) -> Order:
    return testbed.order(project(testbed, tag), "Ocean", deposit=100)


def is_created(testbed: SimulatedMoabSite, order: Order, tag: str) -> None:
    name = testbed.name_of(order)
    assert testbed.accounts_of(tag) == {f"c_uni{tag}", f"p_climate{tag}", name}
    assert testbed.members(order) == {"ada01", "bob01"}
    assert len(testbed.mam.state.funds_of(name)) == 1
    assert Decimal(100) == testbed.mam.state.left_of(name)


def changed(testbed: SimulatedMoabSite, tag: str, deposit: int) -> Order:
    resource = testbed.created(project(testbed, tag), "Ocean", deposit=100)
    testbed.mam.charge(resource.backend_id, "ada01", Decimal("12.5"), MOMENT, MOMENT)
    return testbed.sandbox.customer.place_update_order(resource, {"deposit": deposit})


def begin_raise(testbed: SimulatedMoabSite, tag: str) -> Order:
    return changed(testbed, tag, 150)


def is_raised(testbed: SimulatedMoabSite, order: Order, _tag: str) -> None:
    name = testbed.name_of(order)
    (fund,) = testbed.mam.state.funds_of(name)
    deposits = [t.amount for t in testbed.mam.state.transactions if t.fund == fund.id]
    assert deposits == [100, 50]
    assert Decimal("137.5") == testbed.mam.state.left_of(name)
    assert testbed.resource(order).limits == {"deposit": 150}


def begin_lower(testbed: SimulatedMoabSite, tag: str) -> Order:
    return changed(testbed, tag, 40)


def is_lowered(testbed: SimulatedMoabSite, order: Order, _tag: str) -> None:
    assert Decimal("27.5") == testbed.mam.state.left_of(testbed.name_of(order))
    assert testbed.resource(order).limits == {"deposit": 40}


def begin_terminate(testbed: SimulatedMoabSite, tag: str) -> Order:
    resource = testbed.created(project(testbed, tag), "Ocean")
    return testbed.sandbox.customer.place_terminate_order(resource)


def is_terminated(testbed: SimulatedMoabSite, order: Order, tag: str) -> None:
    assert testbed.accounts_of(tag) == {f"c_uni{tag}"}
    assert not testbed.mam.state.funds_of(testbed.name_of(order))
    assert testbed.resource(order).state == "Terminated"


STORIES = {
    "create": Story(begin_create, is_created),
    "raise": Story(begin_raise, is_raised),
    "lower": Story(begin_lower, is_lowered),
    "terminate": Story(begin_terminate, is_terminated),
}


def killed(testbed: SimulatedMoabSite, blade: KillSwitch) -> SimulatedMoabSite:
    """The house, for an agent that dies at one of its commands; requests are another test's."""
    seen = testbed.with_(mam_runner=blade.runner)
    assert isinstance(seen, SimulatedMoabSite)
    return seen


@pytest.mark.guarantee("moab: Money")
@pytest.mark.guarantee("Killed at any instruction, the next cycle finishes the work")
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", STORIES)
def test_an_agent_killed_at_any_command_is_finished_by_the_next_cycle(
    tmp_path: Path, name: str, after_effect: bool
) -> None:
    story = STORIES[name]
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        story.begin(testbed, "0")
        counting = KillSwitch()
        killed(testbed, counting).cycle()
        assert len(counting.steps) > 8
        for number in range(1, len(counting.steps) + 1):
            tag = str(number)
            order = story.begin(testbed, tag)
            blade = KillSwitch(at=number, after_effect=after_effect)
            with pytest.raises(KilledError):
                killed(testbed, blade).cycle()
            testbed.cycle()
            where = f"killed at {blade.steps[-1]}"
            assert testbed.state(order) == "done", where
            assert not testbed.sandbox.requests.count("*_set_state_erred"), where
            story.holds(testbed, order, tag)


@pytest.mark.guarantee("A verdict that nobody takes back rests on one object read by itself")
@pytest.mark.parametrize("age", [2, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", STORIES)
def test_lists_a_moment_old_after_a_kill_pay_nothing_twice(
    tmp_path: Path, name: str, age: int
) -> None:
    story = STORIES[name]
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        story.begin(testbed, "0")
        counting = KillSwitch()
        with testbed.lists_a_moment_old(age):
            killed(testbed, counting).cycle()
        for number in range(1, len(counting.steps) + 1):
            tag = str(number)
            order = story.begin(testbed, tag)
            with contextlib.suppress(KilledError):
                killed(testbed, KillSwitch(at=number, after_effect=True)).cycle()
            with testbed.lists_a_moment_old(age), contextlib.suppress(TemporaryError):
                testbed.cycle()
            testbed.cycle()
            where = f"killed at {number}"
            assert testbed.state(order) == "done", where
            assert not testbed.sandbox.requests.count("*_set_state_erred"), where
            story.holds(testbed, order, tag)


def test_a_raise_that_a_list_still_shows_is_not_paid_again(tmp_path: Path) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        order = begin_raise(testbed, "")
        testbed.cycle()
        is_raised(testbed, order, "")
        side = testbed.sandbox.customer
        lowered = side.place_update_order(testbed.resource(order), {"deposit": 120})
        testbed.cycle()
        assert testbed.state(lowered) == "done"
        left = testbed.mam.state.left_of(testbed.name_of(order))
        deposits = testbed.mam.commands_run["mam-deposit"]
        for age in range(1, 10):
            with testbed.lists_a_moment_old(age), contextlib.suppress(TemporaryError):
                testbed.cycle()
        assert testbed.mam.state.left_of(testbed.name_of(order)) == left
        assert testbed.mam.commands_run["mam-deposit"] == deposits


@pytest.mark.guarantee("moab: Money")
@pytest.mark.parametrize("name", STORIES)
def test_answers_that_get_lost_err_nothing_and_pay_nothing_twice(tmp_path: Path, name: str) -> None:
    story = STORIES[name]
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        order = story.begin(testbed, "")
        for commands in range(4, 14, 2):
            with testbed.mam.outage(Outage.LOST_ANSWER, after_commands=commands):
                testbed.cycle()
        testbed.cycle()
        assert testbed.state(order) == "done"
        assert not testbed.sandbox.requests.count("*_set_state_erred")
        story.holds(testbed, order, "")


class LandsLate:
    """The first deposit hangs, is killed, and lands after some more commands were answered."""

    def __init__(self, inner: Runner, later: int) -> None:
        self.inner, self.later = inner, later
        self.hung: tuple[Sequence[str], float] | None = None

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        if self.hung is None and argv[0] == "mam-deposit":
            self.hung = (argv, timeout)
            raise CommandTimedOutError("mam-deposit gave no answer and was killed")
        self.later -= self.hung is not None
        if self.hung is not None and self.later == 0:
            self.inner.run(*self.hung)
        return self.inner.run(argv, timeout)


@pytest.mark.guarantee("moab: Money")
@pytest.mark.parametrize("later", [1, 6, 10])
def test_a_deposit_that_hangs_and_lands_late_is_not_made_again_at_once(
    tmp_path: Path, later: int
) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        testbed.retries = True
        order = begin_raise(testbed, "")
        late = LandsLate(testbed.mam.runner(), later)
        replace(testbed, mam_runner=lambda _: late).cycle()
        while late.later > 0:
            late.run(["mam-list-funds", "--show", "Id"], 1)
        testbed.cycle()
        assert testbed.state(order) == "done"
        is_raised(testbed, order, "")


def test_orders_and_a_second_cycle_cost_a_bounded_number_of_commands(tmp_path: Path) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        shared = project(testbed, "")
        orders = [testbed.order(shared, f"run {number}") for number in range(5)]
        testbed.cycle()
        assert {testbed.state(order) for order in orders} == {"done"}
        writes = {
            "mam-create-account": 7,
            "mam-create-fund": 5,
            "mam-deposit": 5,
            "mam-modify-account": 10,
        }
        assert writes == {n: testbed.mam.commands_run[n] for n in writes}
        assert testbed.mam.commands_run["mam-list-accounts"] <= 6
        testbed.forget()
        testbed.sync()
        testbed.forget()
        assert not testbed.sync().failed
        assert dict(testbed.mam.commands_run) == {
            "mam-list-accounts": 1,
            "mam-list-funds": 1,
            "mam-list-allocations": 1,
        }
        assert not testbed.sandbox.requests.count("*set_*")


def test_a_limit_below_what_was_used_errs_the_order_with_the_lowest_possible_one(
    tmp_path: Path,
) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        order = changed(testbed, "", 5)
        testbed.cycle()
        assert testbed.state(order) == "erred"
        told = testbed.sandbox.customer.current(order).error_message
        assert "the limit cannot become 5: 12.5 of the 100 bought are used" in told
        assert Decimal("87.5") == testbed.mam.state.left_of(testbed.name_of(order))


def test_an_order_without_a_price_package_is_done_without_a_deposit(tmp_path: Path) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        order = testbed.order(testbed.project(ada="ada01"), "Ocean", deposit=-1)
        testbed.cycle()
        assert testbed.state(order) == "done"
        assert testbed.members(order) == {"ada01"}
        assert not testbed.sync().failed
        assert testbed.resource(order).limits == {"deposit": -1}
        assert testbed.mam.commands_run["mam-deposit"] == 0
