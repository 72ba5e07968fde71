"""``base``: the site generates no usernames."""

from __future__ import annotations

from waldur_site_agent.backends import NoUsernames


class BaseUsernameBackend(NoUsernames):
    """Generates no usernames; accounts in Waldur are left unchanged."""
