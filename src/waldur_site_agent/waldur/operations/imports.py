"""Resources that a backend has and Waldur does not, and the projects that they may belong to."""

from __future__ import annotations

from waldur_site_agent.model.imports import Project
from waldur_site_agent.waldur.operation import listing_pages, making, reading, writing
from waldur_site_agent.waldur.rows import BackendResourceRequestRow, BackendResourceRow

_REQUESTS = "backend-resource-requests/"
_RESOURCES = "backend-resources/"

BACKEND_RESOURCE_REQUESTS = listing_pages(
    "backend_resource_requests_list",
    "list the import requests of offering {uuid}",
    _REQUESTS,
    BackendResourceRequestRow,
    filters=("offering_uuid", "state"),
    chooses_fields=False,
)
BACKEND_RESOURCE_REQUEST = reading(
    "backend_resource_requests_retrieve",
    "read import request {uuid}",
    f"{_REQUESTS}{{uuid}}/",
    BackendResourceRequestRow,
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
    BackendResourceRow,
    filters=("offering_uuid",),
    chooses_fields=False,
)
CREATE_BACKEND_RESOURCE = making(
    "backend_resources_create",
    "offer a resource of offering {uuid} for import",
    _RESOURCES,
    BackendResourceRow,
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
