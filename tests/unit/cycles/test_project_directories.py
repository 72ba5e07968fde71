"""Directories of accounts: made by the order, tried again by membership, checked by command."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from harness import Installation, KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent.backends import CreateProjectDirectory
from waldur_site_agent_sandbox import Order

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")


def with_directories(testbed: SimulatedSite, base: Path, **settings: object) -> None:
    base.mkdir(exist_ok=True)
    testbed.settings["project_directory"] = {
        "enabled": True,
        "base_path": str(base),
        "owner": "root",
        "group_owner_source": "group_name",
        "group_name": "root",
    } | settings


def ordered(testbed: SimulatedSite) -> Order:
    return testbed.order(testbed.project(ada="ada01"), "Ocean", cpu=10)


def test_an_order_makes_the_directory_of_its_account(
    testbed: SimulatedSite, tmp_path: Path
) -> None:
    with_directories(testbed, tmp_path / "projects")
    order = ordered(testbed)
    (plan,) = testbed.cycle(dry_run=True).plans
    assert any(isinstance(step.action, CreateProjectDirectory) for step in plan.steps)
    assert list((tmp_path / "projects").iterdir()) == []
    testbed.cycle()
    assert testbed.state(order) == "done"
    there = tmp_path / "projects" / testbed.resource(order).backend_id
    assert stat.S_IMODE(there.stat().st_mode) == 0o2770


def test_a_directory_stays_when_its_account_is_deleted(
    testbed: SimulatedSite, tmp_path: Path
) -> None:
    with_directories(testbed, tmp_path / "projects")
    resource = testbed.created(testbed.project(ada="ada01"), "Ocean", cpu=10)
    testbed.sandbox.customer.place_terminate_order(resource)
    testbed.cycle()
    assert (tmp_path / "projects" / resource.backend_id).is_dir()


@pytest.mark.guarantee("directories: What is missing when something fails")
def test_a_directory_that_fails_holds_up_no_order_and_is_tried_again_and_shown(
    testbed: SimulatedSite, tmp_path: Path
) -> None:
    with_directories(testbed, tmp_path / "projects", group_name="no-such-group")
    order = ordered(testbed)
    testbed.cycle()
    assert testbed.state(order) == "done"
    name = testbed.resource(order).backend_id
    (account,) = testbed.sync(dry_run=True).membership.accounts
    assert [step.action for step in account.steps] == [CreateProjectDirectory(name)]
    report = testbed.sync()
    assert report.impairment == f"1 project directories are not complete: {name}"
    assert "no user" not in report.failures[0]
    assert "knows no group no-such-group" in report.failures[0]
    with_directories(testbed, tmp_path / "projects")
    assert testbed.sync().impairment == ""
    assert (tmp_path / "projects" / name).is_dir()
    (account,) = testbed.sync(dry_run=True).membership.accounts
    assert account.steps == ()


@pytest.mark.guarantee("directories: Killed at any moment")
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_an_agent_killed_at_any_step_of_an_order_leaves_no_account_without_its_directory(
    tmp_path: Path, after_effect: bool
) -> None:
    with a_simulated_site(tmp_path / "count.lock") as testbed:
        with_directories(testbed, tmp_path / "count")
        ordered(testbed)
        counting = KillSwitch()
        testbed.with_(runner=counting.runner, transport=counting.transport).cycle()
    for number in range(1, len(counting.steps) + 1):
        with a_simulated_site(tmp_path / f"{number}.lock") as testbed:
            with_directories(testbed, tmp_path / f"{number}")
            order = ordered(testbed)
            blade = KillSwitch(at=number, after_effect=after_effect)
            with pytest.raises(KilledError):
                testbed.with_(runner=blade.runner, transport=blade.transport).cycle()
            testbed.cycle()
            assert testbed.state(order) == "done"
            assert (tmp_path / f"{number}" / testbed.resource(order).backend_id).is_dir()


def test_directories_are_checked_and_repaired_by_command(
    installation: Installation, tmp_path: Path
) -> None:
    base = tmp_path / "projects"
    with_directories(installation.testbed, base)
    settings = installation.backend_settings | {
        "project_directory": installation.testbed.settings["project_directory"],
        "enable_user_homedir_account_creation": False,
    }
    installation.write(membership_sync_backend="slurm", backend_settings=settings)
    resource = installation.testbed.created(installation.testbed.project(ada="ada01"), "Ocean")
    there = base / resource.backend_id
    there.chmod(0o700)
    command = "waldur-site-agent"
    done = installation.run("directories", "check", command=command)
    assert (done.code, "mode 0700 instead of 2770" in done.out) == (1, True)
    done = installation.run("directories", "repair", "--dry-run", command=command)
    assert done.code == 1
    assert stat.S_IMODE(there.stat().st_mode) == 0o700
    done = installation.run("directories", "repair", command=command)
    assert (done.code, f"{there}: repaired" in done.out) == (0, True)
    assert stat.S_IMODE(there.stat().st_mode) == 0o2770
    assert installation.run("directories", "check", command=command).code == 0
