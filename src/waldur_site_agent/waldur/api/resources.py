"""What the agent asks about resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from waldur_site_agent.model.marketplace import (
    Resource,
    ResourceState,
    TeamMember,
    UserLimit,
    has_ended,
)
from waldur_site_agent.waldur.codec import bad_answer, decode, number, read_rows, uuid_text
from waldur_site_agent.waldur.http import Call
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import listing_pages, reading, writing

RESOURCES = listing_pages(
    "marketplace_provider_resources_list",
    "list the resources of offering {uuid}",
    "marketplace-provider-resources/",
    Resource,
    filters=("offering_uuid", "state"),
)
RESOURCES_NAMED = listing_pages(
    "marketplace_provider_resources_list",
    "list the resources of one name in the backend",
    "marketplace-provider-resources/",
    Resource,
    filters=("backend_id", "state"),
)
RESOURCE = reading(
    "marketplace_provider_resources_retrieve",
    "read resource {uuid}",
    "marketplace-provider-resources/{uuid}/",
    Resource,
    query=("field",),
)
TEAM = reading(  # a plain list, never in pages
    "marketplace_provider_resources_team_list",
    "read the team of resource {uuid}",
    "marketplace-provider-resources/{uuid}/team/",
    TeamMember,
)
SET_BACKEND_ID = writing(
    "marketplace_provider_resources_set_backend_id",
    "set the backend id of resource {uuid}",
    "marketplace-provider-resources/{uuid}/set_backend_id/",
    body=("backend_id",),
    safe_to_repeat=True,
)
SET_LIMITS = writing(
    "marketplace_provider_resources_set_limits",
    "set the limits of resource {uuid}",
    "marketplace-provider-resources/{uuid}/set_limits/",
    body=("limits",),
    safe_to_repeat=True,
)
SET_BACKEND_METADATA = writing(
    "marketplace_provider_resources_set_backend_metadata",
    "set the backend metadata of resource {uuid}",
    "marketplace-provider-resources/{uuid}/set_backend_metadata/",
    body=("backend_metadata",),
    safe_to_repeat=True,
)
REFRESH_LAST_SYNC = writing(
    "marketplace_provider_resources_refresh_last_sync",
    "refresh the sync time of resource {uuid}",
    "marketplace-provider-resources/{uuid}/refresh_last_sync/",
    safe_to_repeat=True,
)
SET_AS_OK = writing(
    "marketplace_provider_resources_set_as_ok",
    "mark resource {uuid} as OK",
    "marketplace-provider-resources/{uuid}/set_as_ok/",
    safe_to_repeat=True,
)
SET_AS_ERRED = writing(
    "marketplace_provider_resources_set_as_erred",
    "mark resource {uuid} as erred",
    "marketplace-provider-resources/{uuid}/set_as_erred/",
    body=("error_message", "error_traceback"),
    safe_to_repeat=True,
)
USER_LIMITS = listing_pages(
    "component_user_usage_limits_list",
    "list the limits of single users of offering {uuid}",
    "component-user-usage-limits/",
    UserLimit,
    filters=("offering_uuid",),
    ordered_by=None,
    chooses_fields=False,
)


class ResourcesApi(ApiClient):
    """Resources: what they are to be, who is in them, and what the agent tells of them."""

    def resources(
        self,
        offering_uuid: UUID | str,
        states: Iterable[str] = ResourceState.ALIVE,
        *,
        with_order_in_progress: bool = False,
    ) -> Listing[Resource]:
        """The resources of an offering in these states, oldest first.

        ``with_order_in_progress`` asks for the order under way too, which makes the answer large.
        """
        return self._list(
            RESOURCES,
            uuid_text(offering_uuid),
            without=() if with_order_in_progress else ("order_in_progress",),
            offering_uuid=uuid_text(offering_uuid),
            state=[*states],
        )

    def resources_named(
        self, backend_id: str, states: Iterable[str] = ResourceState.ALIVE
    ) -> Listing[Resource]:
        """The resources of this very backend id in all offerings that the token's user sees."""
        return self._list(
            RESOURCES_NAMED,
            without=("order_in_progress",),
            backend_id=backend_id,
            state=[*states],
        )

    def resource(self, uuid: UUID | str) -> Resource:
        """One resource as it is now, with the order under way."""
        return self._read(RESOURCE, uuid)

    def team(self, resource_uuid: UUID | str) -> tuple[TeamMember, ...]:
        """The people with a role in the resource's project; ended roles are left out.

        Raises:
            TemporaryError: Also when the server says that there are more than it sent.
        """
        call = Call.of(TEAM, uuid=uuid_text(resource_uuid))
        response = self._connection.send(call)
        rows = read_rows(response)
        total = response.headers.get("x-result-count", "")
        if total.isdigit() and int(total) != len(rows):
            raise bad_answer(response, f"{len(rows)} of {total} members arrived")
        members = [decode(TEAM, row, response, f"row {n}") for n, row in enumerate(rows, 1)]
        now = self._connection.now()
        return tuple(m for m in members if not has_ended(m.expiration_time, now))

    def set_backend_id(self, resource_uuid: UUID | str, backend_id: str) -> None:
        """Tell Waldur the resource's name in the backend."""
        self._write(SET_BACKEND_ID, resource_uuid, {"backend_id": backend_id})

    def set_limits(self, resource_uuid: UUID | str, limits: Mapping[str, Decimal]) -> None:
        """Replace all limits of a resource, in Waldur's measured units.

        Only keys of limit components may be there: others break later orders of the resource.
        """
        numbers = {component: number(limit) for component, limit in limits.items()}
        self._write(SET_LIMITS, resource_uuid, {"limits": numbers})

    def set_backend_metadata(self, resource_uuid: UUID | str, metadata: Mapping[str, Any]) -> None:
        """Replace the backend metadata of a resource, whole."""
        self._write(SET_BACKEND_METADATA, resource_uuid, {"backend_metadata": dict(metadata)})

    def refresh_last_sync(self, resource_uuid: UUID | str) -> None:
        """Note on the resource that it was compared with the backend just now."""
        self._write(REFRESH_LAST_SYNC, resource_uuid)

    def set_as_ok(self, resource_uuid: UUID | str) -> None:
        """Mark a resource as OK, whatever it was before; a terminated one is refused."""
        self._write(SET_AS_OK, resource_uuid)

    def set_as_erred(self, resource_uuid: UUID | str, message: str) -> None:
        """Mark a resource as erred, for its owner too."""
        body = {"error_message": message, "error_traceback": ""}
        self._write(SET_AS_ERRED, resource_uuid, body)

    def user_limits(self, offering_uuid: UUID | str) -> Listing[UserLimit]:
        """The limits that customers set for single people, of all resources of an offering."""
        return self._list(
            USER_LIMITS, uuid_text(offering_uuid), offering_uuid=uuid_text(offering_uuid)
        )
