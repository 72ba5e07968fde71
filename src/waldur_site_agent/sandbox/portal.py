"""What every part of the customer's side stands on."""

from dataclasses import replace
from typing import TypeVar

from waldur_site_agent.sandbox.finding import find
from waldur_site_agent.sandbox.records import Offering
from waldur_site_agent.sandbox.sessions import Sessions
from waldur_site_agent.sandbox.store import Store, Transaction
from waldur_site_agent.sandbox.world import Record, World

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
