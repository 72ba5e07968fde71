"""Every answer of the sandbox can be read by Waldur's official client.

The client's import takes seconds: only this module pays for it, and only when it runs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from contract.worlds import fill_with_accounts_and_limits, register_agent, subscribe
from waldur_site_agent.sandbox import Sandbox
from waldur_site_agent.sandbox.asgi import OPERATIONS
from waldur_site_agent.sandbox.offering_user_states import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from waldur_site_agent.sandbox.operations import Operation

pytest.importorskip("waldur_api_client", reason="the official client is not installed")

NAMESPACES = (
    "backend_resource_requests",
    "backend_resources",
    "event_subscription_queues",
    "event_subscriptions",
    "marketplace_component_usages",
    "marketplace_component_user_usages",
    "marketplace_site_agent_identities",
    "marketplace_site_agent_services",
    "projects",
    "component_user_usage_limits",
    "marketplace_offering_users",
    "marketplace_orders",
    "marketplace_provider_offerings",
    "marketplace_provider_resources",
    "marketplace_service_providers",
    "marketplace_slurm_periodic_usage_policies",
    "users",
    "version",
)
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

    def __init__(self) -> None:
        self.sandbox = Sandbox()
        self.demo = self.sandbox.fill_demo()
        fill_with_accounts_and_limits(self.sandbox)

    def call(self, api: httpx.Client, operation: Operation, action: str) -> httpx.Response:
        """Bring the sandbox into the right state, then call."""
        world = self.sandbox.customer.world
        if not world.subscription_queues:  # another test, which came first, deleted the only one
            subscribe(self.sandbox, api, next(iter(world.agent_identities)))
        uuid = self._prepared(operation, action)
        path = operation.path.format(uuid=uuid, provider=self.sandbox.provider.service_provider)
        body = BODIES.get(action, BODIES.get(operation.name)) or self._naming(operation.name)
        if action == "update_offering_component":
            component = self.sandbox.offering.components[0]
            body = BODIES["create_offering_component"] | {"uuid": component.uuid, "type": "cpu"}
        staff = {"Authorization": f"Token {self.sandbox.staff().token}"}
        headers = staff if operation.name == "version_retrieve" else None  # for staff alone
        return api.request(operation.method, path, json=body, headers=headers)

    def _naming(self, operation: str) -> dict[str, object] | None:
        """Give the body of an operation that has to name other things."""
        offering, project = self.sandbox.offering.uuid, self.demo.climate.uuid
        bodies: dict[str, dict[str, object]] = {
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
        return self.sandbox.offering.uuid if "offerings" in operation.path else order.resource


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def api(scene: Scene) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Token {scene.sandbox.token}"}
    with scene.sandbox.serve() as url, httpx.Client(base_url=url, headers=headers) as client:
        register_agent(scene.sandbox, client)
        yield client


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: str(operation.name))
def test_an_answer_can_be_read(operation: Operation, scene: Scene, api: httpx.Client) -> None:
    from waldur_api_client import AuthenticatedClient  # noqa: PLC0415 - the import takes seconds

    namespace = next(name for name in NAMESPACES if operation.name.startswith(f"{name}_"))
    action = operation.name.removeprefix(f"{namespace}_")
    answer = scene.call(api, operation, action)
    assert answer.is_success, answer.text
    client = AuthenticatedClient(base_url="https://waldur.example.org", token="none")
    module = importlib.import_module(f"waldur_api_client.api.{namespace}.{operation.name}")
    parsed: Any = module._parse_response(client=client, response=answer)
    if not answer.content:
        assert parsed is None
    elif isinstance(answer.json(), list):
        assert len(parsed) == len(answer.json()) > 0
    else:
        sent = answer.json()
        read = parsed.to_dict()
        assert {name for name in sent if name not in read} == set()
        if "uuid" in sent:
            assert UUID(sent["uuid"]).hex == UUID(read["uuid"]).hex
