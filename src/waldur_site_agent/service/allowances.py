"""Refused plans, and the allowances for them: files in a directory of the agent's own.

A cycle that is refused records the plan under its digest. ``waldur-site-agent allow DIGEST`` puts
an allowance beside it, and the next cycle that comes to exactly this plan takes it: by renaming, so
that it is used once whatever is killed, and before anything is removed.

Only the agent's user and root can write there. Whatever looks otherwise (another owner, a mode that
lets others in, a symbolic link, a file with several names) is not believed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from waldur_site_agent.backends.locking import default_lock_file
from waldur_site_agent.cycles.site import Allowance, RefusedPlan
from waldur_site_agent.model.errors import TemporaryError

LIFETIME_SECONDS = 3600.0
"""How long an allowance is valid."""
KEPT_SECONDS = 86400.0
"""How long a refused plan, and a used allowance, is kept."""
SHORTEST_DIGEST = 8
_REFUSED, _ALLOWED, _USED = ".refused.json", ".allowed.json", ".used.json"
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_OTHERS = 0o077
_WRITING_OTHERS = 0o022
_OWNER_ONLY = 0o600
_LARGEST = 4 << 20
Content = TypeVar("Content")
_PLAN, _ALLOWANCE = TypeAdapter(RefusedPlan), TypeAdapter(Allowance)


class UnknownDigestError(ValueError):
    """No refused plan has this digest, or several begin so."""


def default_directory() -> Path | None:
    """Where refusals are kept, beside the agent's locks; ``None`` without a safe directory."""
    try:
        return default_lock_file("refusals")
    except TemporaryError:
        return None


