"""kill -9 and lost answers while limits of one side follow the other."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from harness import Guillotine, House, KilledError, a_house
from waldur_site_agent.cycles.limits import by_account, decide
from waldur_site_agent.planning.limits import Authority

SOLD, TYPED = {"cpu": 120, "mem": 2}, {"cpu": 12, "mem": 2}


def a_typing_error(house: House) -> str:
    resource = house.settled(house.project(ada="ada01"), cpu=120, mem=2)
    words = ["modify", "account", "where", f"name={resource.backend_id}", "set"]
    house.slurm.run(["sacctmgr", "-i", *words, "GrpTRESMins=cpu=720000"])
    house.forget()
    return resource.backend_id


def end(house: House, account: str) -> tuple[dict[str, int], dict[str, object]]:
    """The limits of both sides."""
    (resource,) = house.sandbox.customer.world.resources.values()
    return dict(house.slurm.state.accounts[account].limits), dict(resource.limits)


EXPECTED = {
    "backend": ({"cpu": 720000, "mem": 122880}, TYPED),
    "waldur": ({"cpu": 7200000, "mem": 122880}, SOLD),
}


@pytest.mark.parametrize("limits", ["backend", "waldur"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_cycle_killed_at_any_step_lets_the_next_one_finish(
    tmp_path: Path, limits: str, after_effect: bool
) -> None:
    number, dead = 0, True
    while dead:
        number += 1
        with a_house(tmp_path / f"{number}.lock") as plain:
            house = replace(plain, limits=limits)
            account = a_typing_error(house)
            blade = Guillotine(at=number, after_effect=after_effect)
            with contextlib.suppress(KilledError):
                house.with_(runner=blade.runner, transport=blade.transport).sync()
            dead = blade.dead
            house.sync()
            where = f"killed at step {number}: {blade.steps[-1]}"
            assert end(house, account) == EXPECTED[limits], where
            house.forget()
            house.sync()
            assert house.writing_commands == 0, where
            assert house.sandbox.requests.writes() == [], where
    assert number > 8


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
def test_a_limit_whose_answer_is_lost_is_told_in_the_end(
    house: House, kind: Literal["lost_answer", "cut"]
) -> None:
    account = a_typing_error(house)
    house.sandbox.faults.add("*_set_limits", kind, times=1)
    house.sync()
    house.sync()
    assert house.sandbox.faults.pending == []
    assert end(house, account) == EXPECTED["backend"]


@pytest.mark.parametrize("authority", ["backend", "waldur"])
def test_a_sale_that_is_newer_than_the_reading_of_the_cluster_is_not_undone(
    house: House, authority: Authority
) -> None:
    a_typing_error(house)
    (resource,) = house.sandbox.customer.world.resources.values()
    with house.agent() as site:
        listed = site.waldur.resources(site.offering.waldur_offering_uuid).items
        state = site.backend.observe()
        house.sandbox.customer.edit(resource, limits={"cpu": 300, "mem": 2})
        (decision,) = decide(site, by_account(listed), state, authority).values()
    assert not decision.changes_something
    assert "Waldur changed meanwhile; the next cycle looks again" in decision.left[0]
