"""kill -9 between any two steps of a membership cycle, and answers that get lost."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator import Version

STAYING = {"ada01", "eve01"}


@dataclass
class SlurmSite:
    """A house in which many things happen at once."""

    testbed: SimulatedSite
    ocean: Resource
    """Somebody joins, somebody leaves with a job, somebody is deleted, somebody is limited."""
    ice: Resource
    """Is paused, with a QOS list that the site has set."""

    def copy(self, lock_file: Path) -> SlurmSite:
        return replace(self, testbed=self.testbed.copy(lock_file))

    def qos(self) -> list[str]:
        return sorted(self.testbed.slurm.state.accounts[self.ice.backend_id].qos)

    def end(self) -> dict[str, Any]:
        """Everything that an undisturbed cycle decides about."""
        world, state = self.testbed.sandbox.customer.world, self.testbed.slurm.state
        return {
            "accounts": state.accounts,
            "default accounts": state.users,
            "jobs": {(job.user, job.account) for job in state.jobs.values()},
            "resources": sorted(
                (r.name, r.state, sorted(r.backend_metadata.items()), sorted(r.limits.items()))
                for r in world.resources.values()
            ),
            "people": sorted((u.username, u.state) for u in world.offering_users.values()),
        }

    def removed(self) -> set[str]:
        """Everybody who was ever named by a command that removes users."""
        removals = [c for c in self.testbed.slurm.history if c[:4] == _REMOVE]
        names = [word for c in removals for word in c if word.startswith("name=")]
        return {name for word in names for name in word.removeprefix("name=").split(",")}


_REMOVE = ("sacctmgr", "-i", "remove", "user")


def a_simulated_cluster(testbed: SimulatedSite) -> SlurmSite:
    """All that a cycle then finds is new."""
    side = testbed.sandbox.customer
    ocean_people = testbed.project("ocean", ada="ada01", bob="bob01", dan="dan01", eve="eve01")
    ocean = testbed.created(ocean_people, "Ocean", cpu=10)
    ice = testbed.created(testbed.project("ice", ada="ada01", dan="dan01"), "Ice", cpu=10)
    with testbed.slurm.change() as state:
        state.qos.append("long")
        state.accounts[ice.backend_id].qos = ["normal", "long"]
        state.accounts[ice.backend_id].default_qos = "long"
    testbed.sync()
    for name in ("ada01", "bob01", "dan01"):
        testbed.slurm.submit_job(name, ocean.backend_id)
    side.remove_member(ocean_people, "bob")
    side.add_member(ocean_people, testbed.person("cyd", "cyd01"))
    side.request_deletion("dan")
    side.set_user_limit(ocean, "eve", "cpu", 2)
    side.set_flags(ice, paused=True)
    testbed.forget()
    return SlurmSite(testbed, ocean, ice)


def undisturbed(testbed: SimulatedSite) -> tuple[SlurmSite, list[str]]:
    """The site after a cycle, and its steps."""
    slurm_site, counting = a_simulated_cluster(testbed), KillSwitch()
    report = testbed.with_(runner=counting.runner, transport=counting.transport).sync()
    assert not report.failed, report.failures
    return slurm_site, counting.steps


def is_restored(slurm_site: SlurmSite) -> None:
    """Lift the pause: the site's list comes back, and nothing is remembered any more."""
    side = slurm_site.testbed.sandbox.customer
    side.set_flags(slurm_site.ice, paused=False)
    slurm_site.testbed.sync()
    assert slurm_site.qos() == ["long", "normal"]
    assert slurm_site.testbed.slurm.state.accounts[slurm_site.ice.backend_id].default_qos == "long"
    metadata = side.current(slurm_site.ice).backend_metadata
    assert not [key for key in metadata if key.endswith("_before")]


