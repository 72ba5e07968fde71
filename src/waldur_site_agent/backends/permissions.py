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


def directory_of_others(path: Path) -> Path | None:
    """A directory above ``path`` in which somebody else could put something in its way.

    Whoever owns a directory, or may write to it, can put a symbolic link where root is about to
    create something. Only root and this process's own user are trusted.
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
    return None


def _directories(*found: os.stat_result) -> Iterator[os.stat_result]:
    return (each for each in found if stat.S_ISDIR(each.st_mode))


def _is_open(mode: int, *, is_last: bool) -> bool:
    """Whether others may create entries or, without the sticky bit, replace those that exist."""
    return bool(mode & stat.S_IWOTH) and (is_last or not mode & stat.S_ISVTX)
