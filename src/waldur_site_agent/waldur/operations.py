"""What the gateway can ask Waldur: one value for each operation of the REST API.

The identifiers are those of Waldur's OpenAPI document, against which the contract tests check
this table.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Generic, Literal, TypeVar

from waldur_site_agent.model.offerings import ServiceProvider, WaldurOffering
from waldur_site_agent.model.orders import Order, Resource
from waldur_site_agent.model.people import OfferingUser, ProjectRole, TeamMember, User

Answer_co = TypeVar("Answer_co", covariant=True)

PAGING = ("page", "page_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The server's answer about itself."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[Answer_co]):
    """One operation: how it is asked, and what its answer is."""

    id: str
    """The operation's identifier in the OpenAPI document."""
    purpose: str
    """What it is for, in the words of error messages; ``{uuid}`` is the object's UUID."""
    method: Literal["GET", "POST"]
    path: str
    """Below ``/api/``; ``{uuid}`` stands for the object's UUID."""
    query: tuple[str, ...] = ()
    """The query parameters that the gateway may send."""
    ordered_by: str | None = None
    """The value of ``o``: without a fixed order, pages may overlap or leave rows out."""
    body: tuple[str, ...] | None = None
    """The keys of the JSON body; ``None`` where nothing is sent."""
    answer: type[Answer_co] | None = None
    """The model of the answer, or of each row of it; ``None`` where the answer is not read."""
    extra_fields: tuple[str, ...] = ()
    """Fields of the answer that only the gateway looks at."""
    safe_to_repeat: bool = False
    """Whether sending it twice has the same effect as once; reading always is."""

    @property
    def is_write(self) -> bool:
        """Whether it changes something in Waldur."""
        return self.method != "GET"

    @property
    def asked_fields(self) -> tuple[str, ...]:
        """The values of ``field``: what the model holds and the gateway looks at."""
        if self.answer is None or "field" not in self.query:
            return ()
        # mypy knows no dataclass bound for a type variable; every answer here is one.
        names = [field.name for field in fields(self.answer)]  # type: ignore[arg-type]
        return (*names, *self.extra_fields)


