"""MQTT over WebSocket on a real RabbitMQ: what it promises, and what it cannot."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from paho.mqtt import publish

from harness.patience import patience
from integration.broker import RealRabbitMQ
from integration.rabbitmq.conftest import PASSWORD, Authority, Host
from waldur_site_agent.events import mqtt
from waldur_site_agent.events.broker import (
    Address,
    ConnectionLostError,
    Delivery,
    LoginRefusedError,
    Subscription,
)
from waldur_site_agent.events.mqtt import MqttConnection, MqttTransport

pytestmark = pytest.mark.rabbitmq

TOPIC = "subscription/5f1c/offering/0a2b/order"
ROLES = "subscription/5f1c/offering/0a2b/user_role"


@pytest.fixture
def address(real_rabbitmq: RealRabbitMQ) -> Address:
    there = (real_rabbitmq.host, real_rabbitmq.mqtt_ws_port, real_rabbitmq.mqtt_ws_path)
    return Address(*there, tls=False)


@contextlib.contextmanager
def connected(
    address: Address, subscription: Subscription, keepalive_seconds: int = 10
) -> Iterator[MqttConnection]:
    transport = MqttTransport(address, keepalive_seconds=keepalive_seconds)
    connection = transport.connect(subscription)
    try:
        yield connection
    finally:
        connection.close()


def published(host: Host, body: bytes, qos: int, topic: str = TOPIC) -> None:
    publish.single(
        topic,
        body,
        qos=qos,
        hostname=host.broker.host,
        port=host.broker.mqtt_port,
        auth={"username": f"{host.vhost}:{host.login}", "password": PASSWORD},
    )


def next_of(connection: MqttConnection) -> Delivery:
    delivery = connection.receive(patience())
    assert delivery is not None
    return delivery


def reason_of(address: Address, subscription: Subscription) -> str:
    with pytest.raises(ConnectionLostError) as caught:
        MqttTransport(address).connect(subscription)
    reason = str(caught.value)
    assert PASSWORD not in reason
    del caught
    gc.collect()
    return reason


def test_messages_wait_for_an_agent_that_is_away_and_for_their_acknowledgement(
    host: Host, address: Address
) -> None:
    subscription = host.subscription(TOPIC, ROLES)
    with connected(address, subscription):
        pass
    bodies = [b'{"order_uuid": "1"}', b"", bytes(range(256)), bytes(200_000)]
    for body in bodies:
        published(host, body, qos=1)
    published(host, b"granted", qos=1, topic=ROLES)
    with connected(address, subscription) as connection:
        arrived = [next_of(connection) for _ in range(5)]
        assert [delivery.body for delivery in arrived] == [*bodies, b"granted"]
        assert [delivery.queue for delivery in arrived] == [TOPIC] * 4 + [ROLES]
        for delivery in [*arrived[1:], arrived[1]]:
            connection.acknowledge(delivery)
    with connected(address, subscription) as connection:
        again = next_of(connection)
        assert (again.body, again.redelivered) == (bodies[0], True)
        connection.acknowledge(again)
        published(host, b"after", qos=1)
        assert next_of(connection).body == b"after"


@pytest.mark.guarantee("events: MQTT")
def test_what_was_published_without_a_guarantee_does_not_come_again(
    host: Host, address: Address
) -> None:
    subscription = host.subscription(TOPIC)
    with connected(address, subscription) as connection:
        published(host, b"1", qos=0)
        assert next_of(connection).body == b"1"
    with connected(address, subscription) as connection:
        published(host, b"2", qos=0)
        delivery = next_of(connection)
        assert delivery.body == b"2"
        connection.acknowledge(delivery)


def test_a_refused_login_says_who_and_where(host: Host, address: Address) -> None:
    good = host.subscription(TOPIC)
    for bad in (replace(good, password="wrong"), replace(good, vhost="nowhere")):
        with pytest.raises(LoginRefusedError, match=host.login) as caught:
            MqttTransport(address).connect(bad)
        assert bad.vhost in str(caught.value)
        assert bad.password not in str(caught.value)


def test_a_broker_that_hangs_is_noticed(host: Host, address: Address) -> None:
    with connected(address, host.subscription(TOPIC), keepalive_seconds=1) as connection:
        with host.broker.frozen(), pytest.raises(ConnectionLostError, match="Keep alive"):
            connection.receive(patience())
        assert connection.heard_seconds_ago() > 0


def test_an_idle_connection_hears_of_the_broker(host: Host, address: Address) -> None:
    with connected(address, host.subscription(TOPIC), keepalive_seconds=1) as connection:
        assert connection.receive(4) is None
        assert connection.heard_seconds_ago() < 4


@pytest.mark.guarantee("events: MQTT")
def test_a_second_agent_with_the_subscription_ends_the_connection_of_the_first(
    host: Host, address: Address
) -> None:
    subscription = host.subscription(TOPIC)
    with connected(address, subscription) as first, connected(address, subscription):
        with pytest.raises(ConnectionLostError, match="another agent"):
            first.receive(patience())
        with pytest.raises(ConnectionLostError):
            first.receive(patience())


# the library leaves the socket of a failed TLS handshake to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_private_authority_is_trusted_when_it_is_named(
    host: Host, address: Address, authority: Authority
) -> None:
    subscription = host.subscription(TOPIC)
    with authority.in_front_of(address.port) as port:
        secure = replace(address, port=port, tls=True)
        for trusting in (
            replace(secure, ca_file=str(authority.ca_file)),
            replace(secure, verify=False),
        ):
            with connected(trusting, subscription) as connection:
                published(host, b"1", qos=1)
                connection.acknowledge(next_of(connection))
        assert "ca_file" in reason_of(secure, subscription)
    assert "websocket_use_tls" in reason_of(replace(address, tls=True), subscription)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_wrong_address_says_what_to_check(
    host: Host, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = host.subscription(TOPIC)
    assert "mqtt_ws_path" in reason_of(replace(address, path="/nowhere"), subscription)
    assert "check host and port" in reason_of(replace(address, port=1), subscription)
    monkeypatch.setattr(mqtt, "_CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "timed out" in reason_of(replace(address, port=port), subscription)
