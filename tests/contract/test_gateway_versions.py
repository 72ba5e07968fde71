"""Servers older and newer than this agent are understood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from waldur_site_agent.model.marketplace import OfferingUserState
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.waldur import Waldur
from waldur_site_agent.waldur.api import OPERATIONS
from waldur_site_agent.waldur.operation import Operation, decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from contract.conftest import Description

ID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
OTHER = "5a5f6c1d2e3b4a5c6d7e8f9012345678"
READ = [operation for operation in OPERATIONS if operation.answer is not None]
SAMPLES: dict[str, object] = {
    "uuid": ID,
    "date-time": "2026-11-02T10:00:00Z",
    "date": "2026-11-02",
    "uri": "https://waldur.example.com/api/things/1/",
    "decimal": "10.50",
}

every_read = pytest.mark.parametrize(
    "operation", READ, ids=lambda operation: operation.purpose.replace(" {uuid}", "")
)


def sample(description: Description, schema: dict[str, Any], depth: int = 0) -> object:
    """A value that the schema allows, with an unheard-of choice wherever there are choices."""
    schema = description.resolve(schema)
    for combination in ("allOf", "oneOf", "anyOf"):
        if combination in schema:
            return sample(description, schema[combination][0], depth)
    if "enum" in schema:
        return "unheard-of"
    kind = schema.get("type")
    if kind == "array":
        return [sample(description, schema["items"], depth + 1)] if depth < 3 else []
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {}) if depth < 3 else {}
        row = {name: sample(description, inner, depth + 1) for name, inner in properties.items()}
        return {**row, "unheard_of": {"field": [1]}} if properties else {}
    if kind is None:
        return {"anything": [None]}
    simple: dict[str, object] = {"integer": 7, "number": 1.5, "boolean": True}
    return SAMPLES.get(schema.get("format", ""), simple.get(kind, "text"))


def answered(body: object) -> httpx.Response:
    request = httpx.Request("GET", "https://waldur.example.com/api/things/")
    return httpx.Response(200, json=body, request=request)


@every_read
def test_an_answer_with_unknown_fields_and_unknown_choices_is_understood(
    operation: Operation[object], description: Description
) -> None:
    row = sample(description, description.operation(operation.id).answer)
    assert isinstance(row, dict)
    assert "unheard_of" in row
    assert decode(operation, row, answered(row))


@every_read
def test_an_answer_with_every_null_that_is_allowed_is_understood(
    operation: Operation[object], description: Description
) -> None:
    answer = description.operation(operation.id).answer
    row = sample(description, answer)
    assert isinstance(row, dict)
    for name, schema in answer["properties"].items():
        if description.resolve(schema).get("nullable"):
            row[name] = None
    assert decode(operation, row, answered(row))


# What a server of late 2024 sends: these fields and no others.
OLD_ORDER = {
    "uuid": ID,
    "type": "Create",
    "state": "pending-provider",
    "created": "2024-10-07T12:00:00.123456Z",
    "modified": "2024-10-07T12:00:00.123456Z",
    "offering_uuid": OTHER,
    "marketplace_resource_uuid": ID,
    "resource_uuid": None,
    "project_uuid": OTHER,
    "project_slug": "climate",
    "customer_slug": "physics",
    "limits": {"mem": 100},
    "attributes": {"name": "Climate model"},
    "error_message": "",
}
OLD_RESOURCE = {
    "uuid": ID,
    "name": "Climate model",
    "slug": "climate-model-1",
    "state": "Creating",
    "backend_id": "",
    "offering_uuid": OTHER,
    "project_uuid": OTHER,
    "project_name": "Climate",
    "customer_uuid": OTHER,
    "customer_name": "Physics",
    "limits": {},
    "backend_metadata": {},
    "paused": False,
    "last_sync": "2024-10-07T12:00:00Z",
    "order_in_progress": None,
}
OLD_USER = {"uuid": ID, "user_uuid": OTHER, "offering_uuid": OTHER, "username": "ada"}
OLD_MEMBER = {
    "url": "https://waldur.example.com/api/users/1/",
    "uuid": ID,
    "username": "ada",
    "full_name": "Ada",
    "email": "ada@example.com",
    "role": "member",
    "expiration_time": None,
    "offering_user_username": None,
}

OLD_USAGE = {
    "uuid": ID,
    "type": "cpu",
    "usage": "11.00",
    "date": "2024-10-07T12:00:00.123456Z",
    "resource_uuid": OTHER,
    "billing_period": "2024-10-01",
    "modified_by": 7,
}
OLD_PART = {
    "uuid": ID,
    "username": "ada",
    "usage": "5.50",
    "component_usage": f"https://waldur.example.com/api/marketplace-component-usages/{OTHER}/",
    "user": None,
}
OLD_PROJECT = {"uuid": ID, "name": "Climate", "customer_uuid": OTHER, "customer_name": "Physics"}
OLD_IDENTITY: dict[str, object] = {
    "uuid": ID,
    "offering": OTHER,
    "name": "agent",
    "version": None,
    "services": [],
}
OCTOBER = BillingMonth(2024, 10)


@pytest.mark.parametrize(
    ("row", "ask", "expected"),
    [
        (OLD_ORDER, lambda w: w.orders(OTHER, ["pending-provider"]).items[0].start_date, None),
        (OLD_ORDER, lambda w: w.orders(OTHER, ["pending-provider"]).items[0].backend_id, ""),
        (OLD_RESOURCE, lambda w: w.resources(OTHER).items[0].project_slug, ""),
        (OLD_RESOURCE, lambda w: w.resources(OTHER).items[0].restrict_member_access, False),
        (OLD_USER, lambda w: w.offering_users(OTHER).items[0].state, OfferingUserState.OK),
        (OLD_MEMBER, lambda w: w.team(ID)[0].username, "ada"),
        (OLD_USAGE, lambda w: w.component_usages(OTHER, OCTOBER).items[0].usage, 11),
        (OLD_PART, lambda w: w.component_user_usages(OTHER, OCTOBER).items[0].billing_period, None),
        (OLD_PROJECT, lambda w: w.provider_projects(OTHER).items[0].slug, ""),
        (OLD_IDENTITY, lambda w: w.identities(OTHER, "agent").items[0].version, ""),
    ],
)
def test_what_an_old_server_leaves_out_has_its_default(
    row: dict[str, object], ask: Callable[[Waldur], object], expected: object
) -> None:
    reply = httpx.Response(200, json=[row], headers={"X-Result-Count": "1"})
    transport = httpx.MockTransport(lambda _: reply)
    with Waldur("https://waldur.example.com/api/", "token", transport=transport) as waldur:
        assert expected == ask(waldur)
