"""What messages mean, and that no message can do harm by what is in it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.events.messages import (
    LONGEST_BODY,
    Event,
    Ignored,
    OrderAnnounced,
    RoleAnnounced,
    Unusable,
    read_message,
)
from waldur_site_agent.model.backend import (
    Everything,
    ImportScope,
    OrderScope,
    ProjectScope,
    ResourceScope,
    UserScope,
)
from waldur_site_agent.model.events import WaldurSnapshot
from waldur_site_agent.model.marketplace import TeamMember

OURS, SOME, OTHER = uuid4(), uuid4(), uuid4()
UNIFIED = f"consumer_{uuid4().hex}"


def read(queue: str = UNIFIED, **payload: Any) -> Event | Ignored | Unusable:
    return read_message(json.dumps(payload).encode(), queue, OURS)


def event(object_type: str, **payload: Any) -> Event:
    message = read(object_type=object_type, offering_uuid=OURS.hex, **payload)
    assert isinstance(message, Event), message
    return message


@pytest.mark.parametrize(
    ("object_type", "payload", "scope"),
    [
        ("order", {"order_uuid": SOME.hex, "order_state": "executing"}, OrderScope(SOME)),
        ("order", {"order_uuid": str(SOME)}, OrderScope(SOME)),
        ("user_role", {"project_uuid": SOME.hex, "user_uuid": OTHER.hex}, ProjectScope(SOME)),
        ("user_role", {"project_uuid": SOME.hex, "project_name": "P"}, ProjectScope(SOME)),
        ("user_role", {}, Everything()),
        ("resource", {"resource_uuid": SOME.hex, "paused": True}, ResourceScope(SOME)),
        ("offering_user", {"user_uuid": SOME.hex, "action": "create"}, UserScope(SOME)),
        ("offering_user", {"offering_user_uuid": SOME.hex}, Everything()),
        ("service_account", {"project_uuid": SOME.hex, "action": "create"}, ProjectScope(SOME)),
        ("course_account", {"project_uuid": SOME.hex}, ProjectScope(SOME)),
        ("importable_resources", {"backend_resource_request_uuid": SOME.hex}, ImportScope(SOME)),
        ("offering_resources_sync", {"requested_by_user_uuid": OTHER.hex}, Everything()),
    ],
)
def test_each_type_says_where_to_look(
    object_type: str, payload: dict[str, Any], scope: object
) -> None:
    assert scope == event(object_type, **payload).scope


@pytest.mark.parametrize("separator", ["_", "/"], ids=["queue", "topic"])
def test_the_name_of_a_queue_or_topic_says_the_type_on_older_servers(separator: str) -> None:
    parts = ("subscription", uuid4().hex, "offering", OURS.hex, "user_role")
    message = read(separator.join(parts), project_uuid=SOME.hex)
    assert message == Event("user_role", ProjectScope(SOME))


def test_messages_for_other_offerings_and_of_unknown_types_are_ignored() -> None:
    foreign = read(object_type="order", offering_uuid=OTHER.hex, order_uuid=SOME.hex)
    assert foreign == Ignored("order", "foreign")
    new = read(object_type="user_ssh_key", offering_uuid=OURS.hex)
    assert new == Ignored("user_ssh_key", "ignored")


@pytest.mark.parametrize("state", ["pending provider", "pending-provider", "Pending_Provider"])
def test_states_are_compared_whatever_stands_between_their_words(state: str) -> None:
    announced = event("order", order_uuid=SOME.hex, order_state=state).announcement
    assert announced == OrderAnnounced(SOME, "pending-provider")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[1]",
        b'{"object_type": "order"}',
        b'{"object_type": "order", "order_uuid": 7}',
        b'{"object_type": "order", "order_uuid": "../etc"}',
        b"{" * 100_000,
        b"\xff\xfe\x00",
        b'{"order_uuid": "' + b"0" * LONGEST_BODY + b'"}',
    ],
    ids=["empty", "null", "list", "no order", "number", "no uuid", "deep", "no text", "huge"],
)
def test_what_cannot_be_understood_is_said_to_be_unusable(body: bytes) -> None:
    assert isinstance(read_message(body, UNIFIED, OURS), Unusable)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([SOME.hex, OURS.hex]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = """
    object_type offering_uuid order_uuid order_state project_uuid user_uuid granted role_name
    resource_uuid paused action username
"""
keys = st.sampled_from(KEYS.split())
types = st.sampled_from(["order", "user_role", "resource", "offering_user", "service_account"])


@given(st.binary(), st.text())
def test_no_bytes_and_no_queue_name_raise_anything(body: bytes, queue: str) -> None:
    assert isinstance(read_message(body, queue, OURS), Event | Ignored | Unusable)


@given(types, st.dictionaries(keys, values))
def test_no_payload_raises_anything(object_type: str, payload: dict[str, Any]) -> None:
    message = read(**{"object_type": object_type, **payload})
    assert isinstance(message, Event | Ignored | Unusable)


@pytest.mark.parametrize(
    ("announced", "found", "shown"),
    [
        ("pending-provider", None, False),
        ("pending-provider", "pending-consumer", False),
        ("pending-provider", "pending-provider", True),
        ("pending-provider", "done", True),
        ("executing", "pending-provider", False),
        ("", "pending-provider", True),
        ("a new state", "executing", True),
    ],
)
def test_an_order_is_shown_once_it_is_as_far_as_announced(
    announced: str, found: str | None, shown: bool
) -> None:
    snapshot = WaldurSnapshot(orders={SOME: found} if found else {})
    assert OrderAnnounced(SOME, announced).is_shown(snapshot) is shown


def test_a_role_is_shown_by_its_short_name_too() -> None:
    person: UUID = uuid4()
    snapshot = WaldurSnapshot(teams={SOME: (TeamMember(uuid=person, role="PROJECT.ADMIN"),)})
    assert RoleAnnounced(SOME, person, "PROJECT.ADMIN", granted=True).is_shown(snapshot)
    assert RoleAnnounced(SOME, person, "PROJECT.MEMBER", granted=False).is_shown(snapshot)
    assert not RoleAnnounced(SOME, person, "PROJECT.ADMIN", granted=False).is_shown(snapshot)
    assert not RoleAnnounced(SOME, uuid4(), "PROJECT.ADMIN", granted=True).is_shown(snapshot)
