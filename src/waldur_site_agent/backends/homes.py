"""Home directories, made by the operating system's own ``mkhomedir_helper``; for plugins."""

from __future__ import annotations

import enum
import logging
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from waldur_site_agent.backends.actions import CreateHomeDirectories, Outcome, Result, Skipped
from waldur_site_agent.backends.checks import Check, CheckStatus, DirectoryReport
from waldur_site_agent.backends.command_line_settings import CommandLineSettings, umask_of
from waldur_site_agent.backends.permissions import directory_of_others
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent.backends.quotas import (
    Quotas,
    Subject,
    home_quotas,
    join_project,
    project_of,
    require_same_file_system,
)
from waldur_site_agent.backends.unfinished import Unfinished, unfinished_check
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError

_log = logging.getLogger(__name__)

_HELPERS = (Path("/usr/sbin/mkhomedir_helper"), Path("/sbin/mkhomedir_helper"))
_NO_HOME = ("", "/", "/nonexistent", "/dev/null", "/var/empty")
"""What accounts that are not meant to have a home directory have instead."""
_ENOUGH_FAILURES = 3
_NOBODY = 65534
"""Who owns what root makes on a file server with root_squash."""


def home_of(user: str) -> Path | None:
    """Return where the operating system says a user's home is; ``None``: it knows no user or home.

    Raises:
        OSError: the operating system's directory of users cannot be asked.
    """
    try:
        home = pwd.getpwnam(user).pw_dir
    except KeyError:
        return None
    return None if home in _NO_HOME else Path(home)


def uid_of(user: str) -> int | None:
    """Return the user's number in the operating system; ``None``: it does not know the user.

    Raises:
        OSError: the operating system's directory of users cannot be asked.
    """
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


class _Found(enum.Enum):
    """How a user's home directory stands."""

    NOTHING = "does not exist"
    THEIR_OWN = "is there, or is not for the agent to make"
    LEFT_ALONE = "cannot be looked at now, or was given to the user by somebody"
    LEFT_BEHIND = "was left behind by an attempt that failed"


