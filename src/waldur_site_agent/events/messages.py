"""Parses messages from the broker: which scope to look at, and what was announced about it.

The content is untrusted and never carried out: it only says which part of the offering to compare
again. Unknown fields are ignored; missing fields widen the scope.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from waldur_site_agent.model.backend import (
    Everything,
    ImportScope,
    OrderScope,
    ProjectScope,
    ResourceScope,
    Scope,
    UserScope,
)
from waldur_site_agent.model.events import ObjectType, WaldurSnapshot
from waldur_site_agent.model.marketplace import OfferingUserState, short_role
from waldur_site_agent.planning.membership import normalize_username

_PROGRESS = {
    "pending-consumer": 0,
    "pending-project": 0,
    "pending-provider": 1,
    "pending-start-date": 2,
    "executing": 3,
    "done": 4,
    "erred": 4,
    "canceled": 4,
    "rejected": 4,
}
"""The progress of an order by state; it never goes back."""


@dataclass(frozen=True, slots=True)
class OrderAnnounced:
    """The state of an order; ``""`` if the event does not have it."""

    order: UUID
    state: str

    @property
    def subject(self) -> Hashable:
        """The key by which a later announcement replaces this one."""
        return self.order

    def is_shown(self, snapshot: WaldurSnapshot) -> bool:
        """Whether the order has reached that state or a later one."""
        found = snapshot.orders.get(self.order)
        if found is None:
            return False
        return _PROGRESS.get(found, len(_PROGRESS)) >= _PROGRESS.get(self.state, 0)


@dataclass(frozen=True, slots=True)
class RoleAnnounced:
    """A user was granted or lost a role in a project."""

    project: UUID
    person: UUID
    role: str
    granted: bool

    @property
    def subject(self) -> Hashable:
        """The key by which a later announcement replaces this one."""
        return self.project, self.person, short_role(self.role)

    def is_shown(self, snapshot: WaldurSnapshot) -> bool:
        """Whether the project's roles match; a project that is not served always does."""
        team = snapshot.teams.get(self.project)
        if team is None:
            return True
        name = short_role(self.role)
        held = {short_role(member.role) for member in team if member.uuid == self.person}
        return bool(held if not name else name in held) is self.granted


@dataclass(frozen=True, slots=True)
class FlagsAnnounced:
    """Flags of a resource; ``None`` for those that the event does not mention."""

    resource: UUID
    paused: bool | None = None
    downscaled: bool | None = None
    restrict_member_access: bool | None = None

    @property
    def subject(self) -> Hashable:
        """The key by which a later announcement replaces this one."""
        return self.resource

    def is_shown(self, snapshot: WaldurSnapshot) -> bool:
        """Whether the resource has these flags; one that is gone always does."""
        found = snapshot.resources.get(self.resource)
        if found is None:
            return True
        return all(
            wanted is None or wanted is has
            for wanted, has in (
                (self.paused, found.paused),
                (self.downscaled, found.downscaled),
                (self.restrict_member_access, found.restrict_member_access),
            )
        )


@dataclass(frozen=True, slots=True)
class UserAnnounced:
    """An offering user exists, with this username if one is given, or was removed."""

    person: UUID
    username: str = ""
    exists: bool = True

    @property
    def subject(self) -> Hashable:
        """The key by which a later announcement replaces this one."""
        return self.person

    def is_shown(self, snapshot: WaldurSnapshot) -> bool:
        """Whether the offering users match."""
        found = snapshot.users.get(self.person)
        if found is None:
            return not self.exists
        if found.state == OfferingUserState.DELETED:
            return True
        return self.exists and normalize_username(self.username) in (
            "",
            normalize_username(found.username),
        )


@dataclass(frozen=True, slots=True)
class ProjectAccountAnnounced:
    """A service or course account of a project was enabled or disabled."""

    project: UUID
    username: str
    works: bool

    @property
    def subject(self) -> Hashable:
        """The key by which a later announcement replaces this one."""
        return self.project, normalize_username(self.username)

    def is_shown(self, snapshot: WaldurSnapshot) -> bool:
        """Whether the project's accounts match; a project that is not served always does."""
        if self.project not in snapshot.teams:
            return True
        return (
            normalize_username(self.username) in snapshot.accounts.get(self.project, ())
        ) is self.works


Announcement: TypeAlias = (
    OrderAnnounced | RoleAnnounced | FlagsAnnounced | UserAnnounced | ProjectAccountAnnounced
)


Payload = Mapping[str, object]
Meaning = tuple[Scope, Announcement | None]

OFFERING_RESOURCES_SYNC = "offering_resources_sync"
"""The provider asks for a full pass (servers from 8.0.9)."""

LONGEST_BODY = 4 * 1024 * 1024
"""Maximum size in bytes; Waldur's own messages are more than a thousand times smaller."""

_QUEUE = re.compile(r"offering[_/]([0-9a-f]{32})[_/]([a-z_]+)$")
"""The suffixes of queues and topics by object type; newer servers have a single queue."""
_LONGEST_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Event:
    """A part of this offering may have changed."""

    object_type: str
    scope: Scope
    announcement: Announcement | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message about another offering, or of a type that the agent does not act on."""

    object_type: str
    why: str
    """``foreign`` or ``ignored``."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A message that cannot be parsed."""

    reason: str


