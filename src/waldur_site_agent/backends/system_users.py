"""What the operating system says of users and groups: which there are, and which are its own."""

from __future__ import annotations

import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from waldur_site_agent.model.standing import Detail


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemUser:
    """A user of the operating system, as this machine sees it."""

    uid: int | None = None
    """``None`` where there is no such user."""
    home: str = ""
    home_state: str = ""
    """In words: there, missing, somebody else's."""

    @property
    def details(self) -> tuple[Detail, ...]:
        """The same as lines."""
        if self.uid is None:
            return (Detail("operating system", "knows no such user on this machine"),)
        home = f"{self.home or 'none'}{': ' if self.home_state else ''}{self.home_state}"
        return (Detail("operating system", f"uid {self.uid}"), Detail("home directory", home))


def system_user(name: str) -> SystemUser:
    """Look a user up; never raises, since an explanation must not fail for it."""
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError, OSError):
        return SystemUser()
    state = _home_state(Path(found.pw_dir), found.pw_uid)
    return SystemUser(uid=found.pw_uid, home=found.pw_dir, home_state=state)


def _home_state(home: Path, uid: int) -> str:
    try:
        found = home.lstat()
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be looked at from here: {error.strerror}"
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "exists and is not a directory"
    mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
    if found.st_uid != uid:
        return f"belongs to {_owner_name(found.st_uid)}, {mode}"
    return f"exists and belongs to the user, {mode}"


def _owner_name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except (KeyError, OSError):
        return f"uid {uid}"


LOGIN_DEFINITIONS = Path("/etc/login.defs")
_USUAL_LOWEST_GROUP = 1000
_LOWEST_GROUP = re.compile(r"^\s*GID_MIN\s+([0-9]{1,10})\s*$", re.MULTILINE)


def lowest_ordinary_group(definitions: Path = LOGIN_DEFINITIONS) -> int:
    """The lowest number of a group that is not the system's own."""
    try:
        found = _LOWEST_GROUP.search(definitions.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = None
    return int(found[1]) if found else _USUAL_LOWEST_GROUP
