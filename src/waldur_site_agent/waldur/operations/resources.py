"""Resources. Every write says how things are, and may be said twice."""

from __future__ import annotations

from waldur_site_agent.model.orders import Resource
from waldur_site_agent.model.people import TeamMember
from waldur_site_agent.waldur.operation import listing_pages, reading, writing
from waldur_site_agent.waldur.rows import UserLimitRow

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
    UserLimitRow,
    filters=("offering_uuid",),
    ordered_by=None,
    chooses_fields=False,
)
