"""Rows of Waldur's lists that cannot be understood.

The other rows are served as ever. Nothing is taken away from what such a row could concern: an
account, a project, a person, and everybody where it does not even tell whom.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from waldur_site_agent.model.orders import Resource
from waldur_site_agent.planning.access import folded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.waldur import Listing, UnreadableRow

Item = TypeVar("Item")


def readable(site: Site, listing: Listing[Item], what: str) -> tuple[Item, ...]:
    """The rows of a complete list that can be understood; the others are noted.

    Raises:
        TemporaryError: some rows did not arrive.
    """
    items = listing.require_every_page(what)
    for row in listing.unreadable:
        site.conditions.note(
            f"not understood, and left out: one of the {what}",
            str(row.uuid("uuid") or row),
            level=logging.ERROR,
            reason=str(row),
        )
    return items


def stand_ins(rows: Iterable[UnreadableRow], name: str = "") -> list[Resource]:
    """Resources that were not understood, as far as they have a name that others may not have.

    ``name`` is the name by which they were asked for.
    """
    return [
        Resource(
            uuid=row.uuid("uuid") or UUID(int=0),
            name=row.text("name") or "",
            backend_id=row.text("backend_id") or name,
            state=_NOT_UNDERSTOOD,
        )
        for row in rows
        if row.text("backend_id") or name
    ]


_NOT_UNDERSTOOD = "not understood"


@dataclass(slots=True)
class Doubts:
    """From what nobody is removed, each with the reason."""

    everything: list[str] = field(default_factory=list)
    projects: dict[UUID, str] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Usernames that leave no account, in any spelling; these are without regard to case."""
    rows: list[str] = field(default_factory=list)
    """Every row that was not understood."""
    users_are_known: bool = True
    """Whether an unknown user of an account may not be one whose row was not understood."""

    def of_resources(self, rows: Iterable[UnreadableRow]) -> None:
        """Whoever may use an account may do so by any of its resources."""
        for row in self._noted("resource", rows):
            account = row.text("backend_id")
            if account is None:
                self.everything.append(f"a resource is not understood: {row}")
            elif account.strip():
                reason = f"one of its resources is not understood: {row}"
                self.accounts[account.strip().lower()] = reason

    def of_users(self, rows: Iterable[UnreadableRow]) -> None:
        """Somebody may be there under the name who is to stay."""
        for row in self._noted("offering user", rows):
            self.users_are_known = False
            if name := folded(row.text("username") or ""):
                self.names[name] = f"an offering user is not understood: {row}"

    def of_roles(self, rows: Iterable[UnreadableRow]) -> None:
        """The team of the project is not known."""
        for row in self._noted("project role", rows):
            reason = f"a project role is not understood: {row}"
            project = row.uuid("project_uuid")
            if project is None:
                self.everything.append(reason)
            else:
                self.projects[project] = reason

    def of_project_accounts(self, rows: Iterable[UnreadableRow], kind: str) -> None:
        """A service or course account may be one that is to stay."""
        for row in self._noted(kind, rows):
            self.users_are_known = False
            reason = f"a {kind} is not understood: {row}"
            name, project = row.text("username"), row.uuid("project_uuid")
            if name is not None:
                self.names |= {folded(name): reason} if name.strip() else {}
            elif project is not None:
                self.projects[project] = reason
            else:
                self.everything.append(reason)

    def of_state(self, username: str, kind: str, state: str) -> None:
        """A state of newer servers may let the user in or not."""
        if name := folded(username):
            self.names[name] = f'is {kind} in the state "{state}", which is not known here'

    def _noted(self, kind: str, rows: Iterable[UnreadableRow]) -> Iterable[UnreadableRow]:
        rows = tuple(rows)
        self.rows += [f"{kind} not understood: {row}" for row in rows]
        return rows
