"""Locks between processes and operating-system users of one machine, by ``flock`` on a file.

The kernel releases such a lock when its holder, and every child that inherited it, is dead: so
nothing is ever left behind but a file that says who was last.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from waldur_site_agent.backends.permissions import everybody_can_write
from waldur_site_agent.model.errors import TemporaryError

OWN_DIRECTORY = Path("/run/waldur-site-agent")
DIRECTORY_VARIABLE = "WALDUR_SITE_AGENT_LOCK_DIRECTORY"
"""Names another directory than ``OWN_DIRECTORY``, for demos and tests: they leave nothing there."""
_OWNER_ONLY, _OWNER_AND_GROUP = 0o600, 0o660
_WRITING_GROUP = 0o020
_READING_OTHERS, _WRITING_OTHERS = 0o044, 0o022
_POLL_SECONDS = 0.05
_LONGEST_NOTE = 300


class LockHeldError(TemporaryError):
    """Another process held the lock all the time; the text says which."""


def default_lock_file(name: str) -> Path:
    """``name`` in the agents' own directory, or in one that only this user can write to.

    In a directory that everybody can write to, anybody could hold the agent's locks; so root makes
    ``/run/waldur-site-agent`` for itself, and a site that runs agents as other users makes it for
    those (systemd: ``RuntimeDirectory=waldur-site-agent``). Agents of different users meet only
    in a directory that both can use.

    Raises:
        TemporaryError: there is no such directory.
    """
    if chosen := os.environ.get(DIRECTORY_VARIABLE):
        return Path(chosen) / name
    if os.geteuid() == 0:
        with suppress(OSError):
            OWN_DIRECTORY.mkdir(mode=0o750, exist_ok=True)
    personal = os.environ.get("XDG_RUNTIME_DIR")
    for directory in (OWN_DIRECTORY, *([Path(personal)] if personal else [])):
        usable = directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)
        if not usable or everybody_can_write(directory):
            continue
        # after su, the variable may still name the directory of whoever called it
        if directory == OWN_DIRECTORY or directory.stat().st_uid == os.geteuid():
            return directory / name
    return _private_directory() / name


def _private_directory() -> Path:
    """A directory among the temporary files that belongs to this user alone."""
    place = Path(tempfile.gettempdir()) / f"waldur-site-agent-{os.geteuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError as error:
        raise _unusable(place, error.strerror or "") from error
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or found.st_mode & _WRITING_OTHERS:
        raise _unusable(place, "somebody else made it or can write to it")
    return place


@contextmanager
def exclusive_lock(
    path: Path, wait_seconds: float, purpose: str, stopping: Callable[[], bool] = bool
) -> Iterator[int]:
    """Hold the lock while the body runs; give its file descriptor.

    A child process that inherits the descriptor keeps the lock until it ends, even when this
    process is killed before.

    Args:
        path: the lock file; it is made when it does not exist.
        wait_seconds: how long to wait for another holder.
        purpose: what the lock protects and what to do about it, for the message.
        stopping: whether to give up waiting before the time is over.

    Raises:
        LockHeldError: another process held it all the time.
        TemporaryError: the file cannot be used.
    """
    with held_lock(path, wait_seconds, purpose, stopping) as held:
        yield held.descriptor


@dataclass(frozen=True, slots=True)
class Mark:
    """Which file a lock is, and when a holder last signed it."""

    inode: int
    signed: int


_NEVER_HELD = Mark(0, 0)


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that this process holds."""

    descriptor: int
    before: Mark
    """The mark that the lock had until it was taken."""


@contextmanager
def held_lock(
    path: Path, wait_seconds: float, purpose: str, stopping: Callable[[], bool] = bool
) -> Iterator[HeldLock]:
    """The same as :func:`exclusive_lock`; tells besides whether others held it meanwhile."""
    descriptor = open_lock(path)
    try:
        _acquire(descriptor, path, wait_seconds, purpose, stopping)
        before = _mark(descriptor)
        _sign(descriptor)
        yield HeldLock(descriptor, before)
    finally:
        os.close(descriptor)


