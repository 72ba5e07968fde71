"""Each generation of servers and each transport, over a real RabbitMQ, on a simulated cluster."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import Installation, a_simulated_site, eventually, installed

pytestmark = pytest.mark.rabbitmq


@contextmanager
def following_events(
    directory: Path, broker: Any, version: str, switch: str
) -> Iterator[Installation]:
    with (
        a_simulated_site(directory / "lock", version) as testbed,
        installed(testbed, directory) as site,
    ):
        testbed.sandbox.attach_broker(
            broker.management_url,
            broker.admin,
            broker.admin_password,
            stomp_port=broker.stomp_port,
            mqtt_port=broker.mqtt_port,
        )
        site.write(
            membership_sync_backend="slurm",
            websocket_use_tls=False,
            stomp_ws_port=broker.stomp_ws_port,
            mqtt_ws_port=broker.mqtt_ws_port,
            **{switch: True},
        )
        try:
            yield site
        finally:
            testbed.sandbox.detach_broker()
            broker.delete_vhost(testbed.sandbox.agent.uuid)


@pytest.mark.parametrize(
    ("version", "switch"),
    [
        pytest.param("8.1.3", "stomp_enabled", marks=pytest.mark.long, id="one queue"),
        pytest.param("8.0.5", "stomp_enabled", marks=pytest.mark.long, id="a queue for each type"),
        pytest.param("7.7.9", "stomp_enabled", id="queues made by subscribing"),
        pytest.param("7.7.9", "mqtt_enabled", id="MQTT"),
    ],
)
def test_orders_and_members_follow_events(
    real_rabbitmq: Any, tmp_path: Path, version: str, switch: str
) -> None:
    with following_events(tmp_path, real_rabbitmq, version, switch) as site:
        testbed, side = site.testbed, site.testbed.sandbox.customer
        project = testbed.project(ada="ada01")
        with site.service("-m", "event_process") as service:
            eventually(lambda: "listening to events" in service.text, "a subscription")
            lists = "marketplace_orders_list"
            eventually(lambda: testbed.sandbox.requests.count(lists), "the first full pass")
            order = testbed.order(project)
            eventually(lambda: testbed.state(order) == "done", "the order")
            side.add_member(project, testbed.person("bob", "bob01"))
            eventually(lambda: testbed.members(order) == {"ada01", "bob01"}, "bob in the account")
            side.remove_member(project, "bob")
            eventually(lambda: testbed.members(order) == {"ada01"}, "bob out of the account")
            service.send(signal.SIGTERM)
            assert service.wait() == 0
        assert testbed.sandbox.events.failures == []
        assert "Traceback" not in service.text
        assert testbed.sandbox.token not in service.text


def test_a_token_that_changed_is_used_once_the_configuration_has_it(
    real_rabbitmq: Any, tmp_path: Path
) -> None:
    with following_events(tmp_path, real_rabbitmq, "8.1.3", "stomp_enabled") as site:
        testbed, sandbox = site.testbed, site.testbed.sandbox
        with site.service("-m", "event_process") as service:
            eventually(lambda: "listening to events" in service.text, "a subscription")
            sandbox.customer.renew_token(sandbox.agent)
            site.write(
                membership_sync_backend="slurm",
                websocket_use_tls=False,
                stomp_enabled=True,
                stomp_ws_port=real_rabbitmq.stomp_ws_port,
            )
            service.send(signal.SIGHUP)
            eventually(lambda: service.text.count("listening to events") == 2, "a new login")
            order = testbed.order(testbed.project(ada="ada01"))
            eventually(lambda: testbed.state(order) == "done", "an order with the new token")
