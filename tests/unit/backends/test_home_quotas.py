"""Quotas of home directories: for newcomers, tried again until they are set, shown meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from waldur_site_agent.backends import (
    Check,
    CheckStatus,
    CreateHomeDirectories,
    PermanentError,
    Result,
    TemporaryError,
)
from waldur_site_agent.backends.command_line_settings import CommandLineSettings
from waldur_site_agent.backends.directory_settings import QuotaLimits
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.backends.quotas import Quotas, Subject
from waldur_site_agent_slurm.names import user_name

WANTED = QuotaLimits(hard_bytes=2**30)
UID = 54321


class Killed(BaseException):
    """Stands for ``kill -9``."""


class Kept(Quotas):
    """Quotas in memory."""

    def __init__(self) -> None:
        super().__init__(WANTED)
        self.set: dict[int, QuotaLimits] = {}
        self.failure: BaseException | None = None
        self.asked: list[int] = []

    def find(self, subject: Subject) -> QuotaLimits:
        self.asked.append(subject.number)
        return self.set.get(subject.number, QuotaLimits(0, 0, 0, 0))

    def write(self, subject: Subject, limits: QuotaLimits) -> None:
        if self.failure is not None:
            raise self.failure
        self.set[subject.number] = limits

    def diagnose(self) -> Iterator[Check]:
        yield Check(name="quotas", verdict=CheckStatus.OK)


class Helper:
    """Makes homes as ``mkhomedir_helper`` does."""

    def __init__(self, homes: Path) -> None:
        self.homes = homes
        self.killed = False

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        assert timeout > 0
        (self.homes / argv[1]).mkdir()
        os.chown(self.homes / argv[1], UID, UID)
        if self.killed:
            raise Killed
        return CommandResult(tuple(argv), 0, "", "")


class Site:
    """A machine with homes; ``agent()`` is a process that has just started."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.homes = directory / "home"
        self.homes.mkdir(mode=0o755)
        self.helper, self.quotas = Helper(self.homes), Kept()
        self.executable = directory / "mkhomedir_helper"
        self.executable.touch(0o755)
        quota = {"provider": "xfs", "mount_point": str(self.homes), "block_hardlimit": "1G"}
        self.settings = {"homedir_quota": quota} | settings

    def agent(self, home: str = "") -> HomeDirectories:
        return HomeDirectories(
            self.helper,
            CommandLineSettings.model_validate(self.settings),
            user_name,
            (self.executable,),
            lambda user: Path(home or self.homes, user),
            lambda _: UID,
            self.quotas,
        )


ADA = CreateHomeDirectories(("ada",))
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_newcomer_gets_a_home_and_its_quota(site: Site) -> None:
    assert site.agent().create(ADA).result is Result.DONE
    assert site.quotas.set == {UID: WANTED}
    assert site.agent().unset_quotas(["ada"]) == frozenset()


def test_homes_that_exist_get_no_quota_and_cost_no_look_at_it(site: Site) -> None:
    (site.homes / "ada").mkdir()
    os.chown(site.homes / "ada", UID, UID)
    agent = site.agent()
    assert (agent.missing(["ada"]), agent.unset_quotas(["ada"])) == (frozenset(), frozenset())
    assert agent.create(ADA).result is Result.UNCHANGED
    assert site.quotas.asked == []


def test_a_quota_that_an_administrator_has_set_stays(site: Site) -> None:
    site.quotas.set[UID] = QuotaLimits(hard_bytes=5 * 2**30)
    assert site.agent().create(ADA).skipped == ()
    assert site.quotas.set[UID].hard_bytes == 5 * 2**30
    (report,) = site.agent().check(["ada"], repair=True)
    assert "hard bytes 5368709120 instead of 1073741824" in report.differences
    (report,) = site.agent().check(["ada"], repair=True, replace_quotas=True)
    assert (report.differences, report.repaired) == ((), ("quota",))


