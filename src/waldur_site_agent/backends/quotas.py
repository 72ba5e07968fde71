"""Quotas of directories on XFS, Lustre and CephFS: found, set where there are none, read back.

Users and projects are named by their numbers, which no tool misreads. A quota that somebody has set
already is left alone unless the caller replaces it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from waldur_site_agent.backends.checks import Check, CheckStatus
from waldur_site_agent.backends.directory_settings import (
    LARGEST_ID,
    HomeQuota,
    ProjectQuota,
    QuotaKind,
    QuotaLimits,
)
from waldur_site_agent.backends.processes import CommandResult, Runner, described
from waldur_site_agent.model.errors import PermanentError, TemporaryError

_KIB = 1024
_LARGEST_BLOCK = 64 * _KIB
"""File systems round limits up to their blocks."""
_NO_QUOTA = QuotaLimits(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose quota it is: a user, a project, or a directory."""

    number: int
    """Of the user or the project."""
    directory: int = -1
    """A descriptor of the directory."""


class Quotas(ABC):
    """The quotas of one file system that the agent sets."""

    checked_name: ClassVar[str] = "quotas"

    def __init__(self, limits: QuotaLimits) -> None:
        self.limits = limits

    @abstractmethod
    def find(self, subject: Subject) -> QuotaLimits:
        """The limits that are set; 0 where there is none.

        Raises:
            TemporaryError: they could not be read.
        """

    @abstractmethod
    def write(self, subject: Subject, limits: QuotaLimits) -> None:
        """Set limits; those that are ``None`` stay.

        Raises:
            TemporaryError: they could not be set.
        """

    @abstractmethod
    def diagnose(self) -> Iterator[Check]:
        """Whether quotas can be set; never raises."""

    def find_all(self, subjects: Iterable[Subject]) -> Mapping[int, QuotaLimits]:
        """The same as :meth:`find` for many, by their number."""
        return {subject.number: self.find(subject) for subject in subjects}

    def to_write(self, found: QuotaLimits) -> QuotaLimits:
        """What is set where ``found`` is there: nothing where somebody has set a limit."""
        return self.limits if found.is_empty else QuotaLimits()

    def differences(self, found: QuotaLimits) -> tuple[str, ...]:
        """Which limits are not as configured, in words."""
        return tuple(
            f"{name.replace('_', ' ')} {has or 'unlimited'} instead of {wants or 'unlimited'}"
            for name, wants, has in _pairs(self.limits, found)
            if not _agree(name, wants, has)
        )

    def ensure(self, subject: Subject, *, replace: bool = False) -> bool:
        """Set what is not set; with ``replace`` also what is set otherwise. Return if it changed.

        Raises:
            TemporaryError: it could not be set, or reading back shows something else.
        """
        found = self.find(subject)
        wanted = self.limits if replace else self.to_write(found)
        if all(_agree(name, wants, has) for name, wants, has in _pairs(wanted, found)):
            return False
        self.write(subject, wanted)
        after = self.find(subject)
        wrong = [n for n, wants, has in _pairs(wanted, after) if not _agree(n, wants, has)]
        if wrong:
            raise TemporaryError(
                f"the quota was set, but reading back shows another ({', '.join(wrong)})",
                remedy="check that the file system is mounted with quotas",
            )
        return True


def _pairs(wanted: QuotaLimits, found: QuotaLimits) -> Iterator[tuple[str, int, int]]:
    """The limits that are wanted, with what is found."""
    for field in fields(QuotaLimits):
        wants = getattr(wanted, field.name)
        if wants is not None:
            yield field.name, wants, getattr(found, field.name) or 0


def _agree(name: str, wanted: int, found: int) -> bool:
    if not wanted or not name.endswith("bytes"):
        return wanted == found
    return wanted <= found < wanted + _LARGEST_BLOCK


