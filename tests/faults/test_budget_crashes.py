"""kill -9 and lost answers at the turn of a period, while jobs run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from harness.budgets import a_budget, at, budget_of, next_quarter, resets, use
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.client import CommandTimedOutError
from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_slurm.simulator.jobs import counted

K_HOUR = 60_000


def a_turn_of_period(testbed: SimulatedSite, limit_type: str = "GrpTRESMins") -> Resource:
    """8 of 10 k-Hours were used; a job runs across the border, and the agent comes late."""
    order = testbed.created(testbed.project(ada="ada01"), cpu=10, mem=2)
    testbed.sandbox.customer.add_periodic_policy(
        grace_ratio=0, tres_billing_enabled=False, limit_type=limit_type
    )
    testbed.sync()
    use(testbed, order, 8 * K_HOUR)
    next_quarter(testbed, after=timedelta(hours=-1))
    begin = testbed.sandbox.clock.now().replace(microsecond=0)
    testbed.slurm.run_job("ada01", order.backend_id, {"cpu": 10}, begin)
    next_quarter(testbed, after=timedelta(hours=2))
    testbed.forget()
    return testbed.sandbox.customer.current(order)


def rest_of_the_budget(testbed: SimulatedSite, resource: Resource) -> int:
    """What the account may still use."""
    slurm: SimulatedSlurm = testbed.slurm
    name = resource.backend_id
    since = slurm.state.accounts[name].counted_since
    return budget_of(testbed, resource)["cpu"] - counted(slurm.state, {name}, since)["cpu"]


HOURS = 60
USED_BEFORE = 8 * K_HOUR + 10 * HOURS  # with an hour of the job that runs
TOTAL = 10 * K_HOUR + (10 * K_HOUR - USED_BEFORE)


def a_moment_later(testbed: SimulatedSite) -> None:
    at(testbed, testbed.sandbox.clock.now().replace(microsecond=0) + timedelta(hours=1))


@pytest.mark.guarantee("budgets: Killed at any step")
@pytest.mark.guarantee("Killed at any instruction, the next cycle finishes the work")
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_turn_of_period_killed_at_any_step_resets_once_and_gives_nothing_away(
    tmp_path: Path, after_effect: bool
) -> None:
    with a_simulated_site(tmp_path / "lock") as plain:
        begun = a_budget(plain)
        resource = a_turn_of_period(begun)
    number, dead = 0, True
    while dead:
        number += 1
        testbed = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=after_effect)
        with contextlib.suppress(KilledError):
            testbed.with_(runner=blade.runner, transport=blade.transport).sync()
        dead = blade.dead
        a_moment_later(testbed)  # an hour later, the job still runs
        testbed.sync()
        where = f"killed at step {number}: {blade.steps[-1]}"
        used = 10 * 3 * HOURS  # of the new period
        assert len(resets(testbed)) == 1, where
        assert abs(rest_of_the_budget(testbed, resource) - (TOTAL - used)) <= 1, where
        testbed.forget()
        testbed.sync()
        assert testbed.writing_commands == 0, where
        assert testbed.sandbox.requests.writes() == [], where
    assert number > 15


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
@pytest.mark.parametrize("call", ["*_set_backend_metadata", "*_component_usages_list"])
def test_a_lost_answer_at_the_turn_of_a_period_changes_nothing_in_the_end(
    testbed: SimulatedSite, kind: Literal["lost_answer", "cut"], call: str
) -> None:
    testbed = a_budget(testbed)
    resource = a_turn_of_period(testbed)
    testbed.sandbox.faults.add(call, kind, times=2)
    testbed.sync()
    testbed.sandbox.faults.clear()
    testbed.sync()
    assert len(resets(testbed)) == 1
    assert abs(rest_of_the_budget(testbed, resource) - (TOTAL - 10 * 2 * HOURS)) <= 1


def test_a_reset_that_hangs_is_not_repeated_if_it_took_effect(testbed: SimulatedSite) -> None:
    testbed = a_budget(testbed)
    resource = a_turn_of_period(testbed)
    testbed.with_(runner=_HangsAfterReset).sync()
    assert len(resets(testbed)) == 1
    assert budget_of(testbed, resource)["cpu"] == 15 * K_HOUR
    testbed.sync()
    assert len(resets(testbed)) == 1
    assert abs(rest_of_the_budget(testbed, resource) - (TOTAL - 10 * 2 * HOURS)) <= 1


class _HangsAfterReset:
    """Commands that reset usage take effect and then never answer."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        result = self._inner.run(argv, timeout)
        if "RawUsage=0" in argv:
            raise CommandTimedOutError(f"{argv[0]} did not answer in time")
        return result


def test_a_policy_list_that_was_short_for_a_moment_ends_no_budget(testbed: SimulatedSite) -> None:
    testbed = a_budget(testbed)
    resource = a_turn_of_period(testbed)
    testbed.sandbox.faults.add("*_periodic_usage_policies_list", "short_page", times=1)
    testbed.sync()
    assert "budget" in testbed.sandbox.customer.current(resource).backend_metadata
    assert budget_of(testbed, resource)["cpu"] >= 10 * K_HOUR
