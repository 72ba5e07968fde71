"""How the agent introduces itself, and where it is told to listen."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import pytest

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.events import ObjectType, QueueRegistration
from waldur_site_agent.waldur import (
    AbsentOperationError,
    ConflictError,
    LostAnswerError,
    NotFoundError,
    Waldur,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.waldur.conftest import Scripted

ID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
OTHER = "ffffffff3a5b4c7f8d1e2f3a4b5c6d7e"
PAGE = "<html><title>Not Found</title></html>"
NAME = f"agent-{ID}"
STARTED = datetime(2026, 11, 2, 10, 0, tzinfo=UTC)
QUEUE = {
    "rmq_username": OTHER,
    "queue_name": f"consumer_{ID}",
    "vhost": ID,
    "observable_object_types": ["order", "user_role"],
}
SUBSCRIPTION = {
    "uuid": ID,
    "user_uuid": OTHER,
    "description": "ours",
    "observable_objects": [{"object_type": "order"}],
}


def identity(**changes: object) -> dict[str, object]:
    return {"uuid": ID, "offering": ID, "name": NAME, "version": "2.0.0", **changes}


def body_of(request: httpx.Request) -> object:
    return json.loads(request.content)


def test_an_agent_is_found_by_its_very_name_at_its_offering(server: Scripted) -> None:
    rows = [identity(), identity(uuid=OTHER, name=NAME + "2"), identity(uuid=OTHER, offering=OTHER)]
    server.replies = [server.page(rows, 3)]
    (found,) = server.waldur().identities(ID, NAME).require_complete("agents")
    assert (found.uuid, found.offering_uuid, found.version) == (UUID(ID), UUID(ID), "2.0.0")
    assert dict(server.requests[0].url.params) == {
        "offering_uuid": ID,
        "name": NAME,
        "page": "1",
        "page_size": "300",
    }


def test_an_agent_introduces_itself_and_never_shows_its_configuration(server: Scripted) -> None:
    server.replies = [httpx.Response(201, json=identity(version=None))]
    made = server.waldur().create_identity(
        ID,
        NAME,
        "2.0.0",
        config_file_path="/etc/waldur/agent.yaml",
        last_restarted=STARTED,
    )
    assert (made.name, made.version) == (NAME, "")
    assert body_of(server.requests[0]) == {
        "offering": ID,
        "name": NAME,
        "version": "2.0.0",
        "config_file_path": "/etc/waldur/agent.yaml",
        "last_restarted": "2026-11-02T10:00:00+00:00",
    }


def test_an_agent_that_restarts_tells_all_of_itself_anew(server: Scripted) -> None:
    server.replies = [httpx.Response(200, json=identity(version="2.0.1"))]
    told = server.waldur().update_identity(OTHER, ID, NAME, "2.0.1")
    assert told.version == "2.0.1"
    assert server.asked == [
        ("PUT", f"https://waldur.example.com/api/marketplace-site-agent-identities/{OTHER}/")
    ]
    assert body_of(server.requests[0]) == {"offering": ID, "name": NAME, "version": "2.0.1"}


@pytest.mark.parametrize("status", [200, 201])
def test_what_is_registered_may_be_new_or_there_already(server: Scripted, status: int) -> None:
    waldur = server.waldur()
    service = {"uuid": ID, "name": "events", "mode": "event_process", "state": "Active"}
    server.replies = [httpx.Response(status, json=service)]
    assert waldur.register_service(ID, "events", "event_process").state == "Active"
    server.replies = [httpx.Response(status, json={"uuid": ID, "last_run": "2026-11-02T10:00:00Z"})]
    assert waldur.register_processor(ID, "orders", "slurm", "22.05").last_run == STARTED
    server.replies = [httpx.Response(status, json=QUEUE)]
    assert waldur.register_queue(ID, [ObjectType.ORDER]) == QueueRegistration(
        rmq_username=OTHER,
        queue_name=f"consumer_{ID}",
        vhost=ID,
        observable_object_types=("order", "user_role"),
    )
    server.replies = [httpx.Response(status, json=SUBSCRIPTION)]
    subscription = waldur.register_event_subscription(ID, "order")
    assert (subscription.user_uuid, subscription.object_types) == (UUID(OTHER), ("order",))
    server.replies = [httpx.Response(status, json={"queue_name": "q", "vhost": ID})]
    assert waldur.create_queue(ID, OTHER, "order").queue_name == "q"


@pytest.mark.parametrize(
    ("act", "path", "body", "answer"),
    [
        (
            lambda w: w.register_processor(ID, "orders", "slurm"),
            f"marketplace-site-agent-services/{ID}/register_processor/",
            {"name": "orders", "backend_type": "slurm"},
            {"uuid": ID},
        ),
        (
            lambda w: w.register_event_subscription(ID, "order"),
            f"marketplace-site-agent-identities/{ID}/register_event_subscription/",
            {"observable_object_type": "order"},
            SUBSCRIPTION,
        ),
    ],
)
def test_what_a_registration_may_lack_is_not_sent(
    server: Scripted,
    act: Callable[[Waldur], object],
    path: str,
    body: dict[str, object],
    answer: dict[str, object],
) -> None:
    server.replies = [httpx.Response(201, json=answer)]
    act(server.waldur())
    assert server.asked == [("POST", f"https://waldur.example.com/api/{path}")]
    assert body_of(server.requests[0]) == body


def test_a_queue_without_a_name_is_no_registration(server: Scripted) -> None:
    server.replies = [httpx.Response(200, json={**QUEUE, "queue_name": None})]
    with pytest.raises(TemporaryError, match="'queue_name' is missing"):
        server.waldur().register_queue(ID, ["order"])


def test_a_queue_of_somebody_else_is_a_conflict(server: Scripted) -> None:
    server.replies = [httpx.Response(409, json={"detail": "Owned by another user."})]
    with pytest.raises(ConflictError, match="Owned by another user"):
        server.waldur().register_queue(ID, ["order"])


@pytest.mark.parametrize(
    "ask",
    [
        lambda w: w.identities(ID, NAME),
        lambda w: w.create_identity(ID, NAME, "2"),
        lambda w: w.register_queue(ID, ["order"]),
        lambda w: w.register_event_subscription(ID, "order"),
        lambda w: w.create_queue(ID, ID, "order"),
    ],
    ids=["identities", "create", "queue", "subscription", "subscription queue"],
)
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (httpx.Response(404, html=PAGE), AbsentOperationError),
        (httpx.Response(405, json={"detail": "Not allowed."}), AbsentOperationError),
        (httpx.Response(404, json={"detail": "Not found."}), NotFoundError),
    ],
    ids=["no route", "no method", "no object"],
)
def test_what_the_server_lacks_is_told_from_what_was_deleted(
    server: Scripted,
    ask: Callable[[Waldur], object],
    reply: httpx.Response,
    kind: type[Exception],
) -> None:
    server.replies = [reply]
    with pytest.raises(kind):
        ask(server.waldur())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("act", "requests"),
    [
        (lambda w: w.register_queue(ID, ["order"]), 4),
        (lambda w: w.register_processor(ID, "orders", "slurm"), 4),
        (lambda w: w.create_queue(ID, ID, "order"), 4),
        (lambda w: w.create_identity(ID, NAME, "2"), 1),
        (lambda w: w.create_event_subscription("ours", ["order"]), 1),
    ],
)
def test_only_what_finds_itself_again_is_sent_again(
    server: Scripted, act: Callable[[Waldur], object], requests: int
) -> None:
    server.replies = [httpx.ReadTimeout("slow")]
    with pytest.raises(LostAnswerError):
        act(server.waldur())
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("observable", "types"),
    [
        ([{"object_type": "order"}, {"object_type": "resource"}], ("order", "resource")),
        ([{"object_type": None}, {"other": 1}, "order", 7], ()),
        ({"object_type": "order"}, ()),
        ("order", ()),
        (None, ()),
    ],
)
def test_the_types_of_a_subscription_are_read_from_any_shape(
    server: Scripted, observable: object, types: tuple[str, ...]
) -> None:
    row = {**SUBSCRIPTION, "observable_objects": observable}
    server.replies = [server.page([row], 1)]
    (read,) = server.waldur().event_subscriptions().require_complete("subscriptions")
    assert types == read.object_types
    assert "user_uuid" not in server.requests[0].url.params


def test_subscriptions_of_other_users_are_dropped(server: Scripted) -> None:
    server.replies = [
        server.page([SUBSCRIPTION, {**SUBSCRIPTION, "uuid": OTHER, "user_uuid": ID}], 2)
    ]
    (mine,) = server.waldur().event_subscriptions(UUID(OTHER)).items
    assert mine.user_uuid == UUID(OTHER)
    assert server.requests[0].url.params["user_uuid"] == OTHER


def test_nothing_that_the_gateway_offers_deletes() -> None:
    assert not [name for name in dir(Waldur) if "delete" in name and not name.startswith("set_")]