@pytest.mark.guarantee("directories: A quota that cannot be set")
def test_a_quota_that_fails_costs_nobody_the_home_and_is_tried_again(site: Site) -> None:
    site.quotas.failure = TemporaryError("the quota tool is away", remedy="install it")
    outcome = site.agent().create(ADA)
    assert (outcome.result, outcome.error) == (Result.DONE, None)
    assert "is there, but its quota was not set: the quota tool is away" in str(
        outcome.skipped[0].error
    )
    assert (site.homes / "ada").is_dir()
    restarted = site.agent()
    assert restarted.missing(["ada"]) == frozenset()
    assert restarted.unset_quotas(["ada", "bob"]) == {"ada"}
    *_, waiting = restarted.diagnose()
    assert waiting.detail == "1 not complete: ada"
    site.quotas.failure = None
    assert restarted.create(ADA).skipped == ()
    assert site.quotas.set == {UID: WANTED}
    assert site.agent().unset_quotas(["ada"]) == frozenset()


@pytest.mark.guarantee("directories: Killed at any moment")
@pytest.mark.parametrize("step", ["when the home is made", "when the quota is set"])
def test_a_home_of_a_killed_agent_gets_its_quota_from_the_next(site: Site, step: str) -> None:
    if step == "when the home is made":
        site.helper.killed = True
    else:
        site.quotas.failure = Killed()
    with pytest.raises(Killed):
        site.agent().create(ADA)
    site.quotas.failure = None
    assert site.agent().unset_quotas(["ada"]) == {"ada"}
    assert site.agent().create(ADA).skipped == ()
    assert site.quotas.set == {UID: WANTED}


def test_a_quota_that_never_succeeds_is_tried_a_few_times_only(site: Site) -> None:
    site.quotas.failure = TemporaryError("away")
    users = tuple(f"user{number}" for number in range(20))
    outcome = site.agent().create(CreateHomeDirectories(users))
    assert len(site.quotas.asked) == 3
    assert len(outcome.skipped) == 20


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("trap", ["a link", "a home of somebody else", "a parent of a user"])
def test_no_quota_is_set_on_what_a_user_put_in_the_place_of_a_home(
    tmp_path: Path, trap: str
) -> None:
    quota = {"provider": "ceph_xattr", "max_bytes": "1G"}
    site = Site(tmp_path, homedir_quota=quota)
    victim = tmp_path / "victim"
    victim.mkdir()
    site.quotas.failure = TemporaryError("away")
    site.agent().create(ADA)
    site.quotas.failure = None
    site.quotas.asked.clear()
    match trap:
        case "a link":
            os.chown(victim, UID, UID)
            (site.homes / "ada").rmdir()
            (site.homes / "ada").symlink_to(victim)
        case "a home of somebody else":
            os.chown(site.homes / "ada", UID + 1, UID + 1)
        case _:
            os.chown(site.homes, UID, UID)
    (report,) = site.agent().check(["ada"], repair=True)
    assert site.quotas.asked == []
    assert bool(report.differences) == (trap != "a home of somebody else")


def test_homes_elsewhere_than_the_base_path_are_not_made(tmp_path: Path) -> None:
    site = Site(tmp_path, homedir_base_path=str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    (left,) = site.agent(str(tmp_path / "elsewhere")).create(ADA).skipped
    assert isinstance(left.error, PermanentError)
    assert "not below" in str(left.error)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert site.agent().create(ADA).result is Result.DONE


def test_homes_wait_for_a_base_path_that_is_not_mounted(tmp_path: Path) -> None:
    site = Site(tmp_path, homedir_base_path=str(tmp_path / "unmounted"))
    agent = site.agent(str(tmp_path / "unmounted"))
    assert agent.missing(["ada"]) == {"ada"}
    (left,) = agent.create(ADA).skipped
    assert "mount the file system" in str(left.error)
    assert any(check.verdict is CheckStatus.FAILED for check in agent.diagnose())


def test_the_base_path_may_be_another_way_to_the_same_directory(tmp_path: Path) -> None:
    site = Site(tmp_path, homedir_base_path=str(tmp_path / "link"))
    (tmp_path / "link").symlink_to(tmp_path / "home")
    assert site.agent().create(ADA).result is Result.DONE
