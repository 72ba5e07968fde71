"""Directories for the members of an account: made complete, never removed.

The agent is root here, and the members own what is below. So everything is done on descriptors of
directories, below a directory that only root can change; a directory is made under another name and
appears when it is complete. What was there before is changed by nobody but ``repair``, and only
where it belongs to root or the configured owner.
"""

from __future__ import annotations

import errno
import grp
import logging
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from waldur_site_agent.backends import access_lists, quotas
from waldur_site_agent.backends.actions import CreateProjectDirectory, Outcome, Result, Skipped
from waldur_site_agent.backends.checks import Check, CheckStatus, DirectoryReport, failed_check
from waldur_site_agent.backends.command_line_settings import CommandLineSettings
from waldur_site_agent.backends.directory_settings import ProjectDirectory
from waldur_site_agent.backends.locking import default_lock_file, exclusive_lock
from waldur_site_agent.backends.permissions import directory_of_others
from waldur_site_agent.backends.processes import Runner
from waldur_site_agent.backends.quotas import Subject
from waldur_site_agent.backends.system_users import lowest_ordinary_group
from waldur_site_agent.backends.unfinished import Unfinished, unfinished_check
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError

_log = logging.getLogger(__name__)

_NAME = "project directories"
_DRAFT = ".{name}.waldur-site-agent"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_SECONDS = 30.0


def directories_of(
    settings: CommandLineSettings, runner: Runner, account_name: Callable[[str, str], str]
) -> ProjectDirectories | None:
    """The project directories of a backend with these settings; ``None`` where it has none."""
    section = settings.project_directory
    if not section.enabled:
        return None
    return ProjectDirectories(section, runner, settings.command_timeout_seconds, account_name)


def owner_number(name: str) -> int | None:
    """The number of a user; ``None``: the operating system knows none of this name."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group_number(name: str) -> int | None:
    """The number of a group; ``None``: the operating system knows none of this name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


@dataclass(frozen=True, slots=True)
class _Owners:
    owner: int
    group: int


