"""The commands of an agent that logs in as a client of an identity provider."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from harness import Installation
from waldur_site_agent_sandbox.identity_provider import (
    INTROSPECTION_PATH,
    TOKEN_PATH,
    IdentityProvider,
    unavailable,
)

SECRET = "5f1b-not-to-be-seen"


@dataclass
class Site:
    """An installation whose Waldur trusts an identity provider."""

    installation: Installation
    provider: IdentityProvider
    address: str

    def write(self, **changes: Any) -> None:
        keys = {
            "waldur_api_token": "",
            "oidc_token_url": f"{self.address}{TOKEN_PATH}",
            "oidc_client_id": "agent-1",
            "oidc_client_secret": SECRET,
        }
        self.installation.write(**{**keys, **changes})

    def run(self, *arguments: str, command: str = "waldur_site_agent") -> tuple[int, str]:
        """Exit code and everything that was printed, which never has a secret."""
        done = self.installation.run(*arguments, command=command)
        text = done.out + done.err
        for secret in (SECRET, *self.provider.tokens):
            assert secret not in text
        return done.code, text


@pytest.fixture
def site(installation: Installation) -> Iterator[Site]:
    sandbox, provider = installation.testbed.sandbox, IdentityProvider()
    provider.add_client("agent-1", SECRET, sandbox.agent.username)
    provider.add_client("waldur", "waldurs-own", "")
    with provider.serve() as address:
        sandbox.trust(f"{address}{INTROSPECTION_PATH}", "waldur", "waldurs-own")
        place = Site(installation, provider, address)
        place.write()
        yield place


def test_orders_are_carried_out_and_no_secret_is_shown(site: Site) -> None:
    order = site.installation.testbed.order(site.installation.testbed.project(ada="ada01"), cpu=10)
    code, text = site.run("--once")
    assert code == 0, text
    assert site.installation.testbed.state(order) == "done"
    assert site.provider.granted == 1


def test_a_provider_that_is_away_loses_no_order(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waldur_site_agent.waldur.tokens._PAUSE_SECONDS", 0)
    testbed = site.installation.testbed
    order = testbed.order(testbed.project(ada="ada01"), cpu=10)
    site.write(oidc_client_id="agent-2")
    site.provider.add_client("agent-2", SECRET, testbed.sandbox.agent.username)
    site.provider.trouble = unavailable()
    code, text = site.run("--once")
    assert code == 1
    assert "cannot get an access token" in text
    assert "HTTP 503" in text
    assert testbed.state(order) == "pending-provider"
    site.provider.trouble = None
    assert site.run("--once")[0] == 0
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}


def test_the_diagnosis_names_provider_client_and_user(site: Site) -> None:
    code, text = site.run(command="waldur_site_diagnostics")
    assert code == 0, text
    assert f"ok       identity provider: {site.address}{TOKEN_PATH} gave a token for" in text
    user = site.installation.testbed.sandbox.agent.username
    assert f'ok       token: client "agent-1" is user "{user}"; renewed in time' in text


def test_a_failing_provider_is_one_failed_check_with_its_remedy(site: Site) -> None:
    site.write(oidc_client_secret="wrong-one")
    code, text = site.run(command="waldur_site_diagnostics")
    assert code == 1
    assert "FAILED   identity provider: cannot get an access token" in text
    assert "-> check oidc_client_id and oidc_client_secret" in text
    assert "Waldur:" not in text.partition("FAILED")[2]


def test_a_user_without_a_role_is_named_by_the_key_of_the_client(site: Site) -> None:
    site.installation.testbed.sandbox.customer.add_user("stranger")
    site.write(oidc_client_id="agent-3")
    site.provider.add_client("agent-3", SECRET, "stranger")
    code, text = site.run("--once")
    assert code == 1
    assert 'user "stranger" of oidc_client_id' in text


def test_the_configuration_is_shown_without_the_secret(site: Site) -> None:
    code, text = site.run("--check-config")
    assert code == 0
    assert f"oidc_token_url: {site.address}{TOKEN_PATH}" in text
    assert "oidc_client_secret: '**********'" in text or "oidc_client_secret: '********'" in text


def test_the_secret_may_be_in_a_file_or_in_the_environment(site: Site) -> None:
    file = site.installation.directory / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o644)
    site.write(oidc_client_secret=..., oidc_client_secret_file="secret")
    assert site.run("--once")[0] == 0
    _, text = site.run(command="waldur_site_diagnostics")
    assert f"WARNING  token file: {file} has mode 0644" in text
    site.write(oidc_client_secret="${SITE_SECRET}")
    site.installation.variables["SITE_SECRET"] = SECRET
    assert site.run("--once")[0] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"oidc_client_id": ""}, "belong together, and oidc_client_id is missing"),
        ({"oidc_client_secret": ...}, "and oidc_client_secret is missing"),
        ({"oidc_token_url": "sso.example.com"}, "expected the token endpoint"),
        ({"oidc_token_url": "https://a:b@sso.example.com/t"}, "without user, password"),
        ({"stomp_enabled": True}, "stomp_enabled needs waldur_api_token"),
        ({"mqtt_enabled": True}, "mqtt_enabled needs waldur_api_token"),
        ({"oidc_client_secret_file": "x"}, "stands beside oidc_client_secret_file"),
        (
            {"oidc_token_url": "", "oidc_client_id": "", "oidc_client_secret": ""},
            "is missing; give",
        ),
    ],
)
def test_what_is_missing_or_cannot_work_is_an_error_of_the_file(
    site: Site, changes: dict[str, Any], words: str
) -> None:
    site.write(**changes)
    code, text = site.run("--check-config")
    assert code == 2
    assert words in text


def test_the_probe_of_version_1_logs_in_as_the_client(site: Site) -> None:
    health = site.installation.directory / "health.json"
    health.write_text(json.dumps({"status": "ok", "workers": [], "written": time.time()}))
    options = ("--heartbeat-path", str(health))
    assert site.run(*options, command="waldur_site_healthz")[0] == 0
    site.write(oidc_client_secret="wrong-one")
    code, text = site.run(*options, command="waldur_site_healthz")
    assert code == 1
    assert "check oidc_client_id and oidc_client_secret" in text


def test_a_token_of_waldur_comes_first_and_the_client_without_effect_is_named(site: Site) -> None:
    site.write(waldur_api_token=site.installation.testbed.sandbox.token, stomp_enabled=False)
    code, text = site.run("--once")
    assert code == 0
    assert "setting=oidc_token_url" in text
    assert site.provider.granted == 0
