"""Rows of lists that need a second look before they are what the agent speaks of."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from waldur_site_agent.model.events import AgentIdentity, EventSubscription
from waldur_site_agent.model.imports import BackendResource, BackendResourceRequest
from waldur_site_agent.model.offerings import UserLimit
from waldur_site_agent.model.usage import ComponentUserUsage
from waldur_site_agent.waldur.listing import last_uuid


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLimitRow:
    """A limit of one user; it points to what it belongs to by URL."""

    uuid: UUID
    resource: str = ""
    user: str = ""
    component_type: str = ""
    limit: Decimal | None = None

    def read(self) -> UserLimit:
        """The limit with the UUIDs that the URLs end in."""
        return UserLimit(
            uuid=self.uuid,
            resource_uuid=last_uuid(self.resource),
            offering_user_uuid=last_uuid(self.user),
            component_type=self.component_type,
            limit=self.limit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentUserUsageRow:
    """One person's part of a component usage, to which it points by URL."""

    uuid: UUID
    username: str = ""
    usage: Decimal = Decimal(0)
    component_type: str = ""
    component_usage: str = ""
    resource_uuid: UUID | None = None
    billing_period: date | None = None

    def read(self) -> ComponentUserUsage:
        """The part with the UUID that the URL ends in."""
        return ComponentUserUsage(
            uuid=self.uuid,
            username=self.username,
            usage=self.usage,
            component_type=self.component_type,
            component_usage_uuid=last_uuid(self.component_usage),
            resource_uuid=self.resource_uuid,
            billing_period=self.billing_period,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentityRow:
    """An agent; what Waldur calls ``offering`` is its UUID, or was its URL."""

    uuid: UUID
    offering: str = ""
    name: str = ""
    version: str = ""
    last_restarted: datetime | None = None

    def read(self) -> AgentIdentity:
        """The agent in the words that are used everywhere else."""
        return AgentIdentity(
            uuid=self.uuid,
            name=self.name,
            offering_uuid=last_uuid(self.offering),
            version=self.version,
            last_restarted=self.last_restarted,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSubscriptionRow:
    """A subscription; its object types come as a list of objects of any shape."""

    uuid: UUID
    user_uuid: UUID | None = None
    description: str = ""
    observable_objects: Any = ()

    def read(self) -> EventSubscription:
        """The subscription with the object types that can be recognized."""
        rows = self.observable_objects
        found = [
            row.get("object_type")
            for row in (rows if isinstance(rows, list | tuple) else ())
            if isinstance(row, dict)
        ]
        return EventSubscription(
            uuid=self.uuid,
            user_uuid=self.user_uuid,
            description=self.description,
            object_types=tuple(name for name in found if isinstance(name, str)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResourceRequestRow:
    """An import request; what Waldur calls ``offering`` is its UUID, or was its URL."""

    uuid: UUID
    state: str = ""
    offering: str = ""
    created: datetime | None = None
    error_message: str = ""

    def read(self) -> BackendResourceRequest:
        """The request in the words that are used everywhere else."""
        return BackendResourceRequest(
            uuid=self.uuid,
            state=self.state,
            offering_uuid=last_uuid(self.offering),
            created=self.created,
            error_message=self.error_message,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResourceRow:
    """An importable resource; project and offering are named by UUID, the metadata is any JSON."""

    uuid: UUID
    name: str = ""
    project: str = ""
    offering: str = ""
    backend_id: str = ""
    backend_metadata: Any = None

    def read(self) -> BackendResource:
        """The resource in the words that are used everywhere else."""
        metadata = self.backend_metadata
        return BackendResource(
            uuid=self.uuid,
            name=self.name,
            backend_id=self.backend_id,
            project_uuid=last_uuid(self.project),
            offering_uuid=last_uuid(self.offering),
            backend_metadata=metadata if isinstance(metadata, Mapping) else {},
        )
