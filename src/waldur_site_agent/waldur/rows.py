"""Rows of lists that need a second look before they are what the agent speaks of."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.model.offerings import UserLimit


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


def _last_uuid(url: str) -> UUID | None:
    try:
        return UUID(url.partition("?")[0].rstrip("/").rpartition("/")[2])
    except ValueError:
        return None
