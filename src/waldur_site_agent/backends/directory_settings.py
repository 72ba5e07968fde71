"""The settings of home quotas and project directories, and what their sizes mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from waldur_site_agent.model.settings import Section

QuotaProvider: TypeAlias = Literal["xfs", "lustre", "ceph_xattr"]
QuotaKind: TypeAlias = Literal["user", "project"]

LARGEST_ID = 4294967294
"""The largest number of a user, a group or a project."""
_KIB = 1024
_PLAIN_NUMBER: dict[QuotaProvider, int] = {"xfs": 1, "lustre": _KIB, "ceph_xattr": 1}
"""How many bytes a number without a suffix stands for, as the tools of each have it."""
_SIZE = re.compile(r"(?P<number>[0-9]{1,20})(?:(?P<prefix>[KMGTPE])(?:iB)?)?", re.IGNORECASE)
_PREFIXES = "KMGTPE"
_LARGEST_SIZE = 2**63 - _KIB
_OWNER, _OTHERS_WRITE = 0o700, 0o002
_MODE = r"^0?[0-7]{3}$"


def bytes_of(size: str, provider: QuotaProvider) -> int:
    """Return the bytes that a size means, such as ``10G``, which is 10 times 1024 cubed.

    Raises:
        ValueError: it is no size, or not a whole number of KiB, which quotas are kept in.
    """
    found = _SIZE.fullmatch(size)
    if found is None:
        raise ValueError(f"{size!r} is not a size: write a number, or one with K, M, G, T, P or E")
    prefix = found["prefix"]
    unit = _KIB ** (1 + _PREFIXES.index(prefix.upper())) if prefix else _PLAIN_NUMBER[provider]
    amount = int(found["number"]) * unit
    if amount > _LARGEST_SIZE:
        raise ValueError(f"{size!r} is more than any file system holds")
    if provider != "ceph_xattr" and amount % _KIB:
        raise ValueError(
            f"{size!r} is {amount} bytes, which is not a whole number of KiB; {provider} takes a "
            f"number without a suffix as {'bytes' if unit == 1 else 'KiB'}"
        )
    return amount


def _as_text(value: object) -> object:
    """Numbers are sizes, too: files of version 1 have both."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else value or ""


Size: TypeAlias = Annotated[str, BeforeValidator(_as_text)]


@dataclass(frozen=True, slots=True)
class QuotaLimits:
    """Limits of one user, project or directory; ``None`` leaves one alone, 0 is no limit."""

    soft_bytes: int | None = None
    hard_bytes: int | None = None
    soft_files: int | None = None
    hard_files: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return not any((self.soft_bytes, self.hard_bytes, self.soft_files, self.hard_files))


class _BlockQuota(Section):
    """What quotas of XFS and Lustre have in common."""

    mount_point: str = ""
    """Where the file system is mounted."""
    block_softlimit: Size = ""
    """The soft limit of the space, such as ``9G``."""
    block_hardlimit: Size = ""
    """The hard limit of the space."""
    inode_softlimit: int | None = Field(default=None, ge=0)
    """The soft limit of the number of files."""
    inode_hardlimit: int | None = Field(default=None, ge=0)
    """The hard limit of the number of files."""
    project_id_offset: int = Field(default=0, ge=0, le=LARGEST_ID)
    """What is added to the number of the user or group to get the number of the project."""

    @field_validator("mount_point")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return absolute(value)

    def _limits(self, provider: QuotaProvider) -> QuotaLimits:
        limits = QuotaLimits(
            soft_bytes=bytes_of(self.block_softlimit, provider) if self.block_softlimit else None,
            hard_bytes=bytes_of(self.block_hardlimit, provider) if self.block_hardlimit else None,
            soft_files=self.inode_softlimit,
            hard_files=self.inode_hardlimit,
        )
        for name, soft, hard in (
            ("block", limits.soft_bytes, limits.hard_bytes),
            ("inode", limits.soft_files, limits.hard_files),
        ):
            if soft and hard and soft > hard:
                raise ValueError(f"{name}_softlimit is above {name}_hardlimit")
        return limits

    def _require_limit(self, provider: QuotaProvider) -> None:
        if not self.mount_point:
            raise ValueError("mount_point is missing: the quota is set on a file system")
        if self._limits(provider).is_empty:
            raise ValueError("no limit is given, such as block_hardlimit or inode_hardlimit")


