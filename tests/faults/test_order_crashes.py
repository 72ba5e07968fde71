"""kill -9 between any two steps, and answers that get lost: one more cycle mends everything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import Guillotine, House, KilledError, a_house
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.sandbox import Order
from waldur_site_agent_slurm.runner import CommandResult, Runner


@dataclass
class Story:
    """An order to be carried out, and what must be so in the end."""

    begin: Callable[[House], Order]
    holds: Callable[[House, Order], None]


def begin_create(house: House) -> Order:
    return house.order(house.project(ada="ada01", bob="bob01"), "Ocean", cpu=10, mem=2)


def is_created(house: House, order: Order) -> None:
    assert house.accounts == {"c_uni", "p_climate", house.resource(order).backend_id}
    assert house.members(order) == {"ada01", "bob01"}
    assert house.account(order).limits == {"cpu": 600000, "mem": 122880}
    assert house.resource(order).state == "OK"


def begin_update(house: House) -> Order:
    resource = house.created(house.project(ada="ada01"), "Ocean", cpu=10, mem=2)
    return house.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 1})


def is_updated(house: House, order: Order) -> None:
    assert house.account(order).limits == {"cpu": 1200000, "mem": 61440}
    assert house.members(order) == {"ada01"}
    assert house.resource(order).state == "OK"
    assert house.resource(order).limits == {"cpu": 20, "mem": 1}


def begin_terminate(house: House) -> Order:
    resource = house.created(house.project(ada="ada01"), "Ocean")
    house.slurm.submit_job("ada01", resource.backend_id)
    return house.sandbox.customer.place_terminate_order(resource)


def is_terminated(house: House, order: Order) -> None:
    assert house.accounts == {"c_uni"}
    assert house.slurm.state.jobs == {}
    assert house.resource(order).state == "Terminated"


STORIES = {
    "create": Story(begin_create, is_created),
    "update": Story(begin_update, is_updated),
    "terminate": Story(begin_terminate, is_terminated),
}


def steps_of(house: House, story: Story) -> list[str]:
    """The steps of an undisturbed run, of which the test then knows how many there are."""
    story.begin(house)
    counting = Guillotine()
    house.with_(runner=counting.runner, transport=counting.transport).cycle()
    return counting.steps


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", STORIES)
def test_an_agent_killed_at_any_step_is_finished_by_the_next_cycle(
    tmp_path: Path, name: str, after_effect: bool
) -> None:
    story = STORIES[name]
    with a_house(tmp_path / "count.lock") as house:
        steps = steps_of(house, story)
    assert len(steps) > 8
    for number in range(1, len(steps) + 1):
        with a_house(tmp_path / f"{number}.lock") as house:
            order = story.begin(house)
            blade = Guillotine(at=number, after_effect=after_effect)
            with pytest.raises(KilledError):
                house.with_(runner=blade.runner, transport=blade.transport).cycle()
            house.cycle()
            where = f"killed at step {number}: {blade.steps[-1]}"
            assert house.state(order) == "done", where
            assert not house.sandbox.requests.count("*_set_state_erred"), where
            story.holds(house, order)


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize(
    "operation",
    [
        "marketplace_orders_approve_by_provider",
        "marketplace_provider_resources_set_backend_id",
        "marketplace_orders_set_state_done",
    ],
)
def test_an_answer_that_gets_lost_once_changes_nothing_in_the_end(
    house: House, operation: str, name: str, kind: str
) -> None:
    story = STORIES[name]
    order = story.begin(house)
    house.sandbox.faults.add(operation, "lost_answer" if kind == "lost_answer" else "cut")
    house.cycle()
    house.cycle()
    assert house.state(order) == "done"
    assert not house.sandbox.requests.count("*_set_state_erred")
    story.holds(house, order)


@pytest.mark.parametrize("version", ["7.7.9", "8.1.3"])
def test_a_lost_answer_to_erred_is_not_repeated(tmp_path: Path, version: str) -> None:
    with a_house(tmp_path / "lock", version) as house:
        order = house.order(house.project("bad,slug", ada="ada01"))
        house.sandbox.faults.add("marketplace_orders_set_state_erred", "lost_answer")
        house.cycle()
        assert house.state(order) == "erred"
        assert house.sandbox.requests.count("marketplace_orders_set_state_erred") == 1


def test_an_order_that_another_agent_finished_meanwhile_is_never_erred(house: House) -> None:
    order = begin_create(house)
    blade = Guillotine()
    slow = house.with_(runner=lambda inner: _Meanwhile(blade.runner(inner), house.cycle))
    slow.cycle()
    assert house.state(order) == "done"
    assert not house.sandbox.requests.count("*_set_state_erred")
    is_created(house, order)


class _Meanwhile:
    """Lets something else happen before the first writing command."""

    def __init__(self, inner: Runner, happening: Callable[[], object]) -> None:
        self.inner = inner
        self.happening: Callable[[], object] | None = happening

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        happening, self.happening = self.happening, None
        result = self.inner.run(argv, timeout)
        if happening:
            happening()
        return result


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_in_trouble_for_a_while_errs_nothing(house: House, status: int) -> None:
    order = begin_create(house)
    for operation in ("*_approve_by_provider", "*_set_backend_id", "*_set_state_done", "*_list"):
        house.sandbox.faults.add(operation, "status", status=status, times=2)
    for _ in range(4):
        with contextlib.suppress(TemporaryError):
            house.cycle()
    assert house.state(order) == "done"
    assert not house.sandbox.requests.count("*_set_state_erred")
    is_created(house, order)
