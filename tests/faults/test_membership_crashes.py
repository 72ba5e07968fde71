"""kill -9 between any two steps of a membership cycle, and answers that get lost."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from harness import Guillotine, House, KilledError, a_house
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Resource

STAYING = {"ada01", "eve01"}


@dataclass
class Town:
    """A house in which many things happen at once."""

    house: House
    ocean: Resource
    """Somebody joins, somebody leaves with a job, somebody is deleted, somebody is limited."""
    ice: Resource
    """Is paused, with a QOS list that the site has set."""

    def qos(self) -> list[str]:
        return sorted(self.house.slurm.state.accounts[self.ice.backend_id].qos)

    def end(self) -> dict[str, Any]:
        """Everything that an undisturbed cycle decides about."""
        world, state = self.house.sandbox.customer.world, self.house.slurm.state
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
        removals = [c for c in self.house.slurm.history if c[:4] == _REMOVE]
        names = [word for c in removals for word in c if word.startswith("name=")]
        return {name for word in names for name in word.removeprefix("name=").split(",")}


_REMOVE = ("sacctmgr", "-i", "remove", "user")


def a_town(house: House) -> Town:
    """All that a cycle then finds is new."""
    side = house.sandbox.customer
    ocean_people = house.project("ocean", ada="ada01", bob="bob01", dan="dan01", eve="eve01")
    ocean = house.created(ocean_people, "Ocean", cpu=10)
    ice = house.created(house.project("ice", ada="ada01", dan="dan01"), "Ice", cpu=10)
    with house.slurm.change() as state:
        state.qos.append("long")
        state.accounts[ice.backend_id].qos = ["normal", "long"]
        state.accounts[ice.backend_id].default_qos = "long"
    house.sync()
    for name in ("ada01", "bob01", "dan01"):
        house.slurm.submit_job(name, ocean.backend_id)
    side.remove_member(ocean_people, "bob")
    side.add_member(ocean_people, house.person("cyd", "cyd01"))
    side.request_deletion("dan")
    side.set_user_limit(ocean, "eve", "cpu", 2)
    side.set_flags(ice, paused=True)
    house.forget()
    return Town(house, ocean, ice)


def undisturbed(house: House) -> tuple[Town, list[str]]:
    """The town after a cycle, and its steps."""
    town, counting = a_town(house), Guillotine()
    report = house.with_(runner=counting.runner, transport=counting.transport).sync()
    assert not report.failed, report.failures
    return town, counting.steps


def is_restored(town: Town) -> None:
    """Lift the pause: the site's list comes back, and nothing is remembered any more."""
    side = town.house.sandbox.customer
    side.set_flags(town.ice, paused=False)
    town.house.sync()
    assert town.qos() == ["long", "normal"]
    assert town.house.slurm.state.accounts[town.ice.backend_id].default_qos == "long"
    metadata = side.current(town.ice).backend_metadata
    assert not [key for key in metadata if key.endswith("_before")]


def test_an_undisturbed_cycle_does_it_all(house: House) -> None:
    town, _ = undisturbed(house)
    assert house.members_of(town.ocean) == {*STAYING, "cyd01"}
    assert house.members_of(town.ice) == {"ada01"}
    assert town.qos() == ["paused"]
    account = house.slurm.state.accounts[town.ocean.backend_id]
    assert account.members["eve01"].limits == {"cpu": 120000}
    assert town.end()["jobs"] == {("ada01", town.ocean.backend_id)}
    assert ("dan01", "Deleted") in town.end()["people"]
    is_restored(town)


@pytest.mark.parametrize("age", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 4))])
def test_lists_a_moment_old_after_a_kill_at_any_step_cost_nobody_anything(
    tmp_path: Path, age: int
) -> None:
    with a_house(tmp_path / "count.lock") as house:
        town, steps = undisturbed(house)
        expected = town.end()
    for number in range(1, len(steps) + 1):
        with a_house(tmp_path / f"{number}.lock") as house:
            town = a_town(house)
            blade = Guillotine(at=number, after_effect=True)
            with pytest.raises(KilledError):
                house.with_(runner=blade.runner, transport=blade.transport).sync()
            with house.lists_a_moment_old(age), contextlib.suppress(TemporaryError):
                house.sync()
            house.sync()
            where = f"killed at step {number}: {blade.steps[number - 1]}"
            assert town.end() == expected, where
            assert not STAYING & town.removed(), where
            is_restored(town)


