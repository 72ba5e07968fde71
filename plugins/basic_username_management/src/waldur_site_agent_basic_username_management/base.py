"""``base``: the site makes no usernames."""

from __future__ import annotations

from waldur_site_agent.backends import NoUsernames


class BaseUsernameBackend(NoUsernames):
    """Makes no usernames and knows none; nobody's account in Waldur is touched."""
