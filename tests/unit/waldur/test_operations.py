"""What methods send where it is no matter of course, and what they make of the answers.

That every request is the official client's is in ``contract/test_gateway_sdk.py``.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import pytest

from waldur_site_agent import __version__
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import WaldurComponent
from waldur_site_agent.waldur import ConflictError, Waldur
from waldur_site_agent.waldur.api.orders import ORDER
from waldur_site_agent.waldur.http import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.waldur.conftest import Scripted

ID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
OTHER = UUID("ffffffff3a5b4c7f8d1e2f3a4b5c6d7e")
CPU = WaldurComponent(
    type="cpu", billing_type="usage", measured_unit="k-Hours", unit_factor=Decimal(60000)
)


@pytest.mark.parametrize(
    ("act", "path", "body"),
    [
        (lambda w: w.approve_order(ID), f"marketplace-orders/{ID}/approve_by_provider/", {}),
        (
            lambda w: w.set_backend_id(UUID(ID), "Ünï"),
            f"marketplace-provider-resources/{ID}/set_backend_id/",
            {"backend_id": "Ünï"},
        ),
        (
            lambda w: w.set_limits(ID, {"cpu": Decimal("1E+3"), "mem": Decimal("0.1")}),
            f"marketplace-provider-resources/{ID}/set_limits/",
            {"limits": {"cpu": 1000, "mem": 0.1}},
        ),
        (
            lambda w: w.create_component(ID, CPU),
            f"marketplace-provider-offerings/{ID}/create_offering_component/",
            {
                "type": "cpu",
                "name": "cpu",
                "billing_type": "usage",
                "measured_unit": "k-Hours",
                "unit_factor": 60000,
                "is_boolean": False,
            },
        ),
        (
            lambda w: w.update_component(
                ID, WaldurComponent(type="mem", uuid=OTHER, name="RAM", billing_type="limit")
            ),
            f"marketplace-provider-offerings/{ID}/update_offering_component/",
            {
                "uuid": OTHER.hex,
                "type": "mem",
                "name": "RAM",
                "billing_type": "limit",
                "is_boolean": False,
            },
        ),
        (
            lambda w: w.set_pending_additional_validation(ID),
            f"marketplace-offering-users/{ID}/set_pending_additional_validation/",
            {},
        ),
    ],
)
def test_what_is_not_plain_text_or_is_left_out_is_sent_like_this(
    server: Scripted, act: Callable[[Waldur], None], path: str, body: dict[str, object] | None
) -> None:
    server.replies = [httpx.Response(200)]
    act(server.waldur())
    (request,) = server.requests
    assert ("POST", f"https://waldur.example.com/api/{path}") == (request.method, str(request.url))
    assert body == (json.loads(request.content) if request.content else None)
    if body is not None:
        assert request.headers["content-type"] == "application/json"


def test_a_username_is_patched_and_the_new_state_comes_back(server: Scripted) -> None:
    user = {"uuid": ID, "user_uuid": OTHER.hex, "username": "ada", "state": "Creating"}
    server.replies = [httpx.Response(200, json=user)]
    changed = server.waldur().set_username(ID, "ada")
    (request,) = server.requests
    assert server.asked == [
        ("PATCH", f"https://waldur.example.com/api/marketplace-offering-users/{ID}/")
    ]
    assert json.loads(request.content) == {"username": "ada"}
    assert (changed.username, changed.state) == ("ada", "Creating")


def test_every_request_carries_the_token_and_says_which_agent_it_is(server: Scripted) -> None:
    server.replies = [httpx.Response(200, json={"version": "8.1.2"})]
    assert server.waldur().server_version() == "8.1.2"
    headers = server.requests[0].headers
    assert headers["authorization"] == "Token 3f0c41ea9d"
    assert f"waldur-site-agent-order_process/{__version__}" == headers["user-agent"]


def test_a_session_that_the_server_offers_is_not_taken(server: Scripted) -> None:
    server.replies = [
        httpx.Response(200, json={"uuid": ID}, headers={"Set-Cookie": "sessionid=1; Path=/"})
    ]
    waldur = server.waldur()
    waldur.whoami()
    waldur.whoami()
    assert "cookie" not in server.requests[1].headers


def test_the_token_is_not_asked_back(server: Scripted) -> None:
    server.replies = [httpx.Response(200, json={"uuid": ID})]
    server.waldur().whoami()
    fields = server.requests[0].url.params.get_list("field")
    assert "uuid" in fields
    assert "token" not in fields


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200),
        httpx.Response(200, json="Order has been approved."),
        httpx.Response(200, json={"detail": "Order has been approved."}),
        httpx.Response(202, text="accepted"),
    ],
    ids=["empty", "string", "object", "text"],
)
def test_an_approval_succeeds_whatever_the_server_says_to_it(
    server: Scripted, reply: httpx.Response
) -> None:
    server.replies = [reply]
    server.waldur().approve_order(ID)
    assert len(server.requests) == 1


def test_an_approval_without_a_body_is_sent_to_servers_that_want_none(server: Scripted) -> None:
    server.replies = [httpx.Response(415), httpx.Response(200)]
    server.waldur().approve_order(ID)
    assert [request.content for request in server.requests] == [b"{}", b""]


def test_an_approval_that_came_too_late_tells_the_state(server: Scripted) -> None:
    server.replies = [httpx.Response(409, json={"detail": "Valid states: pending-provider."})]
    with pytest.raises(ConflictError, match="Valid states: pending-provider"):
        server.waldur().approve_order(ID)


def test_the_order_in_progress_is_asked_for_only_on_demand(server: Scripted) -> None:
    server.replies = [server.page([], 0)]
    waldur = server.waldur()
    waldur.resources(ID)
    waldur.resources(ID, with_order_in_progress=True)
    asked = ["order_in_progress" in r.url.params.get_list("field") for r in server.requests]
    assert asked == [False, True]


def test_service_providers_of_another_customer_are_dropped(server: Scripted) -> None:
    rows = [{"uuid": ID, "customer_uuid": ID}, {"uuid": OTHER.hex, "customer_uuid": OTHER.hex}]
    server.replies = [server.page(rows, 2)]
    (provider,) = server.waldur().service_providers(OTHER).items
    assert provider.uuid == OTHER


def test_a_component_that_was_never_read_cannot_be_updated(server: Scripted) -> None:
    with pytest.raises(ValueError, match="no UUID"):
        server.waldur().update_component(ID, CPU)


@pytest.mark.parametrize("limit", ["NaN", "Infinity"])
def test_a_limit_that_is_no_number_is_not_sent(server: Scripted, limit: str) -> None:
    with pytest.raises(PermanentError, match="not a number"):
        server.waldur().set_limits(ID, {"cpu": Decimal(limit)})


def test_what_an_operation_does_not_declare_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="colour"):
        Call.of(ORDER, uuid=ID, query={"colour": "red"})
    with pytest.raises(ValueError, match="colour"):
        Call.of(ORDER, uuid=ID, body={"colour": "red"})


def test_the_token_is_in_no_repr_and_in_no_log(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies = [httpx.Response(200, json={"uuid": ID})]
    with server.waldur() as waldur:
        waldur.whoami()
    shown = repr(waldur) + repr(waldur._connection) + capsys.readouterr().out
    assert "https://waldur.example.com/api/" in shown
    assert "3f0c41ea9d" not in shown


def test_after_closing_nothing_is_sent(server: Scripted) -> None:
    server.replies = [httpx.Response(200, json={"uuid": ID})]
    with server.waldur() as waldur:
        waldur.whoami()
    with pytest.raises(RuntimeError):
        waldur.whoami()