class Allowances:
    """The refusals and allowances of one machine."""

    def __init__(self, directory: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Without a directory nothing can be recorded or allowed."""
        self._directory = directory
        self._clock = clock

    def record(self, plan: RefusedPlan) -> None:
        """Keep a plan that was refused; a failure is logged, for the refusal stands anyway."""
        try:
            with self._opened(make=True) as directory:
                self._drop_old(directory)
                _write(directory, plan.digest + _REFUSED, asdict(plan))
        except OSError as error:
            structlog.get_logger().warning(
                "cannot record the refused plan, so it cannot be allowed by its digest",
                digest=plan.digest,
                reason=str(error),
                remedy="--allow-removals still works",
            )

    def settle(self, offering: str, job: str, keep: str = "") -> None:
        """Drop the refused plans of a job that a complete pass did not come to again."""
        with suppress(OSError), self._opened() as directory:
            for plan in _refused_in(directory):
                if (plan.offering, plan.job) == (offering, job) and plan.digest != keep:
                    os.unlink(plan.digest + _REFUSED, dir_fd=directory)

    def take(self, digest: str) -> Allowance | None:
        """The allowance for a plan, which is then used up; ``None`` where there is no valid one."""
        try:
            with self._opened(own=True) as directory:
                allowance = _read(directory, digest + _ALLOWED, _ALLOWANCE)
                if allowance is None:
                    return None
                os.rename(
                    digest + _ALLOWED,
                    digest + _USED,
                    src_dir_fd=directory,
                    dst_dir_fd=directory,
                )
        except OSError:
            return None
        age = self._clock() - allowance.at
        is_valid = 0 <= age <= LIFETIME_SECONDS and allowance.digest == digest
        return allowance if is_valid else None

    def allow(self, digest: str, by: str) -> RefusedPlan:
        """Allow the refused plan whose digest begins so, for an hour.

        Raises:
            UnknownDigestError: there is none, or there are several.
            OSError: the allowance cannot be written.
        """
        plan = self.find(digest)
        content = Allowance(plan.digest, plan.offering, plan.job, by, self._clock())
        with self._opened() as directory:
            _write(directory, plan.digest + _ALLOWED, asdict(content))
        return plan

    def find(self, digest: str) -> RefusedPlan:
        """The refused plan whose digest begins so.

        Raises:
            UnknownDigestError: there is none, or there are several.
            OSError: the refused plans cannot be read.
        """
        text = digest.strip().lower()
        if not _DIGEST.fullmatch(text):
            raise UnknownDigestError(
                f"{digest!r} is not a digest: give at least {SHORTEST_DIGEST} of its characters"
            )
        found = [plan for plan in self.refused() if plan.digest.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownDigestError(
                f"several refused plans begin with {text}; give more characters"
            )
        raise UnknownDigestError(
            f"no plan was refused with the digest {text} in the last day on this machine; plans "
            'change with Waldur and the cluster: "waldur-site-agent status" shows the present ones'
        )

    def refused(self) -> list[RefusedPlan]:
        """The plans that were refused last, newest first.

        Raises:
            OSError: they cannot be read.
        """
        try:
            with self._opened() as directory:
                found = list(_refused_in(directory))
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda plan: -plan.at)

    def allowed(self, digest: str) -> bool:
        """Whether a valid allowance waits to be used."""
        with suppress(OSError), self._opened() as directory:
            found = _read(directory, digest + _ALLOWED, _ALLOWANCE)
            if found is not None:
                return 0 <= self._clock() - found.at <= LIFETIME_SECONDS
        return False

    @contextmanager
    def _opened(self, *, make: bool = False, own: bool = False) -> Iterator[int]:
        """The directory, if it is safe; ``own``: and this user's, whoever this is.

        Raises:
            OSError: it is not there, or others could have put something into it.
        """
        if self._directory is None:
            raise FileNotFoundError("there is no directory that others cannot write to")
        if make:
            with suppress(FileExistsError):
                self._directory.mkdir(mode=0o700)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._directory, flags)
        try:
            found = os.fstat(descriptor)
            # root allows what an agent of another user was refused
            is_ours = os.geteuid() in (0, found.st_uid)
            if not is_ours or found.st_mode & _OTHERS:
                raise PermissionError(
                    f"{self._directory} belongs to uid {found.st_uid} with mode "
                    f"{stat.S_IMODE(found.st_mode):04o}: it must be the agent's own, mode 0700"
                )
            if (make or own) and found.st_uid != os.geteuid():
                raise PermissionError(
                    f"{self._directory} belongs to uid {found.st_uid}, not to this agent"
                )
            yield descriptor
        finally:
            os.close(descriptor)

    def _drop_old(self, directory: int) -> None:
        for name in os.listdir(directory):
            with suppress(OSError):
                written = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
                if self._clock() - written > KEPT_SECONDS:
                    os.unlink(name, dir_fd=directory)


def _refused_in(directory: int) -> Iterator[RefusedPlan]:
    for name in sorted(os.listdir(directory)):
        if name.endswith(_REFUSED):
            plan = _read(directory, name, _PLAN)
            if plan is not None and plan.digest + _REFUSED == name:
                yield plan


def _read(directory: int, name: str, kind: TypeAdapter[Content]) -> Content | None:
    """The content of a file; ``None`` where there is none that can be believed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        found, owner = os.fstat(stream.fileno()), os.fstat(directory).st_uid
        is_safe = (
            stat.S_ISREG(found.st_mode)
            and found.st_nlink == 1
            and found.st_uid in (0, owner)
            and not found.st_mode & _WRITING_OTHERS
            and found.st_size <= _LARGEST
        )
        if not is_safe:
            return None
        try:
            return kind.validate_json(stream.read(_LARGEST))
        except ValidationError:
            return None


def _write(directory: int, name: str, content: dict[str, Any]) -> None:
    """Replace a file as a whole; it belongs to the owner of the directory."""
    draft = f".{name}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, _OWNER_ONLY, dir_fd=directory)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(content))
        owner = os.fstat(directory)
        if owner.st_uid != os.geteuid():  # root, for an agent of another user
            os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
    os.replace(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
