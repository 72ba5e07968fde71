"""What the agent wishes of orders, resources and people, as the official client is told it."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from waldur_site_agent.model.budgets import PolicyResult
from waldur_site_agent.model.marketplace import WaldurComponent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from waldur_site_agent.waldur import Waldur

ID = UUID("0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e")
COMPONENT_ID = UUID("ffffffff3a5b4c7f8d1e2f3a4b5c6d7e")
CPU = WaldurComponent(
    uuid=COMPONENT_ID,
    type="cpu",
    name="CPU",
    billing_type="limit",
    measured_unit="k-Hours",
    unit_factor=Decimal(60000),
    limit_period="annual",
    max_value=Decimal(100),
    is_prepaid=True,
    min_prepaid_duration=1,
    max_prepaid_duration=24,
    prepaid_duration_step=3,
    min_renewal_duration=2,
    max_renewal_duration=12,
    renewal_duration_step=1,
)
CPU_BODY = {
    "type": "cpu",
    "name": "CPU",
    "billing_type": "limit",
    "measured_unit": "k-Hours",
    "unit_factor": 60000,
    "limit_period": "annual",
    "max_value": 100,
    "is_boolean": False,
    "is_prepaid": True,
    "min_prepaid_duration": 1,
    "max_prepaid_duration": 24,
    "prepaid_duration_step": 3,
    "min_renewal_duration": 2,
    "max_renewal_duration": 12,
    "renewal_duration_step": 1,
}
PAGE = {"page": 1, "page_size": 300}


@dataclass(frozen=True)
class Case:
    """The same wish, told to the gateway and to the official client."""

    operation_id: str
    ask: Callable[[Waldur], object]
    query: Mapping[str, object] = field(default_factory=dict)
    body: dict[str, object] | list[dict[str, object]] | None = None
    module: str = ""
    path: dict[str, UUID] = field(default_factory=lambda: {"uuid": ID})


CASES = [
    Case("users_me_retrieve", lambda w: w.whoami(), module="users", path={}),
    Case("version_retrieve", lambda w: w.server_version(), module="version", path={}),
    Case("marketplace_provider_offerings_retrieve", lambda w: w.offering(ID)),
    Case(
        "marketplace_provider_offerings_create_offering_component",
        lambda w: w.create_component(ID, CPU),
        body=CPU_BODY,
    ),
    Case(
        "marketplace_provider_offerings_update_offering_component",
        lambda w: w.update_component(ID, CPU),
        body={"uuid": str(COMPONENT_ID), **CPU_BODY},
    ),
    Case(
        "marketplace_orders_list",
        lambda w: w.orders(ID, ["pending-provider", "executing"]),
        query={
            "offering_uuid": ID,
            "state": ["pending-provider", "executing"],
            "o": ["created"],
            **PAGE,
        },
        path={},
    ),
    Case("marketplace_orders_retrieve", lambda w: w.order(ID)),
    Case("marketplace_orders_approve_by_provider", lambda w: w.approve_order(ID), body={}),
    Case(
        "marketplace_orders_reject_by_provider",
        lambda w: w.reject_order(ID, "too large"),
        body={"provider_rejection_comment": "too large"},
    ),
    Case("marketplace_orders_set_state_done", lambda w: w.complete_order(ID)),
    Case(
        "marketplace_orders_set_state_erred",
        lambda w: w.fail_order(ID, "no slug", "at line 1"),
        body={"error_message": "no slug", "error_traceback": "at line 1"},
    ),
    Case(
        "marketplace_orders_set_backend_id",
        lambda w: w.set_order_backend_id(ID, "job-7"),
        body={"backend_id": "job-7"},
    ),
    Case(
        "marketplace_provider_resources_list",
        lambda w: w.resources(ID, ["OK", "Erred"]),
        query={"offering_uuid": [ID], "state": ["OK", "Erred"], "o": ["created"], **PAGE},
        path={},
    ),
    Case(
        "marketplace_provider_resources_list",
        lambda w: w.resources_named("hpc_climate", ["OK"]),
        query={"backend_id": "hpc_climate", "state": ["OK"], "o": ["created"], **PAGE},
        path={},
    ),
    Case("marketplace_provider_resources_retrieve", lambda w: w.resource(ID)),
    Case("marketplace_provider_resources_team_list", lambda w: w.team(ID)),
    Case(
        "marketplace_provider_resources_set_backend_id",
        lambda w: w.set_backend_id(ID, "hpc_climate"),
        body={"backend_id": "hpc_climate"},
    ),
    Case(
        "marketplace_provider_resources_set_limits",
        lambda w: w.set_limits(ID, {"cpu": Decimal(10), "mem": Decimal("0.5")}),
        body={"limits": {"cpu": 10, "mem": 0.5}},
    ),
    Case(
        "marketplace_provider_resources_set_backend_metadata",
        lambda w: w.set_backend_metadata(ID, {"qos": "normal"}),
        body={"backend_metadata": {"qos": "normal"}},
    ),
    Case("marketplace_provider_resources_refresh_last_sync", lambda w: w.refresh_last_sync(ID)),
    Case("marketplace_provider_resources_set_as_ok", lambda w: w.set_as_ok(ID)),
    Case(
        "marketplace_provider_resources_set_as_erred",
        lambda w: w.set_as_erred(ID, "gone"),
        body={"error_message": "gone", "error_traceback": ""},
    ),
    Case(
        "marketplace_service_providers_list",
        lambda w: w.service_providers(ID),
        query={"customer_uuid": ID, "o": ["customer_name"], **PAGE},
        path={},
    ),
    Case(
        "marketplace_service_providers_project_permissions_list",
        lambda w: w.project_roles(ID),
        query={"is_active": True, "o": ["created"], **PAGE},
        path={"service_provider_uuid": ID},
    ),
    Case(
        "marketplace_offering_users_list",
        lambda w: w.offering_users(ID),
        query={"offering_uuid": [ID], "o": ["created"], **PAGE},
        path={},
    ),
    Case(
        "marketplace_service_providers_project_service_accounts_list",
        lambda w: w.service_accounts(ID),
        query=PAGE,
        path={"service_provider_uuid": ID},
    ),
    Case(
        "marketplace_service_providers_course_accounts_list",
        lambda w: w.course_accounts(ID),
        query={"o": ["created"], **PAGE},
        path={"service_provider_uuid": ID},
    ),
    Case(
        "marketplace_provider_offerings_list_project_service_accounts_list",
        lambda w: w.offering_service_accounts(ID),
        query=PAGE,
    ),
    Case(
        "marketplace_provider_offerings_list_course_accounts_list",
        lambda w: w.offering_course_accounts(ID),
        query=PAGE,
    ),
    Case(
        "component_user_usage_limits_list",
        lambda w: w.user_limits(ID),
        query={"offering_uuid": ID, **PAGE},
        path={},
    ),
    Case(
        "marketplace_slurm_periodic_usage_policies_list",
        lambda w: w.periodic_policies(ID),
        query={"scope_uuid": ID, **PAGE},
        path={},
    ),
    Case(
        "marketplace_slurm_periodic_usage_policies_report_command_result",
        lambda w: w.report_policy_result(
            ID,
            PolicyResult(
                resource_uuid=ID, success=False, error_message="away", commands_executed=("a",)
            ),
        ),
        body={
            "resource_uuid": ID.hex,
            "success": False,
            "error_message": "away",
            "commands_executed": ["a"],
        },
    ),
    Case("marketplace_offering_users_retrieve", lambda w: w.offering_user(ID)),
    Case(
        "marketplace_offering_users_partial_update",
        lambda w: w.set_username(ID, "ada"),
        body={"username": "ada"},
    ),
    Case("marketplace_offering_users_begin_creating", lambda w: w.begin_creating(ID)),
    Case("marketplace_offering_users_set_ok", lambda w: w.set_ok(ID)),
    Case(
        "marketplace_offering_users_set_pending_account_linking",
        lambda w: w.set_pending_account_linking(ID, "link it", "https://example.com/link"),
        body={"comment": "link it", "comment_url": "https://example.com/link"},
    ),
    Case(
        "marketplace_offering_users_set_pending_additional_validation",
        lambda w: w.set_pending_additional_validation(ID, "show your passport"),
        body={"comment": "show your passport"},
    ),
    Case(
        "marketplace_offering_users_set_validation_complete",
        lambda w: w.set_validation_complete(ID),
    ),
    Case("marketplace_offering_users_set_error_creating", lambda w: w.set_error_creating(ID)),
    Case("marketplace_offering_users_set_deleting", lambda w: w.set_deleting(ID)),
    Case("marketplace_offering_users_set_deleted", lambda w: w.set_deleted(ID)),
]
