"""Agents present themselves, beat, and register for events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unit.sandbox.agent_calls import (
    IDENTITIES,
    SERVICES,
    as_user,
    identity,
    made,
    register_queue,
)
from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]

SUBSCRIPTIONS = "event-subscriptions/"


def test_an_agent_presents_itself_once_and_keeps_its_offering(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    agent = identity(api, sandbox)
    offering = sandbox.offering.uuid
    assert api.post(IDENTITIES, json={"offering": offering, "name": "agent"}).status_code == 400
    (found,) = api.get(IDENTITIES, params={"name": "agent"}).json()
    assert (agent, "2.0.0", sandbox.agent.uuid) == (
        found["uuid"],
        found["version"],
        found["created_by"],
    )
    changed = api.put(
        f"{IDENTITIES}{agent}/", json={"offering": offering, "name": "agent", "version": "3"}
    )
    assert (changed.status_code, changed.json()["version"]) == (200, "3")
    other = sandbox.customer.add_offering("Second", sandbox.provider)
    moved = api.put(f"{IDENTITIES}{agent}/", json={"offering": other.uuid, "name": "agent"})
    assert moved.status_code == 400
    assert api.patch(f"{IDENTITIES}{agent}/", json={"version": "4"}).status_code == 405


def test_offerings_that_no_agent_serves_take_none(sandbox: Sandbox, api: httpx.Client) -> None:
    other = sandbox.customer.add_offering("Books", sandbox.provider, type="Marketplace.Support")
    answer = api.post(IDENTITIES, json={"offering": other.uuid, "name": "agent"})
    assert (answer.status_code, list(answer.json())) == (400, ["offering"])


def test_a_silent_service_is_idle_until_it_registers_again(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    agent = identity(api, sandbox)
    path = f"{IDENTITIES}{agent}/register_service/"
    service = made(api.post(path, json={"name": "report", "mode": "report"}))
    beat = f"{SERVICES}{service}/register_processor/"
    processor = {"name": "slurm", "backend_type": "slurm", "backend_version": "22.05"}
    made(api.post(beat, json=processor))
    for _ in range(2):
        sandbox.clock.advance(590)
        made(api.post(beat, json=processor), status=200)
    assert sandbox.customer.agent_states() == {"report": "Active"}
    sandbox.clock.advance(601)
    assert sandbox.customer.agent_states() == {"report": "Idle"}
    made(api.post(beat, json=processor), status=200)
    assert sandbox.customer.agent_states() == {"report": "Idle"}
    assert made(api.post(path, json={"name": "report"}), status=200) == service
    assert sandbox.customer.agent_states() == {"report": "Active"}
    statistics = {"statistics": {"orders": 3}}
    shown = api.post(f"{SERVICES}{service}/set_statistics/", json=statistics).json()
    assert shown["statistics"] == {"orders": 3}


def test_strangers_and_managers_of_the_offering_alone_run_no_agents(connect: Connect) -> None:
    statuses = {}
    for version in ("7.9.9", "8.1.3"):
        sandbox = Sandbox(version)
        manager = sandbox.customer.add_user("manager")
        sandbox.customer.add_offering_role(sandbox.offering, manager)
        stranger = sandbox.customer.add_user("stranger")
        body = {"offering": sandbox.offering.uuid, "name": "agent"}
        with connect(sandbox) as api:
            statuses[version] = [
                api.post(IDENTITIES, json=body, headers=as_user(user)).status_code
                for user in (stranger, manager)
            ]
    assert statuses == {"7.9.9": [403, 403], "8.1.3": [403, 403]}


def test_an_agents_queue_stays_the_same_and_keeps_its_filter(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    agent = identity(api, sandbox)
    answers = [
        register_queue(api, agent, object_types=["order", "resource"]),
        register_queue(api, agent),
        register_queue(api, agent, object_types=[]),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    filters = [answer.json()["observable_object_types"] for answer in answers]
    assert filters == [["order", "resource"], ["order", "resource"], []]
    assert len({answer.json()["queue_name"] for answer in answers}) == 1
    assert len({answer.json()["rmq_username"] for answer in answers}) == 1
    assert {answer.json()["vhost"] for answer in answers} == {sandbox.agent.uuid}
    assert register_queue(api, agent, object_types=["weather"]).status_code == 400


def test_another_users_queue_cannot_be_had(sandbox: Sandbox, api: httpx.Client) -> None:
    agent = identity(api, sandbox)
    register_queue(api, agent)
    second = sandbox.customer.add_user("second")
    sandbox.customer.add_customer_role(sandbox.provider, second)
    path = f"{IDENTITIES}{agent}/register_queue/"
    assert api.post(path, json={}, headers=as_user(second)).status_code == 409


def test_the_subscription_of_a_kind_is_that_of_all_agents_of_a_user(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    first, second = identity(api, sandbox, "one"), identity(api, sandbox, "two")
    wish = {"observable_object_type": "order"}
    path = f"{IDENTITIES}{{}}/register_event_subscription/"
    subscription = made(api.post(path.format(first), json=wish))
    assert made(api.post(path.format(second), json=wish), status=200) == subscription
    queue = {"offering_uuid": sandbox.offering.uuid, "object_type": "order"}
    target = f"{SUBSCRIPTIONS}{subscription}/create_queue/"
    answers = [api.post(target, json=queue) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    name = f"subscription_{subscription}_offering_{sandbox.offering.uuid}_order"
    assert (name, sandbox.agent.uuid) == (
        answers[1].json()["queue_name"],
        answers[1].json()["vhost"],
    )


def test_queues_are_made_only_for_offerings_that_one_may_see(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    stranger = as_user(sandbox.customer.add_user("stranger"))
    wishes = {"observable_objects": [{"object_type": "order"}]}
    subscription = made(api.post(SUBSCRIPTIONS, json=wishes, headers=stranger))
    queue = {"offering_uuid": sandbox.offering.uuid, "object_type": "order"}
    path = f"{SUBSCRIPTIONS}{subscription}/create_queue/"
    assert api.post(path, json=queue, headers=stranger).status_code == 400
    assert api.post(path, json=queue).status_code == 404


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("7.7.9", [404, 404, 404]),
        ("7.8.5", [201, 404, 404]),
        ("7.9.9", [201, 404, 201]),
        ("8.1.0", [201, 201, 201]),
    ],
)
def test_each_generation_has_its_own_ways_to_register(
    connect: Connect, version: str, expected: list[int]
) -> None:
    sandbox = Sandbox(version)
    with connect(sandbox) as api:
        body = {"offering": sandbox.offering.uuid, "name": "agent"}
        presented = api.post(IDENTITIES, json=body)
        agent = presented.json()["uuid"] if presented.is_success else "f" * 32
        wishes = {"observable_objects": [{"object_type": "order"}]}
        subscription = made(api.post(SUBSCRIPTIONS, json=wishes))
        queue = {"offering_uuid": sandbox.offering.uuid, "object_type": "order"}
        made_queue = api.post(f"{SUBSCRIPTIONS}{subscription}/create_queue/", json=queue)
        found = [
            presented.status_code,
            register_queue(api, agent).status_code,
            made_queue.status_code,
        ]
    assert found == expected


def test_nothing_is_registered_while_the_broker_is_away(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    agent = identity(api, sandbox)
    sandbox.attach_broker("http://127.0.0.1:1", "waldur", "secret-of-admin", stomp_port=1)
    wish = {"observable_object_type": "order"}
    answers = [
        register_queue(api, agent),
        api.post(f"{IDENTITIES}{agent}/register_event_subscription/", json=wish),
        api.post(SUBSCRIPTIONS, json={"observable_objects": []}),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert all("RabbitMQ" in answer.text for answer in answers)
    assert not any("secret-of-admin" in answer.text for answer in answers)
    world = sandbox.customer.world
    assert (world.event_consumers, world.event_subscriptions) == ({}, {})
    sandbox.detach_broker()
    assert register_queue(api, agent).status_code == 201
