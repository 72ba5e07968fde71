"""Secrets that are replaced while the agent runs."""

from __future__ import annotations

from waldur_site_agent.config.describing import passwords_in
from waldur_site_agent.service.logs import concealed, redact_latest


def test_the_last_two_tokens_of_a_client_are_masked_and_older_ones_are_forgotten() -> None:
    for number in range(100):
        redact_latest("agent-1 at sso", f"token-{number:03}")
    redact_latest("agent-2 at sso", "another-token")
    assert concealed("token-099 token-098 another-token") == "******** ******** ********"
    assert concealed("token-097") == "token-097"


def test_passwords_of_proxies_are_found_as_written_and_as_sent() -> None:
    urls = ["http://agent:p%40ss@proxy:3128", "agent:plain@proxy:3128", "http://proxy:3128", ""]
    assert list(passwords_in(urls)) == ["p%40ss", "p@ss", "plain"]
