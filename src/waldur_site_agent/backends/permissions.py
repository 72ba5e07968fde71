"""Who besides the agent could change what is at a path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def everybody_can_write(directory: Path) -> bool:
    """Whether every user could put a file there first, or replace the directory itself."""
    resolved = directory.resolve()
    if resolved.stat().st_mode & stat.S_IWOTH:
        return True
    above = (parent.stat().st_mode for parent in resolved.parents)
    return any(mode & stat.S_IWOTH and not mode & stat.S_ISVTX for mode in above)


def directory_of_others(path: Path, *, groups: bool = False) -> Path | None:
    """A directory above ``path`` in which somebody else could put something in its way.

    Whoever owns a directory, or may write to it, can put a symbolic link where root is about to
    create something. Only root and this process's own user are trusted, and with ``groups`` of all
    groups only root's, and no access control list that lets others write.
    """
    below = path
    for directory in (*path.parents, *path.parent.resolve().parents):
        try:
            entry, found = directory.lstat(), directory.stat()
        except FileNotFoundError:
            continue
        is_last = not os.path.lexists(below)
        below = directory
        if any(each.st_uid not in {0, os.geteuid()} for each in (entry, found)):
            return directory
        if any(_is_open(each.st_mode, is_last=is_last) for each in _directories(entry, found)):
            return directory
        if groups and _is_open_to_groups(directory, found, is_last=is_last):
            return directory
    return None


def _directories(*found: os.stat_result) -> Iterator[os.stat_result]:
    return (each for each in found if stat.S_ISDIR(each.st_mode))


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