ME = Operation(
    id="users_me_retrieve",
    purpose="read whose token this is",
    method="GET",
    path="users/me/",
    query=("field",),  # also keeps the token itself out of the answer
    answer=User,
    safe_to_repeat=True,
)
VERSION = Operation(
    id="version_retrieve",
    purpose="read the server's version",
    method="GET",
    path="version/",
    answer=Version,
    safe_to_repeat=True,
)
OFFERING = Operation(
    id="marketplace_provider_offerings_retrieve",
    purpose="read offering {uuid}",
    method="GET",
    path="marketplace-provider-offerings/{uuid}/",
    query=("field",),
    answer=WaldurOffering,
    safe_to_repeat=True,
)
_COMPONENT_KEYS = (
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
CREATE_COMPONENT: Operation[None] = Operation(
    id="marketplace_provider_offerings_create_offering_component",
    purpose="create a component of offering {uuid}",
    method="POST",
    path="marketplace-provider-offerings/{uuid}/create_offering_component/",
    body=_COMPONENT_KEYS,
)
UPDATE_COMPONENT: Operation[None] = Operation(
    id="marketplace_provider_offerings_update_offering_component",
    purpose="update a component of offering {uuid}",
    method="POST",
    path="marketplace-provider-offerings/{uuid}/update_offering_component/",
    body=("uuid", *_COMPONENT_KEYS),
    safe_to_repeat=True,
)
ORDERS = Operation(
    id="marketplace_orders_list",
    purpose="list the orders of offering {uuid}",
    method="GET",
    path="marketplace-orders/",
    query=("offering_uuid", "state", "field", "o", *PAGING),
    ordered_by="created",
    answer=Order,
    extra_fields=("offering_uuid",),
    safe_to_repeat=True,
)
ORDER = Operation(
    id="marketplace_orders_retrieve",
    purpose="read order {uuid}",
    method="GET",
    path="marketplace-orders/{uuid}/",
    query=("field",),
    answer=Order,
    safe_to_repeat=True,
)
APPROVE_ORDER: Operation[None] = Operation(
    id="marketplace_orders_approve_by_provider",
    purpose="approve order {uuid}",
    method="POST",
    path="marketplace-orders/{uuid}/approve_by_provider/",
    body=(),
)
REJECT_ORDER: Operation[None] = Operation(
    id="marketplace_orders_reject_by_provider",
    purpose="reject order {uuid}",
    method="POST",
    path="marketplace-orders/{uuid}/reject_by_provider/",
    body=("provider_rejection_comment",),
)
COMPLETE_ORDER: Operation[None] = Operation(
    id="marketplace_orders_set_state_done",
    purpose="mark order {uuid} as done",
    method="POST",
    path="marketplace-orders/{uuid}/set_state_done/",
)
FAIL_ORDER: Operation[None] = Operation(
    id="marketplace_orders_set_state_erred",
    purpose="mark order {uuid} as erred",
    method="POST",
    path="marketplace-orders/{uuid}/set_state_erred/",
    body=("error_message", "error_traceback"),
)
SET_ORDER_BACKEND_ID: Operation[None] = Operation(
    id="marketplace_orders_set_backend_id",
    purpose="set the backend id of order {uuid}",
    method="POST",
    path="marketplace-orders/{uuid}/set_backend_id/",
    body=("backend_id",),
    safe_to_repeat=True,
)
RESOURCES = Operation(
    id="marketplace_provider_resources_list",
    purpose="list the resources of offering {uuid}",
    method="GET",
    path="marketplace-provider-resources/",
    query=("offering_uuid", "state", "field", "o", *PAGING),
    ordered_by="created",
    answer=Resource,
    safe_to_repeat=True,
)
RESOURCES_NAMED = Operation(
    id="marketplace_provider_resources_list",
    purpose="list the resources of one name in the backend",
    method="GET",
    path="marketplace-provider-resources/",
    query=("backend_id", "state", "field", "o", *PAGING),
    ordered_by="created",
    answer=Resource,
    safe_to_repeat=True,
)
RESOURCE = Operation(
    id="marketplace_provider_resources_retrieve",
    purpose="read resource {uuid}",
    method="GET",
    path="marketplace-provider-resources/{uuid}/",
    query=("field",),
    answer=Resource,
    safe_to_repeat=True,
)
TEAM = Operation(
    id="marketplace_provider_resources_team_list",
    purpose="read the team of resource {uuid}",
    method="GET",
    path="marketplace-provider-resources/{uuid}/team/",  # never in pages
    answer=TeamMember,
    safe_to_repeat=True,
)
SET_BACKEND_ID: Operation[None] = Operation(
    id="marketplace_provider_resources_set_backend_id",
    purpose="set the backend id of resource {uuid}",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_backend_id/",
    body=("backend_id",),
    safe_to_repeat=True,
)
SET_LIMITS: Operation[None] = Operation(
    id="marketplace_provider_resources_set_limits",
    purpose="set the limits of resource {uuid}",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_limits/",
    body=("limits",),
    safe_to_repeat=True,
)
SET_BACKEND_METADATA: Operation[None] = Operation(
    id="marketplace_provider_resources_set_backend_metadata",
    purpose="set the backend metadata of resource {uuid}",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_backend_metadata/",
    body=("backend_metadata",),
    safe_to_repeat=True,
)
REFRESH_LAST_SYNC: Operation[None] = Operation(
    id="marketplace_provider_resources_refresh_last_sync",
    purpose="refresh the sync time of resource {uuid}",
    method="POST",
    path="marketplace-provider-resources/{uuid}/refresh_last_sync/",
    safe_to_repeat=True,
)
SET_AS_OK: Operation[None] = Operation(
    id="marketplace_provider_resources_set_as_ok",
    purpose="mark resource {uuid} as OK",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_as_ok/",
    safe_to_repeat=True,
)
SET_AS_ERRED: Operation[None] = Operation(
    id="marketplace_provider_resources_set_as_erred",
    purpose="mark resource {uuid} as erred",
    method="POST",
    path="marketplace-provider-resources/{uuid}/set_as_erred/",
    body=("error_message", "error_traceback"),
    safe_to_repeat=True,
)
SERVICE_PROVIDERS = Operation(
    id="marketplace_service_providers_list",
    purpose="list the service providers of customer {uuid}",
    method="GET",
    path="marketplace-service-providers/",
    query=("customer_uuid", "field", "o", *PAGING),
    ordered_by="customer_name",  # ``created`` is not on offer here
    answer=ServiceProvider,
    safe_to_repeat=True,
)
PROJECT_ROLES = Operation(
    id="marketplace_service_providers_project_permissions_list",
    purpose="list the project roles of service provider {uuid}",
    method="GET",
    path="marketplace-service-providers/{uuid}/project_permissions/",
    query=("is_active", "field", "o", *PAGING),
    ordered_by="created",
    answer=ProjectRole,
    safe_to_repeat=True,
)
OFFERING_USERS = Operation(
    id="marketplace_offering_users_list",
    purpose="list the users of offering {uuid}",
    method="GET",
    path="marketplace-offering-users/",
    query=("offering_uuid", "field", "o", *PAGING),
    ordered_by="created",
    answer=OfferingUser,
    extra_fields=("offering_uuid",),
    safe_to_repeat=True,
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
