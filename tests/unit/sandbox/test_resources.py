"""What the provider sees of resources and their teams, and may change about them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_sandbox import DemoWorld, Resource, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]

PATH = "marketplace-provider-resources/"


@pytest.fixture
def demo(sandbox: Sandbox) -> DemoWorld:
    """Two projects, five people, two create orders."""
    return sandbox.fill_demo()


@pytest.fixture
def resource(sandbox: Sandbox, demo: DemoWorld) -> Resource:
    """The climate project's resource, in state OK."""
    return sandbox.customer.edit(sandbox.customer.resource_of(demo.orders[0]), state="OK")


def call(api: httpx.Client, resource: Resource, action: str, body: object = None) -> httpx.Response:
    return api.post(f"{PATH}{resource.uuid}/{action}/", json=body)


def test_setting_a_backend_id_says_whether_it_was_new(
    api: httpx.Client, resource: Resource
) -> None:
    words = [
        call(api, resource, "set_backend_id", {"backend_id": backend_id}).json()["status"]
        for backend_id in ("hpc_ocean", "hpc_ocean", "")
    ]
    assert words == [
        "Resource backend_id has been changed.",
        "Resource backend_id is not changed.",
        "Resource backend_id has been changed.",
    ]


@pytest.mark.parametrize(("body", "status"), [({"backend_id": None}, 400), ({}, 500)])
def test_a_backend_id_must_be_given(
    api: httpx.Client, resource: Resource, body: object, status: int
) -> None:
    assert call(api, resource, "set_backend_id", body).status_code == status


