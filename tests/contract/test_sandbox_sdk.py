"""Every answer of the sandbox can be read by Waldur's official client.

The client's import takes seconds: only this module pays for it, and only when it runs.
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from contract.scene import Scene
from contract.worlds import register_agent
from harness.patience import patience
from waldur_site_agent_sandbox.server import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waldur_site_agent_sandbox.http import Operation

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
    "marketplace_site_agent_logs",
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


STAFF_ONLY = (
    "version_retrieve",
    "marketplace_slurm_periodic_usage_policies_report_command_result",
)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def api(scene: Scene) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Token {scene.sandbox.token}"}
    with (
        scene.sandbox.serve() as url,
        httpx.Client(base_url=url, headers=headers, timeout=patience()) as client,
    ):
        register_agent(scene.sandbox, client)
        yield client


@contextmanager
def as_staff(scene: Scene, api: httpx.Client) -> Iterator[None]:
    before = api.headers["Authorization"]
    api.headers["Authorization"] = f"Token {scene.sandbox.staff().token}"
    yield
    api.headers["Authorization"] = before


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: str(operation.name))
def test_an_answer_can_be_read(operation: Operation, scene: Scene, api: httpx.Client) -> None:
    from waldur_api_client import AuthenticatedClient  # noqa: PLC0415 - the import takes seconds

    namespace = next(name for name in NAMESPACES if operation.name.startswith(f"{name}_"))
    action = operation.name.removeprefix(f"{namespace}_")
    with as_staff(scene, api) if operation.name in STAFF_ONLY else nullcontext():
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
