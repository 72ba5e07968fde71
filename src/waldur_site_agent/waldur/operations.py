"""What the gateway can ask Waldur: one value for each operation of the REST API.

The identifiers are those of Waldur's OpenAPI document, against which the contract tests check
this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from waldur_site_agent.model.offerings import ServiceProvider, WaldurOffering
from waldur_site_agent.model.orders import Order, Resource
from waldur_site_agent.model.people import OfferingUser, ProjectRole, TeamMember, User
from waldur_site_agent.waldur.operation import listing_pages, reading, writing

if TYPE_CHECKING:
    from waldur_site_agent.waldur.operation import Operation

COMPONENT_KEYS = (
    "type",
    "name",
    "billing_type",
    "description",
    "measured_unit",
    "unit_factor",
    "limit_period",
    "limit_amount",
    "article_code",
    "max_value",
    "min_value",
    "max_available_limit",
    "default_limit",
    "is_boolean",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The server's answer about itself."""

    version: str


# The server and the agent's user

ME = reading(
    "users_me_retrieve",
    "read whose token this is",
    "users/me/",
    User,
    query=("field",),  # also keeps the token itself out of the answer
)
VERSION = reading("version_retrieve", "read the server's version", "version/", Version)

# The offering

OFFERING = reading(
    "marketplace_provider_offerings_retrieve",
    "read offering {uuid}",
    "marketplace-provider-offerings/{uuid}/",
    WaldurOffering,
    query=("field",),
)
CREATE_COMPONENT = writing(
    "marketplace_provider_offerings_create_offering_component",
    "create a component of offering {uuid}",
    "marketplace-provider-offerings/{uuid}/create_offering_component/",
    body=COMPONENT_KEYS,
    safe_to_repeat=False,
)
UPDATE_COMPONENT = writing(
    "marketplace_provider_offerings_update_offering_component",
    "update a component of offering {uuid}",
    "marketplace-provider-offerings/{uuid}/update_offering_component/",
    body=("uuid", *COMPONENT_KEYS),
    safe_to_repeat=True,
)

# Orders: moving one is never repeated blindly, its state may have changed in between

ORDERS = listing_pages(
    "marketplace_orders_list",
    "list the orders of offering {uuid}",
    "marketplace-orders/",
    Order,
    filters=("offering_uuid", "state"),
    extra_fields=("offering_uuid",),
)
ORDER = reading(
    "marketplace_orders_retrieve",
    "read order {uuid}",
    "marketplace-orders/{uuid}/",
    Order,
    query=("field",),
)
APPROVE_ORDER = writing(
    "marketplace_orders_approve_by_provider",
    "approve order {uuid}",
    "marketplace-orders/{uuid}/approve_by_provider/",
    body=(),
    safe_to_repeat=False,
)
REJECT_ORDER = writing(
    "marketplace_orders_reject_by_provider",
    "reject order {uuid}",
    "marketplace-orders/{uuid}/reject_by_provider/",
    body=("provider_rejection_comment",),
    safe_to_repeat=False,
)
COMPLETE_ORDER = writing(
    "marketplace_orders_set_state_done",
    "mark order {uuid} as done",
    "marketplace-orders/{uuid}/set_state_done/",
    safe_to_repeat=False,
)
FAIL_ORDER = writing(
    "marketplace_orders_set_state_erred",
    "mark order {uuid} as erred",
    "marketplace-orders/{uuid}/set_state_erred/",
    body=("error_message", "error_traceback"),
    safe_to_repeat=False,
)
SET_ORDER_BACKEND_ID = writing(
    "marketplace_orders_set_backend_id",
    "set the backend id of order {uuid}",
    "marketplace-orders/{uuid}/set_backend_id/",
    body=("backend_id",),
    safe_to_repeat=True,
)

# Resources: every write says how things are, and may be said twice

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

# People

SERVICE_PROVIDERS = listing_pages(
    "marketplace_service_providers_list",
    "list the service providers of customer {uuid}",
    "marketplace-service-providers/",
    ServiceProvider,
    filters=("customer_uuid",),
    ordered_by="customer_name",  # ``created`` is not on offer here
)
PROJECT_ROLES = listing_pages(
    "marketplace_service_providers_project_permissions_list",
    "list the project roles of service provider {uuid}",
    "marketplace-service-providers/{uuid}/project_permissions/",
    ProjectRole,
    filters=("is_active",),
)
OFFERING_USERS = listing_pages(
    "marketplace_offering_users_list",
    "list the users of offering {uuid}",
    "marketplace-offering-users/",
    OfferingUser,
    filters=("offering_uuid",),
    extra_fields=("offering_uuid",),
)

OPERATIONS: tuple[Operation[object | None], ...] = (
    ME,
    VERSION,
    OFFERING,
    CREATE_COMPONENT,
    UPDATE_COMPONENT,
    ORDERS,
    ORDER,
    APPROVE_ORDER,
    REJECT_ORDER,
    COMPLETE_ORDER,
    FAIL_ORDER,
    SET_ORDER_BACKEND_ID,
    RESOURCES,
    RESOURCES_NAMED,
    RESOURCE,
    TEAM,
    SET_BACKEND_ID,
    SET_LIMITS,
    SET_BACKEND_METADATA,
    REFRESH_LAST_SYNC,
    SET_AS_OK,
    SET_AS_ERRED,
    SERVICE_PROVIDERS,
    PROJECT_ROLES,
    OFFERING_USERS,
)
"""All of the above, for tests and for documentation."""
