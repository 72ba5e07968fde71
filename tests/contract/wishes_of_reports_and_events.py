"""What the agent wishes of usage, events and imports, as the official client is told it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from contract.wishes import COMPONENT_ID, ID, PAGE, Case
from waldur_site_agent.model.events import LogEntry
from waldur_site_agent.model.usage import BillingMonth, UserUsage

OCTOBER = BillingMonth(2026, 10)
MOMENT = datetime(2026, 10, 31, 12, tzinfo=UTC)
ADA = UserUsage(username="ada", usage=Decimal("1.5"), offering_user_uuid=ID)
BOB = UserUsage(username="bob", usage=Decimal(2))
ADA_TOLD = {
    "username": "ada",
    "usage": "1.50",
    "user": f"https://waldur.example.com/api/marketplace-offering-users/{ID.hex}/",
}
BOB_TOLD = {"username": "bob", "usage": "2.00"}
AGENT = {
    "offering": str(COMPONENT_ID),
    "name": "agent",
    "version": "2.0.0",
    "config_file_path": "/etc/agent.yaml",
    "last_restarted": MOMENT.isoformat(),
}

LATER_CASES = [
    Case(
        "marketplace_component_usages_list",
        lambda w: w.component_usages(ID, OCTOBER),
        query={
            "offering_uuid": ID,
            "billing_period": date(2026, 10, 1),
            **PAGE,
        },
        path={},
    ),
    Case(
        "marketplace_component_user_usages_list",
        lambda w: w.component_user_usages(ID, OCTOBER),
        query={
            "offering_uuid": ID,
            "component_usage_billing_period": date(2026, 10, 1),
            **PAGE,
        },
        path={},
    ),
    Case(
        "marketplace_component_user_usages_list",
        lambda w: w.count_component_user_usages(ID, OCTOBER),
        query={
            "offering_uuid": ID,
            "component_usage_billing_period": date(2026, 10, 1),
            "page": 1,
            "page_size": 1,
        },
        path={},
    ),
    Case(
        "event_subscription_queues_list",
        lambda w: w.makes_event_queues(),
        query={"page": 1, "page_size": 1},
        path={},
    ),
    Case(
        "marketplace_component_usages_set_usage",
        lambda w: w.set_usage(ID, {"cpu": Decimal("10.5")}, MOMENT),
        body={
            "resource": str(ID),
            "usages": [{"type": "cpu", "amount": "10.50"}],
            "date": MOMENT.isoformat(),
        },
        path={},
    ),
    Case(
        "marketplace_component_usages_set_user_usage",
        lambda w: w.set_user_usage(ID, ADA),
        body=dict(ADA_TOLD),
    ),
    Case(
        "marketplace_component_usages_set_user_usages",
        lambda w: w.set_user_usages(ID, [ADA, BOB]),
        body={"usages": [ADA_TOLD, BOB_TOLD]},
    ),
    Case(
        "marketplace_offering_users_list",
        lambda w: w.offering_users(ID, COMPONENT_ID),
        query={"offering_uuid": [ID], "user_uuid": COMPONENT_ID, "o": ["created"], **PAGE},
        path={},
    ),
    Case(
        "marketplace_site_agent_identities_list",
        lambda w: w.identities(ID, "agent"),
        query={"offering_uuid": ID, "name": "agent", **PAGE},
        path={},
    ),
    Case(
        "marketplace_site_agent_identities_create",
        lambda w: w.create_identity(
            COMPONENT_ID,
            "agent",
            "2.0.0",
            config_file_path="/etc/agent.yaml",
            last_restarted=MOMENT,
        ),
        body=dict(AGENT),
        path={},
    ),
    Case(
        "marketplace_site_agent_identities_update",
        lambda w: w.update_identity(
            ID,
            COMPONENT_ID,
            "agent",
            "2.0.0",
            config_file_path="/etc/agent.yaml",
            last_restarted=MOMENT,
        ),
        body=dict(AGENT),
    ),
    Case(
        "marketplace_site_agent_identities_register_service",
        lambda w: w.register_service(ID, "events", "event_process"),
        body={"name": "events", "mode": "event_process"},
    ),
    Case(
        "marketplace_site_agent_services_register_processor",
        lambda w: w.register_processor(ID, "orders", "slurm", "22.05"),
        body={"name": "orders", "backend_type": "slurm", "backend_version": "22.05"},
    ),
    Case(
        "marketplace_site_agent_logs_create",
        lambda w: w.send_log(
            ID, [LogEntry(timestamp=1.5, level="ERROR", message="cycle failed", module="report")]
        ),
        body=[
            {
                "agent_identity_uuid": str(ID),
                "timestamp": 1.5,
                "level": "ERROR",
                "message": "cycle failed",
                "module": "report",
            }
        ],
        path={},
    ),
    Case(
        "marketplace_site_agent_identities_register_queue",
        lambda w: w.register_queue(ID, ["order", "user_role"]),
        body={"object_types": ["order", "user_role"]},
    ),
    Case(
        "marketplace_site_agent_identities_register_event_subscription",
        lambda w: w.register_event_subscription(ID, "order", "ours"),
        body={"observable_object_type": "order", "description": "ours"},
    ),
    Case(
        "event_subscriptions_list",
        lambda w: w.event_subscriptions(ID),
        query={"user_uuid": ID.hex, "o": ["created"], **PAGE},
        path={},
    ),
    Case(
        "event_subscriptions_create",
        lambda w: w.create_event_subscription("ours", ["order"]),
        body={"description": "ours", "observable_objects": [{"object_type": "order"}]},
        path={},
    ),
    Case(
        "event_subscriptions_create_queue",
        lambda w: w.create_queue(ID, COMPONENT_ID, "order"),
        body={"offering_uuid": str(COMPONENT_ID), "object_type": "order"},
    ),
    Case(
        "backend_resource_requests_list",
        lambda w: w.backend_resource_requests(ID, ["Sent", "Processing"]),
        query={"offering_uuid": ID, "state": ["Sent", "Processing"], "o": ["created"], **PAGE},
        path={},
    ),
    Case("backend_resource_requests_retrieve", lambda w: w.backend_resource_request(ID)),
    Case("backend_resource_requests_start_processing", lambda w: w.start_import(ID)),
    Case("backend_resource_requests_set_done", lambda w: w.import_done(ID)),
    Case(
        "backend_resource_requests_set_erred",
        lambda w: w.import_erred(ID, "no project"),
        body={"error_message": "no project", "error_traceback": ""},
    ),
    Case(
        "backend_resources_list",
        lambda w: w.backend_resources(ID),
        query={"offering_uuid": ID, "o": ["created"], **PAGE},
        path={},
    ),
    Case(
        "backend_resources_create",
        lambda w: w.create_backend_resource("Old", ID, COMPONENT_ID, "hpc_old", {"a": 1}),
        body={
            "name": "Old",
            "project": str(ID),
            "offering": str(COMPONENT_ID),
            "backend_id": "hpc_old",
            "backend_metadata": {"a": 1},
        },
        path={},
    ),
    Case(
        "marketplace_service_providers_projects_list",
        lambda w: w.provider_projects(ID),
        query={"o": ["created"], **PAGE},
        path={"service_provider_uuid": ID},
    ),
    Case("projects_list", lambda w: w.projects(), query={"o": ["created"], **PAGE}, path={}),
]
