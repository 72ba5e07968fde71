"""Worlds in which every operation has something to answer with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_sandbox.generations import Generation

if TYPE_CHECKING:
    import httpx

    from waldur_site_agent_sandbox import Sandbox


def fill_with_accounts_and_limits(sandbox: Sandbox) -> None:
    """Add to the demo what membership is made of beside people, and a policy on the offering."""
    resource = next(iter(sandbox.customer.world.resources.values()))
    sandbox.customer.add_service_account(resource.project, "svc-robot", email="robot@example.org")
    sandbox.customer.add_course_account(resource.project, "course-1")
    if "Pending" in Generation(sandbox.server_version).project_account_states["course"]:
        sandbox.customer.add_course_account(resource.project, None, "Pending")
    sandbox.customer.set_user_limit(resource, "ada", "cpu", "10.5")
    if Generation(sandbox.server_version).has_periodic_policies:
        sandbox.customer.add_periodic_policy()
    usage = sandbox.customer.put_usage(resource, "cpu", "11")
    sandbox.customer.put_user_usage(usage, "ada", "5.5")
    sandbox.customer.add_member(resource.project, sandbox.agent)


def register_agent(sandbox: Sandbox, api: httpx.Client) -> None:
    """Let an agent of the offering present itself, subscribe to orders and find an account."""
    offering = sandbox.offering.uuid
    if Generation(sandbox.server_version).makes_queues:
        _introduce_agent(sandbox, api)
    else:
        made(
            api.post(
                "event-subscriptions/", json={"observable_objects": [{"object_type": "order"}]}
            )
        )
    project = next(iter(sandbox.customer.world.projects))
    found = {"name": "old", "project": project, "offering": offering, "backend_id": "hpc_old"}
    made(api.post("backend-resources/", json=found))
    sandbox.customer.request_import()


def _introduce_agent(sandbox: Sandbox, api: httpx.Client) -> None:
    identities = "marketplace-site-agent-identities/"
    offering = sandbox.offering.uuid
    agent = made(api.post(identities, json={"offering": offering, "name": "agent"}))
    service = made(api.post(f"{identities}{agent}/register_service/", json={"name": "report"}))
    processor = {"name": "slurm", "backend_type": "slurm"}
    made(api.post(f"marketplace-site-agent-services/{service}/register_processor/", json=processor))
    subscribe(sandbox, api, agent)


def subscribe(sandbox: Sandbox, api: httpx.Client, agent: str) -> None:
    """Let an agent have a queue for orders."""
    kind = {"observable_object_type": "order"}
    path = f"marketplace-site-agent-identities/{agent}/register_event_subscription/"
    wish = made(api.post(path, json=kind))
    queue = {"offering_uuid": sandbox.offering.uuid, "object_type": "order"}
    made(api.post(f"event-subscriptions/{wish}/create_queue/", json=queue))


def made(answer: httpx.Response) -> str:
    """Give the UUID of what a call made."""
    assert answer.is_success, answer.text
    return str(answer.json()["uuid"])
