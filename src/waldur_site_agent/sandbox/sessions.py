"""Tokens: whose they are, and when they die of silence."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from waldur_site_agent.sandbox.answers import not_authenticated

if TYPE_CHECKING:
    from datetime import datetime

    from waldur_site_agent.sandbox.records import User
    from waldur_site_agent.sandbox.store import Transaction


class Sessions:
    """When each user was last heard of. Not part of the world: a request is no change of it."""

    def __init__(self) -> None:
        self._last_seen: dict[str, datetime] = {}
        self._expired: set[str] = set()

    def authenticate(self, tx: Transaction, header: str) -> User:
        """Give the user whose token an Authorization header holds.

        Raises:
            RefusedError: 401 with the reason.
        """
        scheme, _, token = header.partition(" ")
        if scheme.lower() not in {"token", "bearer"}:
            raise not_authenticated("Authentication credentials were not provided.")
        if not token.strip():
            raise not_authenticated("Invalid token header. No credentials provided.")
        for user in tx.world.users.values():
            if user.token and user.token == token.strip():
                self._admit(user, tx.now)
                return user
        raise not_authenticated("Invalid token.")

    def expire(self, user: User) -> None:
        """Let a user's token be too old from now on."""
        self._expired.add(user.uuid)

    def renew(self, user: User) -> None:
        """Let a user's token be fresh."""
        self._expired.discard(user.uuid)
        self._last_seen.pop(user.uuid, None)

    def _admit(self, user: User, now: datetime) -> None:
        if not user.is_active:
            raise not_authenticated("User inactive or deleted.")
        last_seen = self._last_seen.get(user.uuid, now)
        if user.token_lifetime is not None:
            silence = now - last_seen
            if silence > timedelta(seconds=user.token_lifetime):
                self._expired.add(user.uuid)
        if user.uuid in self._expired:
            raise not_authenticated("Token has expired.")
        self._last_seen[user.uuid] = now
