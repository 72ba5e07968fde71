"""The sandbox as Waldur at a real RabbitMQ: what it makes there, and what arrives."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from harness.patience import patience
from integration.broker import WALDURS_ARGUMENTS
from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.broker import RealRabbitMQ

pytestmark = pytest.mark.rabbitmq

IDENTITIES = "marketplace-site-agent-identities/"
SUBSCRIPTIONS = "event-subscriptions/"


class Site:
    """A sandbox at the broker, with somebody who talks to it as its agent."""

    def __init__(self, broker: RealRabbitMQ, version: str) -> None:
        self.broker = broker
        self.sandbox = Sandbox(version)
        self.vhost = self.sandbox.agent.uuid
        self.sandbox.attach_broker(
            broker.management_url,
            broker.admin,
            broker.admin_password,
            stomp_port=broker.stomp_port,
            mqtt_port=broker.mqtt_port,
        )

    @contextmanager
    def api(self) -> Iterator[httpx.Client]:
        """The agent's client; at its end nothing is left at the broker."""
        with (
            self.sandbox.serve() as url,
            httpx.Client(base_url=url, timeout=patience(), trust_env=False) as api,
        ):
            self.present_token(api)
            yield api
        self.sandbox.detach_broker()
        self.broker.delete_vhost(self.vhost)

    def present_token(self, api: httpx.Client) -> None:
        api.headers["Authorization"] = f"Token {self.sandbox.token}"

    def lets_in(self, login: str, password: str) -> bool:
        """Whether the broker lets somebody into the agent's virtual host."""
        lines = ["CONNECT", "accept-version:1.2", f"host:{self.vhost}", f"login:{login}"]
        frame = "\n".join([*lines, f"passcode:{password}", "", "\0"]).encode()
        place = (self.broker.host, self.broker.stomp_port)
        with socket.create_connection(place, 10) as connection:
            connection.sendall(frame)
            return connection.recv(9) == b"CONNECTED"

    def queues(self) -> dict[str, object]:
        """Arguments of the queues in the agent's virtual host, by name."""
        rows = self.broker.request("GET", f"queues/{self.vhost}").json()
        # RabbitMQ 4 writes down what a queue is by default
        given = [("x-queue-type", "classic")]
        return {
            row["name"]: dict(item for item in row["arguments"].items() if item not in given)
            for row in rows
        }

    def listen_to_topic(self, topic: str) -> str:
        """Make a queue for what is published over MQTT, and give its name."""
        self.broker.make_queue(self.vhost, "over-mqtt", {})
        path = f"bindings/{self.vhost}/e/amq.topic/q/over-mqtt"
        self.broker.request("POST", path, {"routing_key": topic})
        return "over-mqtt"

    def arrived(self, queue: str) -> list[dict[str, object]]:
        """Take everything from a queue."""
        self.sandbox.events.settle()
        body = {"count": 1000, "ackmode": "ack_requeue_false", "encoding": "auto"}
        rows = self.broker.request("POST", f"queues/{self.vhost}/{queue}/get", body).json()
        return [json.loads(row["payload"]) for row in rows]


def registered(api: httpx.Client, agent: str, status: int) -> tuple[str, str]:
    """Register the agent's queue: login and queue."""
    answer = api.post(f"{IDENTITIES}{agent}/register_queue/", json={})
    assert answer.status_code == status, answer.text
    return answer.json()["rmq_username"], answer.json()["queue_name"]


def test_registering_again_mends_password_login_and_queue(real_rabbitmq: RealRabbitMQ) -> None:
    site = Site(real_rabbitmq, "8.1.3")
    with site.api() as api:
        body = {"offering": site.sandbox.offering.uuid, "name": "agent"}
        agent = api.post(IDENTITIES, json=body).json()["uuid"]
        login, queue = registered(api, agent, 201)
        old = site.sandbox.token
        assert site.queues() == {queue: WALDURS_ARGUMENTS}
        assert site.lets_in(login, old)

        site.sandbox.customer.renew_token(site.sandbox.agent)
        site.present_token(api)
        assert not site.lets_in(login, site.sandbox.token)
        assert registered(api, agent, 200) == (login, queue)
        assert site.lets_in(login, site.sandbox.token)
        assert not site.lets_in(login, old)

        real_rabbitmq.delete_user(login)
        real_rabbitmq.delete_queue(site.vhost, queue)
        site.sandbox.events.publish("order", {"lost": "without a word"})
        site.sandbox.events.settle()
        assert site.sandbox.events.failures == []
        another, same = registered(api, agent, 200)
        assert (another != login, same) == (True, queue)
        assert site.lets_in(another, site.sandbox.token)
        assert site.arrived(queue) == []

        real_rabbitmq.delete_vhost(site.vhost)
        registered(api, agent, 200)
        assert site.queues() == {queue: WALDURS_ARGUMENTS}


