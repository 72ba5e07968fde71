"""Calls that Waldur may not take: the server is too old for them, or the token has no right.

The two are not the same. An old server lacks a call for everybody: that is remembered for all
work at that server, logged once, and nobody's failure. A missing right is the site's to give: it
is a warning. Neither lasts for ever here, for servers are upgraded and rights are given: after a
day the call is tried again.
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
from waldur_site_agent.planning.access import folded
from waldur_site_agent.waldur import AbsentOperationError, AccessDeniedError, Listing, UnreadableRow

UNAVAILABLE = (AbsentOperationError, AccessDeniedError)
"""What a call raises that this server, or this token, does not have."""

Answer = TypeVar("Answer")

_RETRY_AFTER = timedelta(days=1)
_WORKS = -1


def call_optional(
    site: Site, call: str, ask: Callable[[], Answer], effect: str = "it is left out"
) -> Answer:
    """Make a call that old servers do not have.

    Args:
        site: the offering at work.
        call: the call's name in Waldur's API.
        ask: makes it.
        effect: what the agent does without it, for the log.

    Raises:
        AbsentOperationError: the server does not have the call; it is not asked for a day.
        TemporaryError: Waldur could not be asked, or says that it does not have a call that it
            had before: something between here and there said that.
        PermanentError: Waldur refused.
    """
    if is_absent(site, call):
        raise AbsentOperationError(f"this Waldur does not have the call {call}")
    try:
        answer = ask()
    except AbsentOperationError as error:
        if site.server_calls.get(call) == _WORKS:
            raise TemporaryError(f"{error}; it had the call before") from error
        _remember_absent(site, call, error, effect)
        raise
    site.server_calls[call] = _WORKS
    return answer


def write_optional(site: Site, call: str, tell: Callable[[], None], resource: str = "") -> bool:
    """Tell Waldur what it may not take; whether it took it.

    What the token may not do is a warning once a day, and not tried in between.

    Raises:
        SiteAgentError: Waldur could not be asked, or refused for another reason.
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
    """Warn that the token may not make a call, and leave it alone for a day."""
    now = site.now()
    if not is_unavailable(site, call):
        site.memory.denied_calls[call] = now
        log = site.log.bind(resource=resource) if resource else site.log
        log.warning("the token may not make a call; it is left out", call=call, reason=str(error))


def _remember_absent(site: Site, call: str, error: AbsentOperationError, effect: str) -> None:
    if not is_absent(site, call):
        site.server_calls[call] = int(site.now().timestamp())
        site.log.info(
            "this Waldur does not have a call", call=call, effect=effect, reason=str(error)
        )


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
