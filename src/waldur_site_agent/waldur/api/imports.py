"""What the agent asks about the import of resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from waldur_site_agent.model.marketplace import BackendResource, BackendResourceRequest, Project
from waldur_site_agent.waldur.codec import uuid_text
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import listing_pages, making, reading, writing

_REQUESTS = "backend-resource-requests/"
_RESOURCES = "backend-resources/"

BACKEND_RESOURCE_REQUESTS = listing_pages(
    "backend_resource_requests_list",
    "list the import requests of offering {uuid}",
    _REQUESTS,
    BackendResourceRequest,
    filters=("offering_uuid", "state"),
    chooses_fields=False,
)
BACKEND_RESOURCE_REQUEST = reading(
    "backend_resource_requests_retrieve",
    "read import request {uuid}",
    f"{_REQUESTS}{{uuid}}/",
    BackendResourceRequest,
)
START_IMPORT = writing(
    "backend_resource_requests_start_processing",
    "start with import request {uuid}",
    f"{_REQUESTS}{{uuid}}/start_processing/",
    safe_to_repeat=False,
)
IMPORT_DONE = writing(
    "backend_resource_requests_set_done",
    "mark import request {uuid} as done",
    f"{_REQUESTS}{{uuid}}/set_done/",
    safe_to_repeat=False,
)
IMPORT_ERRED = writing(
    "backend_resource_requests_set_erred",
    "mark import request {uuid} as erred",
    f"{_REQUESTS}{{uuid}}/set_erred/",
    body=("error_message", "error_traceback"),
    safe_to_repeat=True,
)
BACKEND_RESOURCES = listing_pages(
    "backend_resources_list",
    "list the importable resources of offering {uuid}",
    _RESOURCES,
    BackendResource,
    filters=("offering_uuid",),
    chooses_fields=False,
)
CREATE_BACKEND_RESOURCE = making(
    "backend_resources_create",
    "offer a resource of offering {uuid} for import",
    _RESOURCES,
    BackendResource,
    body=("name", "project", "offering", "backend_id", "backend_metadata"),
    safe_to_repeat=False,
)
PROVIDER_PROJECTS = listing_pages(
    "marketplace_service_providers_projects_list",
    "list the projects of service provider {uuid}",
    "marketplace-service-providers/{uuid}/projects/",
    Project,
    filters=(),
)
PROJECTS = listing_pages("projects_list", "list the projects", "projects/", Project, filters=())


class ImportsApi(ApiClient):
    """Requests for what can be imported, what is offered in answer, and projects to put it in.

    A request goes from Sent to Processing to Done, or to Erred from anywhere; another order is a
    ``ConflictError``.
    """

    def backend_resource_requests(
        self, offering_uuid: UUID | str, states: Iterable[str]
    ) -> Listing[BackendResourceRequest]:
        """The requests about an offering in these states, oldest first."""
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
        """Any state -> Erred, with the reason for the one who asked."""
        # Servers index both keys: leaving one out is answered with HTTP 500.
        self._write(IMPORT_ERRED, uuid, {"error_message": message, "error_traceback": ""})

    def backend_resources(self, offering_uuid: UUID | str) -> Listing[BackendResource]:
        """What was offered for import already, and was not imported yet."""
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
        """Offer something for import; it cannot be changed later, and twice makes two.

        Raises:
            LostAnswerError: It may have been made: read :meth:`backend_resources` first.
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
        """The projects that the token's user sees: often none of those that buy from it."""
        return self._list(PROJECTS)
