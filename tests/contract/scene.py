"""A sandbox in which every operation that it offers can be called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contract.worlds import fill_with_accounts_and_limits, subscribe
from waldur_site_agent_sandbox import Sandbox
from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.states import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from waldur_site_agent_sandbox.http import Operation

ORDER_STATES = {"set_state_done": "executing", "set_state_executing": "erred", "retry": "erred"}
BODIES: dict[str, dict[str, object]] = {
    "set_state_erred": {"error_message": "x", "error_traceback": ""},
    "set_as_erred": {"error_message": "x", "error_traceback": ""},
    "set_backend_id": {"backend_id": "hpc_ocean"},
    "set_limits": {"limits": {"cpu": 1}},
    "set_backend_metadata": {"backend_metadata": {"qos": "normal"}},
    "partial_update": {"username": "ada01"},
    "update_restricted": {"is_restricted": True},
    "create_offering_component": {"type": "node", "name": "Nodes", "billing_type": "limit"},
    "set_user_usage": {"username": "ada", "usage": "6"},
    "set_user_usages": {"usages": [{"username": "ada", "usage": "6"}]},
    "register_service": {"name": "event_process"},
    "register_processor": {"name": "slurm", "backend_type": "slurm"},
    "register_event_subscription": {"observable_object_type": "user_role"},
    "register_queue": {"object_types": []},
    "set_statistics": {"statistics": {}},
    "set_erred": {"error_message": "x", "error_traceback": ""},
    "event_subscriptions_create": {"observable_objects": [{"object_type": "order"}]},
}
REQUEST_STATES = {"start_processing": "Sent", "set_done": "Processing"}


class Scene:
    """A sandbox in which every operation has something to succeed on."""

    def __init__(self, version: str = "8.1.3") -> None:
        self.sandbox = Sandbox(version)
        self.demo = self.sandbox.fill_demo()
        fill_with_accounts_and_limits(self.sandbox)

    def call(self, api: httpx.Client, operation: Operation, action: str) -> httpx.Response:
        """Bring the sandbox into the right state, then call."""
        world = self.sandbox.customer.world
        can = Generation(self.sandbox.server_version).makes_queues
        if (
            can and not world.subscription_queues
        ):  # another test, which came first, deleted the only one
            subscribe(self.sandbox, api, next(iter(world.agent_identities)))
        uuid = self._prepared(operation, action)
        path = operation.path.format(uuid=uuid, provider=self.sandbox.provider.service_provider)
        body: object = BODIES.get(action, BODIES.get(operation.name)) or self._naming(
            operation.name
        )
        if action == "update_offering_component":
            component = self.sandbox.offering.components[0]
            body = BODIES["create_offering_component"] | {"uuid": component.uuid, "type": "cpu"}
        return api.request(operation.method, path, json=body)

    def _naming(self, operation: str) -> object:
        """Give the body of an operation that has to name other things."""
        offering, project = self.sandbox.offering.uuid, self.demo.climate.uuid
        identity = next(iter(self.sandbox.customer.world.agent_identities), "")
        entry = {"timestamp": 1.5, "level": "ERROR", "message": "x", "module": "report"}
        bodies: dict[str, object] = {
            "marketplace_site_agent_logs_create": [{"agent_identity_uuid": identity, **entry}],
            "marketplace_component_usages_set_usage": {
                "resource": self.demo.orders[0].resource,
                "usages": [{"type": "cpu", "amount": "12"}],
            },
            "marketplace_site_agent_identities_create": {"offering": offering, "name": "second"},
            "marketplace_site_agent_identities_update": {"offering": offering, "name": "agent"},
            "event_subscriptions_create_queue": {
                "offering_uuid": offering,
                "object_type": "resource",
            },
            "marketplace_slurm_periodic_usage_policies_report_command_result": {
                "resource_uuid": self.demo.orders[0].resource,
                "success": True,
            },
            "backend_resources_create": {"name": "a", "project": project, "offering": offering},
        }
        return bodies.get(operation)

    def _prepared(self, operation: Operation, action: str) -> str:
        customer, order = self.sandbox.customer, self.demo.orders[0]
        tables: dict[str, Mapping[str, object]] = {
            "marketplace-component-usages/": customer.world.component_usages,
            "event-subscriptions/": customer.world.event_subscriptions,
            "event-subscription-queues/": customer.world.subscription_queues,
            "marketplace-site-agent-identities/": customer.world.agent_identities,
            "marketplace-site-agent-services/": customer.world.agent_services,
            "projects/": customer.world.projects,
            "marketplace-slurm-periodic-usage-policies/": customer.world.periodic_policies,
        }
        for path, table in tables.items():
            if operation.path.startswith(path):
                customer.edit(customer.resource_of(order), state="OK")
                return next(iter(table))
        if "backend-resource-requests" in operation.path:
            request = next(iter(customer.world.backend_resource_requests.values()))
            return customer.edit(request, state=REQUEST_STATES.get(action, request.state)).uuid
        if "orders" in operation.path:
            customer.edit(order, state=ORDER_STATES.get(action, "pending-provider"))
            return order.uuid
        if "offering-users" in operation.path:
            account = next(iter(customer.world.offering_users.values()))
            state = TRANSITIONS[action].sources[0] if action in TRANSITIONS else "Requested"
            return customer.edit(account, state=state).uuid
        if "offerings" in operation.path:
            return self.sandbox.offering.uuid
        return customer.edit(customer.resource_of(order), state="OK").uuid
