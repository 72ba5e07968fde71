"""Every answer of the sandbox can be read by Waldur's official client.

The client's import takes seconds: only this module pays for it, and only when it runs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from contract.worlds import fill_with_accounts_and_limits
from waldur_site_agent.sandbox import Sandbox
from waldur_site_agent.sandbox.asgi import OPERATIONS
from waldur_site_agent.sandbox.offering_user_states import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waldur_site_agent.sandbox.operations import Operation

pytest.importorskip("waldur_api_client", reason="the official client is not installed")

NAMESPACES = (
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
}


class Scene:
    """A sandbox in which every operation has something to succeed on."""

    def __init__(self) -> None:
        self.sandbox = Sandbox()
        self.demo = self.sandbox.fill_demo()
        fill_with_accounts_and_limits(self.sandbox)

    def call(self, api: httpx.Client, operation: Operation, action: str) -> httpx.Response:
        """Bring the sandbox into the right state, then call."""
        uuid = self._prepared(operation, action)
        path = operation.path.format(uuid=uuid, provider=self.sandbox.provider.service_provider)
        body = BODIES.get(action)
        if action == "update_offering_component":
            component = self.sandbox.offering.components[0]
            body = BODIES["create_offering_component"] | {"uuid": component.uuid, "type": "cpu"}
        return api.request(operation.method, path, json=body)

    def _prepared(self, operation: Operation, action: str) -> str:
        customer, order = self.sandbox.customer, self.demo.orders[0]
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