def test_limits_are_replaced_as_a_whole(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    answer = call(api, resource, "set_limits", {"limits": {"cpu": 7}})
    assert answer.json() == {"status": "The resource limits are updated"}
    assert sandbox.customer.current(resource).limits == {"cpu": 7}


@pytest.mark.parametrize(("version", "status"), [("7.7.9", 200), ("8.1.3", 400)])
def test_limits_of_unknown_components_are_refused_by_new_servers(
    connect: Connect, version: str, status: int
) -> None:
    sandbox = Sandbox(version)
    order = sandbox.fill_demo().orders[0]
    with connect(sandbox) as api:
        made = sandbox.customer.resource_of(order)
        assert call(api, made, "set_limits", {"limits": {"tape": 1}}).status_code == status


def test_metadata_is_replaced_as_a_whole(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    for metadata in ({"qos": "low", "x": 1}, {"qos": "normal"}):
        call(api, resource, "set_backend_metadata", {"backend_metadata": metadata})
    assert sandbox.customer.current(resource).backend_metadata == {"qos": "normal"}


@pytest.mark.parametrize("body", [{}, {"backend_metadata": None}])
def test_metadata_must_be_given(api: httpx.Client, resource: Resource, body: object) -> None:
    answer = call(api, resource, "set_backend_metadata", body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["backend_metadata"]


def test_the_time_of_the_last_sync_moves(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    before = sandbox.clock.now()
    assert call(api, resource, "refresh_last_sync").content == b""
    last_sync = sandbox.customer.current(resource).last_sync
    assert last_sync is not None
    assert last_sync > before


def test_an_erred_resource_can_be_declared_ok(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    error = {"error_message": "account missing", "error_traceback": "?"}
    assert call(api, resource, "set_as_erred", error).status_code == 200
    erred = sandbox.customer.current(resource)
    assert call(api, resource, "set_as_ok").status_code == 200
    healed = sandbox.customer.current(resource)
    assert (erred.state, erred.error_message) == ("Erred", "account missing")
    assert (healed.state, healed.error_message) == ("OK", "")


def test_an_empty_error_leaves_the_one_before(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    call(api, resource, "set_as_erred", {"error_message": "gone"})
    call(api, resource, "set_as_erred", {"error_message": ""})
    assert sandbox.customer.current(resource).error_message == "gone"


def test_declaring_an_ok_resource_ok_changes_nothing(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    call(api, resource, "set_as_ok")
    assert sandbox.customer.current(resource) == resource


def test_a_terminated_resource_does_not_come_back(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    sandbox.customer.edit(resource, state="Terminated")
    assert call(api, resource, "set_as_ok").status_code == 500
    assert sandbox.customer.current(resource).state == "Terminated"


@pytest.mark.parametrize("action", ["set_limits", "refresh_last_sync", "set_as_ok"])
def test_the_oldest_servers_lack_these_calls(connect: Connect, action: str) -> None:
    sandbox = Sandbox("7.0.7")
    order = sandbox.fill_demo().orders[0]
    with connect(sandbox) as api:
        made = sandbox.customer.resource_of(order)
        assert call(api, made, action, {"limits": {}}).status_code == 404


def test_an_unavailable_offering_takes_no_changes(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    sandbox.customer.edit(sandbox.offering, state="Unavailable")
    answer = call(api, resource, "refresh_last_sync")
    assert (answer.status_code, answer.json()) == (400, {"detail": "Offering is unavailable."})
    assert api.get(f"{PATH}{resource.uuid}/").status_code == 200


def test_a_resource_shows_the_order_that_is_in_progress(api: httpx.Client, demo: DemoWorld) -> None:
    order = demo.orders[0]
    shown = api.get(f"{PATH}{order.resource}/").json()
    assert order.uuid == shown["order_in_progress"]["uuid"] == shown["creation_order"]["uuid"]


def test_a_resource_shows_the_flags_that_people_set(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    sandbox.customer.set_flags(resource, paused=True, restrict_member_access=True)
    fields = ["paused", "downscaled", "restrict_member_access"]
    shown = api.get(f"{PATH}{resource.uuid}/", params={"field": fields}).json()
    assert shown == {"paused": True, "downscaled": False, "restrict_member_access": True}


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"state": "OK"}, ["Ocean runs"]),
        ({"state": ["OK", "Creating"]}, ["Ocean runs", "Tokamak edge"]),
        ({"name": "tokamak"}, ["Tokamak edge"]),
        ({"paused": "true"}, []),
        ({"o": "-name"}, ["Tokamak edge", "Ocean runs"]),
        ({"order_state": "pending-provider"}, ["Ocean runs", "Tokamak edge"]),
    ],
)
@pytest.mark.usefixtures("resource")
def test_resources_can_be_chosen(
    api: httpx.Client, parameters: dict[str, str | list[str]], names: list[str]
) -> None:
    rows = api.get(PATH, params={"field": "name", "o": "created", **parameters}).json()
    assert names == [row["name"] for row in rows]


@pytest.mark.usefixtures("resource")
def test_several_offerings_are_joined_with_commas(sandbox: Sandbox, api: httpx.Client) -> None:
    nobody, ours = "0" * 32, sandbox.offering.uuid
    joined = api.get(PATH, params={"offering_uuid": f"{ours},{nobody}"})
    repeated = api.get(PATH, params={"offering_uuid": [ours, nobody]})
    assert (len(joined.json()), len(repeated.json())) == (2, 0)


def test_the_team_is_the_people_with_roles_in_the_project(
    sandbox: Sandbox, api: httpx.Client, demo: DemoWorld, resource: Resource
) -> None:
    sandbox.customer.add_customer_role(demo.customer, "lise")
    answer = api.get(f"{PATH}{resource.uuid}/team/")
    team = {(row["username"], row["role"], row["offering_user_username"]) for row in answer.json()}
    assert {
        ("ada", "admin", "ada"),
        ("grace", "member", "grace"),
        ("alan", "member", "alan"),
    } == team
    assert "X-Result-Count" not in answer.headers


def test_a_role_that_ended_is_no_longer_in_the_team(
    sandbox: Sandbox, api: httpx.Client, demo: DemoWorld, resource: Resource
) -> None:
    sandbox.customer.remove_member(demo.climate, "grace")
    sandbox.customer.edit(demo.people[2], is_active=False)
    sandbox.customer.add_member(
        demo.climate, "lise", expiration_time=datetime(2000, 1, 1, tzinfo=UTC)
    )
    names = [row["username"] for row in api.get(f"{PATH}{resource.uuid}/team/").json()]
    assert names == ["ada"]


def test_an_old_team_does_not_tell_the_state_of_accounts(connect: Connect) -> None:
    sandbox = Sandbox("7.7.9")
    order = sandbox.fill_demo().orders[0]
    with connect(sandbox) as api:
        assert "offering_user_state" not in api.get(f"{PATH}{order.resource}/team/").json()[0]


def test_the_team_of_a_terminated_resource_can_still_be_read(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    sandbox.customer.edit(resource, state="Terminated")
    assert len(api.get(f"{PATH}{resource.uuid}/team/").json()) == 3