def test_a_pause_whose_notes_no_list_shows_yet_keeps_them(house: House) -> None:
    town = a_town(house)
    house.sync()
    for age in range(1, 9):
        with house.lists_a_moment_old(age):
            house.sync()
    is_restored(town)


def test_a_limit_whose_note_no_list_shows_yet_can_still_be_withdrawn(house: House) -> None:
    resource = house.settled(house.project("ocean", ada="ada01"), "Ocean")
    side = house.sandbox.customer
    side.set_user_limit(resource, "ada", "cpu", 2)
    house.sync()
    side.clear_user_limit(resource, "ada", "cpu")
    with house.slurm.change() as state:  # something to be told of the resource
        state.accounts[resource.backend_id].qos = ["normal"]
        state.accounts[resource.backend_id].default_qos = "normal"
    house.sandbox.faults.add("*_resources_list", "stale", times=1, changes_ago=3)
    house.sync()
    house.sync()
    assert house.slurm.state.accounts[resource.backend_id].members["ada01"].limits == {}
    assert "limited_members" not in side.current(resource).backend_metadata


def test_a_role_that_no_list_shows_yet_costs_nobody_the_account_or_a_job(house: House) -> None:
    project = house.project("ocean", ada="ada01")
    resource = house.settled(project, "Ocean")
    house.sandbox.customer.add_member(project, house.person("cyd", "cyd01"))
    house.sync()
    job = house.slurm.submit_job("cyd01", resource.backend_id)
    house.sandbox.faults.add("*_project_permissions_list", "stale", times=None, changes_ago=1)
    assert not house.sync().failed
    assert house.members_of(resource) == {"ada01", "cyd01"}
    assert job in house.slurm.state.jobs


@pytest.mark.parametrize("kind", ["project_service", "course"])
def test_an_account_of_a_project_that_no_list_shows_yet_is_no_unknown_user(
    house: House, kind: str
) -> None:
    house = house.with_(remove_unknown_users=True)
    project = house.project("ocean", ada="ada01")
    resource = house.settled(project, "Ocean")
    side = house.sandbox.customer
    add = side.add_course_account if kind == "course" else side.add_service_account
    add(project, "new01")
    house.sync()
    house.sandbox.faults.add(f"*_{kind}_accounts_list", "stale", times=1, changes_ago=1)
    assert not house.sync().failed
    assert house.members_of(resource) == {"ada01", "new01"}


def test_a_member_whose_name_no_list_shows_yet_is_no_unknown_user(house: House) -> None:
    house = house.with_(remove_unknown_users=True)
    project = house.project("ocean", ada="ada01")
    resource = house.settled(project, "Ocean")
    house.sandbox.customer.add_member(project, house.person("cyd", "cyd01"))
    house.sync()
    house.sandbox.faults.add("*_offering_users_list", "stale", times=None, changes_ago=2)
    assert not house.sync().failed
    assert house.members_of(resource) == {"ada01", "cyd01"}
    house.sandbox.faults.clear()
    house.sandbox.customer.remove_member(project, "cyd")
    house.sync()
    assert house.members_of(resource) == {"ada01"}


def test_nobody_is_marked_deleted_while_in_an_account_that_no_list_shows_yet(house: House) -> None:
    side = house.sandbox.customer
    ocean = house.settled(house.project("ocean", ada="ada01", dan="dan01"), "Ocean")
    ice = house.created(house.project("ice", ada="ada01", dan="dan01"), "Ice")
    side.request_deletion("dan")
    house.sandbox.faults.add("*_resources_list", "stale", times=None, changes_ago=8)
    report = house.sync()
    assert "dan01" not in house.members_of(ocean)
    assert "dan01" in house.members_of(ice)
    states = {u.username: u.state for u in side.world.offering_users.values()}
    assert states["dan01"] == "Deleting"
    assert f"dan01: not marked deleted: is in account {ice.backend_id}" in str(report.failures)
    house.sandbox.faults.clear()
    assert not house.sync().failed
    assert "dan01" not in house.members_of(ice)
    states = {u.username: u.state for u in side.world.offering_users.values()}
    assert states["dan01"] == "Deleted"


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_cycle_killed_at_any_step_is_finished_by_the_next(
    tmp_path: Path, after_effect: bool
) -> None:
    with a_house(tmp_path / "count.lock") as house:
        town, steps = undisturbed(house)
        expected = town.end()
    assert len(steps) > 20
    for number in range(1, len(steps) + 1):
        with a_house(tmp_path / f"{number}.lock") as house:
            town = a_town(house)
            blade = Guillotine(at=number, after_effect=after_effect)
            with pytest.raises(KilledError):
                house.with_(runner=blade.runner, transport=blade.transport).sync()
            house.sync()
            where = f"killed at step {number}: {blade.steps[number - 1]}"
            assert town.end() == expected, where
            assert not STAYING & town.removed(), where
            is_restored(town)


