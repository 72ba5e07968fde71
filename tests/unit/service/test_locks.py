"""Where locks are, and what is said of their holders."""

from __future__ import annotations

from pathlib import Path

import pytest

from waldur_site_agent.backends import locking
from waldur_site_agent.backends.locking import LockHeldError, default_lock_file, exclusive_lock


def test_the_agents_own_directory_is_preferred_and_made_by_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setattr(locking, "OWN_DIRECTORY", own)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_lock_file("x.lock") == own / "x.lock"
    assert own.stat().st_mode & 0o777 == 0o750


def test_another_user_without_that_directory_gets_a_personal_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "OWN_DIRECTORY", tmp_path / "absent")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_lock_file("x.lock") == tmp_path / "x.lock"


def test_a_forged_note_cannot_play_with_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with exclusive_lock(path, 0, "wait"):
        path.write_text("pid 1 \x1b[31mred\x07")
        with pytest.raises(LockHeldError) as caught, exclusive_lock(path, 0, "wait"):
            pass
    assert "\x1b" not in str(caught.value)
    assert "pid 1" in str(caught.value)
