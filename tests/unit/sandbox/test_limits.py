"""Limits of single users, and policies that own the limits of resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_sandbox import RefusedError, Resource, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]

USER_LIMITS = "component-user-usage-limits/"
POLICIES = "marketplace-slurm-periodic-usage-policies/"


@pytest.fixture
def resource(sandbox: Sandbox) -> Resource:
    """The climate project's resource in the demo."""
    return sandbox.customer.resource_of(sandbox.fill_demo().orders[0])


def test_a_limit_points_to_resource_and_account_by_url(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    sandbox.customer.set_user_limit(resource, "ada", "cpu", "10.5")
    (row,) = api.get(USER_LIMITS, params={"offering_uuid": sandbox.offering.uuid}).json()
    account = next(
        row for row in sandbox.customer.world.offering_users.values() if row.username == "ada"
    )
    assert row["resource"].endswith(f"/api/marketplace-resources/{resource.uuid}/")
    assert row["user"].endswith(f"/api/marketplace-offering-users/{account.uuid}/")
    assert (row["component_type"], row["limit"]) == ("cpu", "10.50")


def test_a_limit_is_changed_in_place_and_cleared(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    first = sandbox.customer.set_user_limit(resource, "ada", "cpu", 10)
    second = sandbox.customer.set_user_limit(resource, "ada", "cpu", 20)
    assert (first.uuid, "20.00") == (second.uuid, second.limit)
    assert len(api.get(USER_LIMITS).json()) == 1
    for _ in range(2):
        sandbox.customer.clear_user_limit(resource, "ada", "cpu")
        assert api.get(USER_LIMITS).json() == []


def test_limits_can_be_listed_by_resource_component_and_username(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    other = sandbox.customer.world.resources
    second = next(row for row in other.values() if row.uuid != resource.uuid)
    sandbox.customer.set_user_limit(resource, "ada", "cpu", 1)
    sandbox.customer.set_user_limit(resource, "grace", "mem", 2)
    sandbox.customer.set_user_limit(second, "emmy", "cpu", 3)
    found = [
        sorted(row["limit"] for row in api.get(USER_LIMITS, params=query).json())
        for query in (
            {"resource_uuid": resource.uuid},
            {"component_type": "cpu"},
            {"username": "emmy"},
            {"offering_uuid": "f" * 32},
        )
    ]
    assert found == [["1.00", "2.00"], ["1.00", "3.00"], ["3.00"], []]


@pytest.mark.parametrize("limit", ["-1", "NaN", "Infinity"])
def test_a_limit_must_be_an_amount(sandbox: Sandbox, resource: Resource, limit: str) -> None:
    with pytest.raises(RefusedError, match="valid number"):
        sandbox.customer.set_user_limit(resource, "ada", "cpu", limit)


def test_a_limit_needs_a_component_and_an_account(sandbox: Sandbox, resource: Resource) -> None:
    with pytest.raises(RefusedError, match="no component tape"):
        sandbox.customer.set_user_limit(resource, "ada", "tape", 1)
    sandbox.customer.add_user("new")
    with pytest.raises(LookupError, match="'new' has no account"):
        sandbox.customer.set_user_limit(resource, "new", "cpu", 1)


def test_policies_are_found_by_offering(sandbox: Sandbox, api: httpx.Client) -> None:
    policy = sandbox.customer.add_periodic_policy()
    other = sandbox.customer.add_offering("Second", sandbox.provider)
    listed = [
        [row["uuid"] for row in api.get(POLICIES, params={"scope_uuid": uuid}).json()]
        for uuid in (sandbox.offering.uuid, other.uuid)
    ]
    assert listed == [[policy.uuid], []]
    sandbox.customer.remove_periodic_policy(policy)
    assert api.get(POLICIES).json() == []


@pytest.mark.parametrize(
    ("version", "expected"), [("8.0.6", {"cpu": 1, "mem": 1}), ("8.1.3", {"cpu": 600, "mem": 2000})]
)
def test_new_servers_keep_a_policys_limits_without_a_word(
    connect: Connect, version: str, expected: dict[str, int]
) -> None:
    sandbox = Sandbox(version)
    resource = sandbox.customer.resource_of(sandbox.fill_demo().orders[0])
    policy = sandbox.customer.add_periodic_policy()
    path = f"marketplace-provider-resources/{resource.uuid}/set_limits/"
    with connect(sandbox) as api:
        answer = api.post(path, json={"limits": {"cpu": 1, "mem": 1}})
        assert (answer.status_code, expected) == (200, sandbox.customer.current(resource).limits)
        sandbox.customer.remove_periodic_policy(policy)
        api.post(path, json={"limits": {"cpu": 2, "mem": 2}})
    assert sandbox.customer.current(resource).limits == {"cpu": 2, "mem": 2}


def test_an_order_changes_limits_in_spite_of_a_policy(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    for order in sandbox.customer.world.orders.values():
        sandbox.customer.edit(order, state="done")
    sandbox.customer.edit(resource, state="OK")
    sandbox.customer.add_periodic_policy()
    order = sandbox.customer.place_update_order(resource, {"cpu": 7, "mem": 7})
    for action in ("approve_by_provider", "set_state_done"):
        assert api.post(f"marketplace-orders/{order.uuid}/{action}/").status_code == 200
    assert sandbox.customer.current(resource).limits == {"cpu": 7, "mem": 7}


def test_old_servers_have_no_policies(connect: Connect) -> None:
    sandbox = Sandbox("7.8.7")
    with pytest.raises(ValueError, match=r"7\.8\.7 has no periodic policies"):
        sandbox.customer.add_periodic_policy()
    with connect(sandbox) as api:
        assert api.get(POLICIES).status_code == 404
