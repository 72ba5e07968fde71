"""How tests drive orders, on old servers and on new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_sandbox import Order, Project, Resource, Sandbox

if TYPE_CHECKING:
    import httpx

OLD, NEW = "7.7.9", "8.1.3"
BOTH = pytest.mark.parametrize("version", [OLD, NEW])
ERROR = {"error_message": "no space", "error_traceback": ""}


def call(api: httpx.Client, order: Order, action: str, body: object = None) -> httpx.Response:
    return api.post(f"marketplace-orders/{order.uuid}/{action}/", json=body)


def project_in(sandbox: Sandbox) -> Project:
    university = sandbox.customer.add_customer("University", "uni")
    return sandbox.customer.add_project("Climate", university)


def create_order(sandbox: Sandbox) -> Order:
    return sandbox.customer.place_create_order(project_in(sandbox), "Ocean", {"cpu": 10})


def finished(sandbox: Sandbox, api: httpx.Client) -> tuple[Order, Resource]:
    order = create_order(sandbox)
    call(api, order, "approve_by_provider")
    assert call(api, order, "set_state_done").status_code == 200
    return order, sandbox.customer.resource_of(order)


def states(sandbox: Sandbox, order: Order) -> tuple[str, str]:
    """States of the order and of its resource."""
    return sandbox.customer.current(order).state, sandbox.customer.resource_of(order).state
