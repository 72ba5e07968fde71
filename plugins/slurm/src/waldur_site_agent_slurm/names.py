"""Names from outside become names that sacctmgr cannot misread, or are refused.

sacctmgr accepts nearly everything and reads part of it as syntax: ``a,b`` and ``x[1-3]`` are
lists, quotes are stripped or replaced, letters are lower-cased, names are cut at 255 bytes
without a word. So nothing but an allow-list protects a site.
"""

from __future__ import annotations

from waldur_site_agent.backends import PermanentError
from waldur_site_agent.backends.account_tree import AccountTree
from waldur_site_agent.backends.naming import PREFIX_RULE, Naming

__all__ = [
    "PREFIX_RULE",
    "TREE",
    "account_name",
    "is_removable",
    "is_user_name",
    "listed_user_name",
    "user_name",
]

_NAMING = Naming("Slurm", "in Slurm 'root' is the whole cluster", values_are_joined=True)
TREE = AccountTree(_NAMING, "Slurm account")
"""How accounts are placed and told from those of others."""


def account_name(name: str, kind: str) -> str:
    """Return ``name`` as Slurm stores it (lower case); ``kind`` says in messages what it names.

    Raises:
        PermanentError: the name is empty, too long, ``root``, or has a letter outside the rule.
    """
    return _NAMING.account(name, kind)


def user_name(name: str) -> str:
    """Return a username that may be added, capitals included; not every cluster keeps them.

    Raises:
        PermanentError: the name cannot be given to Slurm, or is ``root``.
    """
    return _NAMING.user(name)


def listed_user_name(name: str) -> str:
    """Return a username that a reading had; see :meth:`Naming.listed_user`.

    Raises:
        PermanentError: a command would read something else than this name.
    """
    return _NAMING.listed_user(name)


def is_removable(name: str) -> bool:
    """Whether no command misreads the name of a user who is to be removed."""
    try:
        listed_user_name(name)
    except PermanentError:
        return False
    return True


def is_user_name(name: str) -> bool:
    """Whether a username can be given to Slurm at all."""
    return _NAMING.is_user(name)
