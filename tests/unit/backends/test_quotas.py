"""Quotas: sizes, commands, what the tools print, and what is left alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from waldur_site_agent.backends import CheckStatus, TemporaryError
from waldur_site_agent.backends.command_line_settings import CommandLineSettings
from waldur_site_agent.backends.directory_settings import (
    HomeQuota,
    LustreProjectQuota,
    ProjectDirectory,
    QuotaLimits,
    QuotaProvider,
    bytes_of,
)
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.backends.quotas import (
    CephQuotas,
    LustreQuotas,
    Quotas,
    Subject,
    XfsQuotas,
    home_quotas,
    project_quotas,
)

GIB = 1024**3
DATA = Path(__file__).parents[2] / "data" / "quotas"


class Recorded:
    """Answers commands with what a real one printed."""

    def __init__(self, answers: Mapping[str, tuple[int, str, str]]) -> None:
        self.answers = dict(answers)
        self.commands: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        assert timeout > 0
        self.commands.append(tuple(argv))
        line = " ".join(argv)
        code, out, err = next((a for key, a in self.answers.items() if key in line), (0, "", ""))
        return CommandResult(tuple(argv), code, out, err)


def xfs(runner: Recorded, limits: QuotaLimits, mounts: Path = Path("/proc/mounts")) -> Quotas:
    return XfsQuotas(limits, "user", "/home", runner, 60, mounts)


@pytest.mark.parametrize(
    ("size", "provider", "meant"),
    [("10G", "xfs", 10 * GIB), ("10g", "lustre", 10 * GIB), ("10GiB", "xfs", 10 * GIB),
     ("1048576", "xfs", 2**20), ("1048576", "lustre", GIB), ("1000", "ceph_xattr", 1000),
     ("1T", "ceph_xattr", 2**40), ("0", "xfs", 0)],
)  # fmt: skip
def test_a_size_is_exact_and_means_what_the_tools_mean(
    size: str, provider: QuotaProvider, meant: int
) -> None:
    assert bytes_of(size, provider) == meant


@pytest.mark.parametrize("size", ["10GB", "1.5G", "-1", "ten", "10 G", "1000", "9E9", "9999E"])
def test_a_size_that_could_be_misread_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match="is"):
        bytes_of(size, "xfs")


@pytest.mark.parametrize("size", ["1048576", 1048576])
def test_numbers_of_a_quota_may_stand_without_quotes(size: object) -> None:
    quota = HomeQuota.model_validate(
        {"provider": "lustre", "mount_point": "/lustre", "block_hardlimit": size}
    )
    assert quota.limits.hard_bytes == GIB


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"provider": "xfs", "block_hardlimit": "1G"}, "mount_point is missing"),
     ({"provider": "xfs", "mount_point": "/home"}, "no limit is given"),
     ({"provider": "xfs", "mount_point": "home", "block_hardlimit": "1G"}, "not an absolute path"),
     ({"provider": "ceph_xattr"}, "no limit is given"),
     ({"provider": "ceph_xattr", "max_bytes": "1G", "kind": "project"}, "kind has no meaning"),
     ({"provider": "xfs", "mount_point": "/home", "max_files": 5}, "max_files has no meaning"),
     ({"provider": "xfs", "mount_point": "/h", "block_softlimit": "2G", "block_hardlimit": "1G"},
      "block_softlimit is above"),
     ({"provider": "nfs", "mount_point": "/h", "block_hardlimit": "1G"}, "provider"),
     ({"provider": "xfs", "mount_point": "/h", "block_hardlimit": "1GB"}, "is not a size")],
)  # fmt: skip
def test_a_quota_that_would_do_nothing_is_an_error_at_start(
    values: Mapping[str, object], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        HomeQuota.model_validate(values)


def test_quotas_and_sudo_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="run the agent as root"):
        CommandLineSettings.model_validate(
            {
                "homedir_sudo": True,
                "homedir_quota": {"provider": "ceph_xattr", "max_bytes": 1024},
            }
        )


@pytest.mark.parametrize("mode", [770, "770", "0770", "2770", 504, "707", "0777", "660"])
def test_a_mode_is_taken_as_digits_and_refused_where_yaml_could_have_changed_it(
    mode: object,
) -> None:
    if mode in (770, "770", "0770"):
        assert ProjectDirectory.model_validate({"permissions": mode}).mode == 0o770
    else:
        with pytest.raises(ValidationError, match="permissions"):
            ProjectDirectory.model_validate({"permissions": mode})


def test_xfs_limits_of_a_user_are_read_and_set_by_number() -> None:
    runner = Recorded({})
    wanted = QuotaLimits(9 * GIB, 10 * GIB, None, 1000)
    with pytest.raises(TemporaryError, match="reading back shows another"):
        xfs(runner, wanted).ensure(Subject(1234))
    assert runner.commands == [
        ("xfs_quota", "-x", "-c", "report -u -n -N -b -i -L 1234 -U 1234", "/home"),
        (
            "xfs_quota",
            "-x",
            "-c",
            "limit -u bsoft=9437184k bhard=10485760k ihard=1000 1234",
            "/home",
        ),
        ("xfs_quota", "-x", "-c", "report -u -n -N -b -i -L 1234 -U 1234", "/home"),
    ]


def test_an_xfs_report_is_understood() -> None:
    runner = Recorded({"report": (0, (DATA / "xfs_report_users.txt").read_text(), "")})
    found = xfs(runner, QuotaLimits()).find_all([Subject(1234), Subject(5)])
    assert found == {1234: QuotaLimits(5 * GIB, 6 * GIB, 10, 20), 5: QuotaLimits(0, 0, 0, 0)}
    assert len(runner.commands) == 1


def test_a_quota_that_somebody_has_set_is_left_alone_unless_it_is_to_be_replaced() -> None:
    runner = Recorded({"report": (0, (DATA / "xfs_report_users.txt").read_text(), "")})
    tool = xfs(runner, QuotaLimits(hard_bytes=GIB))
    assert not tool.ensure(Subject(1234))
    assert len(runner.commands) == 1
    assert tool.differences(tool.find(Subject(1234))) == (f"hard bytes {6 * GIB} instead of {GIB}",)
    with pytest.raises(TemporaryError):
        tool.ensure(Subject(1234), replace=True)
    assert any("limit -u bhard=1048576k 1234" in command for command in runner.commands[-2])


def test_a_limit_that_the_file_system_rounded_up_to_its_blocks_is_the_one_that_was_set() -> None:
    report = "#7 0 0 10240 00 [--------] 0 0 0 00 [--------]\n"
    tool = xfs(Recorded({"report": (0, report, "")}), QuotaLimits(hard_bytes=10237 * 1024))
    assert tool.differences(tool.find(Subject(7))) == ()


@pytest.mark.parametrize(
    ("code", "stderr", "remedy"),
    [(1, "xfs_quota: cannot set limits: No such process", "mount /home with quotas"),
     (0, "xfs_quota: cannot setup path for mount /home: No such device or address",
      "PrivateDevices=no"),
     (1, "xfs_quota: cannot set limits: Operation not permitted", "CAP_SYS_ADMIN"),
     (1, "something new", "diagnose")],
)  # fmt: skip
def test_a_failure_of_xfs_quota_says_what_to_do_whatever_its_exit_code(
    code: int, stderr: str, remedy: str
) -> None:
    runner = Recorded({"limit": (code, "", stderr)})
    with pytest.raises(TemporaryError, match=remedy):
        xfs(runner, QuotaLimits(hard_bytes=GIB)).ensure(Subject(1234))


def test_what_xfs_quota_never_printed_before_is_not_taken_for_no_quota() -> None:
    runner = Recorded({"report": (0, "#12 none\n", "")})
    with pytest.raises(TemporaryError, match="could not parse"):
        xfs(runner, QuotaLimits(hard_bytes=GIB)).ensure(Subject(12))


@pytest.mark.parametrize(
    ("file", "soft"),
    [("lustre_quota_user.txt", 9 * GIB), ("lustre_quota_over_on_two_lines.txt", 9 * GIB)],
)
def test_the_quota_of_lustre_is_understood(file: str, soft: int) -> None:
    runner = Recorded({"lfs quota": (0, (DATA / file).read_text(), "")})
    tool = LustreQuotas(QuotaLimits(), "user", "/lustre", runner, 60)
    assert tool.find(Subject(1234)) == QuotaLimits(soft, 10 * GIB, 0, 1000000)


def test_a_project_quota_of_lustre_is_set_with_every_limit() -> None:
    runner = Recorded({"lfs quota": (0, "/valhalla 0 0 0 - 0 0 0 -\n", "")})
    quota = LustreProjectQuota.model_validate({"block_hardlimit": 1048576, "inode_hardlimit": 9})
    with pytest.raises(TemporaryError):
        project_quotas(quota, runner, 60).ensure(Subject(100777))
    assert (
        *("lfs", "setquota", "-p", "100777", "-b", "0", "-B", "1048576"),
        *("-i", "0", "-I", "9", "/valhalla"),
    ) in runner.commands


def test_a_server_of_lustre_that_is_away_is_not_taken_for_no_quota() -> None:
    runner = Recorded({"lfs quota": (1, "", "Can't get quota info: Input/output error")})
    with pytest.raises(TemporaryError, match="Input/output error"):
        LustreQuotas(QuotaLimits(), "user", "/lustre", runner, 60).find(Subject(1))
    runner = Recorded({"lfs quota": (0, "Some errors happened\n", "")})
    with pytest.raises(TemporaryError, match="could not parse"):
        LustreQuotas(QuotaLimits(), "user", "/lustre", runner, 60).find(Subject(1))


def ceph(directory: Path, **limits: int) -> tuple[CephQuotas, Subject]:
    return CephQuotas(QuotaLimits(**limits), "user.ceph.quota."), Subject(
        0, os.open(directory, os.O_RDONLY)
    )


def test_attributes_of_ceph_are_set_each_where_there_is_none(tmp_path: Path) -> None:
    tool, home = ceph(tmp_path, hard_bytes=5 * GIB, hard_files=1000)
    try:
        os.setxattr(tmp_path, "user.ceph.quota.max_files", b"7")
    except OSError:
        pytest.skip("this file system has no attributes of users")
    assert tool.ensure(home)
    assert os.getxattr(tmp_path, "user.ceph.quota.max_bytes") == str(5 * GIB).encode()
    assert os.getxattr(tmp_path, "user.ceph.quota.max_files") == b"7"
    assert not tool.ensure(home)
    assert tool.ensure(home, replace=True)
    assert os.getxattr(tmp_path, "user.ceph.quota.max_files") == b"1000"
    os.close(home.directory)


def test_a_directory_that_is_not_on_ceph_is_named_as_such(tmp_path: Path) -> None:
    tool = CephQuotas(QuotaLimits(hard_bytes=GIB))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(TemporaryError, match="must be on CephFS"):
        tool.ensure(Subject(0, descriptor))
    os.close(descriptor)


@pytest.mark.parametrize(
    ("line", "verdict", "said"),
    [("/dev/sdb1 /home xfs rw,usrquota,prjquota 0 0", CheckStatus.OK, "user quotas of /home"),
     ("/dev/sdb1 /home xfs rw,prjquota 0 0", CheckStatus.FAILED, "without user quotas"),
     ("/dev/sdb1 /home ext4 rw,usrquota 0 0", CheckStatus.FAILED, "is ext4, not xfs"),
     ("/dev/sdb1 /scratch xfs rw,usrquota 0 0", CheckStatus.FAILED, "no file system is mounted")],
)  # fmt: skip
def test_the_diagnosis_says_how_the_file_system_is_mounted(
    tmp_path: Path, line: str, verdict: CheckStatus, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/sbin/xfs_quota")
    (tmp_path / "mounts").write_text(f"{line}\n")
    (check,) = xfs(Recorded({}), QuotaLimits(), tmp_path / "mounts").diagnose()
    assert (check.verdict, said in check.detail) == (verdict, True)


def test_the_diagnosis_says_which_package_has_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    quota = HomeQuota.model_validate(
        {"provider": "lustre", "mount_point": "/lustre", "block_hardlimit": 1}
    )
    first, *_ = home_quotas(quota, Recorded({}), 60).diagnose()
    assert "lfs is not in PATH" in first.detail
