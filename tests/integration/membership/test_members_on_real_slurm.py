"""membership_sync as a process of its own, on a real Slurm: who may use what."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.membership.conftest import Town

pytestmark = pytest.mark.slurm


def test_a_member_leaves_with_jobs_and_comes_back(town: Town) -> None:
    stays = town.slurm.submit_job(town.ada, town.account)
    town.slurm.submit_job(town.bob, town.account)
    later = ("sbatch", "-A", town.account, "-o", "/dev/null", "-D", "/", "--begin=now+1hour")
    assert town.slurm.run(*later, "--wrap", "true", user=town.bob).returncode == 0
    town.slurm.sacctmgr(
        "modify", "user", "where", f"name={town.bob}", "set", f"DefaultAccount={town.account}"
    )
    town.side.remove_member(town.project, "bob")
    town.join("cyd", town.cyd)
    town.sync()
    assert town.users() == {town.ada, town.cyd}
    assert town.slurm.jobs(town.account) == [stays]
    assert town.slurm.default_account(town.bob) == "root"
    assert (town.may_submit(town.cyd), town.may_submit(town.bob)) == (True, False)
    town.join("bob", town.bob)
    town.sync()
    assert town.users() == {town.ada, town.bob, town.cyd}
    assert town.may_submit(town.bob)
    before = town.slurm.associations()
    town.sync()
    assert town.slurm.associations() == before
    assert town.house.sandbox.requests.writes() == []


def test_a_sites_own_qos_list_survives_pausing_and_downscaling(town: Town, long_qos: str) -> None:
    own = ({"normal", long_qos}, long_qos)
    town.set(f"qos=normal,{long_qos}", f"DefaultQOS={long_qos}")
    town.sync()
    assert town.qos() == own
    town.side.set_flags(town.resource, paused=True, downscaled=True)
    town.sync()
    assert town.qos() == ({"paused"}, "paused")
    assert town.now.backend_metadata["qos"] == "paused"
    town.side.set_flags(town.resource, paused=False)
    town.sync()
    assert town.qos() == ({"limited"}, "limited")
    town.side.set_flags(town.resource, downscaled=False)
    town.sync()
    assert town.qos() == own
    assert set(str(town.now.backend_metadata["qos"]).split(",")) == own[0]
    town.sync()
    assert town.house.sandbox.requests.writes() == []


def test_restricting_ends_all_access_and_lifting_it_gives_it_back(town: Town) -> None:
    town.slurm.submit_job(town.ada, town.account)
    town.side.set_flags(town.resource, restrict_member_access=True)
    town.sync()
    assert (town.users(), town.slurm.jobs(town.account)) == (set(), [])
    town.side.set_flags(town.resource, restrict_member_access=False)
    town.sync()
    assert town.users() == {town.ada, town.bob}


def test_limits_of_members_are_set_changed_and_withdrawn(town: Town) -> None:
    town.side.set_user_limit(town.resource, "ada", "cpu", 2)
    town.side.set_user_limit(town.resource, "bob", "mem", 1)
    town.sync()
    assert (town.limit(town.ada), town.limit(town.bob)) == ("cpu=120000", "mem=60G")
    town.side.set_user_limit(town.resource, "ada", "cpu", 3)
    town.side.clear_user_limit(town.resource, "bob", "mem")
    town.sync()
    assert (town.limit(town.ada), town.limit(town.bob)) == ("cpu=180000", "")
    before = town.slurm.associations()
    town.sync()
    assert town.slurm.associations() == before
    assert town.limit() == "cpu=600000"


def test_a_closed_service_account_goes_and_the_jobs_of_a_healthy_one_go_on(town: Town) -> None:
    service = town.side.add_service_account(town.project, town.svc)
    town.side.add_course_account(town.project, town.crs)
    town.sync()
    assert town.users() == {town.ada, town.bob, town.svc, town.crs}
    town.slurm.submit_job(town.svc, town.account)
    job = town.slurm.submit_job(town.crs, town.account)
    town.side.set_project_account_state(service, "Closed")
    for _ in range(3):
        town.sync()
        assert town.users() == {town.ada, town.bob, town.crs}
        assert town.slurm.jobs(town.account) == [job]


def test_a_person_whom_the_system_does_not_know_waits_and_then_gets_a_home(
    town: Town, user_without_home: Callable[[], str]
) -> None:
    name = f"wsahome{os.getpid()}"
    town.join("eve", name)
    before = town.slurm.associations()
    assert "members wait for the backend to know them" in town.sync()
    assert town.slurm.associations() == before
    assert user_without_home() == name
    town.sync()
    assert town.users() == {town.ada, town.bob, name}
    home = Path(town.slurm.directory) / "homes" / name
    assert home.stat().st_mode & 0o777 == 0o700
    town.side.request_deletion("eve")
    town.sync()
    assert town.users() == {town.ada, town.bob}
    assert home.is_dir()
