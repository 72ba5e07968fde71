"""The gateway's requests are those that Waldur's official client builds.

The client's import takes seconds: only this module pays for it, and only when it runs.
"""

from __future__ import annotations

import importlib
import json
import typing
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from contract.wishes import CASES, COMPONENT_ID, ID, Case
from contract.wishes_of_reports_and_events import LATER_CASES
from waldur_site_agent.waldur import Waldur
from waldur_site_agent.waldur.api import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("waldur_api_client", reason="the official client is not installed")
UNSET = importlib.import_module("waldur_api_client.types").UNSET

ALL_CASES = [*CASES, *LATER_CASES]
ANSWER = {
    "uuid": ID.hex,
    "user_uuid": ID.hex,
    "type": "",
    "state": "",
    "version": "8",
    "rmq_username": "login",
    "queue_name": "queue",
    "vhost": "host",
}
"""One object that is enough of an answer to every wish."""


@dataclass(frozen=True)
class Sent:
    """A request, as far as the two ways of asking are to agree."""

    method: str
    path: str
    query: Counter[tuple[str, str]]
    body: object

    @classmethod
    def of(cls, request: httpx.Request) -> Sent:
        body = json.loads(request.content) if request.content else None
        return cls(
            method=request.method,
            path=undashed(request.url.path),
            query=Counter((k, undashed(v)) for k, v in request.url.params.multi_items()),
            body=undashed_in(body),
        )


def undashed(text: str) -> str:
    return text.replace(str(ID), ID.hex).replace(str(COMPONENT_ID), COMPONENT_ID.hex)


def undashed_in(body: object) -> object:
    if isinstance(body, dict):
        return {key: undashed_in(value) for key, value in body.items()}
    if isinstance(body, list):
        return [undashed_in(value) for value in body]
    return undashed(body) if isinstance(body, str) else body


def gateway_request(case: Case) -> httpx.Request:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        is_list = case.operation_id.endswith("_list")
        body = [] if is_list else ANSWER
        return httpx.Response(200, json=body, headers={"X-Result-Count": "0"} if is_list else {})

    transport = httpx.MockTransport(answer)
    with Waldur("https://waldur.example.com/api/", "token", transport=transport) as waldur:
        case.ask(waldur)
    (request,) = sent
    return request


def official_request(case: Case, fields: list[str]) -> httpx.Request:
    """Build the request with the official client, from its own types."""
    group = case.module or next(
        group
        for group in (
            "marketplace_provider_offerings",
            "marketplace_provider_resources",
            "marketplace_service_providers",
            "marketplace_offering_users",
            "marketplace_orders",
            "marketplace_slurm_periodic_usage_policies",
            "component_user_usage_limits",
            "marketplace_component_usages",
            "marketplace_component_user_usages",
            "marketplace_site_agent_identities",
            "marketplace_site_agent_services",
            "marketplace_site_agent_logs",
            "event_subscriptions",
            "event_subscription_queues",
            "backend_resource_requests",
            "backend_resources",
            "projects",
        )
        if case.operation_id.startswith(group)
    )
    module = importlib.import_module(f"waldur_api_client.api.{group}.{case.operation_id}")
    build: Callable[..., dict[str, Any]] = module._get_kwargs
    hints = typing.get_type_hints(build)
    wishes: dict[str, object] = {**case.query, **({"field": fields} if fields else {})}
    arguments = {name: in_its_type(value, hints[name]) for name, value in wishes.items()}
    if isinstance(case.body, list):
        (of_one,) = typing.get_args(hints["body"])
        arguments["body"] = [of_one.from_dict(row) for row in case.body]
    elif "body" in hints:
        arguments["body"] = body = hints["body"].from_dict(case.body or {})
        if "dependencies" not in (case.body or {}) and hasattr(body, "dependencies"):
            body.dependencies = UNSET  # reading turns a list that is not there into an empty one
    # a transport of its own spares the client to read the machine's certificate authorities
    nowhere = httpx.MockTransport(lambda _: httpx.Response(200))
    with httpx.Client(base_url="https://waldur.example.com", transport=nowhere) as client:
        return client.build_request(**build(**case.path, **arguments))


def in_its_type(value: object, hint: object) -> object:
    """The value as the enumeration that the official client wants, where it wants one."""
    if not isinstance(value, list):
        return value
    (element,) = next(
        typing.get_args(choice)
        for choice in typing.get_args(hint)
        if typing.get_origin(choice) is list
    )
    return [one if isinstance(one, UUID) else element(one) for one in value]


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.operation_id)
def test_the_gateway_asks_what_the_official_client_asks(case: Case) -> None:
    mine = gateway_request(case)
    theirs = official_request(case, mine.url.params.get_list("field"))
    assert Sent.of(theirs) == Sent.of(mine)


def test_every_declared_operation_is_compared() -> None:
    assert {operation.id for operation in OPERATIONS} == {case.operation_id for case in ALL_CASES}
