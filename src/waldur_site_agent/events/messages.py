"""A message from the broker as what it means: where to look, and what was announced there.

The content comes from outside and may be anything. Nothing of it is carried out: it says only
which part of the offering to compare anew. Fields that are not known are passed over, fields that
are missing make the part larger.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from waldur_site_agent.events.announcements import (
    FlagsAnnounced,
    OrderAnnounced,
    ProjectAccountAnnounced,
    RoleAnnounced,
    UserAnnounced,
)
from waldur_site_agent.model.events import ObjectType
from waldur_site_agent.model.scopes import (
    Everything,
    ImportScope,
    OrderScope,
    ProjectScope,
    ResourceScope,
    UserScope,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from waldur_site_agent.events.announcements import Announcement
    from waldur_site_agent.model.scopes import Scope

    Payload = Mapping[str, object]
    Meaning = tuple[Scope, Announcement | None]

OFFERING_RESOURCES_SYNC = "offering_resources_sync"
"""The provider wants everything compared (servers from 8.0.9)."""

LONGEST_BODY = 4 * 1024 * 1024
"""Bytes. Waldur's own messages are far below a thousandth of it."""

_QUEUE = re.compile(r"offering[_/]([0-9a-f]{32})[_/]([a-z_]+)$")
"""How queues and topics of one type of object end; newer servers have one queue for all."""
_LONGEST_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Event:
    """Something of this offering may have changed."""

    object_type: str
    scope: Scope
    announcement: Announcement | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing of this agent's: another offering, or a type that it does not act on."""

    object_type: str
    why: str
    """``foreign`` or ``ignored``."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """It cannot be understood."""

    reason: str


Message: TypeAlias = Event | Ignored | Unusable


class _UnusableError(ValueError):
    """A field that is needed is missing or wrong."""


def read_message(body: bytes, queue: str, offering: UUID) -> Message:
    """Understand a message, or say why it cannot be; never raises.

    Args:
        body: what was delivered.
        queue: from where; the queues of older servers say the type of object by their name.
        offering: the offering that this agent serves here.
    """
    try:
        return _understood(_payload(body), _QUEUE.search(queue), offering)
    except _UnusableError as error:
        return Unusable(str(error))


def _payload(body: bytes) -> Payload:
    if len(body) > LONGEST_BODY:
        raise _UnusableError(f"it has {len(body)} bytes, more than {LONGEST_BODY}")
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
        raise _UnusableError("it does not say what it is about")
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
    """A type that nobody knows, as it may stand in a log."""
    return "".join(c for c in object_type[:_LONGEST_SHOWN] if c.isprintable())