class _ToolQuotas(Quotas):
    """Quotas that a tool of the file system sets."""

    tool: ClassVar[str]
    package: ClassVar[str]
    options: ClassVar[Mapping[QuotaKind, tuple[str, ...]]]
    """The mount options of which one turns the quotas of a kind on; empty: not by mounting."""

    def __init__(
        self,
        limits: QuotaLimits,
        kind: QuotaKind,
        mount_point: str,
        runner: Runner,
        timeout: float,
        mounts: Path = Path("/proc/self/mounts"),
    ) -> None:
        super().__init__(limits)
        self._kind = kind
        self._mount = mount_point
        self._runner = runner
        self._timeout = timeout
        self._mounts = mounts

    def diagnose(self) -> Iterator[Check]:
        """The tool, the mount, and its options."""
        if shutil.which(self.tool) is None:
            yield _missing(f"{self.tool} is not in PATH", f"install it ({self.package})")
        mounted = _mounted(self._mounts).get(self._mount)
        if mounted is None:
            yield _missing(
                f"no file system is mounted at {self._mount}", "mount it, or correct mount_point"
            )
            return
        type_, options = mounted
        if type_ != self.type_:
            yield _missing(
                f"{self._mount} is {type_}, not {self.type_}", "correct mount_point or provider"
            )
            return
        accepted = self.options.get(self._kind, ())
        if accepted and not options & set(accepted):
            yield _missing(
                f"{self._mount} is mounted without {self._kind} quotas",
                f"mount it with the option {accepted[0]} (XFS takes it at mount time only, not "
                "with remount)",
            )
            return
        yield Check(
            name=self.checked_name,
            verdict=CheckStatus.OK,
            detail=f"{self._kind} quotas of {self._mount} ({type_})",
        )

    type_: ClassVar[str]
    """The type of the file system, as the kernel names it."""

    def _run(self, argv: Sequence[str]) -> CommandResult:
        result = self._runner.run(argv, self._timeout)
        if result.exit_code != 0 or result.stderr.strip():
            raise TemporaryError(
                f"quota of {self._kind} on {self._mount}: {described(result)}",
                remedy=_remedy(result.stderr, self._kind, self._mount),
            )
        return result


def _missing(detail: str, remedy: str) -> Check:
    return Check(name=Quotas.checked_name, verdict=CheckStatus.FAILED, detail=detail, remedy=remedy)


def _remedy(stderr: str, kind: str, mount: str) -> str:
    if "No such process" in stderr or "cannot find mount point" in stderr:
        return f"mount {mount} with quotas of this kind ({kind})"
    if "cannot setup path for mount" in stderr:
        return (
            f"mount the file system at {mount}; a service needs PrivateDevices=no to see its device"
        )
    if "not permitted" in stderr or "ermission denied" in stderr:
        return "run the agent as root, with CAP_SYS_ADMIN (docs/directories.md)"
    return "waldur-site-agent diagnose shows what is missing"


