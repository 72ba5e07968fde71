"""What every part of the customer's side stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from waldur_site_agent_sandbox.http import as_uuid, not_authenticated
from waldur_site_agent_sandbox.records import Offering, User
from waldur_site_agent_sandbox.store import Store, Transaction
from waldur_site_agent_sandbox.world import Record, World


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


def find(table: Mapping[str, R], wanted: R | str, kind: str) -> R:
    """Give the record that a person means.

    Raises:
        LookupError: There is none, or more than one of that name.
    """
    if not isinstance(wanted, str):
        return table[wanted.uuid]
    uuid = as_uuid(wanted)
    if uuid is not None and uuid in table:
        return table[uuid]
    found = [row for row in table.values() if wanted in _names(row)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} {kind} called {wanted!r}; use the UUID")
    return found[0]


def _names(record: Record) -> set[str]:
    return {str(getattr(record, field, "")) for field in ("slug", "username", "name")}


R = TypeVar("R", bound=Record)


class Portal:
    """The way into the store for those who need no API."""

    def __init__(self, store: Store, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    @property
    def world(self) -> World:
        """Everything there is, at this moment."""
        return self._store.read().world

    def current(self, record: R) -> R:
        """Give a record as it is now.

        Raises:
            KeyError: It is gone.
        """
        return self.world.current(record)

    def edit(self, record: R, **changes: object) -> R:
        """Change any field of a record, as only an administrator of the database can."""
        with self._store.change() as tx:
            changed = replace(tx.world.current(record), **changes)  # type: ignore[arg-type]  # the caller's field names
            tx.world.put(changed)
        return changed


def offering_meant(tx: Transaction, wanted: Offering | str | None) -> Offering:
    """Give the offering that a person means; who names none means the first."""
    if wanted is not None:
        return find(tx.world.offerings, wanted, "offerings")
    return next(iter(tx.world.offerings.values()))
