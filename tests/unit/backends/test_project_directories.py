"""Project directories: complete or not there, never in the hands of others, never taken over."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waldur_site_agent.backends import (
    CheckStatus,
    CreateProjectDirectory,
    PermanentError,
    Result,
    SiteAgentError,
    TemporaryError,
    access_lists,
)
from waldur_site_agent.backends.directory_settings import ProjectDirectory
from waldur_site_agent.backends.processes import ProcessRunner
from waldur_site_agent.backends.project_directories import ProjectDirectories
from waldur_site_agent.backends.system_users import LOGIN_DEFINITIONS, lowest_ordinary_group
from waldur_site_agent_slurm.names import account_name

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")

OWNER, GROUP, STRANGER = 54321, 54322, 54399
ACTION = CreateProjectDirectory("a_ocean")


class Killed(BaseException):
    """Stands for ``kill -9``."""


def directories(
    base: Path,
    find_owner: Callable[[str], int | None] = lambda _: OWNER,
    find_group: Callable[[str], int | None] = lambda _: GROUP,
    defs: Path = LOGIN_DEFINITIONS,
    **settings: Any,
) -> ProjectDirectories:
    return ProjectDirectories(
        ProjectDirectory.model_validate({"enabled": True, "base_path": str(base)} | settings),
        ProcessRunner(),
        60,
        account_name,
        find_owner,
        find_group,
        lambda: lowest_ordinary_group(defs),
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    found = tmp_path / "projects"
    found.mkdir(mode=0o755)
    return found


def is_complete(path: Path) -> bool:
    found = path.stat()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        granted = access_lists.is_granted(descriptor, GROUP)
    finally:
        os.close(descriptor)
    mode = stat.S_IMODE(found.st_mode)
    return (found.st_uid, found.st_gid, mode, granted) == (OWNER, GROUP, 0o2770, True)


def failure(site: ProjectDirectories, action: CreateProjectDirectory = ACTION) -> SiteAgentError:
    outcome = site.create(action)
    assert outcome.result is Result.UNCHANGED
    assert outcome.error is None  # the order does not wait for it
    (left,) = outcome.skipped
    return left.error


def test_a_directory_gets_owner_group_mode_and_access_list_at_once(base: Path) -> None:
    site = directories(base)
    assert site.create(ACTION).result is Result.DONE
    assert is_complete(base / "a_ocean")
    assert [path.name for path in base.iterdir()] == ["a_ocean"]
    assert site.unfinished(["a_ocean"]) == frozenset()


def test_what_is_made_in_it_belongs_to_the_group(base: Path) -> None:
    directories(base).create(ACTION)
    (base / "a_ocean" / "data").mkdir()
    assert (base / "a_ocean" / "data").stat().st_gid == GROUP
    descriptor = os.open(base / "a_ocean" / "data", os.O_RDONLY)
    assert access_lists.is_granted(descriptor, GROUP)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("defs", "number", "settings", "is_made"),
    [
        (None, 999, {}, False),
        (None, 1000, {}, True),
        ("# GID_MIN 1\nGID_MIN\t500\nSYS_GID_MIN 100\n", 499, {}, False),
        ("GID_MIN 500\n", 500, {}, True),
        (None, 4, {"allow_system_groups": True}, True),
        (None, 4, {"group_owner_source": "group_name", "group_name": "adm"}, True),
    ],
)
@pytest.mark.guarantee("security: Threat model")
def test_a_group_of_the_system_that_is_named_like_an_account_gets_no_directory(
    base: Path, defs: str | None, number: int, settings: dict[str, Any], is_made: bool
) -> None:
    file = base.parent / "login.defs"
    if defs is not None:
        file.write_text(defs)
    site = directories(base, find_group=lambda _: number, defs=file, **settings)
    if is_made:
        assert site.create(ACTION).result is Result.DONE
        assert (base / "a_ocean").stat().st_gid == number
    else:
        error = failure(site)
        assert isinstance(error, PermanentError)
        assert "is one of the system's own" in str(error)
        assert list(base.iterdir()) == []


def test_doing_it_again_changes_nothing(base: Path) -> None:
    directories(base).create(ACTION)
    (base / "a_ocean" / "thesis").write_text("precious")
    before = (base / "a_ocean").stat().st_ctime_ns
    assert directories(base).create(ACTION).result is Result.UNCHANGED
    assert (base / "a_ocean").stat().st_ctime_ns == before


@pytest.mark.guarantee("directories: Killed at any moment")
@pytest.mark.parametrize("step", ["mkdir", "fchown", "fchmod", "setxattr", "rename"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_nothing_half_done_is_there_and_the_next_try_completes_it(
    base: Path, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(os, step)

    def blade(*words: Any, **options: Any) -> None:
        if step == "mkdir" and "dir_fd" not in options:  # of the note about it
            real(*words, **options)
            return
        if when == "after":
            real(*words, **options)
        raise Killed

    site = directories(base)
    with monkeypatch.context() as patch:
        patch.setattr(os, step, blade)
        with pytest.raises(Killed):
            site.create(ACTION)
    there = base / "a_ocean"
    assert not there.exists() or is_complete(there)
    assert directories(base).unfinished(["a_ocean", "a_other"]) == {"a_ocean"}
    assert directories(base).create(ACTION).skipped == ()
    assert is_complete(there)
    assert [path.name for path in base.iterdir()] == ["a_ocean"]
    assert directories(base).unfinished(["a_ocean"]) == frozenset()


def make(there: Path, kind: str, victim: Path) -> None:
    victim.mkdir()
    match kind:
        case "a link":
            there.symlink_to(victim)
        case "a dangling link":
            there.symlink_to(victim / "nothing")
        case "a file":
            there.write_text("precious")
        case "a hard link":
            (victim / "file").write_text("precious")
            os.link(victim / "file", there)
        case "a pipe":
            os.mkfifo(there)


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("kind", ["a link", "a dangling link", "a file", "a hard link", "a pipe"])
@pytest.mark.parametrize("name", ["a_ocean", ".a_ocean.waldur-site-agent"])
def test_what_is_no_directory_is_neither_followed_nor_changed(
    base: Path, tmp_path: Path, kind: str, name: str
) -> None:
    make(base / name, kind, tmp_path / "victim")
    before = os.lstat(base / name), (tmp_path / "victim").stat()
    error = failure(directories(base))
    assert isinstance(error, PermanentError)
    assert "a link or a file" in str(error)
    assert (os.lstat(base / name), (tmp_path / "victim").stat()) == before
    reports = list(directories(base).check(["a_ocean"], repair=True))
    assert reports[0].differences
    assert (os.lstat(base / name), (tmp_path / "victim").stat()) == before


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("repair", [False, True])
def test_a_directory_of_somebody_else_is_never_given_away(base: Path, *, repair: bool) -> None:
    (base / "a_ocean").mkdir()
    os.chown(base / "a_ocean", STRANGER, STRANGER)
    before = (base / "a_ocean").stat()
    if repair:
        (report,) = directories(base).check(["a_ocean"], repair=True)
        assert f"belongs to user {STRANGER}" in report.differences[0]
    else:
        assert "was there before" in str(failure(directories(base)))
    assert (base / "a_ocean").stat() == before


def test_a_directory_of_root_that_was_there_before_is_completed_by_repair_alone(base: Path) -> None:
    (base / "a_ocean").mkdir()
    (base / "a_ocean" / "thesis").write_text("precious")
    before = (base / "a_ocean" / "thesis").stat()
    assert "directories repair" in str(failure(directories(base)))
    (checked,) = directories(base).check(["a_ocean"])
    assert f"owner 0 instead of {OWNER}" in checked.differences
    (repaired,) = directories(base).check(["a_ocean"], repair=True)
    assert (repaired.differences, bool(repaired.repaired)) == ((), True)
    assert is_complete(base / "a_ocean")
    assert (base / "a_ocean" / "thesis").stat() == before
    assert directories(base).unfinished(["a_ocean"]) == frozenset()


def a_user_owns_it(base: Path) -> None:
    os.chown(base, STRANGER, 0)


def a_user_owns_what_is_above(base: Path) -> None:
    os.chown(base.parent, STRANGER, 0)


def everybody_writes(base: Path) -> None:
    base.chmod(0o1777)


def a_group_writes(base: Path) -> None:
    os.chown(base, 0, STRANGER)
    base.chmod(0o775)


def a_list_lets_a_user_write(base: Path) -> None:
    descriptor = os.open(base, os.O_RDONLY)
    access_lists.grant(descriptor, STRANGER)
    os.close(descriptor)


def a_link_leads_through_a_users_directory(base: Path) -> None:
    theirs = base.parent / "theirs"
    (theirs / "projects").mkdir(parents=True)
    os.chown(theirs, STRANGER, STRANGER)
    base.rmdir()
    base.symlink_to(theirs / "projects")


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize(
    "trap",
    [a_user_owns_it, a_user_owns_what_is_above, everybody_writes, a_group_writes,
     a_list_lets_a_user_write, a_link_leads_through_a_users_directory],
)  # fmt: skip
def test_nothing_is_made_where_a_user_could_redirect_it(
    base: Path, trap: Callable[[Path], None]
) -> None:
    trap(base)
    error = failure(directories(base))
    assert isinstance(error, PermanentError)
    assert "redirect what root creates" in str(error)
    assert list(base.iterdir()) == []


@pytest.mark.guarantee("security: Threat model")
def test_a_base_that_is_swapped_while_it_is_opened_is_noticed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = base.parent / "other"
    other.mkdir()
    real = os.open

    def swapped(path: Any, *words: Any, **options: Any) -> int:
        if path == base:
            base.rename(base.parent / "away")
            (base.parent / "other").rename(base)
            return real(base.parent / "away", *words, **options)
        return real(path, *words, **options)

    monkeypatch.setattr(os, "open", swapped)
    assert "redirect" in str(failure(directories(base)))
    assert list(base.iterdir()) == []


def test_a_base_that_is_not_there_is_not_made_as_its_file_system_may_not_be_mounted(
    base: Path,
) -> None:
    base.rmdir()
    error = failure(directories(base))
    assert isinstance(error, TemporaryError)
    assert "mount the file system" in str(error)
    assert not base.exists()


@pytest.mark.parametrize(
    ("finders", "said"),
    [({"find_group": lambda _: None}, "knows no group a_ocean"),
     ({"find_owner": lambda _: None}, "knows no user nobody")],
)  # fmt: skip
def test_a_group_or_an_owner_that_does_not_exist_yet_is_waited_for(
    base: Path, finders: dict[str, Any], said: str
) -> None:
    error = failure(directories(base, **finders))
    assert isinstance(error, TemporaryError)
    assert said in str(error)
    assert directories(base).unfinished(["a_ocean"]) == {"a_ocean"}
    assert directories(base).create(ACTION).result is Result.DONE


def test_one_group_may_have_all_directories(base: Path) -> None:
    asked: list[str] = []

    def find_group(name: str) -> int:
        asked.append(name)
        return GROUP

    site = directories(
        base, find_group=find_group, group_owner_source="group_name", group_name="hpc",
        set_acl=False, set_gid=False, permissions=750,
    )  # fmt: skip
    site.create(ACTION)
    assert set(asked) == {"hpc"}
    assert stat.S_IMODE((base / "a_ocean").stat().st_mode) == 0o750


@pytest.mark.parametrize("name", ["../etc", "a/b", "", "-rf", "a\nb", "."])
def test_a_name_that_leads_elsewhere_is_refused(base: Path, name: str) -> None:
    error = failure(directories(base), CreateProjectDirectory(name))
    assert isinstance(error, PermanentError)
    assert list(base.iterdir()) == []


def test_the_diagnosis_says_what_is_missing_and_what_waits(base: Path) -> None:
    assert [c.verdict for c in directories(base).diagnose()] == [CheckStatus.OK]
    failure(directories(base, find_group=lambda _: None))
    *_, waiting = directories(base).diagnose()
    assert waiting.detail == "1 not complete: a_ocean"
    base.chmod(0o777)
    first, *_ = directories(base).diagnose()
    assert (first.verdict, "0755" in first.remedy) == (CheckStatus.FAILED, True)


def test_an_entry_that_an_administrator_added_to_the_access_list_stays(base: Path) -> None:
    directories(base).create(ACTION)
    descriptor = os.open(base / "a_ocean", os.O_RDONLY)
    access_lists.grant(descriptor, STRANGER)
    (base / "a_ocean").chmod(0o2750)  # makes the list grant less
    (report,) = directories(base).check(["a_ocean"], repair=True)
    assert report.differences == ()
    assert access_lists.is_granted(descriptor, STRANGER)
    os.close(descriptor)
