"""What the simulation expects in the end, in cases that few seeds come to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from simulation.invariants import ViolationError, check_end
from simulation.world import World
from waldur_site_agent_slurm.simulator.state import SimAccount

NAME = "a_run"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A terminated resource is to be restored in a project that has ended."""
    world = next(w for w in (World(seed, tmp_path) for seed in range(50)) if not w.soft_delete)
    side = world.sandbox.customer
    created = side.place_create_order(world.projects[0], "run", {"cpu": 1})
    side.edit(created, state="done")
    resource = side.edit(side.resource_of(created), state="Terminated", backend_id=NAME)
    side.place_restore_order(resource)
    side.edit(world.projects[0], end_date=(world.time.now() - timedelta(days=1)).date())
    return world


def test_what_waits_for_its_project_has_no_account(world: World) -> None:
    check_end(world)


def test_what_waits_for_its_project_must_not_have_an_account(world: World) -> None:
    with world.slurm.change() as state:
        state.accounts[NAME] = SimAccount(NAME, "Run", "uni", "root")
    with pytest.raises(ViolationError, match="only when its project goes on"):
        check_end(world)


def test_an_order_in_a_project_that_goes_on_must_not_stay_open(world: World) -> None:
    world.sandbox.customer.edit(world.projects[0], end_date=None)
    with pytest.raises(ViolationError, match=r"the Restore order of .* is open"):
        check_end(world)
