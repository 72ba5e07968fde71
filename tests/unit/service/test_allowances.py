"""Refused plans are allowed one by one, for an hour, once, and by nobody else."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from waldur_site_agent.cycles.site import RefusedPlan
from waldur_site_agent.service.allowances import Allowances, UnknownDigestError

DIGEST = "0123456789abcdef" * 4
OTHER = "01234567ffffffff" * 4
PLAN = RefusedPlan(DIGEST, "HPC", "members", "too many", {"a_ocean": ["ada", "bob"]}, 1000.0)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "refusals"


@pytest.fixture
def allowances(directory: Path, clock: Clock) -> Allowances:
    found = Allowances(directory, clock)
    found.record(PLAN)
    return found


def test_an_allowed_plan_is_taken_once(allowances: Allowances) -> None:
    assert allowances.take(DIGEST) is None
    assert allowances.allow(DIGEST[:16], "root") == PLAN
    taken = allowances.take(DIGEST)
    assert taken is not None
    assert (taken.by, taken.digest) == ("root", DIGEST)
    assert allowances.take(DIGEST) is None


def test_an_allowance_is_for_no_other_plan(allowances: Allowances) -> None:
    allowances.record(replace(PLAN, digest=OTHER))
    allowances.allow(DIGEST, "root")
    assert allowances.take(OTHER) is None


def test_an_allowance_ends_after_an_hour_and_is_gone_then(
    allowances: Allowances, clock: Clock
) -> None:
    allowances.allow(DIGEST, "root")
    clock.now += 3601
    assert allowances.take(DIGEST) is None
    clock.now -= 3601
    assert allowances.take(DIGEST) is None


def test_an_allowance_from_the_future_is_not_believed(allowances: Allowances, clock: Clock) -> None:
    allowances.allow(DIGEST, "root")
    clock.now -= 10
    assert allowances.take(DIGEST) is None


@pytest.mark.parametrize("text", ["", "0123", "nothing", "0123456 ", "../../etc", "*" * 8])
def test_what_is_no_digest_is_refused(allowances: Allowances, text: str) -> None:
    with pytest.raises(UnknownDigestError, match="is not a digest"):
        allowances.allow(text, "root")


def test_a_beginning_that_two_plans_share_is_refused(allowances: Allowances) -> None:
    allowances.record(replace(PLAN, digest=OTHER))
    with pytest.raises(UnknownDigestError, match="several"):
        allowances.allow(DIGEST[:8], "root")


def test_a_plan_that_was_not_refused_cannot_be_allowed_beforehand(allowances: Allowances) -> None:
    with pytest.raises(UnknownDigestError, match="no plan was refused"):
        allowances.allow("f" * 16, "root")


def test_a_plan_that_a_complete_pass_did_not_come_to_again_is_dropped(
    allowances: Allowances,
) -> None:
    elsewhere = replace(PLAN, digest=OTHER, offering="Cloud")
    allowances.record(elsewhere)
    allowances.settle("HPC", "members")
    assert allowances.refused() == [elsewhere]


def test_files_are_for_the_agents_user_alone(allowances: Allowances, directory: Path) -> None:
    allowances.allow(DIGEST, "root")
    modes = {oct(path.stat().st_mode & 0o777) for path in directory.iterdir()}
    assert (oct(directory.stat().st_mode & 0o777), modes) == ("0o700", {"0o600"})


def test_nothing_in_a_directory_that_others_may_enter_is_believed(
    allowances: Allowances, directory: Path
) -> None:
    allowances.allow(DIGEST, "root")
    directory.chmod(0o770)
    assert allowances.take(DIGEST) is None


def test_a_link_in_place_of_the_directory_is_not_followed(
    allowances: Allowances, directory: Path, tmp_path: Path
) -> None:
    allowances.allow(DIGEST, "root")
    directory.rename(tmp_path / "elsewhere")
    directory.symlink_to(tmp_path / "elsewhere")
    assert allowances.take(DIGEST) is None


@pytest.mark.parametrize("how", ["symlink", "hard link", "writable by others", "fifo", "no JSON"])
def test_an_allowance_that_somebody_could_have_put_there_is_not_believed(
    allowances: Allowances, directory: Path, tmp_path: Path, how: str
) -> None:
    allowances.allow(DIGEST, "root")
    file, other = directory / f"{DIGEST}.allowed.json", tmp_path / "other.json"
    if how == "symlink":
        file.rename(other)
        file.symlink_to(other)
    elif how == "hard link":
        other.hardlink_to(file)
    elif how == "writable by others":
        file.chmod(0o666)
    elif how == "fifo":
        file.unlink()
        os.mkfifo(file, 0o600)
    else:
        file.write_text("[]")
    assert allowances.take(DIGEST) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_not_believed(
    allowances: Allowances, directory: Path
) -> None:
    allowances.allow(DIGEST, "root")
    os.chown(directory / f"{DIGEST}.allowed.json", 12345, 12345)
    assert allowances.take(DIGEST) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_allows_what_an_agent_of_another_user_was_refused(
    allowances: Allowances, directory: Path
) -> None:
    for path in (directory, *directory.iterdir()):
        os.chown(path, 12345, 12345)
    allowances.allow(DIGEST, "root")
    assert (directory / f"{DIGEST}.allowed.json").stat().st_uid == 12345


def test_a_copy_under_another_name_allows_nothing_else(
    allowances: Allowances, directory: Path
) -> None:
    allowances.allow(DIGEST, "root")
    content = json.loads((directory / f"{DIGEST}.allowed.json").read_text())
    forged = directory / f"{OTHER}.allowed.json"
    forged.write_text(json.dumps(content))
    forged.chmod(0o600)
    assert allowances.take(OTHER) is None


def test_without_a_safe_directory_a_refusal_stands() -> None:
    allowances = Allowances(None)
    allowances.record(PLAN)
    assert allowances.take(DIGEST) is None
    assert allowances.refused() == []
