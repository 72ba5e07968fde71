"""Who besides the agent could change what is at a path."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_MOST_LINKS = 40
"""How many the kernel follows for one path."""


def everybody_can_write(directory: Path) -> bool:
    """Whether every user could put a file there first, or replace the directory itself."""
    resolved = directory.resolve()
    if resolved.stat().st_mode & stat.S_IWOTH:
        return True
    above = (parent.stat().st_mode for parent in resolved.parents)
    return any(mode & stat.S_IWOTH and not mode & stat.S_ISVTX for mode in above)


def directory_of_others(path: Path, *, groups: bool = False) -> Path | None:
    """A directory on the way to ``path`` in which somebody else could put something in its way.

    Whoever owns a directory, or may write to it, can put a symbolic link where root is about to
    create something. Only root and this process's own user are trusted, and with ``groups`` of all
    groups only root's, and no access control list that lets others write. Every directory counts
    that the system looks into, also those through which links lead.

    Raises:
        OSError: one of them cannot be looked at.
    """
    trusted = {0, os.geteuid()}
    for directory, link_owner, is_last in _looked_into(path.absolute()):
        found = directory.stat()
        if not {found.st_uid, link_owner} <= trusted or _is_open(found.st_mode, is_last=is_last):
            return directory
        if groups and _is_open_to_groups(directory, found, is_last=is_last):
            return directory
    return None


def _looked_into(path: Path) -> Iterator[tuple[Path, int, bool]]:
    """The directories in which the parts of a path are looked up, without links.

    Besides, who owns a link that is found there (else root), and whether the part is about to be
    created: the last one always is, whatever somebody has put there meanwhile.
    """
    directory, names, links = Path("/"), deque(path.parts[1:]), 0
    while names:
        name = names.popleft()
        if name == os.pardir:
            directory = directory.parent
            continue
        try:
            entry = (directory / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            yield directory, 0, True
            return
        is_link = stat.S_ISLNK(entry.st_mode)
        yield directory, entry.st_uid if is_link else 0, not names
        if not names:
            return
        if not is_link:
            directory = directory / name
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = (directory / name).readlink()
        directory = Path("/") if target.is_absolute() else directory
        names.extendleft(part for part in reversed(target.parts) if part != "/")


def _is_open(mode: int, *, is_last: bool) -> bool:
    """Whether others may create entries or, without the sticky bit, replace those that exist."""
    return bool(mode & stat.S_IWOTH) and (is_last or not mode & stat.S_ISVTX)


def _is_open_to_groups(directory: Path, found: os.stat_result, *, is_last: bool) -> bool:
    """The same for groups, and for those named in an access control list: its mask is shown."""
    is_writable = found.st_mode & stat.S_IWGRP and (is_last or not found.st_mode & stat.S_ISVTX)
    return bool(is_writable) and (found.st_gid != 0 or _has_list(directory))


def _has_list(directory: Path) -> bool:
    try:
        return bool(os.getxattr(directory, "system.posix_acl_access"))
    except OSError:  # there is none, or the file system has no such lists
        return False
