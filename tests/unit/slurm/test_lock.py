"""One writer at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.patience import eventually
from waldur_site_agent.backends import AddMembers, Result, SetLimits, TemporaryError
from waldur_site_agent.backends.locking import exclusive_lock, probe_lock
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import LOCK_PURPOSE
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm, write_executables

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

_HOLDER = """
import sys
from pathlib import Path
from waldur_site_agent.backends.locking import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), 0, ""):
    print("held", flush=True)
    sys.stdin.read()
"""


def writer_lock(path: Path, wait_seconds: float) -> AbstractContextManager[int]:
    return exclusive_lock(path, wait_seconds, LOCK_PURPOSE)


def hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_holds_the_lock_since_when(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path) as holder:
        words = rf"{path} \(pid {holder.pid}, .*since \d{{4}}-.*Z\)"
        with pytest.raises(TemporaryError, match=words), writer_lock(path, 0.01):
            pytest.fail("both writers hold the lock")
        holder.communicate("")


def test_the_lock_of_a_writer_that_was_killed_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path) as holder:
        holder.kill()
        holder.communicate()
    with writer_lock(path, 0):
        assert f"pid {os.getpid()}," in path.read_text(encoding="utf-8")


_AGENT = """
import sys
from pathlib import Path
from waldur_site_agent.backends import AddMembers
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings
directory = Path(sys.argv[1])
settings = SlurmSettings(
    lock_file=directory / "lock", slurm_bin_path=directory / "bin", require_system_user=False
)
list(SlurmBackend(settings, {}).apply([AddMembers("a", ("ada",))]))
"""


def agent_with_a_slow_sacctmgr(directory: Path) -> subprocess.Popen[bytes]:
    """An agent whose sacctmgr says when a write begins, and ends it when it is told to."""
    commands = write_executables(directory / "bin", directory / "state.json")
    slurm = SimulatedSlurm(state_file=directory / "state.json")
    slurm.run(["sacctmgr", "-i", "add", "account", "name=a"])
    real = commands / "sacctmgr"
    real.rename(commands / "real-sacctmgr")
    wait = f"while [ ! -e {directory}/go ]; do sleep 0.02; done"
    real.write_text(
        f'#!/bin/sh\n[ "$1" != -i ] || {{ echo $$ > {directory}/pid.new; '
        f"mv {directory}/pid.new {directory}/writing; {wait}; }}\n"
        f'exec {commands}/real-sacctmgr "$@"\n',
        encoding="utf-8",
    )
    real.chmod(0o755)
    return subprocess.Popen([sys.executable, "-c", _AGENT, str(directory)])


def wait_for(condition: Callable[[], bool]) -> None:
    eventually(condition, "what the test waits for", pause=0.02)


def test_the_command_that_a_killed_agent_left_behind_keeps_the_lock_until_it_ends(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    with agent_with_a_slow_sacctmgr(tmp_path) as agent:
        wait_for((tmp_path / "writing").exists)
        agent.kill()
    with pytest.raises(TemporaryError, match=f"pid {agent.pid}.*sacctmgr that it left running"):
        writer_lock(path, 0.3).__enter__()
    (tmp_path / "go").touch()
    with writer_lock(path, 30):
        state = SimulatedSlurm(state_file=tmp_path / "state.json").state
        assert "ada" in state.users, "the next writer came before the orphan's change"


def test_the_lock_file_may_be_used_by_every_user(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    before = os.umask(0o077)
    try:
        probe_lock(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o666 == 0o666


def test_a_lock_file_that_cannot_be_made_is_temporary_trouble_with_the_remedy(
    tmp_path: Path,
) -> None:
    with pytest.raises(TemporaryError, match=r"cannot be used.*read and write"):
        probe_lock(tmp_path / "missing" / "lock")


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious", encoding="utf-8")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(TemporaryError, match="cannot be used"), writer_lock(tmp_path / "lock", 0):
        pytest.fail("the lock was taken through a link")
    assert (tmp_path / "target").read_text(encoding="utf-8") == "precious"


def test_the_default_file_is_named_after_the_cluster() -> None:
    backend = SlurmBackend(SlurmSettings(cluster="big"), {})
    assert backend.lock_file().name == "waldur-site-agent-slurm-big.lock"


def test_while_another_writes_every_action_fails_for_now_and_nothing_is_started(
    tmp_path: Path,
) -> None:
    slurm = SimulatedSlurm()
    settings = SlurmSettings(lock_file=tmp_path / "lock")
    backend = SlurmBackend(settings, {}, runner=slurm.runner(), lock_wait_seconds=0.01)
    with writer_lock(tmp_path / "lock", 0):
        outcomes = list(backend.apply([AddMembers("a", ("ada",)), SetLimits("a", {"cpu": None})]))
    assert [outcome.result for outcome in outcomes] == [Result.FAILED, Result.FAILED]
    assert all(isinstance(outcome.error, TemporaryError) for outcome in outcomes)
    assert slurm.history == []