def test_events_arrive_lost_repeated_late_and_in_any_order(real_rabbitmq: RealRabbitMQ) -> None:
    site = Site(real_rabbitmq, "8.1.3")
    events = site.sandbox.events
    with site.api() as api:
        body = {"offering": site.sandbox.offering.uuid, "name": "agent"}
        _, queue = registered(api, api.post(IDENTITIES, json=body).json()["uuid"], 201)
        order = site.sandbox.fill_demo().orders[0]
        kinds = [event.object_type for event in events.published]
        found = site.arrived(queue)
        assert [each["object_type"] for each in found] == kinds
        assert order.uuid in [each.get("order_uuid") for each in found]

        events.disturb("lose", object_type="order")
        events.disturb("duplicate", object_type="order", times=1)
        events.disturb("delay", object_type="resource", seconds=0.3)
        for kind, number in (("order", 1), ("order", 2), ("resource", 3), ("order", 4)):
            events.publish(kind, {"number": number})
        assert [each["number"] for each in site.arrived(queue)] == [2, 4, 3]

        events.disturb("duplicate", object_type="order")
        events.hold()
        for number in range(3):
            events.publish("order", {"number": number})
        assert site.arrived(queue) == []
        events.release("reversed")
        assert [each["number"] for each in site.arrived(queue)] == [2, 1, 0, 0]
        assert events.failures == []


def by_content(messages: list[dict[str, object]]) -> list[str]:
    return sorted(json.dumps(message, sort_keys=True) for message in messages)


def test_older_servers_make_queues_by_kind_and_the_oldest_none(
    real_rabbitmq: RealRabbitMQ,
) -> None:
    for version, arguments in (("8.0.9", WALDURS_ARGUMENTS), ("7.7.9", {})):
        site = Site(real_rabbitmq, version)
        offering = site.sandbox.offering.uuid
        with site.api() as api:
            wishes = {"observable_objects": [{"object_type": "order"}]}
            first = api.post(SUBSCRIPTIONS, json=wishes).json()["uuid"]
            assert site.lets_in(first, site.sandbox.token)
            body = {"offering_uuid": offering, "object_type": "order"}
            api.post(f"{SUBSCRIPTIONS}{first}/create_queue/", json=body)
            over_mqtt = site.listen_to_topic("subscription.*.offering.*.order")
            site.sandbox.fill_demo()
            queue = f"subscription_{first}_offering_{offering}_order"
            found = site.arrived(queue)
            assert len(found) == 2
            # two queues: each has its own order of messages
            expected = found if version == "7.7.9" else []
            assert by_content(site.arrived(over_mqtt)) == by_content(expected)
            assert site.sandbox.events.failures == []
            assert site.queues() == {queue: arguments, over_mqtt: {}}

            second = api.post(SUBSCRIPTIONS, json=wishes).json()["uuid"]
            assert api.delete(f"{SUBSCRIPTIONS}{first}/").status_code == 204
            assert queue in site.queues()
            assert api.delete(f"{SUBSCRIPTIONS}{second}/").status_code == 204
            with pytest.raises(httpx.HTTPStatusError, match="404"):
                site.queues()
            api.post(SUBSCRIPTIONS, json=wishes)


def test_a_subscription_whose_login_is_gone_is_made_anew(real_rabbitmq: RealRabbitMQ) -> None:
    site = Site(real_rabbitmq, "8.0.9")
    with site.api() as api:
        body = {"offering": site.sandbox.offering.uuid, "name": "agent"}
        agent = api.post(IDENTITIES, json=body).json()["uuid"]
        path = f"{IDENTITIES}{agent}/register_event_subscription/"
        wish = {"observable_object_type": "order"}
        first, again = (api.post(path, json=wish) for _ in range(2))
        real_rabbitmq.delete_user(first.json()["uuid"])
        anew = api.post(path, json=wish)
        assert [each.status_code for each in (first, again, anew)] == [201, 200, 201]
        assert first.json()["uuid"] == again.json()["uuid"] != anew.json()["uuid"]
        assert site.lets_in(anew.json()["uuid"], site.sandbox.token)


def test_the_sandbox_in_the_foreground_uses_a_broker_too(real_rabbitmq: RealRabbitMQ) -> None:
    address = f"--broker={real_rabbitmq.management_url}"
    words = ["--port=0", "--demo", address, f"--stomp-port={real_rabbitmq.stomp_port}"]
    who = {"SANDBOX_BROKER_USER": real_rabbitmq.admin}
    secret = {"SANDBOX_BROKER_PASSWORD": real_rabbitmq.admin_password}
    with subprocess.Popen(
        [sys.executable, "-m", "waldur_site_agent_sandbox", *words],
        env={**os.environ, **who, **secret},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        try:
            printed = "".join(itertools.islice(running.stdout, 6))
            url, token, offering = re.findall(r": +(\S+)$", printed, re.MULTILINE)
            headers = {"Authorization": f"Token {token}"}
            with httpx.Client(
                base_url=url, headers=headers, timeout=patience(), trust_env=False
            ) as api:
                body = {"offering": offering, "name": "agent"}
                agent = api.post(IDENTITIES, json=body).json()["uuid"]
                _, queue = registered(api, agent, 201)
                vhost = api.get("users/me/").json()["uuid"]
        finally:
            running.terminate()
    assert real_rabbitmq.waiting(vhost) == {queue: (0, 0)}
    real_rabbitmq.delete_vhost(vhost)
