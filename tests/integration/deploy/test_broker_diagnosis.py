"""The diagnosis at a real broker, step by step up to a subscription."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from harness import SimulatedSite
from harness.proxies import a_proxy
from waldur_site_agent.backends import Check, CheckStatus
from waldur_site_agent.service.diagnosis import diagnose_broker, diagnose_waldur

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def at_broker(real_rabbitmq: Any, testbed: SimulatedSite) -> Iterator[SimulatedSite]:
    """A sandbox that publishes to a real broker."""
    sandbox, broker = testbed.sandbox, real_rabbitmq
    sandbox.attach_broker(
        broker.management_url,
        broker.admin,
        broker.admin_password,
        stomp_port=broker.stomp_port,
        mqtt_port=broker.mqtt_port,
    )
    yield testbed
    sandbox.detach_broker()
    if sandbox.agent.uuid in {each["name"] for each in broker.request("GET", "vhosts").json()}:
        broker.delete_vhost(sandbox.agent.uuid)


def checks(
    testbed: SimulatedSite, broker: Any, *, login: bool = False, **changes: Any
) -> dict[str, Check]:
    settings = {
        "stomp_enabled": True,
        "websocket_use_tls": False,
        "stomp_ws_host": broker.host,
        "stomp_ws_port": broker.stomp_ws_port,
        "mqtt_ws_host": broker.host,
        "mqtt_ws_port": broker.mqtt_ws_port,
    }
    offering = testbed.offering().model_copy(update=settings | changes)
    return {check.name: check for check in diagnose_broker(offering, login=login)}


def test_the_diagnosis_of_a_real_broker(at_broker: SimulatedSite, real_rabbitmq: Any) -> None:
    found = checks(at_broker, real_rabbitmq, login=True)
    assert {name: check.verdict for name, check in found.items()} == {
        "broker": CheckStatus.OK,
        "broker's WebSocket": CheckStatus.OK,
        "broker's login": CheckStatus.OK,
    }, found
    by_mqtt = {"stomp_enabled": False, "mqtt_enabled": True}
    found = checks(at_broker, real_rabbitmq, login=True, **by_mqtt)
    assert found["broker's WebSocket"].verdict is CheckStatus.OK
    assert "skipped" in found["broker's login"].detail
    found = checks(at_broker, real_rabbitmq, stomp_ws_path="/elsewhere")
    assert "answers HTTP 404 instead of 101" in found["broker's WebSocket"].detail
    found = checks(at_broker, real_rabbitmq, stomp_ws_port=real_rabbitmq.amqp_port)
    assert found["broker's WebSocket"].verdict is CheckStatus.FAILED


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_the_diagnosis_of_a_broker_behind_a_proxy(
    at_broker: SimulatedSite, real_rabbitmq: Any, scheme: str
) -> None:
    """The address is one that only the proxy can resolve, for Waldur and for the broker."""
    with a_proxy(scheme, "agent", "not-to-be-seen") as proxy:
        proxy.aliases["hidden.internal"] = "127.0.0.1"
        proxy.aliases["broker.internal"] = real_rabbitmq.host
        url = at_broker.url.replace("127.0.0.1", "hidden.internal")
        offering = at_broker.offering().model_copy(
            update={
                "waldur_api_url": url,
                "stomp_enabled": True,
                "websocket_use_tls": False,
                "stomp_ws_host": "broker.internal",
                "stomp_ws_port": real_rabbitmq.stomp_ws_port,
            }
        )
        offering.use_proxy(SecretStr(f"{scheme}://agent:not-to-be-seen@{proxy.address}"))
        broker = list(diagnose_broker(offering, login=True))
        waldur = next(iter(diagnose_waldur(offering)))
    assert [(check.name, check.verdict) for check in broker] == [
        ("broker", CheckStatus.OK),
        ("broker's login", CheckStatus.OK),
    ], broker
    through = f"through the proxy {scheme}://***@{proxy.address} (global_proxy)"
    assert broker[0].detail.endswith(f"is reachable {through}")
    assert waldur.detail.endswith(through)
    assert {target.partition(":")[0] for target in proxy.targets} == {
        "hidden.internal",
        "broker.internal",
    }


def test_a_proxy_of_the_broker_that_is_down_is_a_failed_check(
    at_broker: SimulatedSite, real_rabbitmq: Any
) -> None:
    offering = at_broker.offering().model_copy(
        update={"stomp_enabled": True, "stomp_ws_host": real_rabbitmq.host}
    )
    offering.use_proxy(SecretStr("http://agent:not-to-be-seen@127.0.0.1:9"))
    (check,) = diagnose_broker(offering, login=True)
    assert check.verdict is CheckStatus.FAILED
    assert "the proxy http://***@127.0.0.1:9 (global_proxy) fails" in check.detail
    assert check.remedy == "correct global_proxy in the configuration"


def test_without_being_asked_to_nobody_registers(
    at_broker: SimulatedSite, real_rabbitmq: Any
) -> None:
    assert set(checks(at_broker, real_rabbitmq)) == {"broker", "broker's WebSocket"}
    assert at_broker.sandbox.requests.count() == 0
