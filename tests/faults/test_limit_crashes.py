"""kill -9 and lost answers while limits of one side follow the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.cycles.limits import by_account, decide
from waldur_site_agent.planning.limits import Authority

SOLD, TYPED = {"cpu": 120, "mem": 2}, {"cpu": 12, "mem": 2}


def a_typing_error(testbed: SimulatedSite) -> str:
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=120, mem=2)
    words = ["modify", "account", "where", f"name={resource.backend_id}", "set"]
    testbed.slurm.run(["sacctmgr", "-i", *words, "GrpTRESMins=cpu=720000"])
    testbed.forget()
    return resource.backend_id


NODE_HOURS: dict[str, float] = {"cpu": 1, "mem": 2, "node_hours": 10}


def a_typing_error_of_both_targets(testbed: SimulatedSite) -> str:
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
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", **NODE_HOURS)
    words = ["modify", "account", "where", f"name={resource.backend_id}", "set"]
    testbed.slurm.run(["sacctmgr", "-i", *words, "GrpTRESMins=node=60,gres/gpu=240"])
    testbed.forget()
    return resource.backend_id


def end(testbed: SimulatedSite, account: str) -> tuple[dict[str, int], dict[str, object]]:
    """The limits of both sides."""
    (resource,) = testbed.sandbox.customer.world.resources.values()
    return dict(testbed.slurm.state.accounts[account].limits), dict(resource.limits)


EXPECTED = {
    "backend": ({"cpu": 720000, "mem": 122880}, TYPED),
    "waldur": ({"cpu": 7200000, "mem": 122880}, SOLD),
}
OTHERS = {"cpu": 60000, "mem": 122880}
EXPECTED_OF_BOTH = {
    "backend": ({**OTHERS, "node": 60, "gres/gpu": 240}, {**NODE_HOURS, "node_hours": 1}),
    "waldur": ({**OTHERS, "node": 600, "gres/gpu": 2400}, NODE_HOURS),
}
STORIES: dict[str, tuple[Callable[[SimulatedSite], str], dict[str, tuple[Any, Any]]]] = {
    "one component": (a_typing_error, EXPECTED),
    "two targets": (a_typing_error_of_both_targets, EXPECTED_OF_BOTH),
}


@pytest.mark.guarantee("Killed at any instruction, the next cycle finishes the work")
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("limits", ["backend", "waldur"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_cycle_killed_at_any_step_lets_the_next_one_finish(
    tmp_path: Path, limits: str, after_effect: bool, story: str
) -> None:
    begin, expected = STORIES[story]
    with a_simulated_site(tmp_path / "lock") as plain:
        begun = replace(plain, limits=limits)
        account = begin(begun)
    number, dead = 0, True
    while dead:
        number += 1
        testbed = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=after_effect)
        with contextlib.suppress(KilledError):
            testbed.with_(runner=blade.runner, transport=blade.transport).sync()
        dead = blade.dead
        testbed.sync()
        where = f"killed at step {number}: {blade.steps[-1]}"
        assert end(testbed, account) == expected[limits], where
        testbed.forget()
        testbed.sync()
        assert testbed.writing_commands == 0, where
        assert testbed.sandbox.requests.writes() == [], where
    assert number > 8


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
def test_a_limit_whose_answer_is_lost_is_told_in_the_end(
    testbed: SimulatedSite, kind: Literal["lost_answer", "cut"], story: str
) -> None:
    begin, expected = STORIES[story]
    account = begin(testbed)
    testbed.sandbox.faults.add("*_set_limits", kind, times=1)
    testbed.sync()
    testbed.sync()
    assert testbed.sandbox.faults.pending == []
    assert end(testbed, account) == expected["backend"]


@pytest.mark.parametrize("authority", ["backend", "waldur"])
def test_a_sale_that_is_newer_than_the_reading_of_the_cluster_is_not_undone(
    testbed: SimulatedSite, authority: Authority
) -> None:
    a_typing_error(testbed)
    (resource,) = testbed.sandbox.customer.world.resources.values()
    with testbed.agent() as site:
        listed = site.waldur.resources(site.offering.waldur_offering_uuid).items
        state = site.backend.observe()
        testbed.sandbox.customer.edit(resource, limits={"cpu": 300, "mem": 2})
        (decision,) = decide(site, by_account(listed), state, authority).values()
    assert not decision.changes_something
    assert "Waldur has changed in the meantime; checked again in the next cycle" in decision.left[0]