class HomeQuota(_BlockQuota):
    """The quota of new home directories."""

    provider: QuotaProvider
    """The file system that the homes are on."""
    kind: QuotaKind = "user"
    """Whose quota: ``user`` counts all files of the user on the file system, ``project`` what is
    in the home directory (``xfs`` and ``lustre``)."""
    max_bytes: Size = ""
    """``ceph_xattr``: the space of the directory, such as ``10G``; without a suffix bytes."""
    max_files: int | None = Field(default=None, ge=0)
    """``ceph_xattr``: the number of files and directories."""

    @model_validator(mode="after")
    def _keys_of_the_provider(self) -> HomeQuota:
        foreign = (
            set(_BlockQuota.model_fields) | {"kind"}
            if self.provider == "ceph_xattr"
            else {"max_bytes", "max_files"}
        )
        wrong = [
            k for k in sorted(foreign & self.model_fields_set) if getattr(self, k) not in _NONE
        ]
        if wrong:
            raise ValueError(f"{wrong[0]} has no meaning for provider {self.provider}")
        if self.provider != "ceph_xattr":
            self._require_limit(self.provider)
        elif self.limits.is_empty:
            raise ValueError("no limit is given: set max_bytes or max_files")
        return self

    @property
    def limits(self) -> QuotaLimits:
        """What is set."""
        if self.provider != "ceph_xattr":
            return self._limits(self.provider)
        size = bytes_of(self.max_bytes, self.provider) if self.max_bytes else None
        return QuotaLimits(hard_bytes=size, hard_files=self.max_files)


_NONE = ("", None)


class ProjectQuota(_BlockQuota):
    """The quota of a project directory; ``mount_point`` and a limit are needed."""

    provider: ClassVar[QuotaProvider]

    @model_validator(mode="after")
    def _usable(self) -> ProjectQuota:
        self._require_limit(self.provider)
        return self

    @property
    def limits(self) -> QuotaLimits:
        """What is set."""
        return self._limits(self.provider)


class LustreProjectQuota(ProjectQuota):
    """A project quota of Lustre; a size without a suffix is in KiB."""

    provider = "lustre"
    mount_point: str = "/valhalla"
    """Where the file system is mounted."""


class XfsProjectQuota(ProjectQuota):
    """A project quota of XFS; a size without a suffix is in bytes."""

    provider = "xfs"


class ProjectDirectory(Section):
    """A directory for the members of each account, named like it."""

    enabled: bool = False
    """Whether an account gets one when it is made; needs root."""
    base_path: str = "/valhalla/projects"
    """The directory that they are made in; it must exist, and belong to root."""
    owner: str = Field(default="nobody", pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")
    """Who owns them."""
    permissions: str = Field(default="770", pattern=_MODE)
    """Their mode; others may not write."""
    group_owner_source: Literal["project_id", "group_name"] = "project_id"
    """Which group they belong to: the one named like the account, or ``group_name``."""
    group_name: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_.-]{0,63})?$")
    """The group of all of them, with ``group_owner_source: group_name``."""
    allow_system_groups: bool = False
    """Whether the group named like the account may have a number below GID_MIN of
    ``/etc/login.defs`` (1000 if that is absent), as the system's own groups have."""
    set_gid: bool = True
    """Whether what is made in them belongs to the same group (set-gid bit)."""
    set_acl: bool = True
    """Whether the group gets read, write and execute by an access control list, which what is made
    in them inherits."""
    lustre_quota: LustreProjectQuota | None = None
    """A project quota on Lustre."""
    xfs_quota: XfsProjectQuota | None = None
    """A project quota on XFS."""

    @property
    def quota(self) -> ProjectQuota | None:
        """The one that is set."""
        return self.lustre_quota or self.xfs_quota

    @property
    def mode(self) -> int:
        """The permissions as a number, without the set-gid bit."""
        return int(self.permissions, 8)

    @field_validator("permissions", mode="before")
    @classmethod
    def _digits(cls, value: object) -> object:
        """Without quotes, ``770`` is a number; YAML reads ``0770`` as another, 504."""
        return _as_text(value)

    @field_validator("permissions")
    @classmethod
    def _usable_mode(cls, value: str) -> str:
        mode = int(value, 8)
        if mode & _OWNER != _OWNER or mode & _OTHERS_WRITE:
            raise ValueError(
                f"{value!r}: the owner needs every permission, and others must not write; put a "
                'mode with a leading zero in quotes ("0770"), which YAML reads as another number'
            )
        return value

    @field_validator("base_path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return absolute(value)

    @field_validator("group_name", mode="before")
    @classmethod
    def _empty_is_not_set(cls, value: object) -> object:
        return value or ""

    @model_validator(mode="after")
    def _consistent(self) -> ProjectDirectory:
        if self.group_owner_source == "group_name" and not self.group_name:
            raise ValueError("group_owner_source: group_name needs group_name")
        if self.lustre_quota and self.xfs_quota:
            raise ValueError("lustre_quota and xfs_quota are both set; remove one")
        return self


def absolute(path: str) -> str:
    """Return a path of the configuration without a slash at its end; empty stays empty.

    Raises:
        ValueError: it is relative, or leads through ``..``.
    """
    found = PurePosixPath(path)
    if path and (not found.is_absolute() or ".." in found.parts or not path.isprintable()):
        raise ValueError(f"{path!r} is not an absolute path")
    return str(found) if path else ""
