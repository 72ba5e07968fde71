"""What is true on a real XFS with user and project quotas; ``test_xfs.py`` runs it there.

The file system is mounted at ``WSA_XFS``, with the options ``usrquota,prjquota``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from waldur_site_agent.backends import CheckStatus, CreateHomeDirectories, CreateProjectDirectory
from waldur_site_agent.backends.command_line_settings import CommandLineSettings
from waldur_site_agent.backends.directory_settings import ProjectDirectory, QuotaLimits
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.processes import CommandResult, ProcessRunner
from waldur_site_agent.backends.project_directories import ProjectDirectories
from waldur_site_agent.backends.quotas import Subject, XfsQuotas, project_of
from waldur_site_agent_slurm.names import account_name, user_name

XFS = Path(os.environ["WSA_XFS"])
MIB = 1024**2
GROUP, OWNER = 54322, 54321


class WithHelper(ProcessRunner):
    """Real commands, but for homes, as there are no such users."""

    uids: dict[str, int]

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        if not argv[0].endswith("mkhomedir_helper"):
            return super().run(argv, timeout)
        home = XFS / "home" / argv[1]
        home.mkdir()
        os.chown(home, self.uids[argv[1]], -1)
        return CommandResult(tuple(argv), 0, "", "")


def homes(tmp_path: Path, quota: dict[str, object], **uids: int) -> HomeDirectories:
    (XFS / "home").mkdir(exist_ok=True)
    helper = tmp_path / "mkhomedir_helper"
    helper.touch(0o755)
    runner = WithHelper()
    runner.uids = uids
    settings = CommandLineSettings.model_validate(
        {
            "homedir_base_path": str(XFS / "home"),
            "homedir_quota": {"provider": "xfs", "mount_point": str(XFS)} | quota,
        }
    )
    return HomeDirectories(
        runner, settings, user_name, (helper,), lambda u: XFS / "home" / u, uids.get
    )


def write_as(uid: int, gid: int, path: Path, size: int) -> int:
    """Let a user write; return the error's number, 0 for none."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
            block = b"x" * MIB
            for _ in range(size // MIB):
                os.write(descriptor, block)
            os.fsync(descriptor)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_newcomer_cannot_write_more_than_the_quota_of_the_home(tmp_path: Path) -> None:
    agent = homes(tmp_path, {"block_hardlimit": "8M", "inode_hardlimit": 100}, ada=40001)
    outcome = agent.create(CreateHomeDirectories(("ada",)))
    assert outcome.skipped == ()
    assert write_as(40001, 40001, XFS / "home" / "ada" / "small", 4 * MIB) == 0
    assert write_as(40001, 40001, XFS / "home" / "ada" / "big", 16 * MIB) == errno.EDQUOT
    (report,) = agent.check(["ada"])
    assert report.differences == ()
    assert all(check.verdict is not CheckStatus.FAILED for check in agent.diagnose())


def test_a_home_may_be_a_project_of_its_own(tmp_path: Path) -> None:
    quota = {"kind": "project", "block_hardlimit": "8M", "project_id_offset": 1000000}
    agent = homes(tmp_path, quota, bob=40002)
    assert agent.create(CreateHomeDirectories(("bob",))).skipped == ()
    descriptor = os.open(XFS / "home" / "bob", os.O_RDONLY)
    assert project_of(descriptor) == (1040002, True)
    os.close(descriptor)
    # XFS says that the device is full where a project is
    full = {errno.EDQUOT, errno.ENOSPC}
    assert write_as(40002, 40002, XFS / "home" / "bob" / "big", 16 * MIB) in full
    (report,) = agent.check(["bob"])
    assert report.differences == ()


def test_a_quota_of_an_administrator_stays_until_it_is_replaced(tmp_path: Path) -> None:
    by_hand = XfsQuotas(QuotaLimits(hard_bytes=64 * MIB), "user", str(XFS), ProcessRunner(), 60)
    assert by_hand.ensure(Subject(40003))
    agent = homes(tmp_path, {"block_hardlimit": "8M"}, cyd=40003)
    assert agent.create(CreateHomeDirectories(("cyd",))).skipped == ()
    assert by_hand.find(Subject(40003)).hard_bytes == 64 * MIB
    (report,) = agent.check(["cyd"], repair=True)
    assert report.differences == ("hard bytes 67108864 instead of 8388608",)
    (report,) = agent.check(["cyd"], repair=True, replace_quotas=True)
    assert report.differences == ()
    assert by_hand.find(Subject(40003)).hard_bytes == 8 * MIB


def projects(**settings: object) -> ProjectDirectories:
    (XFS / "projects").mkdir(exist_ok=True)
    quota = {"mount_point": str(XFS), "block_hardlimit": "8M", "project_id_offset": 100000}
    return ProjectDirectories(
        ProjectDirectory.model_validate(
            {"enabled": True, "base_path": str(XFS / "projects"), "xfs_quota": quota} | settings
        ),
        ProcessRunner(),
        60,
        account_name,
        lambda _: OWNER,
        lambda _: GROUP,
    )


def test_a_project_directory_has_its_quota_for_all_members_together() -> None:
    agent = projects()
    assert agent.create(CreateProjectDirectory("a_ocean")).skipped == ()
    place = XFS / "projects" / "a_ocean"
    assert write_as(40004, GROUP, place / "one", 4 * MIB) == 0
    full = {errno.EDQUOT, errno.ENOSPC}
    assert write_as(40005, GROUP, place / "two", 6 * MIB) in full
    (report,) = agent.check(["a_ocean"])
    assert report.differences == ()
    assert agent.create(CreateProjectDirectory("a_ocean")).skipped == ()
    assert all(check.verdict is CheckStatus.OK for check in agent.diagnose())


def test_the_number_of_a_project_that_somebody_uses_is_not_taken_over() -> None:
    agent = projects()
    (XFS / "projects" / "a_other").mkdir()
    ProcessRunner().run(
        ["xfs_quota", "-x", "-c", f"project -s -p {XFS}/projects/a_other 7", str(XFS)], 60
    )
    (report,) = agent.check(["a_other"], repair=True)
    assert "is in project 7, not in project 154322" in report.differences[0]


@pytest.mark.parametrize("mount", ["/tmp", "/nowhere"])  # noqa: S108 - as a place of nothing
def test_a_file_system_without_quotas_is_a_failure_although_xfs_quota_says_nothing(
    mount: str,
) -> None:
    agent = projects(xfs_quota={"mount_point": mount, "block_hardlimit": "8M"})
    (left,) = agent.create(CreateProjectDirectory("a_lost")).skipped
    assert "is not on the file system mounted at" in str(left.error)
    assert not (XFS / "projects" / "a_lost").exists()
    assert any(check.verdict is CheckStatus.FAILED for check in agent.diagnose())
