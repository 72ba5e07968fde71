"""What an agent does to present itself, in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from waldur_site_agent_sandbox import Sandbox, User

IDENTITIES = "marketplace-site-agent-identities/"
SERVICES = "marketplace-site-agent-services/"


def as_user(user: User) -> dict[str, str]:
    return {"Authorization": f"Token {user.token}"}


def made(answer: httpx.Response, status: int = 201) -> str:
    """The UUID of what a call made or found."""
    assert answer.status_code == status, answer.text
    return str(answer.json()["uuid"])


def identity(api: httpx.Client, sandbox: Sandbox, name: str = "agent") -> str:
    body = {"offering": sandbox.offering.uuid, "name": name, "version": "2.0.0"}
    return made(api.post(IDENTITIES, json=body))


def register_queue(api: httpx.Client, agent: str, **body: object) -> httpx.Response:
    return api.post(f"{IDENTITIES}{agent}/register_queue/", json=body)
