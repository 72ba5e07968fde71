"""One writer per cluster at a time, across processes and operating-system users of one machine.

Writers that run side by side make slurmdbd lose updates without a word, or die of database
deadlocks. The lock is ``flock``: the kernel releases it when its holder dies, so nothing is ever
left behind but a file that says who was last.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from waldur_site_agent.backends import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORIES = (Path("/run/lock"), Path("/var/lock"))
_EVERYBODY = 0o666
_POLL_SECONDS = 0.05


def default_lock_file(cluster: str) -> Path:
    """Return the lock file of a cluster, in the first usable of the usual directories."""
    name = f"waldur-site-agent-slurm-{cluster}.lock"
    for directory in _DIRECTORIES:
        if (directory / name).exists() or os.access(directory, os.W_OK | os.X_OK):
            return directory / name
    return Path(tempfile.gettempdir()) / name


@contextmanager
def writer_lock(path: Path, wait_seconds: float) -> Iterator[None]:
    """Hold the lock while the body runs.

    Raises:
        TemporaryError: another writer held it all the time, or the file cannot be used.
    """
    descriptor = _open(path)
    try:
        _acquire(descriptor, path, wait_seconds)
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


def probe_lock(path: Path) -> None:
    """Check that the lock file can be opened, without waiting for anybody.

    Raises:
        TemporaryError: it can be neither opened nor made.
    """
    os.close(_open(path))


def _open(path: Path) -> int:
    try:
        return _open_existing(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        return _make(path)
    except FileExistsError:  # somebody was faster
        return _open_existing(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _open_existing(path: Path) -> int:
    # no O_CREAT: kernels with fs.protected_regular refuse it for others' files in /run/lock
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _make(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, _EVERYBODY)
    os.fchmod(descriptor, _EVERYBODY)  # the umask took some of it away
    return descriptor


def _acquire(descriptor: int, path: Path, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise TemporaryError(
                    f"another writer holds {path} ({_holder(descriptor)}), for more than "
                    f"{wait_seconds:g} seconds; Slurm's database takes one writer at a time: "
                    "look at that process if it should have ended"
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
    longest = 300
    return os.pread(descriptor, longest, 0).decode(errors="replace").strip() or "unsigned"


def _unusable(path: Path, error: OSError) -> TemporaryError:
    return TemporaryError(
        f"the lock file {path} cannot be used: {error.strerror}; let this user read and write it, "
        "or set lock_file in backend_settings to a path that all writers of this cluster share"
    )
