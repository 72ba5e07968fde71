"""kill -9 between any two steps, and answers that get lost: one more cycle mends everything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Order
from waldur_site_agent_slurm.simulator import Version


@dataclass
class Story:
    """An order to be carried out, and what must be so in the end."""

    begin: Callable[[SimulatedSite], Order]
    holds: Callable[[SimulatedSite, Order], None]


def begin_create(testbed: SimulatedSite) -> Order:
    return testbed.order(testbed.project(ada="ada01", bob="bob01"), "Ocean", cpu=10, mem=2)


def is_created(testbed: SimulatedSite, order: Order) -> None:
    assert testbed.accounts == {"c_uni", "p_climate", testbed.resource(order).backend_id}
    assert testbed.members(order) == {"ada01", "bob01"}
    assert testbed.account(order).limits == {"cpu": 600000, "mem": 122880}
    assert testbed.resource(order).state == "OK"


def sell_node_hours(testbed: SimulatedSite) -> None:
    """A node-hour is an hour of one node, and of its four GPUs."""
    testbed.sandbox.customer.add_component("node_hours", "limit", "node-hours")
    testbed.components["node_hours"] = ComponentSettings.model_validate(
        {
            "measured_unit": "node-hours",
            "accounting_type": "limit",
            "label": "Node-hours",
            "target_components": {"node": {"factor": 60}, "gres/gpu": {"factor": 240}},
        }
    )


def begin_create_of_node_hours(testbed: SimulatedSite) -> Order:
    sell_node_hours(testbed)
    project = testbed.project(ada="ada01", bob="bob01")
    return testbed.order(project, "Ocean", cpu=10, node_hours=2.5)


def has_node_hours(testbed: SimulatedSite, order: Order) -> None:
    assert testbed.members(order) == {"ada01", "bob01"}
    assert testbed.account(order).limits == {"cpu": 600000, "node": 150, "gres/gpu": 600}
    assert testbed.resource(order).state == "OK"


def begin_update_of_node_hours(testbed: SimulatedSite) -> Order:
    sell_node_hours(testbed)
    resource = testbed.created(testbed.project(ada="ada01"), "Ocean", cpu=10, node_hours=1)
    return testbed.sandbox.customer.place_update_order(resource, {"cpu": 10, "node_hours": 3})


def has_more_node_hours(testbed: SimulatedSite, order: Order) -> None:
    assert testbed.account(order).limits == {"cpu": 600000, "node": 180, "gres/gpu": 720}
    assert testbed.resource(order).limits == {"cpu": 10, "node_hours": 3}


def begin_update(testbed: SimulatedSite) -> Order:
    resource = testbed.created(testbed.project(ada="ada01"), "Ocean", cpu=10, mem=2)
    return testbed.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 1})


def is_updated(testbed: SimulatedSite, order: Order) -> None:
    assert testbed.account(order).limits == {"cpu": 1200000, "mem": 61440}
    assert testbed.members(order) == {"ada01"}
    assert testbed.resource(order).state == "OK"
    assert testbed.resource(order).limits == {"cpu": 20, "mem": 1}


def begin_terminate(testbed: SimulatedSite) -> Order:
    resource = testbed.created(testbed.project(ada="ada01"), "Ocean")
    testbed.slurm.submit_job("ada01", resource.backend_id)
    return testbed.sandbox.customer.place_terminate_order(resource)


def is_terminated(testbed: SimulatedSite, order: Order) -> None:
    assert testbed.accounts == {"c_uni"}
    assert testbed.slurm.state.jobs == {}
    assert testbed.resource(order).state == "Terminated"


def begin_soft_terminate(testbed: SimulatedSite) -> Order:
    testbed.settings["soft_delete"] = True
    resource = testbed.created(testbed.project(ada="ada01", bob="bob01"), "Ocean", cpu=10, mem=2)
    testbed.slurm.submit_job("ada01", resource.backend_id)
    return testbed.sandbox.customer.place_terminate_order(resource)


def is_closed(testbed: SimulatedSite, order: Order) -> None:
    assert testbed.accounts == {"c_uni", "p_climate", testbed.resource(order).backend_id}
    assert testbed.members(order) == set()
    assert testbed.account(order).limits == {"cpu": 0, "mem": 0}
    assert testbed.slurm.state.jobs == {}
    assert testbed.resource(order).state == "Terminated"


def begin_restore(testbed: SimulatedSite, *, soft: bool = False) -> Order:
    testbed.settings["soft_delete"] = soft
    resource = testbed.created(testbed.project(ada="ada01", bob="bob01"), "Ocean", cpu=10, mem=2)
    testbed.sandbox.customer.place_terminate_order(resource)
    testbed.cycle()
    return testbed.sandbox.customer.place_restore_order(resource)


def begin_restore_of_a_closed_one(testbed: SimulatedSite) -> Order:
    return begin_restore(testbed, soft=True)


STORIES = {
    "create": Story(begin_create, is_created),
    "update": Story(begin_update, is_updated),
    "create with targets": Story(begin_create_of_node_hours, has_node_hours),
    "update with targets": Story(begin_update_of_node_hours, has_more_node_hours),
    "terminate": Story(begin_terminate, is_terminated),
    "close": Story(begin_soft_terminate, is_closed),
    "restore": Story(begin_restore, is_created),
    "reopen": Story(begin_restore_of_a_closed_one, is_created),
}


def steps_of(testbed: SimulatedSite, story: Story) -> list[str]:
    """The steps of an undisturbed run, of which the test then knows how many there are."""
    story.begin(testbed)
    counting = KillSwitch()
    testbed.with_(runner=counting.runner, transport=counting.transport).cycle()
    return counting.steps


# where the versions answer differently: new members, members who leave, accounts that go
STORIES_BY_SLURM = [
    *(pytest.param(name, "22.05", id=name) for name in STORIES),
    *(pytest.param(name, "24.11", id=f"{name} on 24.11") for name in ("create", "terminate")),
]


@pytest.mark.guarantee("orders: The agent dies")
@pytest.mark.guarantee("Killed at any instruction, the next cycle finishes the work")
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("name", "slurm"), STORIES_BY_SLURM)
def test_an_agent_killed_at_any_step_is_finished_by_the_next_cycle(
    tmp_path: Path, name: str, slurm: Version, after_effect: bool
) -> None:
    story = STORIES[name]
    with a_simulated_site(tmp_path / "count.lock", slurm=slurm) as testbed:
        steps = steps_of(testbed, story)
    assert len(steps) > 8
    with a_simulated_site(tmp_path / "lock", slurm=slurm) as begun:
        order = story.begin(begun)
    for number in range(1, len(steps) + 1):
        testbed = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=after_effect)
        with pytest.raises(KilledError):
            testbed.with_(runner=blade.runner, transport=blade.transport).cycle()
        testbed.cycle()
        where = f"killed at step {number}: {blade.steps[-1]}"
        assert testbed.state(order) == "done", where
        assert not testbed.sandbox.requests.count("*_set_state_erred"), where
        story.holds(testbed, order)


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.guarantee("A verdict that nobody takes back rests on one object read by itself")
@pytest.mark.parametrize("changes", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 4))])
@pytest.mark.parametrize("name", STORIES)
def test_lists_a_moment_old_after_a_kill_at_any_step_fail_nothing(
    tmp_path: Path, name: str, changes: int
) -> None:
    story = STORIES[name]
    with a_simulated_site(tmp_path / "count.lock") as testbed:
        steps = steps_of(testbed, story)
    with a_simulated_site(tmp_path / "lock") as begun:
        order = story.begin(begun)
    for number in range(1, len(steps) + 1):
        testbed = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=True)
        with pytest.raises(KilledError):
            testbed.with_(runner=blade.runner, transport=blade.transport).cycle()
        with testbed.lists_a_moment_old(changes), contextlib.suppress(TemporaryError):
            testbed.cycle()
        testbed.cycle()
        where = f"killed at step {number}: {blade.steps[-1]}"
        assert testbed.state(order) == "done", where
        assert not testbed.sandbox.requests.count("*_set_state_erred"), where
        story.holds(testbed, order)


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.parametrize("name", STORIES)
def test_any_one_list_a_moment_old_changes_nothing_in_the_end(tmp_path: Path, name: str) -> None:
    story = STORIES[name]
    with a_simulated_site(tmp_path / "count.lock") as testbed:
        steps_of(testbed, story)
        lists = testbed.sandbox.requests.count("*_list")
    assert lists >= 2
    with a_simulated_site(tmp_path / "lock") as begun:
        order = story.begin(begun)
    for skipped in range(lists):
        for changes in (1, 3):
            testbed = begun.copy(tmp_path / f"{skipped}.{changes}.lock")
            testbed.sandbox.faults.add("*_list", "stale", skip=skipped, changes_ago=changes)
            with contextlib.suppress(TemporaryError):
                testbed.cycle()
            testbed.cycle()
            assert testbed.state(order) == "done", (skipped, changes)
            assert not testbed.sandbox.requests.count("*_set_state_erred")
            story.holds(testbed, order)


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.guarantee("An order reaches one final state, once")
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
    testbed: SimulatedSite, operation: str, name: str, kind: str
) -> None:
    story = STORIES[name]
    order = story.begin(testbed)
    testbed.sandbox.faults.add(operation, "lost_answer" if kind == "lost_answer" else "cut")
    testbed.cycle()
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert not testbed.sandbox.requests.count("*_set_state_erred")
    story.holds(testbed, order)


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.guarantee("An order reaches one final state, once")
@pytest.mark.parametrize("version", ["7.7.9", "8.1.3"])
def test_a_lost_answer_to_erred_is_not_repeated(tmp_path: Path, version: str) -> None:
    with a_simulated_site(tmp_path / "lock", version) as testbed:
        order = testbed.order(testbed.project("bad,slug", ada="ada01"))
        testbed.sandbox.faults.add("marketplace_orders_set_state_erred", "lost_answer")
        testbed.cycle()
        assert testbed.state(order) == "erred"
        assert testbed.sandbox.requests.count("marketplace_orders_set_state_erred") == 1


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.guarantee("An order reaches one final state, once")
def test_an_order_that_another_agent_finished_meanwhile_is_never_erred(
    testbed: SimulatedSite,
) -> None:
    order = begin_create(testbed)
    blade = KillSwitch()
    slow = testbed.with_(runner=lambda inner: _Meanwhile(blade.runner(inner), testbed.cycle))
    slow.cycle()
    assert testbed.state(order) == "done"
    assert not testbed.sandbox.requests.count("*_set_state_erred")
    is_created(testbed, order)


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


@pytest.mark.guarantee("orders: Waldur misbehaves")
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_in_trouble_for_a_while_errs_nothing(testbed: SimulatedSite, status: int) -> None:
    order = begin_create(testbed)
    for operation in ("*_approve_by_provider", "*_set_backend_id", "*_set_state_done", "*_list"):
        testbed.sandbox.faults.add(operation, "status", status=status, times=2)
    for _ in range(4):
        with contextlib.suppress(TemporaryError):
            testbed.cycle()
    assert testbed.state(order) == "done"
    assert not testbed.sandbox.requests.count("*_set_state_erred")
    is_created(testbed, order)


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_a_create_order_whose_name_no_list_shows_yet_is_finished_not_failed(
    testbed: SimulatedSite,
) -> None:
    order = begin_create(testbed)
    testbed.sandbox.faults.add("*_set_state_done", "status", status=503, times=10)
    testbed.cycle()
    assert testbed.members(order) == {"ada01", "bob01"}
    testbed.sandbox.faults.clear()
    with testbed.lists_a_moment_old():  # before the name was given
        testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.sandbox.requests.count("*_set_state_erred") == 0
    is_created(testbed, order)


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_an_update_that_is_over_is_not_carried_out_again_over_a_newer_one(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.created(testbed.project(ada="ada01"), "Ocean", cpu=10)
    side = testbed.sandbox.customer
    older = side.place_update_order(resource, {"cpu": 20})
    testbed.cycle()
    newer = side.place_update_order(resource, {"cpu": 30})
    testbed.cycle()
    assert [testbed.state(order) for order in (older, newer)] == ["done", "done"]
    testbed.forget()
    for changes in range(1, 10):
        with testbed.lists_a_moment_old(changes):
            testbed.cycle()
    assert testbed.account(newer).limits == {"cpu": 1800000}
    assert testbed.writing_commands == 0


@pytest.mark.guarantee("orders: Waldur misbehaves")
def test_the_name_of_a_terminated_resource_that_a_list_still_shows_fails_no_order(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01")
    old = testbed.created(project, "Ocean")
    side = testbed.sandbox.customer
    termination = side.place_terminate_order(old)
    testbed.cycle()
    assert testbed.state(termination) == "done"
    order = testbed.order(project, "Ice")
    side.edit(testbed.resource(order), slug=old.slug)
    testbed.forget()
    # from before the end of the termination; the new order's approval is the last change
    testbed.sandbox.faults.add("*_resources_list", "stale", times=None, changes_ago=6)
    report = testbed.cycle()
    assert testbed.sandbox.requests.count("*_set_state_erred") == 0
    assert "not confirmed by a second read" in report.results[0].reason
    testbed.sandbox.faults.clear()
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.resource(order).backend_id == old.backend_id


@pytest.mark.parametrize("age", range(6, 16))
def test_an_empty_account_whose_name_no_list_shows_yet_is_not_adopted(
    testbed: SimulatedSite, age: int
) -> None:
    side = testbed.sandbox.customer
    options = {**side.world.offerings[testbed.sandbox.offering.uuid].plugin_options}
    options["account_name_generation_policy"] = "project_slug"
    side.edit(testbed.sandbox.offering, plugin_options=options)
    project = testbed.project()  # nobody is in it, so its accounts have no members
    first = testbed.order(project, "Ocean")
    testbed.cycle()
    second = testbed.order(project, "Lake")
    testbed.sandbox.faults.add("*_resources_list", "stale", times=None, changes_ago=age)
    testbed.cycle()
    assert testbed.resource(second).backend_id in {"", "a_climate-0"}
    testbed.sandbox.faults.clear()
    testbed.cycle()
    assert [testbed.state(order) for order in (first, second)] == ["done", "done"]
    assert testbed.resource(first).backend_id == "a_climate"
    assert testbed.resource(second).backend_id == "a_climate-0"
