"""Optional API calls, and lists with rows that cannot be decoded.

A call may be missing because the server is too old: this is remembered per server and logged once.
It may be denied because the token lacks a permission, which the site can grant: this is a warning.
Both are retried after a day. Rows that cannot be decoded are skipped and logged, and whoever they
might concern is protected from removal (:class:`Protected`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import Resource
from waldur_site_agent.planning.membership import folded
from waldur_site_agent.waldur import AbsentOperationError, AccessDeniedError, Listing, UnreadableRow

UNAVAILABLE = (AbsentOperationError, AccessDeniedError)
"""Raised by calls that the server lacks or that the token may not make."""

Answer = TypeVar("Answer")

_RETRY_AFTER = timedelta(days=1)
_WORKS = -1


def call_optional(
    site: Site, call: str, ask: Callable[[], Answer], effect: str = "it is skipped"
) -> Answer:
    """Make a call that older servers lack.

    Args:
        site: the offering at work.
        call: the call's name in Waldur's API.
        ask: makes the call.
        effect: the consequence of going without, for the log.

    Raises:
        AbsentOperationError: the server does not have the call; it is retried after a day.
        TemporaryError: Waldur could not be reached, or responds 404 to a call that worked before,
            which points to a proxy in between.
        PermanentError: Waldur rejected the call.
    """
    if is_absent(site, call):
        raise AbsentOperationError(f"this Waldur has no call {call}")
    try:
        answer = ask()
    except AbsentOperationError as error:
        if site.server_calls.get(call) == _WORKS:
            raise TemporaryError(f"{error}; the call worked before") from error
        _remember_absent(site, call, error, effect)
        raise
    site.server_calls[call] = _WORKS
    return answer


def write_optional(site: Site, call: str, tell: Callable[[], None], resource: str = "") -> bool:
    """Make a write that the server may lack or deny; return whether it was accepted.

    A denied call is logged as a warning and retried after a day.

    Raises:
        SiteAgentError: Waldur could not be reached, or rejected the write for another reason.
    """
    if is_unavailable(site, call):
        return False
    try:
        call_optional(site, call, tell)
    except AbsentOperationError:
        return False
    except AccessDeniedError as error:
        remember_denied(site, call, error, resource)
        return False
    return True


def is_absent(site: Site, call: str) -> bool:
    """Whether the server is known not to have a call."""
    return site.server_calls.get(call, 0) > (site.now() - _RETRY_AFTER).timestamp()


def is_unavailable(site: Site, call: str) -> bool:
    """Whether a call is known to be absent or denied."""
    denied = site.memory.denied_calls.get(call)
    return (denied is not None and site.now() - denied < _RETRY_AFTER) or is_absent(site, call)


def remember_denied(site: Site, call: str, error: AccessDeniedError, resource: str = "") -> None:
    """Warn that the token may not make a call, and skip the call for a day."""
    now = site.now()
    if not is_unavailable(site, call):
        site.memory.denied_calls[call] = now
        log = site.log.bind(resource=resource) if resource else site.log
        log.warning("API call denied for this token; skipped", call=call, reason=str(error))


def _remember_absent(site: Site, call: str, error: AbsentOperationError, effect: str) -> None:
    if not is_absent(site, call):
        site.server_calls[call] = int(site.now().timestamp())
        site.log.info(
            "API call not available on this Waldur", call=call, effect=effect, reason=str(error)
        )


Item = TypeVar("Item")


def readable(site: Site, listing: Listing[Item], what: str) -> tuple[Item, ...]:
    """The rows of a complete list that could be decoded; the others are noted.

    Raises:
        TemporaryError: the list is incomplete.
    """
    items = listing.require_every_page(what)
    for row in listing.unreadable:
        site.conditions.note(
            f"skipped a row of {what} that cannot be decoded",
            str(row.uuid("uuid") or row),
            level=logging.ERROR,
            reason=str(row),
        )
    return items


def stand_ins(rows: Iterable[UnreadableRow], name: str = "") -> list[Resource]:
    """Placeholders for undecodable resources, so that their account names count as taken.

    ``name`` is the backend_id that was asked for.
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
class Protected:
    """Accounts, projects and users that are protected from removal, each with the reason."""

    everything: list[str] = field(default_factory=list)
    projects: dict[UUID, str] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Usernames in lower case; they are not removed from any account, in any spelling."""
    rows: list[str] = field(default_factory=list)
    """All rows that could not be decoded."""
    users_are_known: bool = True
    """Whether every user row was decoded; if not, an unknown member may be a Waldur user."""

    def of_resources(self, rows: Iterable[UnreadableRow]) -> None:
        """Protect the account: any of its resources may grant access."""
        for row in self._noted("resource", rows):
            account = row.text("backend_id")
            if account is None:
                self.everything.append(f"a resource is not understood: {row}")
            elif account.strip():
                reason = f"one of its resources is not understood: {row}"
                self.accounts[account.strip().lower()] = reason

    def of_users(self, rows: Iterable[UnreadableRow]) -> None:
        """Protect the username: it may belong to somebody who has access."""
        for row in self._noted("offering user", rows):
            self.users_are_known = False
            if name := folded(row.text("username") or ""):
                self.names[name] = f"an offering user is not understood: {row}"

    def of_roles(self, rows: Iterable[UnreadableRow]) -> None:
        """Protect the members of the project: its team is not fully known."""
        for row in self._noted("project role", rows):
            reason = f"a project role is not understood: {row}"
            project = row.uuid("project_uuid")
            if project is None:
                self.everything.append(reason)
            else:
                self.projects[project] = reason

    def of_project_accounts(self, rows: Iterable[UnreadableRow], kind: str) -> None:
        """Protect the account name: it may be an active service or course account."""
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
        """Protect a user in a state that this version does not know."""
        if name := folded(username):
            self.names[name] = f'is {kind} in the state "{state}", which is not known here'

    def _noted(self, kind: str, rows: Iterable[UnreadableRow]) -> Iterable[UnreadableRow]:
        rows = tuple(rows)
        self.rows += [f"{kind} not understood: {row}" for row in rows]
        return rows
