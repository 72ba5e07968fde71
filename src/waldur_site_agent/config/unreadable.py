"""Why a file cannot be read, in the terms in which an administrator mends it."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def why_unreadable(path: Path, error: OSError | UnicodeDecodeError) -> str:
    """What is wrong with the file, and what to do; its content is in no message."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
    if isinstance(error, IsADirectoryError):
        return "is a directory; name the file in it"
    if not isinstance(error, PermissionError):
        return f"cannot be read: {error.strerror or error}"
    user = _user(os.geteuid())
    closed = _closed_directory(path)
    if closed is not None:
        return (
            f'cannot be read by user "{user}": the directory {closed} {_owner_and_mode(closed)}; '
            f"let the user in (chmod o+x, or chgrp and chmod g+x), or run this as root"
        )
    return (
        f'cannot be read by user "{user}": it {_owner_and_mode(path)}; '
        f"give the file to that user or to a group of theirs (chgrp and chmod g+r), "
        "or run this as its owner or as root"
    )


def _closed_directory(path: Path) -> Path | None:
    """The first directory on the way to the file that this user may not enter."""
    for directory in reversed(path.absolute().parents):
        if not os.access(directory, os.X_OK, effective_ids=True):
            return directory
    return None


def _owner_and_mode(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "may not be looked at"
    mode = stat.S_IMODE(found.st_mode)
    return f"has mode {mode:04o} and belongs to {_user(found.st_uid)}:{_group(found.st_gid)}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
