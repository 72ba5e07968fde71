"""Home directories."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from waldur_site_agent.backends import CreateHomeDirectories, Result, TemporaryError, homes
from waldur_site_agent.backends.homes import HomeDirectories, umask_of
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.names import user_name
from waldur_site_agent_slurm.runner import ProcessRunner
from waldur_site_agent_slurm.settings import SlurmSettings


def with_helper(
    directory: Path, script: str = 'mkdir "$HOMES/$1"', umask: str = "0077"
) -> HomeDirectories:
    helper = directory / "mkhomedir_helper"
    script = script.replace("$HOMES", str(directory))
    helper.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    helper.chmod(0o755)
    settings = SlurmSettings(homedir_umask=umask)
    return HomeDirectories(
        ProcessRunner(), settings, user_name, (helper,), lambda user: directory / user
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
    (left,) = outcome.left_out
    assert left.name == "bob"
    with pytest.raises(TemporaryError, match=r"exit code 6 \(no space\)"):
        raise left.error


def test_success_is_a_directory_and_not_an_exit_code(tmp_path: Path) -> None:
    (left,) = with_helper(tmp_path, "exit 0").create(CreateHomeDirectories(("ada",))).left_out
    assert isinstance(left.error, TemporaryError)


def test_without_the_helper_everybody_waits_and_is_told_what_to_install(tmp_path: Path) -> None:
    settings = SlurmSettings()
    missing = HomeDirectories(
        ProcessRunner(), settings, user_name, (tmp_path / "none",), lambda user: tmp_path / user
    )
    outcome = missing.create(CreateHomeDirectories(("ada",)))
    assert outcome.result is Result.UNCHANGED
    with pytest.raises(TemporaryError, match="libpam-modules-bin"):
        raise outcome.left_out[0].error


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
    assert [left.name for left in outcome.left_out] == list(users)
