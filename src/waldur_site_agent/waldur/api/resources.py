"""Resources: their state, limits, metadata and team."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
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
from waldur_site_agent.waldur.http import Call
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import (
    Operation,
    bad_answer,
    decode,
    number,
    read_rows,
    uuid_text,
)

RESOURCES = Operation(
    id="marketplace_provider_resources_list",
    purpose="list the resources of offering {uuid}",
    path="marketplace-provider-resources/",
    answer=Resource,
    filters=("offering_uuid", "state"),
    paged=True,
    orders=("created",),
    chooses_fields=True,
)
RESOURCES_BY_BACKEND_ID = Operation(
    id="marketplace_provider_resources_list",
    purpose="list the resources with one backend id",
    path="marketplace-provider-resources/",
    answer=Resource,
    filters=("backend_id", "state"),
    paged=True,
    orders=("created",),
    chooses_fields=True,
)
RESOURCE = Operation(
    id="marketplace_provider_resources_retrieve",
    purpose="read resource {uuid}",
    path="marketplace-provider-resources/{uuid}/",
    answer=Resource,
    chooses_fields=True,
)
RECORD_FIELDS = (
    *("uuid", "name", "slug", "description", "state", "created", "modified", "backend_id"),
    *("effective_id", "backend_metadata", "limits", "attributes", "options", "paused"),
    *("downscaled", "restrict_member_access", "end_date", "end_date_updated_at", "plan_uuid"),
    *("plan_name", "offering_uuid", "offering_name", "offering_slug", "offering_backend_id"),
    *("offering_plugin_options", "provider_uuid", "provider_name", "provider_slug"),
    *("project_uuid", "project_name", "project_slug", "project_description", "project_end_date"),
    *("customer_uuid", "customer_name", "customer_slug", "parent_uuid"),
)
"""What backends are told of a resource that need more than its name and limits."""

RESOURCE_RECORDS = Operation(
    id="marketplace_provider_resources_list",
    purpose="list everything about the resources of offering {uuid}",
    path="marketplace-provider-resources/",
    answer=dict[str, Any],
    filters=("offering_uuid", "state"),
    paged=True,
    orders=("created",),
    chooses_fields=True,
    extra_fields=RECORD_FIELDS,
)
RESOURCE_RECORD = Operation(
    id="marketplace_provider_resources_retrieve",
    purpose="read everything about resource {uuid}",
    path="marketplace-provider-resources/{uuid}/",
    answer=dict[str, Any],
    chooses_fields=True,
    extra_fields=RECORD_FIELDS,
)
TEAM = Operation(  # a plain list, never in pages
    id="marketplace_provider_resources_team_list",
    purpose="read the team of resource {uuid}",
    path="marketplace-provider-resources/{uuid}/team/",
    answer=TeamMember,
)
SET_BACKEND_ID: Operation[None] = Operation(
    id="marketplace_provider_resources_set_backend_id",
    purpose="set the backend id of resource {uuid}",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_backend_id/",
    body=("backend_id",),
    idempotent=True,
)
SET_LIMITS: Operation[None] = Operation(
    id="marketplace_provider_resources_set_limits",
    purpose="set the limits of resource {uuid}",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_limits/",
    body=("limits",),
    idempotent=True,
)
SET_BACKEND_METADATA: Operation[None] = Operation(
    id="marketplace_provider_resources_set_backend_metadata",
    purpose="set the backend metadata of resource {uuid}",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_backend_metadata/",
    body=("backend_metadata",),
    idempotent=True,
)
REFRESH_LAST_SYNC: Operation[None] = Operation(
    id="marketplace_provider_resources_refresh_last_sync",
    purpose="refresh the sync time of resource {uuid}",
    method="POST",
    path="marketplace-provider-resources/{uuid}/refresh_last_sync/",
    idempotent=True,
)
SET_AS_OK: Operation[None] = Operation(
    id="marketplace_provider_resources_set_as_ok",
    purpose="mark resource {uuid} as OK",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_as_ok/",
    idempotent=True,
)
SET_AS_ERRED: Operation[None] = Operation(
    id="marketplace_provider_resources_set_as_erred",
    purpose="mark resource {uuid} as erred",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_as_erred/",
    body=("error_message", "error_traceback"),
    idempotent=True,
)
USER_LIMITS = Operation(
    id="component_user_usage_limits_list",
    purpose="list the limits of single users of offering {uuid}",
    path="component-user-usage-limits/",
    answer=UserLimit,
    filters=("offering_uuid",),
    paged=True,
)


class _Sharing:
    """Lets the resources of a list share what is equal: most have the same few settings."""

    def __init__(self) -> None:
        self._uuids: dict[UUID | None, UUID | None] = {}
        self._mappings: dict[object, Mapping[str, Any]] = {}

    def __call__(self, resource: Resource) -> Resource:
        uuids, shared = self._uuids, self._mapping
        return replace(
            resource,
            offering_uuid=uuids.setdefault(resource.offering_uuid, resource.offering_uuid),
            customer_uuid=uuids.setdefault(resource.customer_uuid, resource.customer_uuid),
            plan_uuid=uuids.setdefault(resource.plan_uuid, resource.plan_uuid),
            limits=shared(resource.limits),
            backend_metadata=shared(resource.backend_metadata),
            attributes=shared(resource.attributes),
            options=shared(resource.options),
        )

    def _mapping(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            key = tuple((name, type(each), each) for name, each in value.items())
            if len(self._mappings) >= _MOST_SHARED:
                return self._mappings.get(key, value)
            return self._mappings.setdefault(key, value)
        except TypeError:  # a list or an object in it
            return value


_MOST_SHARED = 1000


class ResourcesApi(ApiClient):
    """Resources, their teams, and the limits of single users."""

    def resources(
        self,
        offering_uuid: UUID | str,
        states: Iterable[str] = ResourceState.ALIVE,
        *,
        with_order_in_progress: bool = False,
    ) -> Listing[Resource]:
        """The resources of an offering in these states, oldest first.

        ``with_order_in_progress`` also asks for that order, which makes the answer large.
        """
        return self._list(
            RESOURCES,
            uuid_text(offering_uuid),
            None,
            _Sharing(),
            without=() if with_order_in_progress else ("order_in_progress",),
            offering_uuid=uuid_text(offering_uuid),
            state=[*states],
        )

    def resources_named(
        self, backend_id: str, states: Iterable[str] = ResourceState.ALIVE
    ) -> Listing[Resource]:
        """The resources with exactly this backend id, in all offerings that the user sees."""
        return self._list(
            RESOURCES_BY_BACKEND_ID,
            without=("order_in_progress",),
            backend_id=backend_id,
            state=[*states],
        )

    def resource(self, uuid: UUID | str) -> Resource:
        """One resource as it is now, with its order in progress."""
        return self._read(RESOURCE, uuid)

    def resource_records(self, offering_uuid: UUID | str) -> Listing[dict[str, Any]]:
        """The live resources of an offering as the API describes them, for backends."""
        return self._list(
            RESOURCE_RECORDS,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            state=[*ResourceState.ALIVE],
        )

    def resource_record(self, uuid: UUID | str) -> dict[str, Any]:
        """One resource as the API describes it now."""
        return self._read(RESOURCE_RECORD, uuid)

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
        """Set the resource's name in the backend."""
        self._write(SET_BACKEND_ID, resource_uuid, {"backend_id": backend_id})

    def set_limits(self, resource_uuid: UUID | str, limits: Mapping[str, Decimal]) -> None:
        """Replace all limits of a resource, in Waldur's measured units.

        Only limit components may have a key: others break later orders of the resource.
        """
        numbers = {component: number(limit) for component, limit in limits.items()}
        self._write(SET_LIMITS, resource_uuid, {"limits": numbers})

    def set_backend_metadata(self, resource_uuid: UUID | str, metadata: Mapping[str, Any]) -> None:
        """Replace all backend metadata of a resource."""
        self._write(SET_BACKEND_METADATA, resource_uuid, {"backend_metadata": dict(metadata)})

    def refresh_last_sync(self, resource_uuid: UUID | str) -> None:
        """Record on the resource that it was compared with the backend just now."""
        self._write(REFRESH_LAST_SYNC, resource_uuid)

    def set_as_ok(self, resource_uuid: UUID | str) -> None:
        """Mark a resource as OK from any state; Waldur refuses a terminated one."""
        self._write(SET_AS_OK, resource_uuid)

    def set_as_erred(self, resource_uuid: UUID | str, message: str) -> None:
        """Mark a resource as erred; its owner sees the message."""
        body = {"error_message": message, "error_traceback": ""}
        self._write(SET_AS_ERRED, resource_uuid, body)

    def user_limits(self, offering_uuid: UUID | str) -> Listing[UserLimit]:
        """The limits that customers set for single users, for all resources of an offering."""
        return self._list(
            USER_LIMITS, uuid_text(offering_uuid), offering_uuid=uuid_text(offering_uuid)
        )
