"""Import of resources: requests, importable resources, and projects to import them into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from waldur_site_agent.model.marketplace import BackendResource, BackendResourceRequest, Project
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import Operation, uuid_text

_REQUESTS = "backend-resource-requests/"
_RESOURCES = "backend-resources/"

BACKEND_RESOURCE_REQUESTS = Operation(
    id="backend_resource_requests_list",
    purpose="list the import requests of offering {uuid}",
    path=_REQUESTS,
    answer=BackendResourceRequest,
    filters=("offering_uuid", "state"),
    paged=True,
    orders=("created",),
)
BACKEND_RESOURCE_REQUEST = Operation(
    id="backend_resource_requests_retrieve",
    purpose="read import request {uuid}",
    path=f"{_REQUESTS}{{uuid}}/",
    answer=BackendResourceRequest,
)
START_IMPORT: Operation[None] = Operation(
    id="backend_resource_requests_start_processing",
    purpose="start with import request {uuid}",
    method="POST",
    path=f"{_REQUESTS}{{uuid}}/start_processing/",
)
IMPORT_DONE: Operation[None] = Operation(
    id="backend_resource_requests_set_done",
    purpose="mark import request {uuid} as done",
    method="POST",
    path=f"{_REQUESTS}{{uuid}}/set_done/",
)
IMPORT_ERRED: Operation[None] = Operation(
    id="backend_resource_requests_set_erred",
    purpose="mark import request {uuid} as erred",
    method="POST",
    path=f"{_REQUESTS}{{uuid}}/set_erred/",
    body=("error_message", "error_traceback"),
    idempotent=True,
)
BACKEND_RESOURCES = Operation(
    id="backend_resources_list",
    purpose="list the importable resources of offering {uuid}",
    path=_RESOURCES,
    answer=BackendResource,
    filters=("offering_uuid",),
    paged=True,
    orders=("created",),
)
CREATE_BACKEND_RESOURCE = Operation(
    id="backend_resources_create",
    purpose="offer a resource of offering {uuid} for import",
    method="POST",
    path=_RESOURCES,
    answer=BackendResource,
    body=("name", "project", "offering", "backend_id", "backend_metadata"),
)
PROVIDER_PROJECTS = Operation(
    id="marketplace_service_providers_projects_list",
    purpose="list the projects of service provider {uuid}",
    path="marketplace-service-providers/{uuid}/projects/",
    answer=Project,
    paged=True,
    orders=("created",),
    chooses_fields=True,
)
PROJECTS = Operation(
    id="projects_list",
    purpose="list the projects",
    path="projects/",
    answer=Project,
    paged=True,
    orders=("created",),
    chooses_fields=True,
)


class ImportsApi(ApiClient):
    """Import requests, importable resources, and the projects that they can be imported into.

    A request goes from Sent to Processing to Done, or from any state to Erred; any other change
    raises ``ConflictError``.
    """

    def backend_resource_requests(
        self, offering_uuid: UUID | str, states: Iterable[str]
    ) -> Listing[BackendResourceRequest]:
        """The import requests of an offering in these states, oldest first."""
        offering = UUID(uuid_text(offering_uuid))
        listing = self._list(
            BACKEND_RESOURCE_REQUESTS,
            offering.hex,
            offering_uuid=offering.hex,
            state=[*states],
        )
        return listing.with_items(
            row for row in listing.items if row.offering_uuid in (None, offering)
        )

    def backend_resource_request(self, uuid: UUID | str) -> BackendResourceRequest:
        """One request as it is now."""
        return self._read(BACKEND_RESOURCE_REQUEST, uuid)

    def start_import(self, uuid: UUID | str) -> None:
        """Sent -> Processing."""
        self._write(START_IMPORT, uuid)

    def import_done(self, uuid: UUID | str) -> None:
        """Processing -> Done."""
        self._write(IMPORT_DONE, uuid)

    def import_erred(self, uuid: UUID | str, message: str) -> None:
        """Any state -> Erred, with the reason, which the requester sees."""
        # Servers answer HTTP 500 if either key is missing.
        self._write(IMPORT_ERRED, uuid, {"error_message": message, "error_traceback": ""})

    def backend_resources(self, offering_uuid: UUID | str) -> Listing[BackendResource]:
        """The importable resources that were registered before and are not imported yet."""
        offering = UUID(uuid_text(offering_uuid))
        listing = self._list(BACKEND_RESOURCES, offering.hex, offering_uuid=offering.hex)
        return listing.with_items(
            row for row in listing.items if row.offering_uuid in (None, offering)
        )

    def create_backend_resource(
        self,
        name: str,
        project_uuid: UUID | str,
        offering_uuid: UUID | str,
        backend_id: str,
        backend_metadata: Mapping[str, Any],
    ) -> BackendResource:
        """Register an importable resource. It cannot be changed later; a second call makes another.

        Raises:
            LostAnswerError: It may have been created: read :meth:`backend_resources` first.
        """
        body = {
            "name": name,
            "project": uuid_text(project_uuid),
            "offering": uuid_text(offering_uuid),
            "backend_id": backend_id,
            "backend_metadata": dict(backend_metadata),
        }
        return self._change(CREATE_BACKEND_RESOURCE, offering_uuid, body)

    def provider_projects(self, provider_uuid: UUID | str) -> Listing[Project]:
        """The projects that have a resource of a service provider."""
        return self._list(PROVIDER_PROJECTS, uuid_text(provider_uuid))

    def projects(self) -> Listing[Project]:
        """The projects that the token's user sees, often none of the provider's customers."""
        return self._list(PROJECTS)
