"""Who sees what, and who may change it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_sandbox import Sandbox, User

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]


def status(
    api: httpx.Client, user: User, method: str, path: str, body: object | None = None
) -> int:
    headers = {"Authorization": f"Token {user.token}"}
    return api.request(method, path, json=body, headers=headers).status_code


def test_a_stranger_sees_nothing(sandbox: Sandbox, api: httpx.Client) -> None:
    order = sandbox.fill_demo().orders[0]
    stranger = sandbox.customer.add_user("stranger")
    paths = [
        f"marketplace-orders/{order.uuid}/",
        f"marketplace-provider-resources/{order.resource}/",
        f"marketplace-provider-offerings/{sandbox.offering.uuid}/",
    ]
    assert [status(api, stranger, "GET", path) for path in paths] == [404, 404, 404]
    headers = {"Authorization": f"Token {stranger.token}"}
    assert api.get("marketplace-orders/", headers=headers).json() == []


def test_a_buyer_sees_orders_but_not_the_provider_side(sandbox: Sandbox, api: httpx.Client) -> None:
    demo = sandbox.fill_demo()
    order, ada = demo.orders[0], demo.people[0]
    assert status(api, ada, "GET", f"marketplace-orders/{order.uuid}/") == 200
    assert status(api, ada, "POST", f"marketplace-orders/{order.uuid}/approve_by_provider/") == 403
    assert status(api, ada, "GET", f"marketplace-provider-resources/{order.resource}/") == 404


@pytest.mark.parametrize(
    ("version", "action", "expected"),
    [
        ("7.7.9", "approve_by_provider", 403),
        ("8.1.3", "approve_by_provider", 403),
        ("7.7.9", "set_state_done", 403),
        ("8.1.3", "set_state_done", 403),
    ],
)
def test_a_manager_of_the_offering_alone_may_do_part_of_it(
    connect: Connect, version: str, action: str, expected: int
) -> None:
    sandbox = Sandbox(version)
    order = sandbox.fill_demo().orders[0]
    manager = sandbox.customer.add_user("manager")
    sandbox.customer.add_offering_role(sandbox.offering, manager)
    with connect(sandbox) as api:
        assert (
            status(api, manager, "POST", f"marketplace-orders/{order.uuid}/{action}/") == expected
        )


def test_a_manager_of_the_offering_may_name_resources_but_not_set_limits(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    order = sandbox.fill_demo().orders[0]
    manager = sandbox.customer.add_user("manager")
    sandbox.customer.add_offering_role(sandbox.offering, manager)
    path = f"marketplace-provider-resources/{order.resource}"
    assert status(api, manager, "POST", f"{path}/set_backend_id/", {"backend_id": "x"}) == 200
    assert status(api, manager, "POST", f"{path}/set_limits/", {"limits": {}}) == 403
    roles = (
        f"marketplace-service-providers/{sandbox.provider.service_provider}/project_permissions/"
    )
    assert status(api, manager, "GET", roles) == 403


def test_permission_comes_before_state(sandbox: Sandbox, api: httpx.Client) -> None:
    demo = sandbox.fill_demo()
    path = f"marketplace-orders/{demo.orders[0].uuid}/set_state_done/"
    assert status(api, demo.people[0], "POST", path) == 403
    assert status(api, sandbox.agent, "POST", path) == 409


def test_staff_may_do_everything(sandbox: Sandbox, api: httpx.Client) -> None:
    order = sandbox.fill_demo().orders[0]
    staff = sandbox.customer.add_user("staff", is_staff=True)
    path = f"marketplace-orders/{order.uuid}/approve_by_provider/"
    assert status(api, staff, "POST", path) == 200


@pytest.mark.parametrize(("version", "expected"), [("7.0.7", 403), ("7.7.9", 200)])
def test_the_oldest_servers_let_only_staff_err_a_resource(
    connect: Connect, version: str, expected: int
) -> None:
    sandbox = Sandbox(version)
    order = sandbox.fill_demo().orders[0]
    path = f"marketplace-provider-resources/{order.resource}/set_as_erred/"
    with connect(sandbox) as api:
        assert api.post(path, json={"error_message": "x"}).status_code == expected


def test_a_user_who_lost_the_role_sees_nothing_of_it(sandbox: Sandbox, api: httpx.Client) -> None:
    role = next(
        row for row in sandbox.customer.world.roles.values() if row.user == sandbox.agent.uuid
    )
    sandbox.customer.end_role(role)
    assert api.get("marketplace-provider-offerings/").json() == []


def test_users_learn_their_roles(sandbox: Sandbox, api: httpx.Client) -> None:
    (role,) = api.get("users/me/").json()["permissions"]
    assert ("CUSTOMER.OWNER", "customer", sandbox.provider.uuid) == (
        role["role_name"],
        role["scope_type"],
        role["scope_uuid"],
    )


@pytest.mark.parametrize("kind", ["project_service_accounts", "course_accounts"])
def test_a_manager_of_the_offering_sees_project_accounts_through_the_offering_only(
    sandbox: Sandbox, api: httpx.Client, kind: str
) -> None:
    manager = sandbox.customer.add_user("manager")
    sandbox.customer.add_offering_role(sandbox.offering, manager)
    provider = f"marketplace-service-providers/{sandbox.provider.service_provider}"
    offering = f"marketplace-provider-offerings/{sandbox.offering.uuid}"
    assert status(api, manager, "GET", f"{provider}/{kind}/") == 403
    assert status(api, manager, "GET", f"{offering}/list_{kind}/") == 200


def test_a_stranger_sees_neither_limits_nor_policies_nor_project_accounts(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    order = sandbox.fill_demo().orders[0]
    sandbox.customer.set_user_limit(order.resource, "ada", "cpu", 10)
    sandbox.customer.add_periodic_policy()
    stranger = sandbox.customer.add_user("stranger")
    headers = {"Authorization": f"Token {stranger.token}"}
    for path in ("component-user-usage-limits/", "marketplace-slurm-periodic-usage-policies/"):
        assert api.get(path, headers=headers).json() == []
    offering = f"marketplace-provider-offerings/{sandbox.offering.uuid}"
    assert status(api, stranger, "GET", f"{offering}/list_course_accounts/") == 404