Message: TypeAlias = Event | Ignored | Unusable


class _UnusableError(ValueError):
    """A required field is missing or invalid."""


def read_message(body: bytes, queue: str, offering: UUID) -> Message:
    """Parse a message; never raises.

    Args:
        body: the message's body.
        queue: where it came from; on older servers the name of the queue has the object type.
        offering: the offering that is served.
    """
    try:
        return _understood(_payload(body), _QUEUE.search(queue), offering)
    except _UnusableError as error:
        return Unusable(str(error))


def _payload(body: bytes) -> Payload:
    if len(body) > LONGEST_BODY:
        raise _UnusableError(f"it has {len(body)} bytes; the maximum is {LONGEST_BODY}")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _UnusableError(f"it is not JSON: {type(error).__name__}") from error
    if not isinstance(payload, dict):
        raise _UnusableError("it is not a JSON object")
    return payload


def _understood(payload: Payload, queue: re.Match[str] | None, offering: UUID) -> Event | Ignored:
    object_type = _text(payload, "object_type") or (queue.group(2) if queue else "")
    about = _uuid(payload, "offering_uuid") or (UUID(queue.group(1)) if queue else None)
    if not object_type:
        raise _UnusableError("it has no object type")
    if about not in (None, offering):
        return Ignored(_shown(object_type), "foreign")
    if object_type not in _READERS:
        return Ignored(_shown(object_type), "ignored")
    scope, announcement = _READERS[object_type](payload)
    return Event(object_type, scope, announcement)


def _order(payload: Payload) -> Meaning:
    order = _needed(payload, "order_uuid")
    state = _text(payload, "order_state").strip().lower().replace(" ", "-").replace("_", "-")
    return OrderScope(order), OrderAnnounced(order, state)


def _user_role(payload: Payload) -> Meaning:
    project = _uuid(payload, "project_uuid")
    if project is None:
        return Everything(), None
    person, granted = _uuid(payload, "user_uuid"), _flag(payload, "granted")
    if person is None or granted is None:
        return ProjectScope(project), None
    role = _text(payload, "role_name")
    return ProjectScope(project), RoleAnnounced(project, person, role, granted)


def _resource(payload: Payload) -> Meaning:
    resource = _needed(payload, "resource_uuid")
    flags = FlagsAnnounced(
        resource,
        paused=_flag(payload, "paused"),
        downscaled=_flag(payload, "downscaled"),
        restrict_member_access=_flag(payload, "restrict_member_access"),
    )
    return ResourceScope(resource), flags


def _periodic_limits(payload: Payload) -> Meaning:
    """The settings in it are not used: the budget is computed from the policy."""
    return ResourceScope(_needed(payload, "resource_uuid")), None


def _offering_user(payload: Payload) -> Meaning:
    person = _uuid(payload, "user_uuid")
    if person is None:
        return Everything(), None
    exists = _text(payload, "action") != "delete"
    username = _text(payload, "username") if exists else ""
    return UserScope(person), UserAnnounced(person, username, exists=exists)


def _project_account(payload: Payload) -> Meaning:
    project = _uuid(payload, "project_uuid")
    if project is None:
        return Everything(), None
    username, action = _text(payload, "account_username"), _text(payload, "action")
    if not username or action not in ("create", "delete"):
        return ProjectScope(project), None
    announced = ProjectAccountAnnounced(project, username, works=action == "create")
    return ProjectScope(project), announced


def _importable_resources(payload: Payload) -> Meaning:
    return ImportScope(_needed(payload, "backend_resource_request_uuid")), None


def _everything(_payload: Payload) -> Meaning:
    return Everything(), None


_READERS: Mapping[str, Callable[[Payload], Meaning]] = {
    ObjectType.ORDER: _order,
    ObjectType.USER_ROLE: _user_role,
    ObjectType.RESOURCE: _resource,
    ObjectType.OFFERING_USER: _offering_user,
    ObjectType.SERVICE_ACCOUNT: _project_account,
    ObjectType.COURSE_ACCOUNT: _project_account,
    ObjectType.IMPORTABLE_RESOURCES: _importable_resources,
    ObjectType.PERIODIC_LIMITS: _periodic_limits,
    OFFERING_RESOURCES_SYNC: _everything,
}


def _needed(payload: Payload, key: str) -> UUID:
    found = _uuid(payload, key)
    if found is None:
        raise _UnusableError(f"it has no {key}")
    return found


def _uuid(payload: Payload, key: str) -> UUID | None:
    value = payload.get(key)
    if value is None or value == "":
        return None
    try:
        return UUID(value if isinstance(value, str) else "")
    except ValueError:
        raise _UnusableError(f"its {key} is not a UUID") from None


def _text(payload: Payload, key: str) -> str:
    value = payload.get(key)
    return value if isinstance(value, str) else ""


def _flag(payload: Payload, key: str) -> bool | None:
    value = payload.get(key)
    return value if isinstance(value, bool) else None


def _shown(object_type: str) -> str:
    """An unknown type, made safe for the log."""
    return "".join(c for c in object_type[:_LONGEST_SHOWN] if c.isprintable())
