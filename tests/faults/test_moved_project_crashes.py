"""kill -9 between any two steps of a move, a mind that changes in between, and lost answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent.backends.processes import CommandResult, CommandTimedOutError, Runner
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator import Version

MEMBERS = {"ada01", "bob01"}
VERSIONS = pytest.mark.parametrize("version", ["22.05", "24.11"])


def begin(testbed: SimulatedSite) -> list[Resource]:
    """Two resources of a project that has just moved from uni to lab."""
    project = testbed.project(ada="ada01", bob="bob01")
    resources = [testbed.settled(project, name, cpu=10) for name in ("one", "two")]
    testbed.sandbox.customer.add_customer("Laboratory", "lab")
    testbed.sandbox.customer.move_project(project, "lab")
    testbed.forget()
    return resources


def check(testbed: SimulatedSite, resources: list[Resource], parent: str, where: str) -> None:
    accounts = testbed.slurm.state.accounts
    assert accounts["p_climate"].parent == parent, where
    for resource in resources:
        account = accounts[resource.backend_id]
        assert account.parent == "p_climate", where
        assert set(account.members) == MEMBERS, where
        assert not any(member.lost_lineage for member in account.members.values()), where
        assert account.limits["cpu"] == 600000, where
    testbed.forget()
    testbed.sync()
    assert testbed.writing_commands == 0, where


@pytest.mark.guarantee("moves: If the agent is killed")
@pytest.mark.parametrize("back", [False, True], ids=["stays moved", "moves back meanwhile"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@VERSIONS
def test_a_move_that_was_killed_at_any_step_is_finished_by_the_next_cycle(
    tmp_path: Path, version: Version, after_effect: bool, back: bool
) -> None:
    with a_simulated_site(tmp_path / "lock", slurm=version) as begun:
        resources = begin(begun)
    number, steps = 0, 1
    while number <= steps:
        testbed = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=after_effect)
        agent = testbed.with_(runner=blade.runner, transport=blade.transport)
        if number == 0:
            agent.sync()
            steps = len(blade.steps)
        else:
            with pytest.raises(KilledError):
                agent.sync()
            if back:
                testbed.sandbox.customer.move_project("climate", "uni")
            report = testbed.sync()
            assert not report.failed, report.failures
        where = f"killed at step {number}: {blade.steps[-1]}"
        parent = "c_uni" if back and number else "c_lab"
        check(testbed, resources, parent, where)
        number += 1


@pytest.mark.guarantee("moves: If the agent is killed")
@VERSIONS
def test_orders_wait_while_a_move_is_half_done(tmp_path: Path, version: Version) -> None:
    with a_simulated_site(tmp_path / "lock", slurm=version) as begun:
        resources = begin(begun)
    number, killed = 1, True
    while killed:
        testbed = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=True)
        try:
            testbed.with_(runner=blade.runner, transport=blade.transport).sync()
            killed = False
        except KilledError:
            pass
        where = f"killed at step {number}: {blade.steps[-1]}"
        side = testbed.sandbox.customer
        orders = [
            side.place_terminate_order(resources[0]),
            side.place_update_order(resources[1], {"cpu": 5}),
            testbed.order("climate", "three", cpu=1),
        ]
        testbed.cycle()
        assert not {testbed.state(order) for order in orders} & {"erred"}, where
        testbed.sync()
        testbed.cycle()
        assert [testbed.state(order) for order in orders] == ["done"] * 3, where
        testbed.sync()
        accounts = testbed.slurm.state.accounts
        assert accounts["p_climate"].parent == "c_lab", where
        left = (resources[1].backend_id, testbed.resource(orders[2]).backend_id)
        assert [accounts[name].parent for name in left] == ["p_climate"] * 2, where
        assert all(set(accounts[name].members) == MEMBERS for name in left), where
        number += 1
    assert number > 5


class Lossy(Runner):
    """Runs every command; the answer to one of those that move is lost."""

    def __init__(self, inner: Runner, number: int) -> None:
        self._inner = inner
        self._number = number
        self.lost = False

    def run(self, argv: object, timeout: float) -> CommandResult:
        result = self._inner.run(argv, timeout)  # type: ignore[arg-type]  # passed on as it came
        if any(str(word).startswith("parent=") for word in result.argv):
            self._number -= 1
            if self._number == 0:
                self.lost = True
                raise CommandTimedOutError("no answer")
        return result


@pytest.mark.guarantee("moves: If the agent is killed")
@VERSIONS
def test_a_lost_answer_is_read_back(tmp_path: Path, version: Version) -> None:
    for number in (1, 2, 3, 4):
        with a_simulated_site(tmp_path / f"{number}.lock", slurm=version) as testbed:
            resources = begin(testbed)
            runners: list[Lossy] = []

            def lossy(inner: Runner, number: int = number, made: list[Lossy] = runners) -> Runner:
                made.append(Lossy(inner, number))
                return made[-1]

            assert testbed.with_(runner=lossy).sync().failed
            assert runners[0].lost
            assert not testbed.sync().failed
            check(testbed, resources, "c_lab", f"the answer to command {number} was lost")