@pytest.mark.guarantee("Nobody has access that Waldur does not grant, after one quiet cycle")
def test_an_undisturbed_cycle_does_it_all(testbed: SimulatedSite) -> None:
    slurm_site, _ = undisturbed(testbed)
    assert testbed.members_of(slurm_site.ocean) == {*STAYING, "cyd01"}
    assert testbed.members_of(slurm_site.ice) == {"ada01"}
    assert slurm_site.qos() == ["paused"]
    account = testbed.slurm.state.accounts[slurm_site.ocean.backend_id]
    assert account.members["eve01"].limits == {"cpu": 120000}
    assert slurm_site.end()["jobs"] == {("ada01", slurm_site.ocean.backend_id)}
    assert ("dan01", "Deleted") in slurm_site.end()["people"]
    is_restored(slurm_site)


@pytest.mark.guarantee("A verdict that nobody takes back rests on one object read by itself")
@pytest.mark.parametrize("age", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 4))])
def test_lists_a_moment_old_after_a_kill_at_any_step_cost_nobody_anything(
    tmp_path: Path, age: int
) -> None:
    with a_simulated_site(tmp_path / "count.lock") as testbed:
        slurm_site, steps = undisturbed(testbed)
        expected = slurm_site.end()
    with a_simulated_site(tmp_path / "lock") as testbed:
        begun = a_simulated_cluster(testbed)
    for number in range(1, len(steps) + 1):
        slurm_site = begun.copy(tmp_path / f"{number}.lock")
        testbed, blade = slurm_site.testbed, KillSwitch(at=number, after_effect=True)
        with pytest.raises(KilledError):
            testbed.with_(runner=blade.runner, transport=blade.transport).sync()
        with testbed.lists_a_moment_old(age), contextlib.suppress(TemporaryError):
            testbed.sync()
        testbed.sync()
        where = f"killed at step {number}: {blade.steps[number - 1]}"
        assert slurm_site.end() == expected, where
        assert not STAYING & slurm_site.removed(), where
        is_restored(slurm_site)


@pytest.mark.guarantee("membership: Who is removed, and who never")
def test_a_pause_whose_notes_no_list_shows_yet_keeps_them(testbed: SimulatedSite) -> None:
    slurm_site = a_simulated_cluster(testbed)
    testbed.sync()
    for age in range(1, 9):
        with testbed.lists_a_moment_old(age):
            testbed.sync()
    is_restored(slurm_site)


@pytest.mark.guarantee("membership: Who is removed, and who never")
def test_a_limit_whose_note_no_list_shows_yet_can_still_be_withdrawn(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project("ocean", ada="ada01"), "Ocean")
    side = testbed.sandbox.customer
    side.set_user_limit(resource, "ada", "cpu", 2)
    testbed.sync()
    side.clear_user_limit(resource, "ada", "cpu")
    with testbed.slurm.change() as state:  # something to be told of the resource
        state.accounts[resource.backend_id].qos = ["normal"]
        state.accounts[resource.backend_id].default_qos = "normal"
    testbed.sandbox.faults.add("*_resources_list", "stale", times=1, changes_ago=3)
    testbed.sync()
    testbed.sync()
    assert testbed.slurm.state.accounts[resource.backend_id].members["ada01"].limits == {}
    assert "limited_members" not in side.current(resource).backend_metadata


