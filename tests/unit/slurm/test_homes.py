"""Home directories."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from waldur_site_agent.backends import (
    CreateHomeDirectories,
    PermanentError,
    Result,
    TemporaryError,
    homes,
)
from waldur_site_agent.backends.command_line_settings import umask_of
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import ProcessRunner
from waldur_site_agent_slurm.names import user_name
from waldur_site_agent_slurm.settings import SlurmSettings


def with_helper(
    directory: Path,
    script: str = 'mkdir "$HOMES/$1"',
    umask: str = "0077",
    uid: int | None = None,
) -> HomeDirectories:
    helper = directory / "mkhomedir_helper"
    script = script.replace("$HOMES", str(directory))
    helper.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    helper.chmod(0o755)
    settings = SlurmSettings(homedir_umask=umask)
    return HomeDirectories(
        ProcessRunner(),
        settings,
        user_name,
        (helper,),
        lambda user: directory / user,
        lambda _user: uid,
    )


@pytest.mark.parametrize(
    ("setting", "umask"),
    [("0700", "0077"), ("700", "0077"), ("0750", "0027"), ("0755", "0022"),
     ("0077", "0077"), ("077", "0077"), ("0027", "0027"), ("0000", "0000")],
)  # fmt: skip
def test_a_value_with_owner_bits_is_read_as_the_mode_that_was_meant(
    setting: str, umask: str
) -> None:
    assert umask_of(setting) == umask
    assert SlurmSettings(homedir_umask=setting).homedir_umask == setting


@pytest.mark.parametrize("setting", ["0400", "0600", "02700", "0177", "rwx"])
def test_a_value_that_locks_the_owner_out_either_way_is_refused(setting: str) -> None:
    with pytest.raises(ValidationError, match="homedir_umask"):
        SlurmSettings(homedir_umask=setting)


def test_only_missing_homes_are_made_with_the_umask_as_an_argument(tmp_path: Path) -> None:
    directories = with_helper(tmp_path, 'mkdir "$HOMES/$1"; echo "$@" >> $HOMES/calls')
    (tmp_path / "bob").mkdir()
    assert directories.missing(["ada", "bob"]) == {"ada"}
    outcome = directories.create(CreateHomeDirectories(("ada", "bob")))
    assert outcome.result is Result.DONE
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "ada 0077\n"


def test_a_failure_leaves_out_its_user_alone_and_says_what_the_helper_said(tmp_path: Path) -> None:
    directories = with_helper(
        tmp_path, '[ $1 != bob ] || { echo "no space" >&2; exit 6; }; mkdir "$HOMES/$1"'
    )
    outcome = directories.create(CreateHomeDirectories(("bob", "ada")))
    assert outcome.result is Result.DONE
    (left,) = outcome.skipped
    assert left.name == "bob"
    with pytest.raises(TemporaryError, match=r"exit code 6 \(no space\)"):
        raise left.error


def test_success_is_a_directory_and_not_an_exit_code(tmp_path: Path) -> None:
    (left,) = with_helper(tmp_path, "exit 0").create(CreateHomeDirectories(("ada",))).skipped
    assert isinstance(left.error, TemporaryError)


def test_without_the_helper_everybody_waits_and_is_told_what_to_install(tmp_path: Path) -> None:
    settings = SlurmSettings()
    missing = HomeDirectories(
        ProcessRunner(), settings, user_name, (tmp_path / "none",), lambda user: tmp_path / user
    )
    outcome = missing.create(CreateHomeDirectories(("ada",)))
    assert outcome.result is Result.UNCHANGED
    with pytest.raises(TemporaryError, match="libpam-modules-bin"):
        raise outcome.skipped[0].error


def test_a_mode_in_the_settings_is_remarked_on_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    homes._warn_of_mode.cache_clear()
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            with_helper(tmp_path, umask="0750").create(CreateHomeDirectories((f"u{number}",)))
    assert [record.getMessage()[:18] for record in caplog.records] == ["homedir_umask 0750"]


@pytest.mark.parametrize("home", ["/", "/nonexistent", "/dev/null", ""])
def test_users_that_are_not_meant_to_have_a_home_get_none(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        pw_dir = home

    monkeypatch.setattr("pwd.getpwnam", lambda _: Entry)
    assert homes.home_of("ada") is None


def test_a_site_that_makes_no_homes_is_asked_for_none(tmp_path: Path) -> None:
    settings = SlurmSettings(enable_user_homedir_account_creation=False)
    backend = SlurmBackend(settings, {}, homes=with_helper(tmp_path))
    assert CreateHomeDirectories not in backend.supports
    assert CreateHomeDirectories in SlurmBackend.supports
    assert backend.missing_home_directories(["ada"]) == frozenset()
    (outcome,) = backend.apply([CreateHomeDirectories(("ada",))])
    assert outcome.result is Result.FAILED


def test_a_helper_that_never_succeeds_is_started_a_few_times_only(tmp_path: Path) -> None:
    directories = with_helper(tmp_path, "echo $1 >> $HOMES/calls; exit 6")
    users = tuple(f"user{number}" for number in range(50))
    outcome = directories.create(CreateHomeDirectories(users))
    assert len((tmp_path / "calls").read_text(encoding="utf-8").split()) == 3
    assert [left.name for left in outcome.skipped] == list(users)


def test_a_helper_that_fails_has_failed_although_it_made_a_directory(tmp_path: Path) -> None:
    script = 'mkdir "$HOMES/$1"; echo "cannot copy .profile: quota" >&2; exit 6'
    directories = with_helper(tmp_path, script, uid=os.geteuid())
    (left,) = directories.create(CreateHomeDirectories(("ada",))).skipped
    assert "exit code 6 (cannot copy .profile: quota)" in str(left.error)


def test_a_directory_of_somebody_else_is_no_success(tmp_path: Path) -> None:
    directories = with_helper(tmp_path, uid=os.geteuid() + 1)
    (left,) = directories.create(CreateHomeDirectories(("ada",))).skipped
    assert "was not created" in str(left.error)


def test_a_leftover_fails_each_time_for_its_user_alone_and_is_not_touched(tmp_path: Path) -> None:
    directories = with_helper(tmp_path, uid=os.geteuid() + 1)
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "thesis").touch()
    for _ in range(2):
        assert directories.missing(["bob"]) == {"bob"}
        (left,) = directories.create(CreateHomeDirectories(("bob",))).skipped
        with pytest.raises(PermanentError, match=r"root_squash.*nothing was deleted.*chown -R bob"):
            raise left.error
    assert [path.name for path in (tmp_path / "bob").iterdir()] == ["thesis"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_home_that_another_person_owns_is_none_of_our_business(tmp_path: Path) -> None:
    directories = with_helper(tmp_path, uid=54321)
    (tmp_path / "bob").mkdir()
    os.chown(tmp_path / "bob", 12345, -1)
    assert directories.missing(["bob"]) == frozenset()
    os.chown(tmp_path / "bob", 65534, -1)  # as on a file server with root_squash
    assert directories.missing(["bob"]) == {"bob"}


def test_many_leftovers_do_not_keep_the_others_from_their_homes(tmp_path: Path) -> None:
    directories = with_helper(tmp_path, uid=os.geteuid())
    leftovers = [f"user{number}" for number in range(5)]
    strangers = HomeDirectories(
        ProcessRunner(),
        SlurmSettings(),
        user_name,
        (tmp_path / "mkhomedir_helper",),
        lambda user: tmp_path / user,
        lambda user: os.geteuid() + (user != "zoe"),
    )
    for name in leftovers:
        (tmp_path / name).mkdir()
    outcome = strangers.create(CreateHomeDirectories((*leftovers, "zoe")))
    assert [left.name for left in outcome.skipped] == leftovers
    assert directories.missing(["zoe"]) == frozenset()
    assert (tmp_path / "zoe").is_dir()


def test_missing_parents_are_open_to_others_whatever_the_agents_own_umask(tmp_path: Path) -> None:
    directories = with_helper(tmp_path, 'mkdir -p "$HOMES/staff/new"; mkdir "$HOMES/$1"')
    before = os.umask(0o027)  # as both shipped units set it
    try:
        directories.create(CreateHomeDirectories(("ada",)))
    finally:
        os.umask(before)
    assert (tmp_path / "staff" / "new").stat().st_mode & 0o777 == 0o755


def test_a_home_that_was_seen_is_not_looked_at_again_until_its_user_is_let_in_anew(
    tmp_path: Path,
) -> None:
    """Looking mounts the home on sites with autofs, and asks the directory service."""
    asked: list[str] = []

    def find_home(user: str) -> Path:
        asked.append(user)
        return tmp_path / user

    directories = HomeDirectories(
        ProcessRunner(), SlurmSettings(), user_name, find_home=find_home, find_uid=lambda _: None
    )
    members = [f"user{number}" for number in range(100)]
    for name in members:
        (tmp_path / name).mkdir()
    directories.missing(members)
    asked.clear()
    assert directories.missing(members) == frozenset()
    assert asked == []
    (tmp_path / "user7").rmdir()
    directories.look_again(["user7"])
    assert directories.missing(members) == {"user7"}
    assert asked == ["user7"]


@pytest.mark.parametrize("known_later", ["nobody yet", "a file server that is away"])
def test_a_home_that_could_not_be_seen_is_looked_at_again(tmp_path: Path, known_later: str) -> None:
    is_up = False

    def find_home(user: str) -> Path | None:
        if known_later == "nobody yet":
            return tmp_path / user if is_up else None
        return tmp_path / user if is_up else tmp_path / ("x" * 300)

    directories = HomeDirectories(
        ProcessRunner(),
        SlurmSettings(),
        user_name,
        find_home=find_home,
        find_uid=lambda _: 1000 if is_up else None,
    )
    assert directories.missing(["ada"]) == frozenset()
    is_up = True
    assert directories.missing(["ada"]) == {"ada"}
