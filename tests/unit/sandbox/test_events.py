"""What agents are told of, by which servers, and what can go wrong on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unit.sandbox.agent_calls import identity, register_queue
from unit.sandbox.driving import call, create_order, finished, project_in
from waldur_site_agent_sandbox import RefusedError, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]


def told(sandbox: Sandbox, object_type: str, *fields: str) -> list[tuple[object, ...]]:
    """These fields of the events of a kind."""
    events = sandbox.events.of(object_type)
    return [tuple(event.payload.get(field) for field in fields) for event in events]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("7.0.7", [None, None]),
        ("7.7.9", ["pending-provider", "done"]),
        ("8.1.3", ["pending-provider", "executing", "done"]),
    ],
)
def test_servers_tell_of_some_states_of_an_order_or_of_all(
    connect: Connect, version: str, expected: list[str]
) -> None:
    sandbox = Sandbox(version)
    with connect(sandbox) as api:
        order, _ = finished(sandbox, api)
    assert told(sandbox, "order", "order_uuid", "order_state") == [
        (order.uuid, state) for state in expected
    ]


def test_unified_queues_are_told_more(sandbox: Sandbox) -> None:
    order = create_order(sandbox)
    (event,) = sandbox.events.of("order")
    assert (order.resource, "Create", {"cpu": 10}, 1) == (
        event.payload["resource_uuid"],
        event.payload["order_type"],
        event.payload["limits"],
        event.payload["schema_version"],
    )
    older = Sandbox("8.0.9")
    order = create_order(older)
    assert {"order_uuid", "order_state", "offering_uuid"} == set(
        older.events.of("order")[0].payload
    )


def test_roles_are_told_to_the_agents_of_a_projects_resources(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    ada = sandbox.customer.add_user("ada")
    idle = sandbox.customer.add_project("Idle", sandbox.customer.add_customer("Other"))
    sandbox.customer.add_member(idle, ada)
    assert sandbox.events.of("user_role") == []
    _, resource = finished(sandbox, api)
    sandbox.customer.add_member(resource.project, ada, "manager")
    sandbox.customer.remove_member(resource.project, ada)
    sandbox.customer.sync_user_roles(resource.project)
    assert told(sandbox, "user_role", "user_username", "role_name", "granted") == [
        ("ada", "PROJECT.MANAGER", True),
        ("ada", "PROJECT.MANAGER", False),
        (None, None, None),
    ]


@pytest.mark.parametrize(("version", "expected"), [("7.9.9", 0), ("8.1.3", 1)])
def test_older_servers_tell_of_roles_only_where_a_resource_is_ok(
    version: str, expected: int
) -> None:
    sandbox = Sandbox(version)
    order = create_order(sandbox)
    sandbox.customer.add_member(order.project, sandbox.customer.add_user("ada"))
    assert len(sandbox.events.of("user_role")) == expected


def test_flags_and_pulls_tell_of_a_resource_with_growing_numbers(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    _, resource = finished(sandbox, api)
    sandbox.customer.set_flags(resource, paused=True)
    sandbox.customer.set_flags(resource, paused=True)
    sandbox.customer.pull(resource)
    assert told(sandbox, "resource", "paused", "downscaled", "sequence_number") == [
        (True, False, 1),
        (True, False, 2),
    ]


def test_the_life_of_an_account_is_told(sandbox: Sandbox, api: httpx.Client) -> None:
    ada = sandbox.customer.add_user("ada")
    account = sandbox.customer.set_account(ada, username="", state="Requested")
    path = f"marketplace-offering-users/{account.uuid}/"
    assert api.patch(path, json={"username": "ada01"}).status_code == 200
    assert told(sandbox, "offering_user", "action", "username", "state") == [
        ("create", "", "Requested"),
        ("update", "ada01", "OK"),
        ("username_set", "ada01", 5),
    ]
    assert told(sandbox, "offering_user", "changed_fields")[1] == (["username", "state"],)


@pytest.mark.parametrize("kind", ["service", "course"])
def test_accounts_of_projects_are_told_when_they_open_and_close(
    sandbox: Sandbox, api: httpx.Client, kind: str
) -> None:
    _, resource = finished(sandbox, api)
    add = getattr(sandbox.customer, f"add_{kind}_account")
    account = add(resource.project, "svc")
    sandbox.customer.set_project_account_state(account, "Closed")
    assert told(sandbox, f"{kind}_account", "account_username", "action") == [
        ("svc", "create"),
        ("svc", "delete"),
    ]


def test_a_request_for_importable_resources_is_told(sandbox: Sandbox) -> None:
    request = sandbox.customer.request_import()
    assert told(sandbox, "importable_resources", "backend_resource_request_uuid") == [
        (request.uuid,)
    ]


def test_orders_that_wait_too_long_are_told_again(sandbox: Sandbox) -> None:
    create_order(sandbox)
    assert sandbox.customer.remind_of_orders() == 0
    sandbox.clock.advance(3601)
    assert sandbox.customer.remind_of_orders() == 1
    assert len(sandbox.events.of("order")) == 2


def test_all_resources_are_synchronised_only_where_an_agent_listens(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    with pytest.raises(RefusedError, match="409"):
        sandbox.customer.sync_resources("site-agent")
    register_queue(api, identity(api, sandbox))
    sandbox.customer.sync_resources("site-agent")
    assert told(sandbox, "offering_resources_sync", "requested_by_user_uuid") == [
        (sandbox.agent.uuid,)
    ]


def test_a_unified_queue_takes_the_place_of_the_older_ones(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    wishes = {"observable_objects": [{"object_type": "order"}, {"object_type": "user_role"}]}
    subscription = api.post("event-subscriptions/", json=wishes).json()["uuid"]
    queue = {"offering_uuid": sandbox.offering.uuid, "object_type": "order"}
    api.post(f"event-subscriptions/{subscription}/create_queue/", json=queue)
    create_order(sandbox)
    agent = identity(api, sandbox)
    unified = register_queue(api, agent, object_types=["order"]).json()["queue_name"]
    create_order(sandbox)
    sandbox.customer.request_import()
    queues = [[each.queue for each in event.destinations] for event in sandbox.events.published]
    older = f"subscription_{subscription}_offering_{sandbox.offering.uuid}_order"
    assert queues == [[older], [unified], []]


def test_who_lost_the_role_is_told_nothing(sandbox: Sandbox, api: httpx.Client) -> None:
    register_queue(api, identity(api, sandbox))
    for role in list(sandbox.customer.world.roles.values()):
        sandbox.customer.end_role(role)
    create_order(sandbox)
    assert [event.destinations for event in sandbox.events.of("order")] == [()]


def test_old_servers_send_to_queues_that_nobody_made_and_over_mqtt(connect: Connect) -> None:
    sandbox = Sandbox("7.7.9")
    with connect(sandbox) as api:
        wishes = {"observable_objects": [{"object_type": "order"}]}
        uuid = api.post("event-subscriptions/", json=wishes).json()["uuid"]
        create_order(sandbox)
    ((destination,),) = [event.destinations for event in sandbox.events.of("order")]
    assert not destination.made_by_server
    assert f"subscription/{uuid}/offering/{sandbox.offering.uuid}/order" == destination.topic


def test_the_same_thing_told_twice_has_the_same_id(sandbox: Sandbox, api: httpx.Client) -> None:
    register_queue(api, identity(api, sandbox))
    order = create_order(sandbox)
    ada = sandbox.customer.add_user("ada")
    for _ in range(2):
        sandbox.customer.add_member(order.project, ada)
        sandbox.customer.remove_member(order.project, ada)
    ids = [event.destinations[0].message_id for event in sandbox.events.of("user_role")]
    assert (ids[0], ids[1]) == (ids[2], ids[3])
    assert ids[0] != ids[1]


def test_any_payload_can_be_published(sandbox: Sandbox, api: httpx.Client) -> None:
    register_queue(api, identity(api, sandbox))
    event = sandbox.events.publish("order", {"nonsense": None})
    assert [each.payload for each in event.destinations] == [{"nonsense": None}]


def test_a_server_may_tell_of_a_change_before_readers_can_see_it(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    project = project_in(sandbox)
    sandbox.events.lag_behind(5)
    orders = [sandbox.customer.place_create_order(project, name) for name in ("one", "two")]
    assert len(sandbox.events.of("order")) == 2
    path = f"marketplace-orders/{orders[0].uuid}/"
    assert api.get(path).status_code == 404
    sandbox.clock.advance(6)
    assert api.get(path).status_code == 200
    sandbox.customer.place_create_order(project, "three")
    assert len(api.get("marketplace-orders/").json()) == 2
    assert call(api, orders[0], "approve_by_provider").status_code == 200
    assert len(api.get("marketplace-orders/").json()) == 3


def test_an_unknown_disturbance_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="use one of lose, duplicate, delay"):
        sandbox.events.disturb("burn")  # type: ignore[arg-type]  # what the test is about


def test_an_unreachable_broker_harms_nobody(sandbox: Sandbox, api: httpx.Client) -> None:
    register_queue(api, identity(api, sandbox))
    sandbox.attach_broker("http://127.0.0.1:1", "waldur", "secret-of-admin", stomp_port=1)
    create_order(sandbox)
    sandbox.events.settle()
    assert len(sandbox.events.failures) == 1
    assert "secret-of-admin" not in sandbox.events.failures[0]
    sandbox.detach_broker()