@contextmanager
def shared_lock(path: Path, wait_seconds: float, purpose: str) -> Iterator[None]:
    """Keep holders of :func:`exclusive_lock` out, but not others who only share it.

    Raises:
        TemporaryError: somebody held it exclusively all the time, or the file cannot be used.
    """
    descriptor = open_lock(path)
    try:
        try:
            _acquire(descriptor, path, wait_seconds, purpose, bool, fcntl.LOCK_SH)
        except LockHeldError as error:
            raise TemporaryError(str(error)) from error
        yield
    finally:
        os.close(descriptor)


def mark_of_free_lock(path: Path) -> Mark | None:
    """The mark of a lock that nobody holds at this moment.

    Whoever takes the lock later finds the same mark if nobody had it in between. ``None``: it is
    held, it cannot be used, or somebody could hold it without signing the file.
    """
    try:
        descriptor = _open_existing(path)
    except FileNotFoundError:
        return _NEVER_HELD
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return _mark(descriptor) if _is_signed_by_all(descriptor) else None
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)


def _mark(descriptor: int) -> Mark:
    found = os.fstat(descriptor)
    return Mark(found.st_ino, found.st_mtime_ns) if found.st_size else _NEVER_HELD


def _is_signed_by_all(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    can_write = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return can_write and (mode & _READING_OTHERS) >> 1 == mode & _WRITING_OTHERS


def probe_lock(path: Path) -> None:
    """Check that the lock file can be opened, without waiting for anybody.

    Raises:
        TemporaryError: it can be neither opened nor made.
    """
    os.close(open_lock(path))


def open_lock(path: Path) -> int:
    """Open the lock file; make it, for the owner and the group of its directory, when it is new.

    Raises:
        TemporaryError: it can be neither opened nor made, is no regular file, or is in a directory
            where everybody could make it first and hold it for ever.
    """
    try:
        if everybody_can_write(path.parent):
            raise _unusable(path, f"everybody can write to {path.parent}")
        return _open_or_make(path)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def _open_or_make(path: Path) -> int:
    try:
        return _open_existing(path)
    except FileNotFoundError:
        pass
    try:
        return _make(path)
    except FileExistsError:  # somebody was faster
        return _open_existing(path)


def _open_existing(path: Path) -> int:
    # no O_CREAT: kernels with fs.protected_regular refuse it for files of others
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, os.O_RDWR | flags)
    except PermissionError:
        descriptor = os.open(path, os.O_RDONLY | flags)
    found = os.fstat(descriptor)
    # of a second name, the content is somebody else's: signing the lock would overwrite it
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file with one name")
    return descriptor


def _make(path: Path) -> int:
    """Make the file for the owner of its directory, and for its group if that may write there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, _OWNER_ONLY)
    directory = path.parent.stat()
    is_shared = bool(directory.st_mode & _WRITING_GROUP)
    with suppress(PermissionError):  # only root gives files away, and only members to a group
        owner = directory.st_uid if os.geteuid() == 0 else -1
        os.fchown(descriptor, owner, directory.st_gid if is_shared else -1)
        # whatever the umask is; not before the group is the right one
        os.fchmod(descriptor, _OWNER_AND_GROUP if is_shared else _OWNER_ONLY)
    return descriptor


def _acquire(
    descriptor: int,
    path: Path,
    wait_seconds: float,
    purpose: str,
    stopping: Callable[[], bool],
    kind: int = fcntl.LOCK_EX,
) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline or stopping():
                waited = f" for more than {wait_seconds:g} seconds" if wait_seconds else ""
                raise LockHeldError(
                    f"another process holds {path} ({_holder(descriptor)}){waited}; {purpose}"
                ) from error
        else:
            return
        time.sleep(_POLL_SECONDS)


def _sign(descriptor: int) -> None:
    """Leave a note for those who wait; a file that only its owner may write stays unsigned."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = Path(sys.argv[0]).name or "python"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()}, {command}, since {since}\n".encode(), 0)


def _holder(descriptor: int) -> str:
    note = os.pread(descriptor, _LONGEST_NOTE, 0)
    text = note.decode("ascii", errors="replace").strip()
    return "".join(c for c in text if c.isprintable()) or "unsigned"


def _unusable(path: Path, why: str) -> TemporaryError:
    return TemporaryError(
        f"the lock file {path} cannot be used: {why}",
        remedy=f"let this user read and write it, in a directory that only trusted users can write "
        f"to; for the agent's own locks create {OWN_DIRECTORY} "
        "(systemd: RuntimeDirectory=waldur-site-agent)",
    )
