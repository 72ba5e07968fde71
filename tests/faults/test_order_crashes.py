"""kill -9 between any two steps, and answers that get lost: one more cycle mends everything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import Guillotine, House, KilledError, a_house
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Order


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


@pytest.mark.parametrize("changes", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 4))])
@pytest.mark.parametrize("name", STORIES)
def test_lists_a_moment_old_after_a_kill_at_any_step_fail_nothing(
    tmp_path: Path, name: str, changes: int
) -> None:
    story = STORIES[name]
    with a_house(tmp_path / "count.lock") as house:
        steps = steps_of(house, story)
    for number in range(1, len(steps) + 1):
        with a_house(tmp_path / f"{number}.lock") as house:
            order = story.begin(house)
            blade = Guillotine(at=number, after_effect=True)
            with pytest.raises(KilledError):
                house.with_(runner=blade.runner, transport=blade.transport).cycle()
            with house.lists_a_moment_old(changes), contextlib.suppress(TemporaryError):
                house.cycle()
            house.cycle()
            where = f"killed at step {number}: {blade.steps[-1]}"
            assert house.state(order) == "done", where
            assert not house.sandbox.requests.count("*_set_state_erred"), where
            story.holds(house, order)


@pytest.mark.parametrize("name", STORIES)
def test_any_one_list_a_moment_old_changes_nothing_in_the_end(tmp_path: Path, name: str) -> None:
    story = STORIES[name]
    with a_house(tmp_path / "count.lock") as house:
        steps_of(house, story)
        lists = house.sandbox.requests.count("*_list")
    assert lists >= 2
    for skipped in range(lists):
        for changes in (1, 3):
            with a_house(tmp_path / f"{skipped}.{changes}.lock") as house:
                order = story.begin(house)
                house.sandbox.requests.clear()
                house.sandbox.faults.add("*_list", "stale", skip=skipped, changes_ago=changes)
                with contextlib.suppress(TemporaryError):
                    house.cycle()
                house.cycle()
                assert house.state(order) == "done", (skipped, changes)
                assert not house.sandbox.requests.count("*_set_state_erred")
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


def test_a_create_order_whose_name_no_list_shows_yet_is_finished_not_failed(house: House) -> None:
    order = begin_create(house)
    house.sandbox.faults.add("*_set_state_done", "status", status=503, times=10)
    house.cycle()
    assert house.members(order) == {"ada01", "bob01"}
    house.sandbox.faults.clear()
    with house.lists_a_moment_old():  # before the name was given
        house.cycle()
    assert house.state(order) == "done"
    assert house.sandbox.requests.count("*_set_state_erred") == 0
    is_created(house, order)


def test_an_update_that_is_over_is_not_carried_out_again_over_a_newer_one(house: House) -> None:
    resource = house.created(house.project(ada="ada01"), "Ocean", cpu=10)
    side = house.sandbox.customer
    older = side.place_update_order(resource, {"cpu": 20})
    house.cycle()
    newer = side.place_update_order(resource, {"cpu": 30})
    house.cycle()
    assert [house.state(order) for order in (older, newer)] == ["done", "done"]
    house.forget()
    for changes in range(1, 10):
        with house.lists_a_moment_old(changes):
            house.cycle()
    assert house.account(newer).limits == {"cpu": 1800000}
    assert house.writing_commands == 0


def test_the_name_of_a_terminated_resource_that_a_list_still_shows_fails_no_order(
    house: House,
) -> None:
    project = house.project(ada="ada01")
    old = house.created(project, "Ocean")
    side = house.sandbox.customer
    termination = side.place_terminate_order(old)
    house.cycle()
    assert house.state(termination) == "done"
    order = house.order(project, "Ice")
    side.edit(house.resource(order), slug=old.slug)
    house.forget()
    # from before the end of the termination; the new order's approval is the last change
    house.sandbox.faults.add("*_resources_list", "stale", times=None, changes_ago=6)
    report = house.cycle()
    assert house.sandbox.requests.count("*_set_state_erred") == 0
    assert "looked at a second time" in report.fates[0].reason
    house.sandbox.faults.clear()
    house.cycle()
    assert house.state(order) == "done"
    assert house.resource(order).backend_id == old.backend_id


@pytest.mark.parametrize("age", range(6, 16))
def test_an_empty_account_whose_name_no_list_shows_yet_is_not_adopted(
    house: House, age: int
) -> None:
    side = house.sandbox.customer
    options = {**side.world.offerings[house.sandbox.offering.uuid].plugin_options}
    options["account_name_generation_policy"] = "project_slug"
    side.edit(house.sandbox.offering, plugin_options=options)
    project = house.project()  # nobody is in it, so its accounts have no members
    first = house.order(project, "Ocean")
    house.cycle()
    second = house.order(project, "Lake")
    house.sandbox.faults.add("*_resources_list", "stale", times=None, changes_ago=age)
    house.cycle()
    assert house.resource(second).backend_id in {"", "a_climate-0"}
    house.sandbox.faults.clear()
    house.cycle()
    assert [house.state(order) for order in (first, second)] == ["done", "done"]
    assert house.resource(first).backend_id == "a_climate"
    assert house.resource(second).backend_id == "a_climate-0"
