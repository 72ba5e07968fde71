"""Requests to look what a backend has, what agents find, and projects as providers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unit.sandbox.agent_calls import as_user

if TYPE_CHECKING:
    import httpx

    from waldur_site_agent_sandbox import Sandbox

REQUESTS = "backend-resource-requests/"
FOUND = "backend-resources/"
ERROR = {"error_message": "no answer", "error_traceback": ""}


def test_a_request_is_processed_step_by_step(sandbox: Sandbox, api: httpx.Client) -> None:
    request = sandbox.customer.request_import()
    (sent,) = api.get(REQUESTS, params={"state": "Sent"}).json()
    assert request.uuid == sent["uuid"]
    path = f"{REQUESTS}{request.uuid}/"
    statuses = [
        api.post(f"{path}{step}/").status_code
        for step in ("set_done", "start_processing", "start_processing", "set_done", "set_done")
    ]
    assert statuses == [409, 200, 409, 200, 409]
    done = api.get(path).json()
    assert (done["state"], done["error_message"]) == ("Done", "")
    assert done["started"] < done["finished"]


def test_a_request_fails_from_any_state_but_with_both_texts(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    path = f"{REQUESTS}{sandbox.customer.request_import().uuid}/set_erred/"
    assert api.post(path, json={"error_message": "no answer"}).status_code == 500
    assert [api.post(path, json=ERROR).status_code for _ in range(2)] == [200, 200]
    (request,) = sandbox.customer.world.backend_resource_requests.values()
    assert (request.state, request.error_message) == ("Erred", "no answer")


def test_what_an_agent_finds_is_kept_even_twice(sandbox: Sandbox, api: httpx.Client) -> None:
    project = sandbox.fill_demo().climate
    body = {
        "name": "old",
        "project": project.uuid,
        "offering": sandbox.offering.uuid,
        "backend_id": "hpc_old",
        "backend_metadata": {"limits": {"cpu": 1}},
    }
    answers = [api.post(FOUND, json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    found = api.get(FOUND, params={"backend_id": "hpc_old"}).json()
    assert [project.name] * 2 == [row["project_name"] for row in found]
    assert [row.backend_metadata for row in sandbox.customer.importable()] == [
        body["backend_metadata"]
    ] * 2
    sandbox.customer.forget_importable()
    assert api.get(FOUND).json() == []


@pytest.mark.parametrize("field", ["project", "offering", "name"])
def test_what_is_found_must_belong_somewhere(
    sandbox: Sandbox, api: httpx.Client, field: str
) -> None:
    project = sandbox.fill_demo().climate.uuid
    body = {"name": "old", "project": project, "offering": sandbox.offering.uuid}
    body |= {field: "" if field == "name" else "f" * 32}
    answer = api.post(FOUND, json=body)
    assert (answer.status_code, list(answer.json())) == (400, [field])


def test_strangers_see_no_requests_and_may_not_find_anything(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    sandbox.customer.request_import()
    project = sandbox.fill_demo().climate.uuid
    stranger = as_user(sandbox.customer.add_user("stranger"))
    assert api.get(REQUESTS, headers=stranger).json() == []
    body = {"name": "old", "project": project, "offering": sandbox.offering.uuid}
    assert api.post(FOUND, json=body, headers=stranger).status_code == 403


def test_a_provider_sees_the_projects_it_serves_through_its_own_list_alone(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.add_project("Idle", demo.customer)
    provider = f"marketplace-service-providers/{sandbox.provider.service_provider}/projects/"
    assert api.get("projects/").json() == []
    assert [row["slug"] for row in api.get(provider).json()] == ["climate", "physics"]
    (found,) = api.get(provider, params={"slug": "physics", "field": ["uuid", "slug"]}).json()
    assert found == {"uuid": demo.physics.uuid, "slug": "physics"}
    ada = as_user(demo.people[0])
    assert [row["slug"] for row in api.get("projects/", headers=ada).json()] == ["climate"]
    assert api.get(provider, headers=ada).status_code == 404
