"""The gateway's requests are those that Waldur's official client builds.

The client's import takes seconds: only this module pays for it, and only when it runs.
"""

from __future__ import annotations

import importlib
import json
import typing
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from waldur_site_agent.model.offerings import WaldurComponent
from waldur_site_agent.waldur import Waldur
from waldur_site_agent.waldur.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytest.importorskip("waldur_api_client", reason="the official client is not installed")

ID = UUID("0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e")
COMPONENT_ID = UUID("ffffffff3a5b4c7f8d1e2f3a4b5c6d7e")
CPU = WaldurComponent(
    uuid=COMPONENT_ID,
    type="cpu",
    name="CPU",
    billing_type="limit",
    measured_unit="k-Hours",
    unit_factor=Decimal(60000),
    limit_period="annual",
    max_value=Decimal(100),
)
CPU_BODY = {
    "type": "cpu",
    "name": "CPU",
    "billing_type": "limit",
    "measured_unit": "k-Hours",
    "unit_factor": 60000,
    "limit_period": "annual",
    "max_value": 100,
}
PAGE = {"page": 1, "page_size": 300}


@dataclass(frozen=True)
class Case:
    """The same wish, told to the gateway and to the official client."""

    operation_id: str
    ask: Callable[[Waldur], object]
    query: Mapping[str, object] = field(default_factory=dict)
    body: dict[str, object] | None = None
    module: str = ""
    path: dict[str, UUID] = field(default_factory=lambda: {"uuid": ID})


