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


account_name, user_name = _NAMING.account, _NAMING.user
listed_user_name, is_user_name = _NAMING.listed_user, _NAMING.is_user