def _mounted(mounts: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """By mount point: type and options. The last one at a place is the one on top."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # reported as not mounted
        return {}
    rows = [words for line in lines if len(words := line.split()) > 3]  # noqa: PLR2004 - options are fourth
    return {
        _unescaped(place): (type_, frozenset(options.split(",")))
        for _, place, type_, options, *_ in rows
    }


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


class XfsQuotas(_ToolQuotas):
    """By ``xfs_quota``, whose exit code is 0 for some failures."""

    tool = "xfs_quota"
    package = "xfsprogs"
    type_ = "xfs"
    options: ClassVar[Mapping[QuotaKind, tuple[str, ...]]] = {
        "user": ("usrquota", "uquota", "quota"),
        "project": ("prjquota", "pquota"),
    }
    _FLAGS: ClassVar[Mapping[QuotaKind, str]] = {"user": "-u", "project": "-p"}

    def find(self, subject: Subject) -> QuotaLimits:
        """See :meth:`Quotas.find`."""
        number = subject.number
        text = self._report(f" -L {number} -U {number}")
        return _xfs_report(text).get(number, _NO_QUOTA)

    def find_all(self, subjects: Iterable[Subject]) -> Mapping[int, QuotaLimits]:
        """One process for all."""
        found = _xfs_report(self._report(""))
        return {each.number: found.get(each.number, _NO_QUOTA) for each in subjects}

    def write(self, subject: Subject, limits: QuotaLimits) -> None:
        """See :meth:`Quotas.write`."""
        words = [
            f"{name}={value}"
            for name, value in (
                ("bsoft", _kib(limits.soft_bytes)),
                ("bhard", _kib(limits.hard_bytes)),
                ("isoft", limits.soft_files),
                ("ihard", limits.hard_files),
            )
            if value is not None
        ]
        self._xfs(f"limit {self._FLAGS[self._kind]} {' '.join(words)} {subject.number}")

    def _report(self, bounds: str) -> str:
        return self._xfs(f"report {self._FLAGS[self._kind]} -n -N -b -i{bounds}").stdout

    def _xfs(self, command: str) -> CommandResult:
        return self._run(("xfs_quota", "-x", "-c", command, self._mount))


def _kib(amount: int | None) -> str | None:
    return None if amount is None else f"{amount // _KIB}k"


_XFS_LINE = re.compile(
    r"#(?P<number>\d+)\s+\d+\s+(?P<soft>\d+)\s+(?P<hard>\d+)\s+\d+ \[[^\]]*\]"
    r"\s+\d+\s+(?P<isoft>\d+)\s+(?P<ihard>\d+)\s+\d+ \[[^\]]*\]"
)


def _xfs_report(text: str) -> dict[int, QuotaLimits]:
    """Read ``report -n -N -b -i``, whose sizes are in KiB.

    Raises:
        TemporaryError: a line is not understood.
    """
    found: dict[int, QuotaLimits] = {}
    for line in filter(str.strip, text.splitlines()):
        match = _XFS_LINE.fullmatch(line.strip())
        if match is None:
            raise TemporaryError(f"could not parse a line of xfs_quota: {line!r}")
        found[int(match["number"])] = QuotaLimits(
            int(match["soft"]) * _KIB,
            int(match["hard"]) * _KIB,
            int(match["isoft"]),
            int(match["ihard"]),
        )
    return found


class LustreQuotas(_ToolQuotas):
    """By ``lfs``; quotas are turned on at the servers."""

    tool = "lfs"
    package = "lustre-client"
    type_ = "lustre"
    options: ClassVar[Mapping[QuotaKind, tuple[str, ...]]] = {}
    _FLAGS: ClassVar[Mapping[QuotaKind, str]] = {"user": "-u", "project": "-p"}

    def find(self, subject: Subject) -> QuotaLimits:
        """See :meth:`Quotas.find`."""
        flag = self._FLAGS[self._kind]
        result = self._run(("lfs", "quota", "-q", flag, str(subject.number), self._mount))
        return _lustre_quota(result.stdout)

    def write(self, subject: Subject, limits: QuotaLimits) -> None:
        """All four limits are given: what a tool makes of one that is left out differs."""
        has = self.find(subject)
        options = [
            ("-b", _first(limits.soft_bytes, has.soft_bytes) // _KIB),
            ("-B", _first(limits.hard_bytes, has.hard_bytes) // _KIB),
            ("-i", _first(limits.soft_files, has.soft_files)),
            ("-I", _first(limits.hard_files, has.hard_files)),
        ]
        words = [word for name, value in options for word in (name, str(value))]
        flag = self._FLAGS[self._kind]
        self._run(("lfs", "setquota", flag, str(subject.number), *words, self._mount))


def _first(wanted: int | None, found: int | None) -> int:
    return (found or 0) if wanted is None else wanted


_LUSTRE_COLUMNS = 8


def _lustre_quota(text: str) -> QuotaLimits:
    """Read ``lfs quota -q``: the mount point, which may have a line of its own, and eight columns.

    Raises:
        TemporaryError: they are not there.
    """
    words = text.partition("\n")[0].split()
    if len(words) == 1:
        words = text.split("\n", 2)[1].split() if "\n" in text else []
    columns = [word.strip("[]*") for word in words[-_LUSTRE_COLUMNS:]]
    try:
        soft, hard, isoft, ihard = (int(columns[number]) for number in (1, 2, 5, 6))
    except (IndexError, ValueError) as error:
        raise TemporaryError(f"could not parse the output of lfs quota: {text!r}") from error
    return QuotaLimits(soft * _KIB, hard * _KIB, isoft, ihard)


class CephQuotas(Quotas):
    """By extended attributes of the directory itself."""

    def __init__(self, limits: QuotaLimits, prefix: str = "ceph.quota.") -> None:
        """``prefix`` is another one for tests, as only CephFS knows these attributes."""
        super().__init__(limits)
        self._prefix = prefix

    def find(self, subject: Subject) -> QuotaLimits:
        """See :meth:`Quotas.find`."""
        return QuotaLimits(
            hard_bytes=self._get(subject, "max_bytes"), hard_files=self._get(subject, "max_files")
        )

    def to_write(self, found: QuotaLimits) -> QuotaLimits:
        """The attributes are set one by one: each where there is none."""
        return QuotaLimits(
            hard_bytes=None if found.hard_bytes else self.limits.hard_bytes,
            hard_files=None if found.hard_files else self.limits.hard_files,
        )

    def write(self, subject: Subject, limits: QuotaLimits) -> None:
        """See :meth:`Quotas.write`."""
        for name, value in (("max_bytes", limits.hard_bytes), ("max_files", limits.hard_files)):
            if value is None:
                continue
            with _explained("set", self._prefix + name):
                os.setxattr(subject.directory, self._prefix + name, str(value).encode())

    def diagnose(self) -> Iterator[Check]:
        """Nothing shows before a directory is there."""
        yield Check(
            name=self.checked_name,
            verdict=CheckStatus.OK,
            detail=f"{self._prefix}max_bytes and max_files of each home directory",
        )

    def _get(self, subject: Subject, name: str) -> int:
        try:
            return int(os.getxattr(subject.directory, self._prefix + name))
        except OSError as error:
            if error.errno == errno.ENODATA:
                return 0
            raise _attribute_error("read", self._prefix + name, error) from error
        except ValueError as error:
            raise TemporaryError(f"{self._prefix}{name} is not a number") from error


class _explained:  # noqa: N801 - used like a function
    """Turn an ``OSError`` of the body into an error about an attribute."""

    def __init__(self, verb: str, name: str) -> None:
        self._verb, self._name = verb, name

    def __enter__(self) -> None:
        return

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError):
            raise _attribute_error(self._verb, self._name, error) from error


def _attribute_error(verb: str, name: str, error: OSError) -> TemporaryError:
    known = {
        errno.EOPNOTSUPP: "the directory must be on CephFS, mounted by a client with quotas",
        errno.EPERM: "the Ceph user needs the capability p (allow rwp) to set quotas",
        errno.EACCES: "the Ceph user needs the capability p (allow rwp) to set quotas",
    }
    remedy = known.get(error.errno or 0, "look at the file system")
    return TemporaryError(f"cannot {verb} {name}: {error.strerror}", remedy=remedy)


def home_quotas(quota: HomeQuota, runner: Runner, timeout: float) -> Quotas:
    """The quotas of home directories."""
    if quota.provider == "ceph_xattr":
        return CephQuotas(quota.limits)
    tool = XfsQuotas if quota.provider == "xfs" else LustreQuotas
    return tool(quota.limits, quota.kind, quota.mount_point, runner, timeout)


def project_quotas(quota: ProjectQuota, runner: Runner, timeout: float) -> Quotas:
    """The quotas of project directories."""
    tool = XfsQuotas if quota.provider == "xfs" else LustreQuotas
    return tool(quota.limits, "project", quota.mount_point, runner, timeout)


_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
"""``FS_IOC_FSGETXATTR`` and ``FS_IOC_FSSETXATTR``."""
_ATTRIBUTES = struct.Struct("=IIIII8s")
_INHERITED = 0x200
"""What is made in the directory belongs to its project (``FS_XFLAG_PROJINHERIT``)."""


def project_of(directory: int) -> tuple[int, bool]:
    """The project that a directory belongs to (0: none), and whether what is made in it will.

    Raises:
        TemporaryError: the file system has no projects.
    """
    flags, _, _, project, _, _ = _attributes(directory)
    return project, bool(flags & _INHERITED)


def join_project(directory: int, project: int) -> bool:
    """Put an open directory into a project, with what will be made in it. Return if it changed.

    This is what ``xfs_quota -c "project -s"`` and ``lfs project -s`` do, without their walk
    through the directory.

    Raises:
        PermanentError: it is in another project.
        TemporaryError: the file system refused it.
    """
    if not 0 < project <= LARGEST_ID:
        raise PermanentError(
            f"{project} is not a valid project ID", remedy="choose another project_id_offset"
        )
    flags, extent, extents, found, cow, rest = _attributes(directory)
    if found not in (0, project):
        raise PermanentError(
            f"the directory is in project {found}, not in project {project}",
            remedy="find out who assigned it, or choose another project_id_offset",
        )
    if found == project and flags & _INHERITED:
        return False
    wanted = _ATTRIBUTES.pack(flags | _INHERITED, extent, extents, project, cow, rest)
    try:
        fcntl.ioctl(directory, _SET_ATTRIBUTES, wanted)
    except OSError as error:
        raise _no_projects(error) from error
    return True


def _attributes(directory: int) -> tuple[int, int, int, int, int, bytes]:
    buffer = bytearray(_ATTRIBUTES.size)
    try:
        fcntl.ioctl(directory, _GET_ATTRIBUTES, buffer)
    except OSError as error:
        raise _no_projects(error) from error
    flags, extent, extents, project, cow, rest = _ATTRIBUTES.unpack(bytes(buffer))
    return flags, extent, extents, project, cow, rest


def _no_projects(error: OSError) -> TemporaryError:
    return TemporaryError(
        f"the directory cannot be put into a project: {error.strerror}",
        remedy="it must be on the file system of mount_point, and the agent run as root",
    )


def on_the_same_file_system(directory: int, mount_point: str) -> bool:
    """Whether an open directory is on the file system that is mounted at a place."""
    try:
        return os.fstat(directory).st_dev == Path(mount_point).stat().st_dev
    except OSError:
        return False


def require_same_file_system(directory: int, mount_point: str, path: str) -> None:
    """Raise unless a directory is on the file system whose quotas are set.

    Raises:
        TemporaryError: it is on another, or that one is not mounted.
    """
    if not on_the_same_file_system(directory, mount_point):
        raise TemporaryError(
            f"{path} is not on the file system mounted at {mount_point}",
            remedy="mount it, or correct mount_point",
        )
