"""Names from outside become names that no command can misread, or are refused; for plugins.

Commands read part of what they are given as syntax: lists, options, brackets, quotes. Nothing but
an allow-list protects a site, and it is the same for every plugin.
"""

from __future__ import annotations

import os
import pwd
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from waldur_site_agent.model.errors import PermanentError

PREFIX_RULE = r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,29})?$"
"""What a prefix of account names in ``backend_settings`` may be."""

_RESERVED = "root"
_LONGEST = 31
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_LONGEST_USER = 100
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+$-]*")
_MISREAD = re.compile(r"""[,\[\]"']""")
"""What makes a list of a name, or is not stored as it was given."""
_USER_RULE = (
    "a username is 1 to 100 of the letters a-z, digits and . _ - @ + $ and starts with a letter, "
    "a digit or _"
)
_RULE = "a name is 1 to 31 of the letters a-z, digits and . _ - and starts with a letter or a digit"


_RESERVED_USERS = frozenset({_RESERVED, "slurm"})
"""Users of the machine's own services, which may change anything in the backend."""


class _ReservedHere:
    """The usernames that this site reserves besides; they are those of the whole machine."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()


_reserved_here = _ReservedHere()


def reserve_usernames(names: Iterable[str]) -> None:
    """Refuse these usernames from now on, in any case, instead of those given before."""
    _reserved_here.names = frozenset(name.lower() for name in names)


def is_reserved(username: str) -> bool:
    """Whether nobody in Waldur may be called so: a user of the machine, the agent's, the site's."""
    name = username.lower()
    return name in _RESERVED_USERS or name in _reserved_here.names or name == _own_user()


@cache
def _own_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name.lower()
    except KeyError:  # a container, for example
        return ""


@dataclass(frozen=True, slots=True)
class Naming:
    """The rules of names, with the words of one backend in its messages."""

    system: str
    """The backend as people call it: ``Slurm``."""
    why_not_root: str
    """What ``root`` is there, so that nobody from outside may be called so."""
    values_are_joined: bool = False
    """Whether a name is always one word with its keyword, so that no ``-`` makes it an option."""

    def account(self, name: str, kind: str) -> str:
        """Return ``name`` in lower case; ``kind`` says in messages what it names.

        Raises:
            PermanentError: the name is empty, too long, ``root``, or has a letter outside the rule.
        """
        lowered = name.lower()
        shown = shown_name(name)
        if not name:
            raise PermanentError(f"the {kind} is empty; {_RULE}")
        if lowered == _RESERVED:
            raise PermanentError(f"the {kind} {shown} is refused: {self.why_not_root}")
        cannot = f"the {kind} {shown} cannot be used in {self.system}"
        if not name.isascii():
            raise PermanentError(
                f"{cannot}: it has letters outside ASCII, which other programs at the site would "
                f"read differently; {_RULE}"
            )
        if len(name) > _LONGEST:
            raise PermanentError(f"{cannot}: it has {len(name)} characters; {_RULE}")
        if not _ACCOUNT.fullmatch(lowered):
            raise PermanentError(f"{cannot}; {_RULE}")
        return lowered

    def prefixed(self, kind: str, prefix: str, slug: str) -> str:
        """Return the name of the account for a slug; only the name that results is checked.

        Args:
            kind: ``customer``, ``project`` or ``allocation``; its setting is ``<kind>_prefix``.
            prefix: what the site's setting says.
            slug: Waldur's; real servers give ``-1`` to what has no ASCII letter in its name.

        Raises:
            PermanentError: there is no slug, or the name cannot be used; says what to change.
        """
        if not slug:
            raise PermanentError(
                f"the {kind} has no slug in Waldur, so its {self.system} account cannot be named; "
                f"set the slug of the {kind}"
            )
        try:
            return self.account(f"{prefix}{slug}", f"{kind} account")
        except PermanentError as error:
            remedy = self._remedy(kind, prefix, slug)
            raise PermanentError(str(error), remedy=remedy) from error

    def _remedy(self, kind: str, prefix: str, slug: str) -> str:
        change = f"change the slug of the {kind} in Waldur"
        needs_only_a_prefix = not prefix and _ACCOUNT.fullmatch(f"x{slug.lower()}")
        if needs_only_a_prefix and len(slug) < _LONGEST:
            return f"set {kind}_prefix in backend_settings, or {change}"
        return change

    def user(self, name: str) -> str:
        """Return a username that may be added; capitals stay, because they tell people apart.

        Raises:
            PermanentError: the name cannot be given to the backend, or is ``root``.
        """
        shown = shown_name(name)
        cannot = f"the username {shown} cannot be used in {self.system}"
        if not name:
            raise PermanentError(f"the username is empty; {_USER_RULE}")
        if name.lower() == _RESERVED:
            raise PermanentError(f"the username {shown} is refused: {self.why_not_root}")
        if is_reserved(name):
            raise PermanentError(
                f"the username {shown} is refused: it is that of a service of this machine, or in "
                "reserved_usernames",
                remedy="give the person another username",
            )
        if len(name) > _LONGEST_USER:
            raise PermanentError(f"{cannot}: it has {len(name)} characters; {_USER_RULE}")
        if not _USER.fullmatch(name):
            raise PermanentError(f"{cannot}; {_USER_RULE}")
        return name

    def listed_user(self, name: str) -> str:
        """Return a username that the backend itself listed, to be removed.

        Taking away is never stricter than giving: whatever no command misreads can be removed.

        Raises:
            PermanentError: a command would read something else than this name.
        """
        is_an_option = name.startswith("-") and not self.values_are_joined
        misread = not name or name.lower() == _RESERVED or bool(_MISREAD.search(name))
        if misread or is_an_option or any(unicodedata.category(c) == "Cc" for c in name):
            raise PermanentError(
                f"the user {shown_name(name)} cannot be removed by the agent: the commands of "
                f"{self.system} would misread the name",
                remedy="remove this user by hand",
            )
        return name

    def is_user(self, name: str) -> bool:
        """Whether a username can be given to the backend at all."""
        try:
            self.user(name)
        except PermanentError:
            return False
        return True


_REPLACED = "|'\"`\\="


def plain_text(text: str, longest_bytes: int) -> str:
    """Return free text on one line, without control characters, quotes and separators.

    Quotes, separators and line ends are altered by commands on the way in, or break their
    tables on the way out.
    """
    plain = "".join(" " if c in _REPLACED or _is_invisible(c) else c for c in text)
    single_spaced = " ".join(plain.split())
    return single_spaced.encode()[:longest_bytes].decode(errors="ignore").strip()


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character)[0] in "CZ"


def shown_name(name: str) -> str:
    """Return a name from outside as messages show it: ASCII, and not too long."""
    longest = 60
    return ascii(name if len(name) <= longest else f"{name[:longest]}...")
