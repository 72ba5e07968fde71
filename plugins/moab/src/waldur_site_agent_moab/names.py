"""Names from outside become names that the ``mam-*`` commands cannot misread, or are refused.

Lists of users are comma-separated and a leading ``+`` or ``-`` has a meaning; a leading ``-`` would
be an option. So nothing but an allow-list protects a site.
"""

from __future__ import annotations

from waldur_site_agent.backends.account_tree import AccountTree
from waldur_site_agent.backends.naming import PREFIX_RULE, Naming

__all__ = [
    "PREFIX_RULE",
    "ROOT",
    "TREE",
    "account_name",
    "is_user_name",
    "listed_user_name",
    "user_name",
]

ROOT = "root"

_NAMING = Naming("MOAB", "'root' is the administrator of the accounting manager")
TREE = AccountTree(_NAMING, project_organization="customer", dropped="-+ ", needs_description=True)
"""How accounts are placed and told from those of others."""


def account_name(name: str, kind: str) -> str:
    """Return ``name`` in lower case; ``kind`` says in messages what it names.

    Raises:
        PermanentError: the name is empty, too long, ``root``, or has a letter outside the rule.
    """
    return _NAMING.account(name, kind)


def user_name(name: str) -> str:
    """Return a username that may be added, as it is.

    Raises:
        PermanentError: the name cannot be given to a command, or is ``root``.
    """
    return _NAMING.user(name)


def listed_user_name(name: str) -> str:
    """Return a username that a reading had; see :meth:`Naming.listed_user`.

    Raises:
        PermanentError: a command would read something else than this name.
    """
    return _NAMING.listed_user(name)


def is_user_name(name: str) -> bool:
    """Whether a username can be given to a command at all."""
    return _NAMING.is_user(name)
