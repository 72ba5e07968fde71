"""The proxy of the configuration: used for everything, and its password never shown."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from harness import Installation
from harness.proxies import a_proxy

PASSWORD = "n0t-to-be-seen"
find_spec = importlib.util.find_spec


def shown(installation: Installation, *arguments: str) -> tuple[int, str]:
    done = installation.run(*arguments)
    text = done.out + done.err
    assert PASSWORD not in text
    return done.code, text


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_orders_are_carried_out_behind_a_proxy(installation: Installation, scheme: str) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"), cpu=10)
    with a_proxy(scheme, "agent", PASSWORD) as proxy:
        proxy.aliases["waldur.internal"] = "127.0.0.1"
        installation.write_offerings(
            {"waldur_api_url": testbed.url.replace("127.0.0.1", "waldur.internal")},
            global_proxy=f"{scheme}://agent:${{SITE_PROXY_PASSWORD}}@{proxy.address}",
        )
        installation.variables["SITE_PROXY_PASSWORD"] = PASSWORD
        code, text = shown(installation, "--once")
        assert code == 0, text
        checked, page = shown(installation, "--check-config")
    assert testbed.state(order) == "done"
    assert {target.partition(":")[0] for target in proxy.targets} == {"waldur.internal"}
    assert checked == 0
    assert f"global_proxy: {scheme}://********@{proxy.address}" in page


def test_a_proxy_that_is_down_is_named_and_nothing_is_lost(installation: Installation) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"), cpu=10)
    installation.write_offerings({}, global_proxy=f"http://agent:{PASSWORD}@127.0.0.1:9")
    code, text = shown(installation, "--once")
    assert code == 1
    assert "the proxy http://***@127.0.0.1:9 (global_proxy) cannot be reached" in text
    assert testbed.state(order) == "pending-provider"


@pytest.mark.parametrize(
    "value",
    [
        f"agent:{PASSWORD}@proxy.example.com:3128",
        f"socks4://agent:{PASSWORD}@proxy.example.com:1080",
        f"ftp://agent:{PASSWORD}@proxy.example.com",
        f"http://agent:{PASSWORD}@",
        f"http://agent:{PASSWORD}@proxy.example.com:port",
        f"http://agent:{PASSWORD}@proxy.example.com:0",
        f"http://agent:{PASSWORD}@proxy.example.com:99999",
        f"http://agent:{PASSWORD}/x@proxy.example.com:3128",
        f"http://agent:{PASSWORD}@[::1",
        f"http://proxy.example.com:3128/?password={PASSWORD}",
        {"url": f"http://agent:{PASSWORD}@proxy.example.com:3128"},
    ],
)
def test_a_bad_proxy_is_an_error_of_the_file_that_does_not_show_it(
    installation: Installation, value: Any
) -> None:
    installation.write_offerings({}, global_proxy=value)
    code, text = shown(installation, "--once")
    assert code == 2
    assert "global_proxy: found" in text


@pytest.mark.parametrize("missing", ["socksio", "python_socks"])
def test_a_socks_proxy_without_its_packages_says_what_to_install(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    installation.write_offerings({}, global_proxy=f"socks5://agent:{PASSWORD}@127.0.0.1:9")
    code, text = shown(installation, "--once")
    assert code == 2
    assert 'pip install "waldur-site-agent[socks]"' in text


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_proxy_is_none(installation: Installation, value: str | None) -> None:
    installation.write_offerings({}, global_proxy=value)
    assert shown(installation, "--once")[0] == 0


def test_passwords_of_proxies_in_the_environment_are_kept_out_of_the_log(
    installation: Installation,
) -> None:
    """As written and as sent, even where another library repeats them in its message."""
    installation.write_offerings({}, log_format="json")
    installation.variables["HTTP_PROXY"] = f"http://agent:{PASSWORD}@127.0.0.1:9"
    installation.variables["no_proxy"] = ""
    code, text = shown(installation, "--once")
    assert code == 1
    assert "(HTTP_PROXY) cannot be reached" in text
    assert all(json.loads(line) for line in text.splitlines() if line.startswith("{"))


def test_mqtt_which_uses_no_proxy_is_named(installation: Installation) -> None:
    installation.write_offerings({"mqtt_enabled": True}, global_proxy="http://127.0.0.1:9")
    _, text = shown(installation, "--check-config")
    assert "setting=global_proxy" in text
    assert "MQTT, which goes to the broker directly" in text
