"""The name of a session decides whose messages it gets."""

from __future__ import annotations

from dataclasses import replace

from waldur_site_agent.events.broker import Address, Subscription
from waldur_site_agent.events.mqtt import client_id

SUBSCRIPTION = Subscription("vhost", "login", "5ecret", ("order", "role"), declared=False)


def test_a_session_is_found_again_after_a_restart_and_a_new_password() -> None:
    same = replace(SUBSCRIPTION, queues=("role", "order"), password="another")
    assert client_id(same) == client_id(SUBSCRIPTION)


def test_different_subscriptions_do_not_end_each_others_connections() -> None:
    others = [
        replace(SUBSCRIPTION, login="other"),
        replace(SUBSCRIPTION, vhost="other"),
        replace(SUBSCRIPTION, queues=("order",)),
    ]
    assert len({client_id(one) for one in (SUBSCRIPTION, *others)}) == 4


def test_every_server_accepts_the_name() -> None:
    assert len(client_id(SUBSCRIPTION)) == 23


def test_addresses_are_written_as_urls() -> None:
    assert str(Address("broker.example.com", 443, "rmqws")) == "wss://broker.example.com:443/rmqws"
    assert str(Address("::1", 80, "/ws", tls=False)) == "ws://[::1]:80/ws"
    assert "5ecret" not in repr(SUBSCRIPTION)
