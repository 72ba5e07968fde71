"""Names from outside become names that sacctmgr cannot misread, or are refused.

sacctmgr accepts nearly everything and reads part of it as syntax: ``a,b`` and ``x[1-3]`` are
lists, quotes are stripped or replaced, letters are lower-cased, names are cut at 255 bytes
without a word. So nothing but an allow-list protects a site.
"""

from __future__ import annotations

import re
import unicodedata

from waldur_site_agent.backends import PermanentError

ROOT = "root"
"""The account that every Slurm cluster has, above all others; also its only first user."""

PREFIX_RULE = r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,29})?$"

_LONGEST = 31
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_USER = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
_DESCRIPTION_BYTES = 200
_RULE = "a name is 1 to 31 of the letters a-z, digits and . _ - and starts with a letter or a digit"


def account_name(name: str, kind: str) -> str:
    """Return ``name`` as Slurm stores it (lower case); ``kind`` says in messages what it names.

    Raises:
        PermanentError: the name is empty, too long, ``root``, or has a letter outside the rule.
    """
    return _checked(name, kind, _ACCOUNT)


def user_name(name: str) -> str:
    """Return a username as Slurm stores it (lower case).

    Raises:
        PermanentError: the name cannot be given to Slurm, or is ``root``.
    """
    return _checked(name, "username", _USER)


def is_user_name(name: str) -> bool:
    """Whether a username can be given to Slurm at all."""
    try:
        user_name(name)
    except PermanentError:
        return False
    return True


def description(text: str) -> str:
    """Return free text without what breaks sacctmgr's output or is altered on its way in.

    Quotes would be turned into backticks, ``|`` and line ends break the parsable output, and
    control characters help nobody. Long texts are cut well below the 255 bytes of the database.
    """
    plain = "".join(" " if _is_trouble(c) else c for c in text)
    single_spaced = " ".join(plain.split())
    return single_spaced.encode()[:_DESCRIPTION_BYTES].decode(errors="ignore").strip()


def _is_trouble(character: str) -> bool:
    return character in "|'\"`\\=" or unicodedata.category(character)[0] in "CZ"


def _checked(name: str, kind: str, rule: re.Pattern[str]) -> str:
    lowered = name.lower()
    shown = _shown(name)
    if not name:
        raise PermanentError(f"the {kind} is empty; {_RULE}")
    if lowered == ROOT:
        raise PermanentError(f"the {kind} {shown} is refused: in Slurm 'root' is the whole cluster")
    if not name.isascii():
        raise PermanentError(
            f"the {kind} {shown} cannot be used in Slurm: it has letters outside ASCII, which "
            f"other programs at the site would read differently; {_RULE}"
        )
    if len(name) > _LONGEST:
        raise PermanentError(
            f"the {kind} {shown} cannot be used in Slurm: it has {len(name)} characters; {_RULE}"
        )
    if not rule.fullmatch(lowered):
        raise PermanentError(f"the {kind} {shown} cannot be used in Slurm; {_RULE}")
    return lowered


def _shown(name: str) -> str:
    longest = 60
    return ascii(name if len(name) <= longest else f"{name[:longest]}...")
