"""STOMP over WebSocket: every promise, on a real RabbitMQ."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.patience import patience
from harness.proxies import a_proxy
from integration.broker import RealRabbitMQ, wait_until
from integration.rabbitmq.conftest import PASSWORD, Authority, Host
from waldur_site_agent.events import stomp
from waldur_site_agent.events.broker import (
    Address,
    Connection,
    ConnectionLostError,
    Delivery,
    LoginRefusedError,
    QueueRefusedError,
    Subscription,
)
from waldur_site_agent.events.stomp import StompTransport

pytestmark = pytest.mark.rabbitmq

Connect = Callable[..., Connection]


@pytest.fixture
def address(real_rabbitmq: RealRabbitMQ) -> Address:
    there = (real_rabbitmq.host, real_rabbitmq.stomp_ws_port, real_rabbitmq.stomp_ws_path)
    return Address(*there, tls=False)


@pytest.fixture
def connect(address: Address) -> Iterator[Connect]:
    with contextlib.ExitStack() as closing:

        def connected(
            subscription: Subscription, prefetch: int = 20, heartbeat_seconds: float = 10
        ) -> Connection:
            transport = StompTransport(
                address, prefetch=prefetch, heartbeat_seconds=heartbeat_seconds
            )
            connection = transport.connect(subscription)
            closing.callback(connection.close)
            return connection

        yield connected


def next_of(connection: Connection) -> Delivery:
    delivery = connection.receive(patience())
    assert delivery is not None
    return delivery


def reason_of(address: Address, subscription: Subscription) -> ConnectionLostError:
    with pytest.raises(ConnectionLostError) as caught:
        StompTransport(address).connect(subscription)
    assert PASSWORD not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_a_session_goes_through_a_proxy(host: Host, address: Address, scheme: str) -> None:
    queue = host.queue()
    with a_proxy(scheme, "agent", "secret") as proxy:
        through = replace(address, proxy=f"{scheme}://agent:secret@{proxy.address}")
        connection = StompTransport(through).connect(host.subscription(queue))
        host.publish(queue, b"hello")
        delivery = next_of(connection)
        connection.acknowledge(delivery)
        connection.close()
    assert delivery.body == b"hello"
    assert proxy.targets == [f"{address.host}:{address.port}"]


def test_a_session_goes_through_a_proxy_that_is_reached_over_tls(
    host: Host, address: Address, authority: Authority, tmp_path: Path
) -> None:
    certificate = tmp_path / "proxy.pem"
    shutil.copy(authority.certificate, certificate)
    shutil.copy(authority.key, certificate.with_suffix(".key"))
    queue = host.queue()
    with a_proxy("https", "agent", "secret", certificate) as proxy:
        through = replace(address, proxy=f"https://agent:secret@{proxy.address}")
        believing = replace(through, ca_file=str(authority.ca_file))
        connection = StompTransport(believing).connect(host.subscription(queue))
        host.publish(queue, b"hello")
        assert next_of(connection).body == b"hello"
        connection.close()
        reason = str(reason_of(through, host.subscription(queue)))
    assert "certificate not trusted" in reason
    assert proxy.targets == [f"{address.host}:{address.port}"]


@pytest.mark.guarantee("events: STOMP")
def test_bodies_arrive_byte_for_byte_and_are_gone_when_acknowledged(
    host: Host, connect: Connect
) -> None:
    queue = host.queue()
    bodies = [b"", b'{"order_uuid": "1"}', b"\n\0:\\" + bytes(range(256)), bytes(3_000_000), b"end"]
    host.publish(queue, *bodies)
    connection = connect(host.subscription(queue))
    deliveries = [next_of(connection) for _ in bodies]
    assert [delivery.body for delivery in deliveries] == bodies
    assert {delivery.queue for delivery in deliveries} == {queue}
    assert [delivery.headers["x-message-id"] for delivery in deliveries] == list("01234")
    for delivery in [*deliveries, deliveries[0]]:
        connection.acknowledge(delivery)
    wait_until(lambda: host.waiting(queue) == (0, 0))
    host.publish(queue, b"after")
    assert next_of(connection).body == b"after"


@pytest.mark.guarantee("events: STOMP")
def test_no_more_messages_are_out_than_asked_for(host: Host, connect: Connect) -> None:
    queue = host.queue()
    host.publish(queue, b"1", b"2", b"3", b"4")
    connection = connect(host.subscription(queue), prefetch=2)
    first, second = next_of(connection), next_of(connection)
    assert host.waiting(queue) == (2, 2)
    connection.acknowledge(second)
    assert next_of(connection).body == b"3"
    assert first.body == b"1"
    assert host.waiting(queue) == (1, 2)


def test_several_queues_share_a_connection(host: Host, connect: Connect) -> None:
    queues = [host.queue("orders"), host.queue("roles")]
    connection = connect(host.subscription(*queues))
    host.publish("roles", b"granted")
    host.publish("orders", b"created")
    arrived = [next_of(connection) for _ in queues]
    assert {(one.queue, one.body) for one in arrived} == {
        ("orders", b"created"),
        ("roles", b"granted"),
    }


CHILD = f"""
import json, sys, time
from waldur_site_agent.events.stomp import StompTransport
from waldur_site_agent.events.broker import Address, Subscription
address, subscription = json.load(sys.stdin)
connection = StompTransport(Address(*address)).connect(Subscription(*subscription))
print(connection.receive({patience()}).body, flush=True)
time.sleep(600)
"""


@pytest.mark.guarantee("events: STOMP")
def test_what_a_killed_agent_did_not_acknowledge_goes_to_another_one(
    host: Host, address: Address, connect: Connect
) -> None:
    queue = host.queue()
    host.publish(queue, b"1", b"2")
    one = (address.host, address.port, address.path, False)
    subscription = (host.vhost, host.login, PASSWORD, (queue,), True)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        agent.stdin.write(json.dumps((one, subscription)))
        agent.stdin.close()
        assert agent.stdout.readline() == "b'1'\n"
        other = connect(host.subscription(queue))
        assert other.receive(0.2) is None
        agent.kill()
    arrived = [next_of(other), next_of(other)]
    assert sorted(delivery.body for delivery in arrived) == [b"1", b"2"]
    assert all(delivery.redelivered for delivery in arrived)


@pytest.mark.guarantee("events: STOMP")
def test_two_agents_share_the_messages_of_a_queue(host: Host, connect: Connect) -> None:
    queue = host.queue()
    one, other = (connect(host.subscription(queue), prefetch=1) for _ in range(2))
    host.publish(queue, b"1", b"2", b"3")
    first, second = next_of(one), next_of(other)
    assert {first.body, second.body} == {b"1", b"2"}
    one.close()
    other.acknowledge(second)
    taken = [next_of(other)]
    other.acknowledge(taken[0])
    taken.append(next_of(other))
    assert {delivery.body for delivery in taken} == {first.body, b"3"}


def test_a_refused_login_says_who_and_where(host: Host, address: Address) -> None:
    queue = host.queue()
    good = host.subscription(queue)
    for bad in (replace(good, password="wrong"), replace(good, vhost="nowhere")):
        with pytest.raises(LoginRefusedError, match=host.login) as caught:
            StompTransport(address).connect(bad)
        assert bad.vhost in str(caught.value)
        assert "register with Waldur again" in str(caught.value)
        assert bad.password not in str(caught.value)


@pytest.mark.guarantee("events: STOMP")
def test_a_refused_queue_says_which(host: Host, address: Address) -> None:
    queue = host.queue()
    missing = host.subscription(queue, "missing")
    made_by_the_server = host.subscription(queue, declared=False)
    for subscription, name in ((missing, "missing"), (made_by_the_server, queue)):
        with pytest.raises(QueueRefusedError, match=f"no subscription to .*{name}") as caught:
            StompTransport(address).connect(subscription)
        assert host.vhost in str(caught.value)
        assert "register with Waldur again" in str(caught.value)


def test_subscribing_makes_the_queue_where_the_server_does_not(
    host: Host, connect: Connect
) -> None:
    connection = connect(host.subscription("implicit", declared=False))
    connection.close()
    host.publish("implicit", b"while away")
    again = connect(host.subscription("implicit", declared=False))
    assert next_of(again).body == b"while away"


@pytest.mark.guarantee("events: STOMP")
@pytest.mark.parametrize("gone", ["queue", "vhost", "user"])
def test_the_connection_ends_with_what_it_depends_on(
    host: Host, address: Address, connect: Connect, gone: str
) -> None:
    queue = host.queue()
    connection = connect(host.subscription(queue))
    broker = host.broker
    match gone:
        case "queue":
            broker.delete_queue(host.vhost, queue)
        case "vhost":
            broker.delete_vhost(host.vhost)
        case "user":
            broker.delete_user(host.login)
    with pytest.raises(ConnectionLostError, match=host.vhost):
        connection.receive(patience())
    with pytest.raises((QueueRefusedError, LoginRefusedError)):
        StompTransport(address).connect(host.subscription(queue))
    broker.register(host.vhost, host.login, PASSWORD)


@pytest.mark.guarantee("events: STOMP")
def test_a_handler_may_take_longer_than_many_heart_beats(host: Host, connect: Connect) -> None:
    queue = host.queue()
    host.publish(queue, b"1", b"2")
    connection = connect(host.subscription(queue), prefetch=1, heartbeat_seconds=0.3)
    first = next_of(connection)
    time.sleep(3)  # the handler works; RabbitMQ gives a silent client up after three intervals
    connection.acknowledge(first)
    assert next_of(connection).body == b"2"
    assert connection.heard_seconds_ago() < 3


@pytest.mark.guarantee("events: STOMP")
def test_a_broker_that_hangs_is_noticed_and_its_messages_come_again(
    host: Host, address: Address, authority: Authority, connect: Connect
) -> None:
    queue = host.queue()
    with authority.in_front_of(address.port) as port:
        secure = replace(address, port=port, tls=True, ca_file=str(authority.ca_file))
        connections = [
            StompTransport(one, prefetch=1, heartbeat_seconds=0.5).connect(host.subscription(queue))
            for one in (address, secure)
        ]
        host.publish(queue, b"1", b"2")
        held = [next_of(connection) for connection in connections]
        with host.broker.frozen():
            for connection, delivery in zip(connections, held, strict=True):
                with pytest.raises(ConnectionLostError, match="not even a heart-beat"):
                    connection.receive(patience())
                with pytest.raises(ConnectionLostError):
                    connection.acknowledge(delivery)
                connection.close()
    again = next_of(connect(host.subscription(queue)))
    assert again.body in {b"1", b"2"}
    assert again.redelivered


@contextlib.contextmanager
def consumer_timeout(broker: RealRabbitMQ, milliseconds: int, tick: int) -> Iterator[None]:
    was = broker.ctl("eval", "application:get_env(rabbit, consumer_timeout).").strip()
    limit = was.removeprefix("{ok,").removesuffix("}")
    setting = "application:set_env(rabbit, {}, {})."
    broker.ctl("eval", setting.format("consumer_timeout", milliseconds))
    broker.ctl("eval", setting.format("channel_tick_interval", tick))
    try:
        yield
    finally:
        broker.ctl("eval", setting.format("consumer_timeout", limit))
        broker.ctl("eval", setting.format("channel_tick_interval", 60_000))


@pytest.mark.guarantee("events: STOMP")
def test_a_message_held_longer_than_the_broker_allows_comes_again(
    host: Host, connect: Connect
) -> None:
    queue = host.queue()
    host.publish(queue, b"1")
    with consumer_timeout(host.broker, 1000, tick=500):
        connection = connect(host.subscription(queue))
        next_of(connection)
        with pytest.raises(ConnectionLostError, match="closed the connection"):
            connection.receive(patience())
    assert next_of(connect(host.subscription(queue))).body == b"1"


@pytest.mark.guarantee("events: STOMP")
@pytest.mark.parametrize("how", ["kill", pytest.param("stop", marks=pytest.mark.long)])
def test_messages_survive_the_broker(
    host: Host, address: Address, connect: Connect, how: str
) -> None:
    queue = host.queue()
    host.broker.publish(host.vhost, queue, b"1", b"2", on_disk=True)
    # RabbitMQ 3.10 forgets a queue that was made a moment before it is killed
    host.broker.ctl("eval", "mnesia:sync_log().")
    connection = connect(host.subscription(queue), prefetch=1)
    next_of(connection)
    getattr(host.broker, how)()
    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1"):
        connection.receive(patience())
    assert "check host and port" in str(reason_of(address, host.subscription(queue)))
    host.broker.start()
    again = connect(host.subscription(queue))
    assert sorted(next_of(again).body for _ in range(2)) == [b"1", b"2"]


@pytest.mark.guarantee("events: STOMP")
def test_a_huge_message_neither_fills_the_memory_nor_stops_the_others(
    host: Host, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stomp, "LARGEST_BODY", 1_000_000)
    queue = host.queue()
    host.publish(queue, bytes(1_000_001), b"next")
    connection = connect(host.subscription(queue))
    huge = next_of(connection)
    assert (huge.body, huge.headers["content-length"]) == (b"", "1000001")
    assert next_of(connection).body == b"next"
    connection.acknowledge(huge)
    wait_until(lambda: host.waiting(queue) == (0, 1))


@pytest.mark.guarantee("events: STOMP")
def test_a_message_beyond_every_limit_is_named(
    host: Host, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stomp, "_LARGEST_FRAME", 1_000_000)
    queue = host.queue()
    host.publish(queue, bytes(1_000_001))
    with pytest.raises(ConnectionLostError, match="purge the queue"):
        # the broker may send the message before connecting has returned
        connect(host.subscription(queue)).receive(patience())


def test_a_private_authority_is_trusted_when_it_is_named(
    host: Host, address: Address, authority: Authority
) -> None:
    subscription = host.subscription(host.queue())
    with authority.in_front_of(address.port) as port:
        secure = replace(address, port=port, tls=True)
        for trusting in (
            replace(secure, ca_file=str(authority.ca_file)),
            replace(secure, verify=False),
        ):
            StompTransport(trusting).connect(subscription).close()
        assert "ca_file" in str(reason_of(secure, subscription))
        elsewhere = replace(secure, host="localhost", ca_file=str(authority.ca_file))
        assert "localhost" in str(reason_of(elsewhere, subscription))
        assert "check host, port and path" in str(
            reason_of(replace(secure, tls=False), subscription)
        )
    assert "websocket_use_tls" in str(reason_of(replace(address, tls=True), subscription))
    absent = replace(secure, ca_file="/nonexistent.pem")
    assert "/nonexistent.pem" in str(reason_of(absent, subscription))


def test_a_wrong_address_says_what_to_check(
    host: Host, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = host.subscription(host.queue())
    assert "stomp_ws_path" in str(reason_of(replace(address, path="/nowhere"), subscription))
    assert "check host and port" in str(reason_of(replace(address, port=1), subscription))
    monkeypatch.setattr(stomp, "_CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "timed out" in str(reason_of(replace(address, port=port), subscription))


def test_the_proxy_of_the_environment_is_used_as_for_the_api(
    host: Host, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    subscription = host.subscription(host.queue())
    monkeypatch.setenv("http_proxy", "nonsense://proxy")
    assert "proxy" in str(reason_of(address, subscription))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    StompTransport(address).connect(subscription).close()


@pytest.mark.guarantee("Secrets are in no log, plan, metric, process argument or error report")
def test_the_password_is_in_no_log(
    host: Host, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    subscription = host.subscription(host.queue())
    connection = connect(subscription)
    host.publish("orders", b"1")
    next_of(connection)
    for text in (caplog.text, repr(connection), repr(subscription)):
        assert "5ecret" not in text
