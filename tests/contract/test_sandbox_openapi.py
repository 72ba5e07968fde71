"""The sandbox offers calls that Waldur's API description has, with its paths and its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from contract.worlds import fill_with_accounts_and_limits, register_agent
from harness.patience import patience
from waldur_site_agent_sandbox import Sandbox
from waldur_site_agent_sandbox.server import OPERATIONS

if TYPE_CHECKING:
    from contract.conftest import Description
    from waldur_site_agent_sandbox.http import Operation

NOVELTY = "shadow_rating"
"""What the sandbox adds on purpose: new servers send fields that nobody knows yet."""


def row_of(answer: httpx.Response) -> dict[str, object]:
    found: list[dict[str, object]] | dict[str, object] = answer.json()
    return found[0] if isinstance(found, list) else found


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: str(operation.name))
def test_an_operation_is_described_with_this_method_and_path(
    description: Description, operation: Operation
) -> None:
    assert operation.name in description
    described = description.operation(operation.name)
    path = operation.path.replace("{provider}", "{service_provider_uuid}")
    assert (described.method, described.path) == (operation.method, f"/api/{path}")


def test_every_field_of_an_answer_is_described(description: Description) -> None:
    sandbox = Sandbox()
    order = sandbox.fill_demo().orders[0]
    fill_with_accounts_and_limits(sandbox)
    headers = {"Authorization": f"Token {sandbox.token}"}
    with (
        sandbox.serve() as url,
        httpx.Client(base_url=url, headers=headers, timeout=patience()) as api,
    ):
        register_agent(sandbox, api)
        for operation in OPERATIONS:
            if operation.method != "GET" or operation.name.endswith("_retrieve"):
                continue
            subject = sandbox.offering.uuid if "offerings" in operation.path else order.resource
            path = operation.path.format(uuid=subject, provider=sandbox.provider.service_provider)
            sent = row_of(api.get(path)).keys() - {NOVELTY}
            described = description.operation(operation.name).answer["properties"].keys()
            assert sent <= described, operation.name
