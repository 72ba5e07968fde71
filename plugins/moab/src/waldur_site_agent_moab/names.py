"""Names from outside become names that the ``mam-*`` commands cannot misread, or are refused.

Lists of users are comma-separated and a leading ``+`` or ``-`` has a meaning; a leading ``-`` would
be an option. So nothing but an allow-list protects a site.
"""

from __future__ import annotations

from waldur_site_agent.backends.naming import PREFIX_RULE, Naming, plain_text

__all__ = [
    "PREFIX_RULE",
    "ROOT",
    "account_name",
    "description",
    "is_user_name",
    "listed_user_name",
    "prefixed_name",
    "user_name",
]

ROOT = "root"

_NAMING = Naming("MOAB", "'root' is the administrator of the accounting manager")
_DESCRIPTION_BYTES = 200


def account_name(name: str, kind: str) -> str:
    """Return ``name`` in lower case; ``kind`` says in messages what it names.

    Raises:
        PermanentError: the name is empty, too long, ``root``, or has a letter outside the rule.
    """
    return _NAMING.account(name, kind)


def prefixed_name(kind: str, prefix: str, slug: str) -> str:
    """Return the name of the account for a slug; see :meth:`Naming.prefixed`.

    Raises:
        PermanentError: there is no slug, or the name that results cannot be used.
    """
    return _NAMING.prefixed(kind, prefix, slug)


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


def description(text: str, name: str) -> str:
    """Return free text for an account's description; the account's name where nothing is left.

    A text that began with ``-`` would be read as an option.
    """
    return plain_text(text, _DESCRIPTION_BYTES).lstrip("-+ ") or name
