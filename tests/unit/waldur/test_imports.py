"""What was in the backend before Waldur knew of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import pytest

from waldur_site_agent.model.marketplace import ImportState
from waldur_site_agent.waldur import ConflictError, LostAnswerError, Waldur

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.waldur.conftest import Scripted

ID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
OTHER = "ffffffff3a5b4c7f8d1e2f3a4b5c6d7e"
WISH = {"uuid": ID, "state": "Sent", "offering": ID, "created": "2026-11-02T10:00:00Z"}
FOUND = {
    "uuid": ID,
    "name": "Old cluster account",
    "project": OTHER,
    "offering": ID,
    "backend_id": "HPC_old",
    "backend_metadata": {"limits": {"cpu": 5}},
}


def test_requests_of_other_offerings_and_states_are_dropped(server: Scripted) -> None:
    foreign = {**WISH, "uuid": OTHER, "offering": OTHER}
    done = {**WISH, "uuid": OTHER, "state": "Done"}
    server.replies = [server.page([WISH, foreign, done], 3)]
    (wish,) = server.waldur().backend_resource_requests(ID, [ImportState.SENT]).items
    assert (wish.uuid, wish.offering_uuid, wish.state) == (UUID(ID), UUID(ID), "Sent")
    params = server.requests[0].url.params
    assert (params["offering_uuid"], params.get_list("state"), params["o"]) == (
        ID,
        ["Sent"],
        "created",
    )


def test_an_offering_may_be_named_by_its_url(server: Scripted) -> None:
    url = "https://waldur.example.com/api/marketplace-provider-offerings/{}/"
    rows = [
        {**FOUND, "offering": url.format(ID)},
        {**FOUND, "uuid": OTHER, "offering": url.format(OTHER)},
    ]
    server.replies = [server.page(rows, 2)]
    (mine,) = server.waldur().backend_resources(ID).require_complete("resources")
    assert mine.offering_uuid == UUID(ID)


def test_one_request_is_read_as_it_is_now(server: Scripted) -> None:
    server.replies = [httpx.Response(200, json={**WISH, "state": "Erred", "error_message": "no"})]
    wish = server.waldur().backend_resource_request(ID)
    assert (wish.state, wish.error_message) == ("Erred", "no")


def test_a_request_that_somebody_else_took_is_a_conflict(server: Scripted) -> None:
    server.replies = [httpx.Response(409, json={"detail": "Valid states: Sent."})]
    with pytest.raises(ConflictError, match="Valid states: Sent"):
        server.waldur().start_import(ID)


@pytest.mark.parametrize("metadata", [None, [], "x", 7])
def test_metadata_of_any_shape_is_no_reason_to_fail(server: Scripted, metadata: object) -> None:
    server.replies = [
        server.page([FOUND, {**FOUND, "uuid": OTHER, "backend_metadata": metadata}], 2)
    ]
    first, second = server.waldur().backend_resources(ID).require_complete("resources")
    assert (first.account, first.project_uuid) == ("hpc_old", UUID(OTHER))
    assert first.backend_metadata == {"limits": {"cpu": 5}}
    assert second.backend_metadata == {}


def test_a_resource_is_offered_under_its_project(server: Scripted) -> None:
    server.replies = [httpx.Response(201, json=FOUND)]
    offered = server.waldur().create_backend_resource(
        "Old cluster account", OTHER, UUID(ID), "HPC_old", {"limits": {"cpu": 5}}
    )
    assert offered.backend_id == "HPC_old"
    assert server.asked == [("POST", "https://waldur.example.com/api/backend-resources/")]
    assert json.loads(server.requests[0].content) == {
        key: value for key, value in FOUND.items() if key != "uuid"
    }


def test_an_offer_whose_answer_was_lost_is_not_made_twice(server: Scripted) -> None:
    server.replies = [httpx.ReadTimeout("slow"), httpx.Response(201, json=FOUND)]
    with pytest.raises(LostAnswerError):
        server.waldur().create_backend_resource("x", OTHER, ID, "x", {})
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("ask", "path"),
    [
        (lambda w: w.provider_projects(ID), f"marketplace-service-providers/{ID}/projects/"),
        (lambda w: w.projects(), "projects/"),
    ],
)
def test_projects_are_found_through_the_provider_or_the_user(
    server: Scripted, ask: Callable[[Waldur], object], path: str
) -> None:
    server.replies = [server.page([{"uuid": ID, "slug": "climate", "customer_slug": None}], 1)]
    (project,) = ask(server.waldur()).items  # type: ignore[attr-defined]  # both answer with a list
    assert (project.slug, project.customer_slug) == ("climate", "")
    assert server.asked == [("GET", f"https://waldur.example.com/api/{path}")]
    assert "customer_slug" in server.requests[0].url.params.get_list("field")


def test_one_persons_usernames_can_be_asked_for_alone(server: Scripted) -> None:
    rows = [{"uuid": ID, "user_uuid": ID}, {"uuid": OTHER, "user_uuid": OTHER}]
    server.replies = [server.page(rows, 2)]
    (mine,) = server.waldur().offering_users(ID, UUID(OTHER)).items
    assert mine.user_uuid == UUID(OTHER)
    params = server.requests[0].url.params
    assert (params["offering_uuid"], params["user_uuid"]) == (ID, OTHER)