class HomeDirectories:
    """Looks for home directories within the process, and starts one command for each missing."""

    def __init__(
        self,
        runner: Runner,
        settings: CommandLineSettings,
        user_name: Callable[[str], str],
        helpers: tuple[Path, ...] = _HELPERS,
        find_home: Callable[[str], Path | None] = home_of,
        find_uid: Callable[[str], int | None] = uid_of,
        quotas: Quotas | None = None,
    ) -> None:
        """Remember, but look at nothing yet.

        Args:
            runner: starts ``mkhomedir_helper``.
            settings: the plugin's ``backend_settings``.
            user_name: the plugin's check of names; raises ``PermanentError`` for unusable ones.
            helpers: the places where ``mkhomedir_helper`` may be.
            find_home: replaces the operating system's directory of users in tests.
            find_uid: the same for the users' numbers.
            quotas: replaces what ``homedir_quota`` stands for.
        """
        self._find_home = find_home
        self._find_uid = find_uid
        self._runner = runner
        self._user_name = user_name
        self._helpers = helpers
        self._umask = umask_of(settings.homedir_umask)
        self._timeout = settings.command_timeout_seconds
        self._setting = settings.homedir_umask
        self._wanted = settings.enable_user_homedir_account_creation
        self._before = ("sudo", "-n") if settings.homedir_sudo else ()
        self._is_chosen = "homedir_umask" in settings.model_fields_set
        self._settled: set[str] = set()
        self._base = settings.homedir_base_path
        self._quota = settings.homedir_quota
        self._quotas = quotas or (
            home_quotas(self._quota, runner, settings.command_timeout_seconds)
            if self._quota
            else None
        )
        self._unset = Unfinished(
            "home-quotas", self._base or (self._quota.mount_point if self._quota else "")
        )

    def usable(self, users: Iterable[str]) -> Iterator[str]:
        """Those of the users whose names can be given to a command."""
        for user in users:
            with suppress(PermanentError):
                yield self._user_name(user)

    def diagnose(self) -> Iterator[Check]:
        """Whether home directories can be made; for the plugin's own diagnosis, never raises."""
        if not self._wanted:
            yield Check(name="home directories", verdict=CheckStatus.OK, detail="are not made")
            return
        try:
            helper = str(self._helper())
            if self._before:
                probe = (*self._before, "-l", helper, "root", self._umask)
                allowed = self._runner.run(probe, self._timeout).exit_code == 0
            else:
                allowed = os.geteuid() == 0
        except TemporaryError as error:
            yield Check(name="home directories", verdict=CheckStatus.WARNING, detail=str(error))
            return
        how = f"made by {' '.join((*self._before, helper))}"
        if self._base:
            how += f" below {self._base}"
        yield Check(
            name="home directories",
            verdict=CheckStatus.OK if allowed else CheckStatus.WARNING,
            detail=how if allowed else f"{how}, which this user may not run",
            remedy=""
            if allowed
            else "run the agent as root, set homedir_sudo and install its rule for sudo, or set "
            "enable_user_homedir_account_creation: false",
        )
        if self._base and not Path(self._base).is_dir():
            yield Check(
                name="home directories",
                verdict=CheckStatus.FAILED,
                detail=f"{self._base} does not exist",
                remedy="mount the file system of the homes, or correct homedir_base_path",
            )
        if self._quotas is not None:
            yield from self._quotas.diagnose()
            yield from unfinished_check("quotas of home directories", self._unset)

    def missing(self, users: Iterable[str]) -> frozenset[str]:
        """Those that the operating system knows with a home that is not there or not theirs.

        A home that cannot be looked at (a file server that is away) does not count as missing. One
        that a failed attempt left behind does: it is named in every cycle until somebody mends it.
        A home that was seen is not looked at again, because looking mounts it on many sites, and
        asks the directory service; :meth:`look_again` undoes that.
        """
        return frozenset(user for user in users if user not in self._settled and self._lacks(user))

    def unset_quotas(self, users: Iterable[str]) -> frozenset[str]:
        """Those whose home is there, but whose quota could not be set when it was made."""
        if self._quotas is None:
            return frozenset()
        noted = self._unset.names() & frozenset(users)
        return frozenset(user for user in noted if self._look(user) is _Found.THEIR_OWN)

    def look_again(self, users: Iterable[str]) -> None:
        """Look at these users' homes again when next asked: they are let in anew."""
        self._settled.difference_update(users)

    def _lacks(self, user: str) -> bool:
        found = self._look(user)
        if found is _Found.THEIR_OWN:
            self._settled.add(user)
        return found in {_Found.NOTHING, _Found.LEFT_BEHIND}

    def create(self, action: CreateHomeDirectories) -> Outcome:
        """Make what is missing; whoever cannot be served is left out.

        When several in a row fail it is not about them: the rest waits for another cycle.
        """
        skipped: list[Skipped] = []
        made = False
        failed_in_a_row = 0
        unset = self._unset.names() if self._quotas is not None else frozenset()
        for user in action.users:
            if failed_in_a_row == _ENOUGH_FAILURES:
                skipped.append(
                    Skipped(user, TemporaryError("not tried, because those before it failed"))
                )
                continue
            try:
                is_new = self._create(user)
                made |= is_new
                if is_new or user in unset:
                    made |= self._complete_quota(user)
                failed_in_a_row = 0
            except TemporaryError as error:
                failed_in_a_row += 1
                skipped.append(Skipped(user, error))
            except PermanentError as error:
                skipped.append(Skipped(user, error))
        return Outcome(action, Result.DONE if made else Result.UNCHANGED, None, tuple(skipped))

    def _create(self, user: str) -> bool:
        name = self._user_name(user)
        match self._look(name):
            case _Found.THEIR_OWN | _Found.LEFT_ALONE:
                return False
            case _Found.LEFT_BEHIND:
                raise _left_behind(name, self.home_of(name))
        self._require_base(name)
        self._require_safe_place(name)
        if self._is_chosen and self._umask != f"{int(self._setting, 8):04o}":
            _warn_of_mode(self._setting, self._umask)
        command = (*self._before, str(self._helper()), name, self._umask)
        if self._quotas is not None:
            self._unset.add(name)  # the quota is set even if the agent is killed before
        result = self._runner.run(command, self._timeout)
        if result.exit_code != 0 or self._look(name, made_now=True) is not _Found.THEIR_OWN:
            raise _failed(name, self.home_of(name), result)
        _log.info("created the home directory %s of %s", self.home_of(name), name)
        return True

    def _complete_quota(self, user: str) -> bool:
        """Set the quota of a home that the agent made; one that is set already is left alone."""
        try:
            changed = self._ensure_quota(user)
        except SiteAgentError as error:
            family = PermanentError if isinstance(error, PermanentError) else TemporaryError
            raise family(
                f"the home directory {self.home_of(user)} of {user} is there, but its quota was "
                f"not set: {error.problem}",
                remedy=error.remedy,
            ) from error
        self._unset.discard(user)
        return changed

    def _ensure_quota(self, user: str, *, replace: bool = False) -> bool:
        if self._quotas is None:
            return False
        with self._subject(user) as subject:
            changed = self._quotas.ensure(subject, replace=replace)
            if self._is_project:
                changed |= join_project(subject.directory, subject.number)
            return changed

    @property
    def _is_project(self) -> bool:
        quota = self._quota
        return quota is not None and quota.provider != "ceph_xattr" and quota.kind == "project"

    @contextmanager
    def _subject(self, user: str) -> Iterator[Subject]:
        """Whose quota it is, with the home directory open if the quota is the directory's.

        Raises:
            TemporaryError: the user, or the home, is not there.
            PermanentError: the home is not the user's, or somebody could have put it there.
        """
        uid, home, quota = self._find_uid(user), self.home_of(user), self._quota
        if not uid or home is None or quota is None:
            raise TemporaryError(f"the operating system knows no ordinary user {user} with a home")
        if quota.provider != "ceph_xattr" and quota.kind == "user":
            yield Subject(uid)
            return
        others = directory_of_others(home, groups=True)
        if others is not None:
            raise PermanentError(
                f"{others} belongs to another user, or others can write to it, so somebody could "
                f"have put something else at {home}",
                remedy=f"give {others} to root, with mode 0755",
            )
        try:
            directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise TemporaryError(f"{home} cannot be opened: {error.strerror}") from error
        try:
            if os.fstat(directory).st_uid != uid:
                raise PermanentError(f"{home} does not belong to {user}")
            if quota.mount_point:
                require_same_file_system(directory, quota.mount_point, str(home))
            yield Subject(uid + quota.project_id_offset, directory)
        finally:
            os.close(directory)

    def check(
        self, users: Iterable[str], *, repair: bool = False, replace_quotas: bool = False
    ) -> Iterator[DirectoryReport]:
        """Compare each home with the settings, and with ``repair`` set its quota.

        Homes that are missing are made by ``create``.
        """
        for user in sorted(users):
            path = self.home_of(user)
            if path is None:
                continue
            try:
                differences = self._differences(user)
                repaired: tuple[str, ...] = ()
                can_be_repaired = self._quotas is not None and self._look(user) is _Found.THEIR_OWN
                if repair and differences and can_be_repaired:
                    changed = self._ensure_quota(user, replace=replace_quotas)
                    repaired = ("quota",) if changed else ()
                    differences = self._differences(user)
                if not differences:
                    self._unset.discard(user)
                yield DirectoryReport(str(path), differences, repaired)
            except SiteAgentError as error:
                yield DirectoryReport(str(path), (str(error),))

    def _differences(self, user: str) -> tuple[str, ...]:
        match self._look(user):
            case _Found.NOTHING:
                return (f"the home of {user} does not exist",)
            case _Found.LEFT_BEHIND:
                return (_left_behind(user, self.home_of(user)).problem,)
            case _Found.LEFT_ALONE:
                return ()
        if self._quotas is None:
            return ()
        with self._subject(user) as subject:
            wrong = self._quotas.differences(self._quotas.find(subject))
            if self._is_project:
                project, inherited = project_of(subject.directory)
                if project != subject.number or not inherited:
                    wrong = (*wrong, f"in project {project} instead of {subject.number}")
        return wrong

    def home_of(self, user: str) -> Path | None:
        """Where a user's home is on this machine."""
        home = self._find_home(user)
        return Path(self._base, user) if self._base and home is not None else home

    def _require_base(self, user: str) -> None:
        """The helper makes what the operating system names; that must be what is looked at."""
        named, home = self._find_home(user), self.home_of(user)
        if not self._base or named is None or home is None:
            return
        if not Path(self._base).is_dir():
            raise TemporaryError(
                f"the home directory {home} of {user} was not created: {self._base} does not exist",
                remedy="mount the file system of the homes, or correct homedir_base_path",
            )
        if named.name != home.name or named.parent.resolve() != home.parent.resolve():
            raise PermanentError(
                f"no home directory was created for {user}: the operating system has it at "
                f"{named}, not below {self._base}",
                remedy="correct homedir_base_path or the user's entry, or make it by hand",
            )

    def _require_safe_place(self, user: str) -> None:
        """The helper runs as root and follows links: nobody may be able to put one in its way."""
        home = self.home_of(user)
        directory = None if home is None else directory_of_others(home, groups=True)
        if directory is not None:
            raise PermanentError(
                f"the home directory {home} of {user} was not created: {directory} belongs to "
                "another user, or others can write to it, so somebody could redirect what "
                "root creates below it",
                remedy=f"create {home} by hand, or give {directory} to root, with mode 0755",
            )

    def _helper(self) -> Path:
        for helper in self._helpers:
            if os.access(helper, os.X_OK):
                return helper
        raise TemporaryError(
            f"no home directory is created: there is no executable {self._helpers[0]}; install it "
            "(Debian: libpam-modules-bin, Red Hat: pam), run the agent as a user that may execute "
            "it, or set enable_user_homedir_account_creation: false"
        )

    def _look(self, user: str, *, made_now: bool = False) -> _Found:
        """How a user's home stands; ``made_now``: whether it must be the user's in every way."""
        home = self.home_of(user)
        if home is None:
            return _Found.LEFT_ALONE if self._find_uid(user) is None else _Found.THEIR_OWN
        try:
            found = home.stat()
        except (FileNotFoundError, NotADirectoryError):
            return _Found.NOTHING
        except OSError:
            return _Found.NOTHING if made_now else _Found.LEFT_ALONE
        uid = self._find_uid(user)
        is_theirs = uid in (None, found.st_uid) and (stat.S_ISDIR(found.st_mode) or not made_now)
        if is_theirs:
            return _Found.THEIR_OWN
        if not (made_now or found.st_uid in _makers()):
            return _Found.LEFT_ALONE
        return _Found.LEFT_BEHIND


