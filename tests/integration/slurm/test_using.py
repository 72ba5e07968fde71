"""Pausing, limits of members, partitions and home directories, on a real Slurm."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from integration.conftest import RealSlurm
from waldur_site_agent.backends import (
    Access,
    Action,
    AddMembers,
    CreateHomeDirectories,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    Result,
    SetAccess,
    SetMemberLimits,
    TemporaryError,
)
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings

pytestmark = pytest.mark.slurm


@pytest.fixture
def settings(tmp_path: Path) -> SlurmSettings:
    return SlurmSettings(lock_file=tmp_path / "lock", qos_paused="paused", qos_downscaled="limited")


@pytest.fixture
def backend(real_slurm: RealSlurm, settings: SlurmSettings) -> SlurmBackend:
    return SlurmBackend(settings, {}, runner=real_slurm.runner())


@pytest.fixture
def accounts(real_slurm: RealSlurm, backend: SlurmBackend, prefix: str) -> list[str]:
    """Three resources, the first with two members."""
    request = ResourceRequest(
        resource_name="Climate", project_slug=f"{prefix}-proj", project_name="Project",
        customer_slug=f"{prefix}-cust", customer_name="Customer",
    )  # fmt: skip
    placements = [backend.place(request, f"{prefix}-{number}") for number in range(3)]
    actions: list[Action] = [CreateResource(placement) for placement in placements]
    actions.append(AddMembers(placements[0].id, real_slurm.users[:2]))
    assert set(results(backend, *actions)) == {Result.DONE}
    return [placement.id for placement in placements]


def results(backend: SlurmBackend, *actions: Action) -> list[Result]:
    return [outcome.result for outcome in backend.apply(actions)]


def test_a_pause_holds_everybody_and_its_end_gives_everything_back(
    real_slurm: RealSlurm, backend: SlurmBackend, accounts: list[str]
) -> None:
    account, ada, bob = accounts[0], *real_slurm.users[:2]
    real_slurm.sacctmgr(
        *("modify", "account", "where", f"name={account}", "set", "qos=normal,limited"),
        "DefaultQOS=normal",
    )
    real_slurm.sacctmgr(
        *("modify", "user", "where", f"name={ada}", f"account={account}", "set"),
        *("qos=normal,limited", "DefaultQOS=limited"),
    )
    before = real_slurm.associations(account)
    memory = dict(backend.observe().resources[account].metadata)
    assert memory == {
        "qos": "limited,normal", "default_qos": "normal",
        "member_qos": f"{ada}=limited,normal/limited",
    }  # fmt: skip
    running = real_slurm.submit_job(bob, account)
    sbatch = ("sbatch", "--parsable", "-A", account, "-o", "/dev/null", "-t", "5", "-D", "/")
    full = ("-c", "64", "--wrap", "sleep 60")
    pending = real_slurm.submit(ada, account, *full)
    assert set(results(backend, *(SetAccess(a, Access.PAUSED) for a in accounts))) == {Result.DONE}
    asked = [
        (user, (*sbatch, "--test-only", *qos, "--wrap", "true"))
        for user in (ada, bob)
        for qos in ((), ("--qos=normal",))
    ]
    # a busy slurmdbd tells slurmctld of the pause a moment later
    real_slurm.wait_until(
        lambda: all(real_slurm.run(*words, user=user).returncode != 0 for user, words in asked)
    )
    assert running in real_slurm.jobs(account)
    reason = ("squeue", "-h", "-j", pending, "-o", "%T %r")
    real_slurm.wait_until(lambda: "PENDING InvalidQOS" in real_slurm.run(*reason).stdout)
    assert results(backend, SetAccess(account, Access.NORMAL, memory)) == [Result.DONE]
    assert before == real_slurm.associations(account)
    real_slurm.run("scancel", running)
    real_slurm.wait_until(lambda: "RUNNING" in real_slurm.run(*reason).stdout)


def test_slurm_holds_the_total_of_a_member_and_not_of_the_others(
    real_slurm: RealSlurm, backend: SlurmBackend, accounts: list[str]
) -> None:
    account, ada, bob = accounts[0], *real_slurm.users[:2]
    assert results(backend, SetMemberLimits(account, ada, {"cpu": Decimal(5)})) == [Result.DONE]
    job = real_slurm.submit(ada, account, "--wrap", "sleep 30")
    assert real_slurm.submit_job(bob, account)
    reason = ("squeue", "-h", "-j", job, "-o", "%r")
    real_slurm.wait_until(lambda: "AssocGrpCPUMinutesLimit" in real_slurm.run(*reason).stdout)


def test_users_with_associations_for_partitions_are_members_once_and_leave_whole(
    real_slurm: RealSlurm, backend: SlurmBackend, accounts: list[str], prefix: str
) -> None:
    first, second, third = accounts
    both, only, keeps = real_slurm.users[3:6]
    for user, account, *partition in (
        (both, first), (both, first, "partition=main"), (only, first, "partition=main"),
        (keeps, first), (keeps, first, "partition=main"), (keeps, second),
        (both, third, "partition=main"),
    ):  # fmt: skip
        real_slurm.sacctmgr("add", "user", f"name={user}", f"account={account}", *partition)
    real_slurm.sacctmgr("add", "user", f"name={real_slurm.users[6]}", f"account={third}")
    members = {*real_slurm.users[:2], both, only, keeps}
    assert members == backend.observe().resources[first].members
    assert results(backend, RemoveMembers(first, (both, only, keeps))) == [Result.DONE]
    assert {both, real_slurm.users[6]} == backend.observe().resources[third].members
    assert real_slurm.default_account(keeps) == second
    assert results(backend, DeleteResource(third), DeleteResource(second)) == [Result.DONE] * 2
    assert f"{prefix}-1" not in backend.observe().resources


def test_jobs_stay_and_keep_their_owner_in_when_the_site_wants_so(
    real_slurm: RealSlurm, settings: SlurmSettings, accounts: list[str]
) -> None:
    account, busy, idle = accounts[0], *real_slurm.users[:2]
    gentle = settings.model_copy(update={"cancel_jobs_on_removal": False})
    backend = SlurmBackend(gentle, {}, runner=real_slurm.runner())
    job = real_slurm.submit_job(busy, account)
    (outcome,) = backend.apply([RemoveMembers(account, (busy, idle))])
    assert isinstance(outcome.error, TemporaryError)
    assert job in str(outcome.error)
    assert {busy} == backend.observe().resources[account].members
    assert job in real_slurm.jobs(account)


def test_home_directories_are_made_by_the_systems_own_helper(
    backend: SlurmBackend, user_without_home: Callable[[], str], real_slurm: RealSlurm
) -> None:
    user = user_without_home()
    assert backend.missing_home_directories([user, "wsa-nobody"]) == {user}
    assert results(backend, CreateHomeDirectories((user,))) == [Result.DONE]
    home = (real_slurm.directory / "homes" / user).stat()
    assert (home.st_mode & 0o777, home.st_uid > 0) == (0o700, True)


_WRITER = """
import sys
from pathlib import Path
from waldur_site_agent.backends import AddMembers
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings

account, lock, *users = sys.argv[1:]
settings = SlurmSettings(lock_file=Path(lock), require_system_user=False)
list(SlurmBackend(settings, {}).apply([AddMembers(account, tuple(users))]))
"""


def test_the_next_writer_waits_for_the_sacctmgr_of_an_agent_that_was_killed(
    real_slurm: RealSlurm, settings: SlurmSettings, backend: SlurmBackend,
    accounts: list[str], prefix: str,
) -> None:  # fmt: skip
    crowd = [f"{prefix}u{number}" for number in range(150)]
    argv = [sys.executable, "-c", _WRITER, accounts[1], str(settings.lock_file), *crowd]
    agent = subprocess.Popen(argv, env=real_slurm.environment)
    adding = f"add\0user\0name={prefix}u"
    real_slurm.wait_until(lambda: any(adding in line for line in command_lines()))
    agent.kill()
    agent.wait()
    assert any(adding in line for line in command_lines()), "the write was too fast to be left over"
    last = real_slurm.users[0]
    assert results(backend, AddMembers(accounts[1], (last,))) == [Result.DONE]
    assert not any(adding in line for line in command_lines())
    assert subprocess.run(argv, env=real_slurm.environment, check=False).returncode == 0
    assert {last, *crowd} == backend.observe().resources[accounts[1]].members


def command_lines() -> Iterator[str]:
    """The command lines of all processes, words ending in zero bytes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