@pytest.mark.parametrize("flags", [{"paused": False}, {"paused": False, "downscaled": True}])
def test_a_restoring_or_switching_cycle_killed_at_any_step_loses_no_list(
    tmp_path: Path, flags: dict[str, bool]
) -> None:
    def agent_killed_at(house: House, step: int) -> tuple[Town, Guillotine]:
        town, blade = a_town(house), Guillotine(at=step)
        house.sync()
        house.sandbox.customer.set_flags(town.ice, **flags)
        with contextlib.suppress(KilledError):
            house.with_(runner=blade.runner, transport=blade.transport).sync()
        return town, blade

    with a_house(tmp_path / "count.lock") as house:
        town, counting = agent_killed_at(house, 0)
        expected = town.end()
    assert town.qos() == (["limited"] if "downscaled" in flags else ["long", "normal"])
    for number in range(1, len(counting.steps) + 1):
        with a_house(tmp_path / f"{number}.lock") as house:
            town, blade = agent_killed_at(house, number)
            assert blade.dead
            house.sync()
            assert town.end() == expected, f"killed at step {number}: {blade.steps[-1]}"
            house.sandbox.customer.set_flags(town.ice, downscaled=False)
            is_restored(town)


def test_a_limit_of_a_killed_agent_that_waldur_then_withdraws_is_cleared(tmp_path: Path) -> None:
    def end_after_kill_at(step: int) -> tuple[dict[str, int], Guillotine]:
        with a_house(tmp_path / f"{step}.lock") as house:
            resource = house.settled(house.project("ocean", ada="ada01"), "Ocean")
            house.sandbox.customer.set_user_limit(resource, "ada", "cpu", 2)
            blade = Guillotine(at=step)
            with contextlib.suppress(KilledError):
                house.with_(runner=blade.runner, transport=blade.transport).sync()
            house.sandbox.customer.clear_user_limit(resource, "ada", "cpu")
            house.sync()
            account = house.slurm.state.accounts[resource.backend_id]
            assert house.sandbox.customer.current(resource).backend_metadata == {"qos": "normal"}
            return account.members["ada01"].limits, blade

    _, undisturbed = end_after_kill_at(0)
    for number in range(1, len(undisturbed.steps) + 1):
        limits, blade = end_after_kill_at(number)
        assert limits == {}, f"killed at step {number}: {blade.steps[-1]}"


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
def test_any_write_whose_answer_is_lost_once_changes_nothing_in_the_end(
    tmp_path: Path, kind: Literal["lost_answer", "cut"]
) -> None:
    with a_house(tmp_path / "count.lock") as house:
        town, _ = undisturbed(house)
        expected = town.end()
        writes = house.sandbox.requests.by_operation()
        operations = {request.operation for request in house.sandbox.requests.writes()}
    assert {o.rpartition("_set_")[2] for o in operations} == {
        "deleting",
        "deleted",
        "backend_metadata",
    }
    for operation in sorted(operations):
        for skipped in range(writes[operation]):
            with a_house(tmp_path / f"{operation}{skipped}.lock") as house:
                town = a_town(house)
                house.sandbox.faults.add(operation, kind, skip=skipped)
                house.sync()
                house.sync()
                where = f"{operation} number {skipped + 1}"
                assert house.sandbox.faults.pending == [], where
                assert town.end() == expected, where
                assert not STAYING & town.removed(), where
                is_restored(town)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_for_a_while_costs_nobody_anything(house: House, status: int) -> None:
    town = a_town(house)
    house.sandbox.faults.add("*", "status", status=status, times=30)
    for _ in range(12):
        with contextlib.suppress(TemporaryError):
            house.sync()
    assert house.sandbox.faults.pending == []
    assert house.members_of(town.ocean) == {*STAYING, "cyd01"}
    assert not STAYING & town.removed()
    is_restored(town)
