"""The offering, its components, and the provider's view of everybody's roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]

OFFERINGS = "marketplace-provider-offerings/"
NODE = {"type": "node", "name": "Nodes", "billing_type": "limit", "measured_unit": "node-hours"}


def test_an_offering_shows_its_components(sandbox: Sandbox, api: httpx.Client) -> None:
    shown = api.get(f"{OFFERINGS}{sandbox.offering.uuid}/").json()
    assert shown["type"] == "Marketplace.Slurm"
    assert [
        (each["type"], each["unit_factor"], each["billing_type"]) for each in shown["components"]
    ] == [("cpu", 60000, "limit"), ("mem", 61440, "limit")]


@pytest.mark.parametrize(("version", "status"), [("7.7.9", 200), ("7.9.0", 201)])
def test_a_component_can_be_added_once(connect: Connect, version: str, status: int) -> None:
    sandbox = Sandbox(version)
    with connect(sandbox) as api:
        path = f"{OFFERINGS}{sandbox.offering.uuid}/create_offering_component/"
        statuses = [api.post(path, json=NODE).status_code for _ in range(2)]
    assert [status, 400] == statuses
    assert "node" in sandbox.offering.limit_types


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", None), ("type", ""), ("billing_type", "barter"), ("type", 51 * "x")],
)
def test_a_component_with_a_bad_field_is_refused_by_its_name(
    sandbox: Sandbox, api: httpx.Client, field: str, value: object
) -> None:
    path = f"{OFFERINGS}{sandbox.offering.uuid}/create_offering_component/"
    answer = api.post(path, json=NODE | {field: value})
    assert (400, [field]) == (answer.status_code, list(answer.json()))


def test_a_component_is_changed_under_the_offering(sandbox: Sandbox, api: httpx.Client) -> None:
    component = sandbox.offering.components[0]
    body = {"uuid": component.uuid, "type": "cpu", "name": "Cores", "billing_type": "usage"}
    path = f"{OFFERINGS}{sandbox.offering.uuid}/update_offering_component/"
    assert api.post(path, json=body).status_code == 200
    assert sandbox.offering.components[0].name == "Cores"
    assert sandbox.offering.limit_types == {"mem"}


def test_a_component_is_not_found_under_its_own_uuid(sandbox: Sandbox, api: httpx.Client) -> None:
    component = sandbox.offering.components[0].uuid
    path = f"{OFFERINGS}{component}/update_offering_component/"
    assert api.post(path, json={"uuid": component}).status_code == 404


def test_offerings_can_be_listed_by_uuid(sandbox: Sandbox, api: httpx.Client) -> None:
    other = sandbox.customer.add_offering("Second", sandbox.provider)
    sandbox.customer.add_offering("Third", sandbox.provider)
    listed = f"{sandbox.offering.uuid},{other.uuid}"
    rows = api.get(OFFERINGS, params={"uuid_list": listed, "field": "name"}).json()
    assert [row["name"] for row in rows] == ["Example Cluster", "Second"]


def test_all_project_roles_are_in_one_list(sandbox: Sandbox, api: httpx.Client) -> None:
    demo = sandbox.fill_demo()
    provider = api.get("marketplace-service-providers/").json()[0]
    assert provider["customer_uuid"] == sandbox.provider.uuid
    path = f"marketplace-service-providers/{provider['uuid']}/project_permissions/"
    rows = api.get(path, params={"page_size": 300, "o": "created"}).json()
    assert [
        (row["user_username"], "climate" if row["project_uuid"] == demo.climate.uuid else "physics")
        for row in rows
    ] == [
        ("ada", "climate"),
        ("grace", "climate"),
        ("alan", "climate"),
        ("alan", "physics"),
        ("emmy", "physics"),
        ("lise", "physics"),
    ]
    assert rows[0]["role_name"] == "PROJECT.ADMIN"


def test_projects_without_a_live_resource_are_not_in_that_list(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.edit(sandbox.customer.resource_of(demo.orders[0]), state="Terminated")
    path = f"marketplace-service-providers/{sandbox.provider.service_provider}/project_permissions/"
    assert {demo.physics.uuid} == {row["project_uuid"] for row in api.get(path).json()}


def test_offerings_that_are_not_shared_are_not_in_that_list(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    sandbox.fill_demo()
    sandbox.customer.edit(sandbox.offering, shared=False)
    path = f"marketplace-service-providers/{sandbox.provider.service_provider}/project_permissions/"
    assert api.get(path).json() == []


@pytest.mark.parametrize(
    ("flag", "expected"), [("true", {"grace", "alan"}), ("false", set()), ("", {"grace", "alan"})]
)
def test_that_list_holds_active_roles_of_active_users(
    sandbox: Sandbox, api: httpx.Client, flag: str, expected: set[str]
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.edit(demo.people[0], is_active=False)
    path = f"marketplace-service-providers/{sandbox.provider.service_provider}/project_permissions/"
    query = {"is_active": flag, "scope_uuid": demo.climate.uuid}
    assert expected == {row["user_username"] for row in api.get(path, params=query).json()}


def test_a_service_provider_is_not_found_under_its_organizations_uuid(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    path = f"marketplace-service-providers/{sandbox.provider.uuid}/project_permissions/"
    assert api.get(path).status_code == 404
