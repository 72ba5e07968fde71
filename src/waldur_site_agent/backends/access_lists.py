"""POSIX access control lists of open files, as the kernel keeps them in extended attributes.

Working on a descriptor instead of by ``setfacl`` on a path, nobody can swap what is changed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping
from typing import TypeAlias

from waldur_site_agent.model.errors import TemporaryError

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
"""The attributes of the list that applies, and of the one that is inherited."""

_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF
_EVERYTHING = 7

Entries: TypeAlias = Mapping[tuple[int, int], int]
"""Permissions by kind of entry and number of the user or group."""


def read_list(descriptor: int, name: str) -> Entries:
    """The entries of a list; nothing where there is none.

    Raises:
        TemporaryError: the file system has no such lists.
    """
    try:
        raw = os.getxattr(descriptor, name)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return {}
        raise _unsupported(error) from error
    rows = [_ENTRY.unpack_from(raw, at) for at in range(_HEADER.size, len(raw), _ENTRY.size)]
    return {(tag, number): permissions for tag, permissions, number in rows}


def is_granted(descriptor: int, group: int) -> bool:
    """Whether a group has every permission for a directory, and for what will be made in it.

    Raises:
        TemporaryError: the file system has no such lists.
    """
    for name in (ACCESS, DEFAULT):
        entries = read_list(descriptor, name)
        mask = entries.get((_MASK, _NOBODY), _EVERYTHING)
        if entries.get((_GROUP, group), 0) & mask != _EVERYTHING:
            return False
    return True


def grant(descriptor: int, group: int) -> None:
    """Give a group every permission for an open directory and what will be made in it.

    Other entries stay as they are; without any, they are those of the mode.

    Raises:
        TemporaryError: the file system has no such lists, or refuses it.
    """
    own = _of_mode(os.fstat(descriptor).st_mode)
    try:
        for name in (ACCESS, DEFAULT):
            entries = {**own, **read_list(descriptor, name), (_GROUP, group): _EVERYTHING}
            masked = (_USER, _GROUP_OBJ, _GROUP)
            entries[_MASK, _NOBODY] = 0
            for (tag, _), permissions in list(entries.items()):
                if tag in masked:
                    entries[_MASK, _NOBODY] |= permissions
            os.setxattr(descriptor, name, _packed(entries))
            if name == ACCESS:
                own = {key: value for key, value in entries.items() if key[0] in _BASE}
    except OSError as error:
        raise _unsupported(error) from error


_BASE = (_USER_OBJ, _GROUP_OBJ, _OTHER)


def _of_mode(mode: int) -> dict[tuple[int, int], int]:
    bits = stat.S_IMODE(mode)
    return {
        (_USER_OBJ, _NOBODY): bits >> 6 & 7,
        (_GROUP_OBJ, _NOBODY): bits >> 3 & 7,
        (_OTHER, _NOBODY): bits & 7,
    }


def _packed(entries: Entries) -> bytes:
    rows = (
        _ENTRY.pack(tag, permissions, number)
        for (tag, number), permissions in sorted(entries.items())
    )
    return _HEADER.pack(_VERSION) + b"".join(rows)


def _unsupported(error: OSError) -> TemporaryError:
    if error.errno == errno.EOPNOTSUPP:
        return TemporaryError(
            "the file system has no POSIX access control lists",
            remedy="mount it with them, or set set_acl: false",
        )
    return TemporaryError(f"access control list: {error.strerror}", remedy="run the agent as root")
