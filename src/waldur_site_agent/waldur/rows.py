"""Rows of lists that need a second look before they are what the agent speaks of."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.model.offerings import UserLimit
from waldur_site_agent.model.usage import ComponentUserUsage


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
            resource_uuid=_last_uuid(self.resource),
            offering_user_uuid=_last_uuid(self.user),
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
            component_usage_uuid=_last_uuid(self.component_usage),
            resource_uuid=self.resource_uuid,
            billing_period=self.billing_period,
        )


def _last_uuid(url: str) -> UUID | None:
    try:
        return UUID(url.partition("?")[0].rstrip("/").rpartition("/")[2])
    except ValueError:
        return None