CASES = [
    Case("users_me_retrieve", lambda w: w.whoami(), module="users", path={}),
    Case("version_retrieve", lambda w: w.server_version(), module="version", path={}),
    Case("marketplace_provider_offerings_retrieve", lambda w: w.offering(ID)),
    Case(
        "marketplace_provider_offerings_create_offering_component",
        lambda w: w.create_component(ID, CPU),
        body=CPU_BODY,
    ),
    Case(
        "marketplace_provider_offerings_update_offering_component",
        lambda w: w.update_component(ID, CPU),
        body={"uuid": str(COMPONENT_ID), **CPU_BODY},
    ),
    Case(
        "marketplace_orders_list",
        lambda w: w.orders(ID, ["pending-provider", "executing"]),
        query={
            "offering_uuid": ID,
            "state": ["pending-provider", "executing"],
            "o": ["created"],
            **PAGE,
        },
        path={},
    ),
    Case("marketplace_orders_retrieve", lambda w: w.order(ID)),
    Case("marketplace_orders_approve_by_provider", lambda w: w.approve_order(ID), body={}),
    Case(
        "marketplace_orders_reject_by_provider",
        lambda w: w.reject_order(ID, "full"),
        body={"provider_rejection_comment": "full"},
    ),
    Case("marketplace_orders_set_state_done", lambda w: w.complete_order(ID)),
    Case(
        "marketplace_orders_set_state_erred",
        lambda w: w.fail_order(ID, "no slug", "at line 1"),
        body={"error_message": "no slug", "error_traceback": "at line 1"},
    ),
    Case(
        "marketplace_orders_set_backend_id",
        lambda w: w.set_order_backend_id(ID, "hpc_climate"),
        body={"backend_id": "hpc_climate"},
    ),
    Case(
        "marketplace_provider_resources_list",
        lambda w: w.resources(ID, ["OK", "Erred"]),
        query={"offering_uuid": [ID], "state": ["OK", "Erred"], "o": ["created"], **PAGE},
        path={},
    ),
    Case(
        "marketplace_provider_resources_list",
        lambda w: w.resources_named("hpc_climate", ["OK"]),
        query={"backend_id": "hpc_climate", "state": ["OK"], "o": ["created"], **PAGE},
        path={},
    ),
    Case("marketplace_provider_resources_retrieve", lambda w: w.resource(ID)),
    Case("marketplace_provider_resources_team_list", lambda w: w.team(ID)),
    Case(
        "marketplace_provider_resources_set_backend_id",
        lambda w: w.set_backend_id(ID, "hpc_climate"),
        body={"backend_id": "hpc_climate"},
    ),
    Case(
        "marketplace_provider_resources_set_limits",
        lambda w: w.set_limits(ID, {"cpu": Decimal(10), "mem": Decimal("0.5")}),
        body={"limits": {"cpu": 10, "mem": 0.5}},
    ),
    Case(
        "marketplace_provider_resources_set_backend_metadata",
        lambda w: w.set_backend_metadata(ID, {"qos": "normal"}),
        body={"backend_metadata": {"qos": "normal"}},
    ),
    Case("marketplace_provider_resources_refresh_last_sync", lambda w: w.refresh_last_sync(ID)),
    Case("marketplace_provider_resources_set_as_ok", lambda w: w.set_as_ok(ID)),
    Case(
        "marketplace_provider_resources_set_as_erred",
        lambda w: w.set_as_erred(ID, "gone"),
        body={"error_message": "gone", "error_traceback": ""},
    ),
    Case(
        "marketplace_service_providers_list",
        lambda w: w.service_providers(ID),
        query={"customer_uuid": ID, "o": ["customer_name"], **PAGE},
        path={},
    ),
    Case(
        "marketplace_service_providers_project_permissions_list",
        lambda w: w.project_roles(ID),
        query={"is_active": True, "o": ["created"], **PAGE},
        path={"service_provider_uuid": ID},
    ),
    Case(
        "marketplace_offering_users_list",
        lambda w: w.offering_users(ID),
        query={"offering_uuid": [ID], "o": ["created"], **PAGE},
        path={},
    ),
    Case(
        "marketplace_service_providers_project_service_accounts_list",
        lambda w: w.service_accounts(ID),
        query=PAGE,
        path={"service_provider_uuid": ID},
    ),
    Case(
        "marketplace_service_providers_course_accounts_list",
        lambda w: w.course_accounts(ID),
        query={"o": ["created"], **PAGE},
        path={"service_provider_uuid": ID},
    ),
    Case(
        "marketplace_provider_offerings_list_project_service_accounts_list",
        lambda w: w.offering_service_accounts(ID),
        query=PAGE,
    ),
    Case(
        "marketplace_provider_offerings_list_course_accounts_list",
        lambda w: w.offering_course_accounts(ID),
        query=PAGE,
    ),
    Case(
        "component_user_usage_limits_list",
        lambda w: w.user_limits(ID),
        query={"offering_uuid": ID, **PAGE},
        path={},
    ),
    Case(
        "marketplace_slurm_periodic_usage_policies_list",
        lambda w: w.periodic_policies(ID),
        query={"scope_uuid": ID, **PAGE},
        path={},
    ),
    Case("marketplace_offering_users_retrieve", lambda w: w.offering_user(ID)),
    Case(
        "marketplace_offering_users_partial_update",
        lambda w: w.set_username(ID, "ada"),
        body={"username": "ada"},
    ),
    Case("marketplace_offering_users_begin_creating", lambda w: w.begin_creating(ID)),
    Case("marketplace_offering_users_set_ok", lambda w: w.set_ok(ID)),
    Case(
        "marketplace_offering_users_set_pending_account_linking",
        lambda w: w.set_pending_account_linking(ID, "link it", "https://example.com/link"),
        body={"comment": "link it", "comment_url": "https://example.com/link"},
    ),
    Case(
        "marketplace_offering_users_set_pending_additional_validation",
        lambda w: w.set_pending_additional_validation(ID, "show your passport"),
        body={"comment": "show your passport"},
    ),
    Case(
        "marketplace_offering_users_set_validation_complete",
        lambda w: w.set_validation_complete(ID),
    ),
    Case("marketplace_offering_users_set_error_creating", lambda w: w.set_error_creating(ID)),
    Case("marketplace_offering_users_set_deleting", lambda w: w.set_deleting(ID)),
    Case("marketplace_offering_users_set_deleted", lambda w: w.set_deleted(ID)),
    Case("marketplace_offering_users_set_error_deleting", lambda w: w.set_error_deleting(ID)),
]


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
            body={k: undashed(v) if k == "uuid" else v for k, v in body.items()} if body else body,
        )


def undashed(text: str) -> str:
    return text.replace(str(ID), ID.hex).replace(str(COMPONENT_ID), COMPONENT_ID.hex)


def gateway_request(case: Case) -> httpx.Request:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        is_list = case.operation_id.endswith("_list")
        body = (
            []
            if is_list
            else {"uuid": ID.hex, "user_uuid": ID.hex, "type": "", "state": "", "version": "8"}
        )
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
        )
        if case.operation_id.startswith(group)
    )
    module = importlib.import_module(f"waldur_api_client.api.{group}.{case.operation_id}")
    build: Callable[..., dict[str, Any]] = module._get_kwargs
    hints = typing.get_type_hints(build)
    wishes: dict[str, object] = {**case.query, **({"field": fields} if fields else {})}
    arguments = {name: in_its_type(value, hints[name]) for name, value in wishes.items()}
    if "body" in hints:
        arguments["body"] = hints["body"].from_dict(case.body or {})
    with httpx.Client(base_url="https://waldur.example.com") as client:
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation_id)
def test_the_gateway_asks_what_the_official_client_asks(case: Case) -> None:
    mine = gateway_request(case)
    theirs = official_request(case, mine.url.params.get_list("field"))
    assert Sent.of(theirs) == Sent.of(mine)


def test_every_declared_operation_is_compared() -> None:
    assert {operation.id for operation in OPERATIONS} == {case.operation_id for case in CASES}
