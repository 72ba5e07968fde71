"""kill -9 and lost answers while prepaid resources are made, renewed and extended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent_sandbox import Resource

GPU = "gres/gpu"
BEGUN, ENDS, LATER = date(2027, 1, 15), date(2027, 7, 15), date(2028, 1, 15)
LIMITS: dict[str, Any] = {"cpu": 1, GPU: 10}


def a_site(plain: SimulatedSite) -> SimulatedSite:
    plain.sandbox.customer.add_component(GPU, "one", "GPU-hours", is_prepaid=True)
    settings = {"measured_unit": "GPU-hours", "unit_factor": 60, "accounting_type": "one"}
    plain.components[GPU] = ComponentSettings.model_validate({**settings, "label": "GPU"})
    return plain


def dated(site: SimulatedSite, end: date) -> Resource:
    """The resource, as if it had been ordered on a certain day."""
    (resource,) = site.sandbox.customer.world.resources.values()
    created = resource.created.replace(year=BEGUN.year, month=BEGUN.month, day=BEGUN.day)
    return site.sandbox.customer.edit(resource, created=created, end_date=end)


def ordered(site: SimulatedSite) -> None:
    today = site.sandbox.clock.now().date()
    project = site.project(ada="ada01")
    site.sandbox.customer.place_create_order(project, "run", LIMITS, end_date=today)
    dated(site, ENDS)


def bought(site: SimulatedSite) -> Resource:
    ordered(site)
    site.cycle()
    site.sync()
    (resource,) = site.sandbox.customer.world.resources.values()
    return resource


def renewed(site: SimulatedSite) -> None:
    site.sandbox.customer.place_renewal_order(bought(site), 6, {"cpu": 2, GPU: 20})


def renewed_without_end_date(site: SimulatedSite) -> None:
    resource = bought(site)
    site.sandbox.customer.place_renewal_order(resource, 6, {"cpu": 2, GPU: 20}, "never")


def extended(site: SimulatedSite) -> None:
    site.sandbox.customer.edit(bought(site), end_date=LATER)


def works(site: SimulatedSite) -> None:
    site.cycle()
    site.sync()


STORIES: dict[str, tuple[Callable[[SimulatedSite], None], dict[str, int]]] = {
    "ordered": (ordered, {"cpu": 60000, GPU: 10 * 6 * 60}),
    "renewed": (renewed, {"cpu": 120000, GPU: 20 * 12 * 60}),
    "renewed, no end date": (renewed_without_end_date, {"cpu": 120000, GPU: 20 * 12 * 60}),
    "extended": (extended, {"cpu": 60000, GPU: 10 * 12 * 60}),
}


def limits_of(site: SimulatedSite) -> dict[str, int]:
    (resource,) = site.sandbox.customer.world.resources.values()
    return dict(site.slurm.state.accounts[resource.backend_id].limits)


@pytest.mark.guarantee("Killed at any instruction, the next cycle finishes the work")
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_killed_at_any_step_the_next_pass_sets_the_limit_of_all_months(
    tmp_path: Path, after_effect: bool, story: str
) -> None:
    begin, expected = STORIES[story]
    with a_simulated_site(tmp_path / "lock") as plain:
        begun = a_site(replace(plain, components={}))
        begin(begun)
    number, dead = 0, True
    while dead:
        number += 1
        site = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=after_effect)
        with contextlib.suppress(KilledError):
            works(site.with_(runner=blade.runner, transport=blade.transport))
        dead = blade.dead
        works(site)
        where = f"killed at step {number}: {blade.steps[-1]}"
        assert limits_of(site) == expected, where
        site.forget()
        works(site)
        assert site.writing_commands == 0, where
        assert site.sandbox.requests.writes() == [], where
        assert {o.state for o in site.sandbox.customer.world.orders.values()} == {"done"}
    assert number > 10


@pytest.mark.parametrize("story", ["renewed", "renewed, no end date"])
@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
@pytest.mark.parametrize("call", ["*_set_state_done", "*_set_backend_metadata", "*_retrieve"])
def test_an_answer_that_is_lost_changes_nothing_in_the_end(
    testbed: SimulatedSite, kind: Literal["lost_answer", "cut"], story: str, call: str
) -> None:
    begin, expected = STORIES[story]
    site = a_site(testbed)
    begin(site)
    site.sandbox.faults.add(call, kind, times=1)
    for _ in range(3):
        works(site)
    assert limits_of(site) == expected