class ProjectDirectories:
    """The project directories of one backend."""

    def __init__(
        self,
        settings: ProjectDirectory,
        runner: Runner,
        timeout: float,
        account_name: Callable[[str, str], str],
        find_owner: Callable[[str], int | None] = owner_number,
        find_group: Callable[[str], int | None] = group_number,
        lowest_group: Callable[[], int] = lowest_ordinary_group,
    ) -> None:
        """Look at nothing yet.

        Args:
            settings: the section ``project_directory``.
            runner: starts the tools of the quota.
            timeout: how long they may take, in seconds.
            account_name: the backend's check of account names; raises ``PermanentError``.
            find_owner: replaces the operating system's directory of users in tests.
            find_group: the same for groups.
            lowest_group: the lowest number of a group that is not the system's own.
        """
        self._settings = settings
        self._base = Path(settings.base_path)
        self._account_name = account_name
        self._find_owner = find_owner
        self._find_group = find_group
        self._lowest_group = lowest_group
        quota = settings.quota
        self._quota = quota
        self._quotas = quotas.project_quotas(quota, runner, timeout) if quota else None
        self._unfinished = Unfinished("project-directories", settings.base_path)

    def unfinished(self, accounts: Iterable[str]) -> frozenset[str]:
        """Those whose directory could not be made or completed earlier."""
        return self._unfinished.names() & frozenset(accounts)

    def create(self, action: CreateProjectDirectory) -> Outcome:
        """Make an account's directory where there is none, with its quota.

        A failure is one of the directory alone: it is noted, and tried again by later passes.
        """
        try:
            name = self._name(action.resource)
            self._unfinished.add(name)
            made = self._make(name)
            made |= self._ensure_quota(name)
            self._unfinished.discard(name)
        except SiteAgentError as error:
            path = self._base / action.resource
            family = PermanentError if isinstance(error, PermanentError) else TemporaryError
            problem = f"project directory {path}: {error.problem}"
            left = Skipped(action.resource, family(problem, remedy=error.remedy))
            return Outcome(action, Result.UNCHANGED, None, (left,))
        return Outcome(action, Result.DONE if made else Result.UNCHANGED)

    def check(
        self, accounts: Iterable[str], *, repair: bool = False, replace_quotas: bool = False
    ) -> Iterator[DirectoryReport]:
        """Compare each directory with the settings, and with ``repair`` correct it."""
        for account in sorted(accounts):
            path = self._base / account
            try:
                name = self._name(account)
                differences = self._differences(name)
                repaired: tuple[str, ...] = ()
                if repair and differences:
                    repaired = self._repair(name, replace_quotas=replace_quotas)
                    differences = self._differences(name)
                if not differences:
                    self._unfinished.discard(name)
                yield DirectoryReport(str(path), differences, repaired)
            except SiteAgentError as error:
                yield DirectoryReport(str(path), (str(error),))

    def _repair(self, name: str, *, replace_quotas: bool) -> tuple[str, ...]:
        done = []
        if self._make(name, repair=True):
            done.append("owner, group, mode and access control list")
        if self._ensure_quota(name, replace=replace_quotas):
            done.append("quota")
        return tuple(done)

    def diagnose(self) -> Iterator[Check]:
        """Whether directories can be made; never raises."""
        try:
            with self._opened_base() as base:
                if self._settings.set_acl:
                    access_lists.read_list(base, access_lists.DEFAULT)
                if self._quota is not None:
                    mount = self._quota.mount_point
                    quotas.require_same_file_system(base, mount, str(self._base))
                    quotas.project_of(base)
            self._owner()
            if self._settings.group_owner_source == "group_name":
                self._group(self._settings.group_name)
        except SiteAgentError as error:
            yield failed_check(_NAME, error)
        else:
            yield self._rights()
        if self._quotas is not None:
            yield from self._quotas.diagnose()
        yield from unfinished_check(_NAME, self._unfinished)

    def _rights(self) -> Check:
        allowed = os.geteuid() == 0
        return Check(
            name=_NAME,
            verdict=CheckStatus.OK if allowed else CheckStatus.FAILED,
            detail=f"made below {self._base}" + ("" if allowed else ", which needs root"),
            remedy="" if allowed else "run the agent as root, or set enabled: false",
        )

    def _name(self, account: str) -> str:
        name = self._account_name(account, "account")
        if "/" in name or name.startswith("."):
            raise PermanentError(
                "the account's name cannot be used for a directory", remedy="rename the account"
            )
        return name

    def _owner(self) -> int:
        owner = self._find_owner(self._settings.owner)
        if owner is None:
            raise TemporaryError(
                f"this machine knows no user {self._settings.owner}", remedy="correct owner"
            )
        return owner

    def _group(self, name: str) -> int:
        group = self._find_group(name)
        if group is None:
            raise TemporaryError(
                f"this machine knows no group {name}",
                remedy="create it, or set group_owner_source: group_name and group_name",
            )
        return group

    def _owners(self, name: str) -> _Owners:
        if self._settings.group_owner_source == "group_name":
            return _Owners(self._owner(), self._group(self._settings.group_name))
        group, lowest = self._group(name), self._lowest_group()
        if group < lowest and not self._settings.allow_system_groups:
            raise PermanentError(
                f"the group {name} is one of the system's own: it has the number {group}, below "
                f"{lowest} (GID_MIN)",
                remedy="set another allocation_prefix, so that no account is named like such a "
                "group, or allow_system_groups: true if the group was made for the account",
            )
        return _Owners(self._owner(), group)

    @contextmanager
    def _opened_base(self) -> Iterator[int]:
        """A descriptor of the base path, which only root can change.

        Raises:
            TemporaryError: it is not there.
            PermanentError: somebody else could put something in its way, or in its place.
        """
        try:
            base = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise TemporaryError(
                f"cannot open {self._base}: {error.strerror}",
                remedy="mount the file system, create the directory, or correct base_path",
            ) from error
        try:
            others = directory_of_others(self._base / "new", groups=True)
            opened, there = os.fstat(base), self._base.stat()
            if others is not None or not os.path.samestat(opened, there):
                raise PermanentError(
                    f"{others or self._base} belongs to another user, or others can write to it, "
                    "so somebody could redirect what root creates below it",
                    remedy=f"give {others or self._base} to root (chown root:root, mode 0755)",
                )
            yield base
        finally:
            os.close(base)

    @contextmanager
    def _opened(self, base: int, name: str) -> Iterator[int | None]:
        """A descriptor of a directory below the base path; ``None`` where nothing is there."""
        try:
            found = os.open(name, _DIRECTORY, dir_fd=base)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise PermanentError(
                    "something else is there: a link or a file",
                    remedy="move it away; the agent follows no links here",
                ) from error
            raise TemporaryError(f"cannot be opened: {error.strerror}") from error
        try:
            yield found
        finally:
            os.close(found)

    def _make(self, name: str, *, repair: bool = False) -> bool:
        """Make the directory, or with ``repair`` correct the one that is there."""
        owners = self._owners(name)
        with self._opened_base() as base, self._locked():
            if self._quota is not None:
                quotas.require_same_file_system(base, self._quota.mount_point, str(self._base))
            with self._opened(base, name) as found:
                if found is None:
                    self._make_new(base, name, owners)
                    _log.info("created the project directory %s", self._base / name)
                    return True
                wrong = self._wrong(found, owners)
                if not wrong:
                    return False
                if not repair:
                    raise PermanentError(
                        f"was there before, and was left as it is: {'; '.join(wrong)}",
                        remedy="waldur-site-agent directories repair corrects it",
                    )
                self._require_ours(found, owners)
                _log.info("repairing %s: %s", self._base / name, "; ".join(wrong))
                self._complete(found, owners)
                return True

    def _make_new(self, base: int, name: str, owners: _Owners) -> None:
        draft = _DRAFT.format(name=name)
        try:
            with suppress(FileExistsError):  # an earlier attempt was interrupted
                os.mkdir(draft, 0o700, dir_fd=base)
            with self._opened(base, draft) as made:
                if made is None:
                    raise TemporaryError(f"{draft} disappeared while it was being made")
                self._require_ours(made, owners)
                self._complete(made, owners)
            os.rename(draft, name, src_dir_fd=base, dst_dir_fd=base)
        except OSError as error:
            raise TemporaryError(
                f"cannot be created: {error.strerror}",
                remedy="check space and permissions of the file system; run the agent as root",
            ) from error

    def _complete(self, directory: int, owners: _Owners) -> None:
        """Give an open directory everything that it should have.

        Raises:
            TemporaryError: the system refused part of it, or it is not so afterwards.
        """
        mode = self._settings.mode | (stat.S_ISGID if self._settings.set_gid else 0)
        try:
            os.fchown(directory, owners.owner, owners.group)
            os.fchmod(directory, mode)
        except OSError as error:
            raise TemporaryError(
                f"owner, group or mode cannot be set: {error.strerror}",
                remedy="run the agent as root; a service needs RestrictSUIDSGID=no for set_gid",
            ) from error
        if self._settings.set_acl:
            access_lists.grant(directory, owners.group)
        if wrong := self._wrong(directory, owners):
            raise TemporaryError(
                f"was set, but reads back differently: {'; '.join(wrong)}",
                remedy="check whether the file server maps root to another user (root_squash)",
            )

    def _require_ours(self, directory: int, owners: _Owners) -> None:
        found = os.fstat(directory)
        if found.st_uid not in (0, os.geteuid(), owners.owner):
            raise PermanentError(
                f"belongs to user {found.st_uid}, neither to root nor to {self._settings.owner}",
                remedy="find out whose it is; if it is the project's, change its owner by "
                "hand (chown)",
            )

    def _wrong(self, directory: int, owners: _Owners) -> list[str]:
        """What an open directory has that the settings do not ask for, in words."""
        found = os.fstat(directory)
        wrong = []
        if found.st_uid != owners.owner:
            wrong.append(f"owner {found.st_uid} instead of {owners.owner}")
        if found.st_gid != owners.group:
            wrong.append(f"group {found.st_gid} instead of {owners.group}")
        mode = self._settings.mode | (stat.S_ISGID if self._settings.set_gid else 0)
        if self._settings.set_acl:
            mode |= stat.S_IRWXG  # the group's bits are the mask of the list then
        if stat.S_IMODE(found.st_mode) != mode:
            wrong.append(f"mode {stat.S_IMODE(found.st_mode):04o} instead of {mode:04o}")
        if self._settings.set_acl and not access_lists.is_granted(directory, owners.group):
            wrong.append("the group is missing in the access control list")
        return wrong

    def _differences(self, name: str) -> tuple[str, ...]:
        owners = self._owners(name)
        with self._opened_base() as base, self._opened(base, name) as found:
            if found is None:
                return ("does not exist",)
            wrong = self._wrong(found, owners)
            if self._quota is not None and self._quotas is not None:
                number = owners.group + self._quota.project_id_offset
                project, inherited = quotas.project_of(found)
                if project != number or not inherited:
                    wrong.append(f"in project {project} instead of {number}")
                wrong += self._quotas.differences(self._quotas.find(Subject(number)))
            return tuple(wrong)

    def _ensure_quota(self, name: str, *, replace: bool = False) -> bool:
        """Set the limit of the project, then put the directory into it."""
        if self._quota is None or self._quotas is None:
            return False
        number = self._owners(name).group + self._quota.project_id_offset
        with self._opened_base() as base, self._opened(base, name) as found:
            if found is None:
                raise TemporaryError("disappeared before its quota was set")
            quotas.require_same_file_system(found, self._quota.mount_point, str(self._base / name))
            changed = self._quotas.ensure(Subject(number), replace=replace)
            if not quotas.join_project(found, number):
                return changed
            if _holds_something(found):
                _log.warning(
                    "%s is in project %d now, but what it holds already is not counted; by hand: "
                    "xfs_quota -x -c 'project -s -p %s %d' %s, or lfs project -r -s -p %d %s",
                    *(self._base / name, number, self._base / name, number),
                    *(self._quota.mount_point, number, self._base / name),
                )
            return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = default_lock_file("waldur-site-agent-directories.lock")
        with exclusive_lock(path, _LOCK_SECONDS, "another agent is making directories"):
            yield


def _holds_something(directory: int) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is not None
