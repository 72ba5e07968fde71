"""One writer at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import AddMembers, Result, SetLimits, TemporaryError
from waldur_site_agent.backends.locking import exclusive_lock, probe_lock
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import LOCK_PURPOSE
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path


def writer_lock(path: Path, wait_seconds: float) -> AbstractContextManager[int]:
    return exclusive_lock(path, wait_seconds, LOCK_PURPOSE)


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
