"""kill -9 between any two steps of orders, in every shape of the account tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent_sandbox import Order
from waldur_site_agent_slurm.simulator.state import SimAccount

SHAPES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "rooted": ({"root_account": "hpc", "default_account_policy": "individual"}, {"c_uni"}),
    "flat": ({"parent_account": "hpc", "default_account_policy": "none"}, set()),
    "flattest": ({"parent_account": "hpc", "parent_account_holds": "allocations"}, set()),
}


def begin_create(testbed: SimulatedSite) -> Order:
    return testbed.order(testbed.project(ada="ada01", bob="bob01"), "Ocean", cpu=10, mem=2)


def begin_terminate(testbed: SimulatedSite) -> Order:
    resource = testbed.created(testbed.project(ada="ada01", bob="bob01"), "Ocean", cpu=10)
    testbed.slurm.submit_job("ada01", resource.backend_id)
    return testbed.sandbox.customer.place_terminate_order(resource)


def is_created(testbed: SimulatedSite, order: Order, _left: set[str]) -> None:
    assert testbed.members(order) == {"ada01", "bob01"}
    assert testbed.account(order).limits["cpu"] == 600000
    assert testbed.account(order).organization == "p_climate"


def is_terminated(testbed: SimulatedSite, _order: Order, left: set[str]) -> None:
    assert testbed.accounts == {"hpc", *left}
    assert testbed.slurm.state.jobs == {}


STORIES = {"create": (begin_create, is_created), "terminate": (begin_terminate, is_terminated)}


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_agent_killed_at_any_step_is_finished_by_the_next_cycle(
    tmp_path: Path, shape: str, story: str, after_effect: bool
) -> None:
    settings, left = SHAPES[shape]
    begin, holds = STORIES[story]
    with a_simulated_site(tmp_path / "lock") as bare:
        with bare.slurm.change() as state:
            state.accounts["hpc"] = SimAccount("hpc", "hpc", "hpc", "root")
        begun = bare.with_(settings=settings)
        order = begin(begun)
    number, steps = 0, 1
    while number <= steps:
        testbed = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=after_effect)
        agent = testbed.with_(runner=blade.runner, transport=blade.transport)
        if number == 0:
            agent.cycle()
            steps = len(blade.steps)
            assert steps > 8
        else:
            with pytest.raises(KilledError):
                agent.cycle()
            testbed.cycle()
        where = f"killed at step {number}: {blade.steps[-1]}"
        assert testbed.state(order) == "done", where
        assert not testbed.sandbox.requests.count("*_set_state_erred"), where
        holds(testbed, order, left)
        testbed.forget()
        testbed.cycle()
        assert testbed.writing_commands == 0, where
        number += 1
