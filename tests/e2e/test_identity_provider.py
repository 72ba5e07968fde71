"""A service whose access tokens expire while it runs, and whose provider comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness import Installation, SimulatedSite, eventually
from harness.processes import Service
from harness.proxies import a_proxy
from waldur_site_agent_sandbox import Order
from waldur_site_agent_sandbox.identity_provider import (
    INTROSPECTION_PATH,
    TOKEN_PATH,
    IdentityProvider,
    unavailable,
)

QUICKLY = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.005"}
SECRET, PASSWORD = "5f1b-not-to-be-seen", "n0t-to-be-seen"


@pytest.fixture
def provider(installation: Installation) -> Iterator[IdentityProvider]:
    """The only way to log in, reached through a proxy as Waldur is."""
    sandbox = installation.testbed.sandbox
    provider = IdentityProvider(lifetime=4)
    provider.add_client("agent-1", SECRET, sandbox.agent.username)
    provider.add_client("waldur", "waldurs-own", "")
    with provider.serve() as address, a_proxy("http", "agent", PASSWORD) as proxy:
        sandbox.trust(f"{address}{INTROSPECTION_PATH}", "waldur", "waldurs-own")
        (installation.directory / "secret").write_text(SECRET)
        changes = {
            "waldur_api_token": ...,
            "oidc_token_url": f"{address}{TOKEN_PATH}",
            "oidc_client_id": "agent-1",
            "oidc_client_secret_file": "secret",
        }
        installation.is_forked = False
        proxy_url = f"http://agent:{PASSWORD}@{proxy.address}"
        installation.write_offerings(changes, global_proxy=proxy_url)
        yield provider


def is_done(testbed: SimulatedSite, order: Order) -> bool:
    return testbed.state(order) == "done"


def has_shown_nothing(service: Service, provider: IdentityProvider) -> None:
    """No secret in the log, the command line or the environment of the process."""
    process = Path(f"/proc/{service.process.pid}")
    texts = [service.text, *((process / name).read_text() for name in ("cmdline", "environ"))]
    for secret in (SECRET, PASSWORD, *provider.tokens):
        assert not any(secret in text for text in texts)


@pytest.mark.guarantee("Secrets are in no log, plan, metric, process argument or error report")
def test_a_service_outlives_its_tokens_and_its_provider(
    installation: Installation, provider: IdentityProvider
) -> None:
    testbed = installation.testbed
    project = testbed.project(ada="ada01")
    with installation.service(**QUICKLY) as service:
        first = testbed.order(project, "first")
        eventually(partial(is_done, testbed, first), "an order by the first tokens")
        eventually(lambda: provider.granted >= 3, "renewed tokens")
        refused = [entry for entry in testbed.sandbox.requests if entry.status == 401]
        assert refused == [], "a token was used after its end"

        provider.revoke_all()
        second = testbed.order(project, "second")
        eventually(partial(is_done, testbed, second), "an order after every token was revoked")

        provider.trouble = unavailable()
        eventually(lambda: "cannot get an access token" in service.text, "a failing cycle")
        third = testbed.order(project, "third")
        provider.trouble = None
        eventually(partial(is_done, testbed, third), "an order after the provider came back")
        assert "Traceback" not in service.text
        has_shown_nothing(service, provider)
    assert len(testbed.accounts) == 5
