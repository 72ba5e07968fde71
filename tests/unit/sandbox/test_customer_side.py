"""The customer's side: in Python, over HTTP, on the command line, and across restarts."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from harness.patience import patience
from waldur_site_agent_sandbox import RefusedError, Sandbox
from waldur_site_agent_sandbox.store import Clock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def portal(api: httpx.Client) -> httpx.Client:
    """A person with curl: no token, another root."""
    api.base_url = api.base_url.copy_with(path="/sandbox/")
    del api.headers["Authorization"]
    return api


def test_things_are_found_by_uuid_slug_and_username(sandbox: Sandbox) -> None:
    demo = sandbox.fill_demo()
    for project in (demo.climate, demo.climate.uuid, "climate", "Climate model"):
        for user in (demo.people[4], "lise"):
            sandbox.customer.add_member(project, user)
    roles = sandbox.customer.world.roles.values()
    lises = [role for role in roles if role.user == demo.people[4].uuid]
    assert len(lises) == 9


def test_slugs_are_those_that_waldur_makes(sandbox: Sandbox) -> None:
    side = sandbox.customer
    names = ("Climate", "University of Oceans", "大学", "Ünï Tartu", "Climate")
    slugs = [side.add_customer(name).slug for name in names]
    assert slugs == ["climate-1", "universi-1", "-1", "uni-tart-1", "climate-2"]
    project = side.add_project("Climate", side.add_customer("Any"))
    orders = [side.place_create_order(project, n) for n in ("Ocean runs", "Tokamak edge", "海")]
    assert [side.resource_of(o).slug for o in orders] == ["ocean-ru-1", "tokamak--1", "-1"]


def test_a_name_that_two_have_is_refused(sandbox: Sandbox) -> None:
    university = sandbox.customer.add_customer("University")
    for _ in range(2):
        sandbox.customer.add_project("Climate", university, "climate")
    with pytest.raises(LookupError, match="2 projects called 'climate'"):
        sandbox.customer.place_create_order("climate", "Ocean")


@pytest.mark.parametrize("slug", ["a,root", "", "../x", "Ünï", "name=root", "x" * 300])
def test_slugs_are_taken_as_they_are(sandbox: Sandbox, api: httpx.Client, slug: str) -> None:
    university = sandbox.customer.add_customer("University", slug)
    project = sandbox.customer.add_project("Climate", university, slug)
    order = sandbox.customer.place_create_order(project, "Ocean")
    shown = api.get(f"marketplace-orders/{order.uuid}/").json()
    assert (slug, slug) == (shown["customer_slug"], shown["project_slug"])


def test_limits_that_are_not_for_sale_are_refused(sandbox: Sandbox) -> None:
    demo = sandbox.fill_demo()
    with pytest.raises(RefusedError, match=r"400.*gres/gpu"):
        sandbox.customer.place_create_order(demo.climate, "x", {"gres/gpu": 1})


def test_an_update_without_news_is_refused(sandbox: Sandbox) -> None:
    order = sandbox.fill_demo().orders[0]
    resource = sandbox.customer.edit(sandbox.customer.resource_of(order), state="OK")
    sandbox.customer.edit(order, state="done")
    with pytest.raises(RefusedError, match="same as the current"):
        sandbox.customer.place_update_order(resource, resource.limits)


@pytest.mark.parametrize("state", ["Creating", "Erred", "Updating", "Terminated"])
def test_only_a_resource_that_is_ok_can_be_updated(sandbox: Sandbox, state: str) -> None:
    order = sandbox.fill_demo().orders[0]
    resource = sandbox.customer.edit(sandbox.customer.resource_of(order), state=state)
    with pytest.raises(RefusedError, match=r"409.*Valid states for operation: OK"):
        sandbox.customer.place_update_order(resource, {"cpu": 1})


def test_an_order_in_hand_cannot_be_withdrawn(sandbox: Sandbox) -> None:
    order = sandbox.customer.edit(sandbox.fill_demo().orders[0], state="executing")
    with pytest.raises(RefusedError, match="409"):
        sandbox.customer.withdraw_order(order)


def test_from_its_end_date_on_a_project_gets_only_terminations() -> None:
    today = datetime(2027, 3, 12, tzinfo=UTC)
    side = Sandbox("8.1.3", clock=Clock(lambda: today)).customer
    project = side.add_project("Climate", side.add_customer("University"))
    orders = [side.place_create_order(project, name, {"cpu": 10}) for name in ("live", "gone")]
    live = side.edit(side.resource_of(orders[0]), state="OK")
    gone = side.edit(side.resource_of(orders[1]), state="Terminated")
    asked = side.place_create_order(project, "asked", state="pending-consumer")
    for order in orders:
        side.edit(order, state="done")
    side.edit(project, end_date=date(2027, 3, 13))
    side.place_create_order(project, "last", {"cpu": 10})
    side.edit(project, end_date=date(2027, 3, 12))
    before = side.world
    expired = pytest.raises(RefusedError, match=r"400.*Project 'Climate' is expired")
    with expired:
        side.place_create_order(project, "late", {"cpu": 10})
    with expired:
        side.place_update_order(live, {"cpu": 20})
    with expired:
        side.place_restore_order(gone)
    with expired:
        side.approve_as_consumer(asked)
    assert side.world == before
    assert side.place_terminate_order(live).state == "pending-provider"


def test_a_refused_change_leaves_nothing_behind(sandbox: Sandbox) -> None:
    demo = sandbox.fill_demo()
    before = sandbox.customer.world
    with pytest.raises(RefusedError):
        sandbox.customer.place_create_order(demo.climate, "x", {"tape": 1})
    assert before == sandbox.customer.world


def test_a_person_can_order_with_curl(sandbox: Sandbox, portal: httpx.Client) -> None:
    sandbox.fill_demo()
    body = {"project": "climate", "name": "First try", "limits": {"cpu": 10}}
    placed = portal.post("place_create_order", json=body).json()
    assert (placed["type"], placed["state"]) == ("Create", "pending-provider")
    names = [row["name"] for row in portal.get("resources/").json()]
    assert names == ["Ocean runs", "Tokamak edge", "First try"]


@pytest.mark.parametrize(
    ("action", "body", "reason"),
    [
        ("place_create_order", {"project": "nowhere", "name": "x"}, "0 projects called 'nowhere'"),
        ("place_create_order", {"project": "climate"}, "Missing required argument"),
        ("set_account", {"user": "ada", "status": "OK"}, "Unexpected keyword argument"),
        ("add_fault", {"operation": "*", "kind": "earthquake"}, "Input should be 'latency'"),
        ("add_user", [1], "must be a mapping"),
    ],
)
def test_a_person_is_told_what_was_wrong(
    sandbox: Sandbox, portal: httpx.Client, action: str, body: object, reason: str
) -> None:
    sandbox.fill_demo()
    answer = portal.post(f"{action}/", json=body)
    assert answer.status_code == 400
    assert reason in answer.text


def test_a_person_can_close_an_account_and_limit_a_user_with_curl(
    sandbox: Sandbox, portal: httpx.Client
) -> None:
    sandbox.fill_demo()
    made = portal.post("add_service_account/", json={"project": "climate", "username": "svc"})
    assert made.json()["state"] == "OK"
    closed = {"account": made.json()["uuid"], "state": "Closed"}
    assert portal.post("set_project_account_state/", json=closed).json()["state"] == "Closed"
    limit = {"resource": "ocean-ru-1", "user": "ada", "component_type": "cpu", "limit": 2.5}
    assert portal.post("set_user_limit/", json=limit).json()["limit"] == "2.50"
    refused = portal.post("set_user_limit/", json={**limit, "limit": -1})
    assert (refused.status_code, "valid number" in refused.text) == (400, True)


def test_the_first_page_lists_every_action(portal: httpx.Client) -> None:
    actions = portal.get("").json()["actions"]
    assert "/sandbox/place_create_order/" in actions
    assert all(about["does"] for about in actions.values())


def test_a_person_can_make_trouble_and_see_the_log(sandbox: Sandbox, portal: httpx.Client) -> None:
    fault = {"operation": "users_me_retrieve", "kind": "status", "status": 502}
    portal.post("add_fault/", json=fault)
    headers = {"Authorization": f"Token {sandbox.token}"}
    url = portal.base_url.copy_with(path="/api/users/me/")
    assert portal.get(url, headers=headers).status_code == 502
    (request,) = portal.get("requests/").json()
    assert (request["operation"], request["status"]) == ("users_me_retrieve", 502)


def test_the_customer_side_shows_no_tokens(sandbox: Sandbox, portal: httpx.Client) -> None:
    assert sandbox.token not in portal.get("world/").text
    assert '"token":"***"' in portal.post("add_user/", json={"username": "x"}).text


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    first = Sandbox(state_file=file)
    order = first.fill_demo().orders[0]
    first.customer.add_service_account("climate", "svc")
    first.customer.add_course_account("climate", None, "Pending")
    first.customer.set_user_limit(order.resource, "ada", "cpu", 10)
    first.customer.add_periodic_policy()
    second = Sandbox(state_file=file)
    assert first.customer.world == second.customer.world
    assert first.token == second.token
    assert file.stat().st_mode & 0o077 == 0


def test_a_file_from_before_there_were_project_accounts_is_read(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    token = Sandbox(state_file=file).token
    state = json.loads(file.read_text())
    for table in ("project_accounts", "user_limits", "periodic_policies"):
        del state[table]
    file.write_text(json.dumps(state))
    assert Sandbox(state_file=file).token == token


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text('{"users": {"x": {"name": "secret"}}}')
    with pytest.raises(ValueError, match=r"state\.json: not the state of a sandbox") as caught:
        Sandbox(state_file=file)
    assert "secret" not in str(caught.value)


def test_served_again_it_goes_on(sandbox: Sandbox) -> None:
    addresses = []
    for _ in range(2):
        with sandbox.serve() as url:
            addresses.append(url)
            assert httpx.get(f"{url}users/me/", timeout=patience()).status_code == 401
    assert len(addresses) == 2


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a Waldur version"):
        Sandbox("newest")
