"""Whoever can publish into the queue of an agent, at a real RabbitMQ."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest

from harness import Installation, SimulatedSite, eventually
from integration.broker import RealRabbitMQ

pytestmark = pytest.mark.rabbitmq

GARBAGE: list[bytes] = [
    b"",
    b"\x00\xff\xfe",
    b"null",
    b"9" * 5000,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"object_type": "order", "order_uuid": {"$ne": 1}}',
    b'{"object_type": "\\ud800\\u001b[2J\\u202e"}',
    b" " * (3 << 20),  # RabbitMQ 4 takes no frame of STOMP above 4 MiB
]


@pytest.fixture(params=["stomp", "mqtt"])
def attacked(
    request: pytest.FixtureRequest, installation: Installation, real_rabbitmq: RealRabbitMQ
) -> Iterator[tuple[Installation, RealRabbitMQ]]:
    """An offering that follows events through the broker, by each protocol."""
    testbed, broker = installation.testbed, real_rabbitmq
    testbed.sandbox.attach_broker(
        broker.management_url,
        broker.admin,
        broker.admin_password,
        stomp_port=broker.stomp_port,
        mqtt_port=broker.mqtt_port,
    )
    installation.write(
        membership_sync_backend="slurm",
        stomp_enabled=request.param == "stomp",
        mqtt_enabled=request.param == "mqtt",
        websocket_use_tls=False,
        stomp_ws_port=broker.stomp_ws_port,
        mqtt_ws_port=broker.mqtt_ws_port,
    )
    yield installation, broker
    testbed.sandbox.detach_broker()
    broker.delete_vhost(testbed.sandbox.agent.uuid)


def is_quiet(broker: RealRabbitMQ, testbed: SimulatedSite) -> bool:
    waiting = broker.waiting(testbed.sandbox.agent.uuid)
    return bool(waiting) and not any(sum(each) for each in waiting.values())


def announcement(testbed: SimulatedSite, order: str) -> bytes:
    offering = testbed.sandbox.offering.uuid
    message = {"object_type": "order", "offering_uuid": offering, "order_uuid": order}
    return json.dumps(message | {"order_state": "executing"}).encode()


def of_orders_that_do_not_exist(testbed: SimulatedSite, count: int) -> list[bytes]:
    return [announcement(testbed, uuid4().hex) for _ in range(count)]


@pytest.mark.guarantee("security: Threat model")
def test_garbage_and_a_flood_are_acknowledged_and_real_events_still_arrive(
    attacked: tuple[Installation, RealRabbitMQ],
) -> None:
    installation, broker = attacked
    testbed, vhost = installation.testbed, installation.testbed.sandbox.agent.uuid
    with installation.service("-m", "event_process") as service:
        eventually(lambda: "listening to events" in service.text, "a subscription")
        eventually(lambda: is_quiet(broker, testbed), "the first pass")
        queues = list(broker.waiting(vhost))
        testbed.forget()
        for queue in queues:
            broker.publish(vhost, queue, *GARBAGE, *[b"garbage"] * 300)
        eventually(lambda: is_quiet(broker, testbed), "garbage acknowledged", pause=0.5)
        assert len(testbed.sandbox.requests) < 50
        for queue in queues:
            broker.publish(vhost, queue, *of_orders_that_do_not_exist(testbed, 30))
        order = testbed.order(testbed.project(ada="ada01"))
        for queue in queues:  # servers of this version publish nothing by MQTT
            broker.publish(vhost, queue, announcement(testbed, order.uuid))
        eventually(lambda: testbed.state(order) == "done", "a real order")
        assert service.process.poll() is None
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert "Traceback" not in service.text
    assert "\x1b" not in service.text
    assert service.text.count("cannot parse message") <= len(queues) + 1
    assert testbed.accounts  # nothing was removed


def test_a_message_that_could_kill_the_agent_does_not_come_back_after_a_restart(
    attacked: tuple[Installation, RealRabbitMQ],
) -> None:
    installation, broker = attacked
    testbed, vhost = installation.testbed, installation.testbed.sandbox.agent.uuid
    for _ in range(2):
        with installation.service("-m", "event_process") as service:
            eventually(lambda: "listening to events" in service.text, "a subscription")
            for queue in broker.waiting(vhost):
                broker.publish(vhost, queue, *GARBAGE)
            eventually(lambda: is_quiet(broker, testbed), "acknowledged", pause=0.5)
    assert "Traceback" not in service.text
