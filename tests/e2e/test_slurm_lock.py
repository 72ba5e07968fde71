"""One writer at a time, across processes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.patience import eventually
from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.locking import exclusive_lock
from waldur_site_agent_slurm.client import LOCK_PURPOSE
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
