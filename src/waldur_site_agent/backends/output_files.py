"""Files that the agent writes, wherever the site wants them: also below directories of others.

Whoever owns a directory, or may write to it, can put a link there before root opens a file. So each
part of a path is opened by itself, and a link is followed only where nobody else can have made it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PIPE = "pipe:["
"""How the link of an open pipe begins, as ``/dev/stdout`` may lead to."""
_MOST_LINKS = 40
"""How many the kernel follows for one path."""
_OWNER_ONLY, _OTHERS_READ = 0o600, 0o755
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def replace_file(path: Path, content: bytes, mode: int, *, ignore_umask: bool = False) -> None:
    """Put a new file in place of whatever is there, atomically; nothing is written through a link.

    Args:
        path: where.
        content: what it holds.
        mode: for whom it is; the umask is taken off.
        ignore_umask: the mode is exactly that.

    Raises:
        OSError: it cannot be written, or the path leads through a link of somebody else.
    """
    with opened_directory(path.parent) as directory:
        draft = f".{path.name}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        created = _OWNER_ONLY if ignore_umask else mode
        descriptor = os.open(draft, flags, created, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                if ignore_umask:
                    os.fchmod(stream.fileno(), mode)
            os.replace(draft, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            with suppress(OSError):
                os.unlink(draft, dir_fd=directory)
            raise


def remove_file(path: Path) -> None:
    """Remove a file that :func:`replace_file` wrote, if it is there.

    Raises:
        OSError: it cannot be removed, or the path leads through a link of somebody else.
    """
    with suppress(FileNotFoundError), opened_directory(path.parent) as directory:
        os.unlink(path.name, dir_fd=directory)


def open_to_append(path: Path, mode: int, links: int = 0) -> int:
    """Open a file for appending, or make it; the umask is taken off the mode.

    In a directory where others can put files, it is a regular file with one name, of a user who is
    trusted there.

    Raises:
        OSError: it cannot be opened, is something else, or the path leads through a link of
            somebody else.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    with opened_directory(path.parent) as directory:
        try:
            descriptor = os.open(path.name, flags, mode, dir_fd=directory)
        except OSError as error:
            if error.errno != errno.ELOOP or links == _MOST_LINKS:
                raise
            target = _target(directory, path.name, path)
            if not str(target).startswith(_PIPE):
                return open_to_append(path.parent / target, mode, links + 1)
            descriptor = os.open(path.name, flags & ~os.O_NOFOLLOW, dir_fd=directory)
        place, found = os.fstat(directory), os.fstat(descriptor)
    is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if not _is_ours(place) and not (is_plain and found.st_uid in {*_trusted(), place.st_uid}):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file of this user with one name", str(path))
    os.set_blocking(descriptor, True)  # only the opening must not wait for the reader of a pipe
    return descriptor


def make_directory(path: Path) -> None:
    """Make a directory and those above it that are missing, for others to read at most.

    Raises:
        OSError: one cannot be made.
    """
    for missing in (*reversed(path.parents), path):
        with suppress(FileExistsError):
            missing.mkdir(mode=_OTHERS_READ)


@contextmanager
def opened_directory(path: Path) -> Iterator[int]:
    """A descriptor of a directory, to reach what is in it; nobody can exchange it meanwhile.

    Raises:
        OSError: it is not there, or the path leads through a link that somebody else could have
            made.
    """
    descriptor = _opened(path.absolute())
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path, links: int = 0) -> int:
    descriptor, names = os.open("/", _DIRECTORY), path.parts[1:]
    for number, name in enumerate(names):
        try:
            below = _step(descriptor, name, path)
        finally:
            os.close(descriptor)
        if isinstance(below, Path):
            if links == _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            rest = names[number + 1 :]
            return _opened(Path("/", *names[:number]).joinpath(below, *rest), links + 1)
        descriptor = below
    return descriptor


def _step(directory: int, name: str, path: Path) -> int | Path:
    """A descriptor of the directory of this name, or where its link leads."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return _target(directory, name, path)
        raise


def _target(directory: int, name: str, path: Path) -> Path:
    """Where a link leads.

    Raises:
        PermissionError: somebody else could have made it.
    """
    target, found = os.readlink(name, dir_fd=directory), os.lstat(name, dir_fd=directory)
    if not _is_ours(os.fstat(directory)) or found.st_uid not in _trusted():
        said = f"others could have made the link to {target} on the way; name the target itself"
        raise PermissionError(errno.EPERM, said, str(path))
    return Path(target)


def _trusted() -> set[int]:
    return {0, os.geteuid()}


def _is_ours(directory: os.stat_result) -> bool:
    """Whether only root and this user can put something into a directory."""
    by_group = directory.st_mode & stat.S_IWGRP and directory.st_gid != 0
    return directory.st_uid in _trusted() and not directory.st_mode & stat.S_IWOTH and not by_group
