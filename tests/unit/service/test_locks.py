"""Where locks are, and what is said of their holders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from waldur_site_agent.backends import locking
from waldur_site_agent.backends.locking import LockHeldError, default_lock_file, exclusive_lock


def test_the_agents_own_directory_is_preferred_and_made_by_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(locking.DIRECTORY_VARIABLE)
    own = tmp_path / "own"
    monkeypatch.setattr(locking, "OWN_DIRECTORY", own)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_lock_file("x.lock") == own / "x.lock"
    assert own.stat().st_mode & 0o777 == 0o750


def test_another_user_without_that_directory_gets_a_personal_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(locking.DIRECTORY_VARIABLE)
    monkeypatch.setattr(locking, "OWN_DIRECTORY", tmp_path / "absent")
    if os.geteuid() == 0:
        os.chown(tmp_path, 1000, -1)
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_lock_file("x.lock") == tmp_path / "x.lock"


def test_a_demo_or_a_test_keeps_its_locks_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(locking.DIRECTORY_VARIABLE, str(tmp_path))
    assert default_lock_file("x.lock") == tmp_path / "x.lock"


@pytest.mark.parametrize(("directory", "file"), [(0o750, 0o600), (0o2770, 0o660), (0o770, 0o660)])
def test_a_lock_is_for_its_owner_and_for_a_group_that_may_write_to_the_directory(
    tmp_path: Path, directory: int, file: int
) -> None:
    place = tmp_path / "locks"
    place.mkdir()
    place.chmod(directory)
    before = os.umask(0o077)
    try:
        locking.probe_lock(place / "x.lock")
    finally:
        os.umask(before)
    assert (place / "x.lock").stat().st_mode & 0o777 == file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_lock_that_root_makes_for_an_agent_of_another_user_can_be_used_by_that_agent(
    tmp_path: Path,
) -> None:
    somebody, some_group = 64321, 64322
    os.chown(tmp_path, somebody, some_group)
    tmp_path.chmod(0o770)
    with exclusive_lock(tmp_path / "x.lock", 0, "wait"):
        pass
    found = (tmp_path / "x.lock").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (somebody, some_group, 0o660)


def test_a_forged_note_cannot_play_with_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with exclusive_lock(path, 0, "wait"):
        path.write_text("pid 1 \x1b[31mred\x07")
        with pytest.raises(LockHeldError) as caught, exclusive_lock(path, 0, "wait"):
            pass
    assert "\x1b" not in str(caught.value)
    assert "pid 1" in str(caught.value)