def _makers() -> tuple[int, ...]:
    """Who owns what an attempt leaves that does not get as far as giving it to the user."""
    return 0, _NOBODY, os.geteuid()


def _left_behind(user: str, home: Path | None) -> PermanentError:
    return PermanentError(
        f"{user} has no usable home directory: {home} exists but belongs to another user, as a "
        "failed attempt leaves it (file system full, quota, a file server with root_squash, a "
        "killed helper); nothing was deleted: remedy the file system, then give the directory to "
        f"the user (chown -R {user}: {home}), or remove it to have it made again"
    )


def _failed(user: str, home: Path | None, result: CommandResult) -> TemporaryError:
    said = " ".join(result.stderr.split()) or "it gave no reason"
    return TemporaryError(
        f"the home directory {home} of {user} was not created: mkhomedir_helper ended with "
        f"exit code {result.exit_code} ({said}); look at the system's log, the space and quota of "
        "the file system, and the permissions of the directory above; it needs root, or "
        "homedir_sudo and a rule for sudo"
    )


@cache
def _warn_of_mode(setting: str, umask: str) -> None:
    """Say it once per process."""
    _log.warning(
        "homedir_umask %s is read as the mode of new home directories, i.e. as umask %s; as a "
        "umask it would lock their owners out; write %s to silence this",
        *(setting, umask, umask),
    )