@pytest.mark.guarantee("membership: Who is removed, and who never")
@pytest.mark.guarantee("Nobody loses access because a read failed")
def test_a_role_that_no_list_shows_yet_costs_nobody_the_account_or_a_job(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project("ocean", ada="ada01")
    resource = testbed.settled(project, "Ocean")
    testbed.sandbox.customer.add_member(project, testbed.person("cyd", "cyd01"))
    testbed.sync()
    job = testbed.slurm.submit_job("cyd01", resource.backend_id)
    testbed.sandbox.faults.add("*_project_permissions_list", "stale", times=None, changes_ago=1)
    assert not testbed.sync().failed
    assert testbed.members_of(resource) == {"ada01", "cyd01"}
    assert job in testbed.slurm.state.jobs


@pytest.mark.parametrize("kind", ["project_service", "course"])
def test_an_account_of_a_project_that_no_list_shows_yet_is_no_unknown_user(
    testbed: SimulatedSite, kind: str
) -> None:
    testbed = testbed.with_(remove_unknown_users=True)
    project = testbed.project("ocean", ada="ada01")
    resource = testbed.settled(project, "Ocean")
    side = testbed.sandbox.customer
    add = side.add_course_account if kind == "course" else side.add_service_account
    add(project, "new01")
    testbed.sync()
    testbed.sandbox.faults.add(f"*_{kind}_accounts_list", "stale", times=1, changes_ago=1)
    assert not testbed.sync().failed
    assert testbed.members_of(resource) == {"ada01", "new01"}


def test_a_member_whose_name_no_list_shows_yet_is_no_unknown_user(testbed: SimulatedSite) -> None:
    testbed = testbed.with_(remove_unknown_users=True)
    project = testbed.project("ocean", ada="ada01")
    resource = testbed.settled(project, "Ocean")
    testbed.sandbox.customer.add_member(project, testbed.person("cyd", "cyd01"))
    testbed.sync()
    testbed.sandbox.faults.add("*_offering_users_list", "stale", times=None, changes_ago=2)
    assert not testbed.sync().failed
    assert testbed.members_of(resource) == {"ada01", "cyd01"}
    testbed.sandbox.faults.clear()
    testbed.sandbox.customer.remove_member(project, "cyd")
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01"}


@pytest.mark.guarantee("membership: Who is removed, and who never")
def test_nobody_is_marked_deleted_while_in_an_account_that_no_list_shows_yet(
    testbed: SimulatedSite,
) -> None:
    side = testbed.sandbox.customer
    ocean = testbed.settled(testbed.project("ocean", ada="ada01", dan="dan01"), "Ocean")
    ice = testbed.created(testbed.project("ice", ada="ada01", dan="dan01"), "Ice")
    side.request_deletion("dan")
    testbed.sandbox.faults.add("*_resources_list", "stale", times=None, changes_ago=8)
    report = testbed.sync()
    assert "dan01" not in testbed.members_of(ocean)
    assert "dan01" in testbed.members_of(ice)
    states = {u.username: u.state for u in side.world.offering_users.values()}
    assert states["dan01"] == "Deleting"
    assert f"dan01: not marked deleted: is in account {ice.backend_id}" in str(report.failures)
    testbed.sandbox.faults.clear()
    assert not testbed.sync().failed
    assert "dan01" not in testbed.members_of(ice)
    states = {u.username: u.state for u in side.world.offering_users.values()}
    assert states["dan01"] == "Deleted"


@pytest.mark.parametrize("slurm", ["22.05", "24.11"])
@pytest.mark.guarantee("Killed at any instruction, the next cycle finishes the work")
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_cycle_killed_at_any_step_is_finished_by_the_next(
    tmp_path: Path, after_effect: bool, slurm: Version
) -> None:
    with a_simulated_site(tmp_path / "count.lock", slurm=slurm) as testbed:
        slurm_site, steps = undisturbed(testbed)
        expected = slurm_site.end()
    assert len(steps) > 20
    with a_simulated_site(tmp_path / "lock", slurm=slurm) as testbed:
        begun = a_simulated_cluster(testbed)
    for number in range(1, len(steps) + 1):
        slurm_site = begun.copy(tmp_path / f"{number}.lock")
        testbed, blade = slurm_site.testbed, KillSwitch(at=number, after_effect=after_effect)
        with pytest.raises(KilledError):
            testbed.with_(runner=blade.runner, transport=blade.transport).sync()
        testbed.sync()
        where = f"killed at step {number}: {blade.steps[number - 1]}"
        assert slurm_site.end() == expected, where
        assert not STAYING & slurm_site.removed(), where
        is_restored(slurm_site)


@pytest.mark.parametrize("slurm", ["22.05", "24.11"])
@pytest.mark.parametrize("flags", [{"paused": False}, {"paused": False, "downscaled": True}])
def test_a_restoring_or_switching_cycle_killed_at_any_step_loses_no_list(
    tmp_path: Path, flags: dict[str, bool], slurm: Version
) -> None:
    with a_simulated_site(tmp_path / "lock", slurm=slurm) as testbed:
        begun = a_simulated_cluster(testbed)
        testbed.sync()
        testbed.sandbox.customer.set_flags(begun.ice, **flags)

    def agent_killed_at(step: int) -> tuple[SlurmSite, KillSwitch]:
        slurm_site, blade = begun.copy(tmp_path / f"{step}.lock"), KillSwitch(at=step)
        with contextlib.suppress(KilledError):
            slurm_site.testbed.with_(runner=blade.runner, transport=blade.transport).sync()
        return slurm_site, blade

    slurm_site, counting = agent_killed_at(0)
    expected = slurm_site.end()
    assert slurm_site.qos() == (["limited"] if "downscaled" in flags else ["long", "normal"])
    for number in range(1, len(counting.steps) + 1):
        slurm_site, blade = agent_killed_at(number)
        assert blade.dead
        slurm_site.testbed.sync()
        assert slurm_site.end() == expected, f"killed at step {number}: {blade.steps[-1]}"
        slurm_site.testbed.sandbox.customer.set_flags(slurm_site.ice, downscaled=False)
        is_restored(slurm_site)


def test_a_limit_of_a_killed_agent_that_waldur_then_withdraws_is_cleared(tmp_path: Path) -> None:
    def end_after_kill_at(step: int) -> tuple[dict[str, int], KillSwitch]:
        with a_simulated_site(tmp_path / f"{step}.lock") as testbed:
            resource = testbed.settled(testbed.project("ocean", ada="ada01"), "Ocean")
            testbed.sandbox.customer.set_user_limit(resource, "ada", "cpu", 2)
            blade = KillSwitch(at=step)
            with contextlib.suppress(KilledError):
                testbed.with_(runner=blade.runner, transport=blade.transport).sync()
            testbed.sandbox.customer.clear_user_limit(resource, "ada", "cpu")
            testbed.sync()
            account = testbed.slurm.state.accounts[resource.backend_id]
            assert testbed.sandbox.customer.current(resource).backend_metadata == {"qos": "normal"}
            return account.members["ada01"].limits, blade

    _, undisturbed = end_after_kill_at(0)
    for number in range(1, len(undisturbed.steps) + 1):
        limits, blade = end_after_kill_at(number)
        assert limits == {}, f"killed at step {number}: {blade.steps[-1]}"


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
def test_any_write_whose_answer_is_lost_once_changes_nothing_in_the_end(
    tmp_path: Path, kind: Literal["lost_answer", "cut"]
) -> None:
    with a_simulated_site(tmp_path / "count.lock") as testbed:
        slurm_site, _ = undisturbed(testbed)
        expected = slurm_site.end()
        writes = testbed.sandbox.requests.by_operation()
        operations = {request.operation for request in testbed.sandbox.requests.writes()}
    assert {o.rpartition("_set_")[2] for o in operations} == {
        "deleting",
        "deleted",
        "backend_metadata",
    }
    with a_simulated_site(tmp_path / "lock") as testbed:
        begun = a_simulated_cluster(testbed)
    for operation in sorted(operations):
        for skipped in range(writes[operation]):
            slurm_site = begun.copy(tmp_path / f"{operation}{skipped}.lock")
            testbed = slurm_site.testbed
            testbed.sandbox.faults.add(operation, kind, skip=skipped)
            testbed.sync()
            testbed.sync()
            where = f"{operation} number {skipped + 1}"
            assert testbed.sandbox.faults.pending == [], where
            assert slurm_site.end() == expected, where
            assert not STAYING & slurm_site.removed(), where
            is_restored(slurm_site)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_for_a_while_costs_nobody_anything(
    testbed: SimulatedSite, status: int
) -> None:
    slurm_site = a_simulated_cluster(testbed)
    testbed.sandbox.faults.add("*", "status", status=status, times=30)
    for _ in range(12):
        with contextlib.suppress(TemporaryError):
            testbed.sync()
    assert testbed.sandbox.faults.pending == []
    assert testbed.members_of(slurm_site.ocean) == {*STAYING, "cyd01"}
    assert not STAYING & slurm_site.removed()
    is_restored(slurm_site)
