"""The agent's identity in Waldur, its event subscriptions and queues, and what events announce."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BeforeValidator, Field

from waldur_site_agent.model.marketplace import (
    OfferingUser,
    Resource,
    TeamMember,
    UuidFromUrl,
)


class ObjectType:
    """What an event is about, as far as the agent acts on it; newer servers know more."""

    ORDER = "order"
    USER_ROLE = "user_role"
    RESOURCE = "resource"
    OFFERING_USER = "offering_user"
    SERVICE_ACCOUNT = "service_account"
    COURSE_ACCOUNT = "course_account"
    IMPORTABLE_RESOURCES = "importable_resources"
    PERIODIC_LIMITS = "resource_periodic_limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """One agent at one offering."""

    uuid: UUID
    name: str = ""
    offering_uuid: Annotated[UuidFromUrl, Field(validation_alias="offering")] = None
    version: str = ""
    last_restarted: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentService:
    """One job of an agent; Waldur sets it Idle when no processor of it ran for ten minutes."""

    uuid: UUID
    name: str = ""
    mode: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProcessor:
    """One part of a service and the backend behind it; registering it is its heartbeat."""

    uuid: UUID
    name: str = ""
    last_run: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRegistration:
    """One queue for all events of an agent (servers from 8.1).

    The password of ``rmq_username`` is the token with which the queue was registered last.
    """

    rmq_username: str
    queue_name: str
    vhost: str
    observable_object_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of the agent's log, as Waldur shows it to the provider."""

    timestamp: float
    """In seconds since 1970, UTC."""
    level: str
    """``DEBUG``, ``INFO``, ``WARNING``, ``ERROR`` or ``CRITICAL``."""
    message: str
    module: str
    """The part of the agent that it is from."""


def _object_types(rows: object) -> tuple[str, ...]:
    """The types that can be recognized in a list of objects of any shape."""
    found = [
        row.get("object_type")
        for row in (rows if isinstance(rows, list | tuple) else ())
        if isinstance(row, dict)
    ]
    return tuple(name for name in found if isinstance(name, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSubscription:
    """One user's subscription to events of some object types, in all offerings.

    Its UUID (32 hexadecimal digits) is the login at the message broker, the password is the token
    with which it was made, and the virtual host is the UUID of its user.
    """

    uuid: UUID
    user_uuid: UUID | None = None
    description: str = ""
    object_types: Annotated[
        tuple[str, ...],
        Field(validation_alias="observable_objects"),
        BeforeValidator(_object_types),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionQueue:
    """The queue of one subscription for one offering and one type of object."""

    queue_name: str
    vhost: str
    object_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaldurSnapshot:
    """What a pass read from Waldur, to be compared with what an event announced.

    Objects that the pass did not read are absent; this differs from being empty.
    """

    orders: Mapping[UUID, str] = field(default_factory=dict)
    """The states of orders."""
    teams: Mapping[UUID, Collection[TeamMember]] = field(default_factory=dict)
    """By project."""
    resources: Mapping[UUID, Resource] = field(default_factory=dict)
    users: Mapping[UUID, OfferingUser] = field(default_factory=dict)
    """By user UUID."""
    accounts: Mapping[UUID, frozenset[str]] = field(default_factory=dict)
    """By project: the usernames of its active service and course accounts."""
