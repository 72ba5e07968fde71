from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.waldur import LostAnswerError

if TYPE_CHECKING:
    from unit.waldur.conftest import Scripted

UUID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
APPROVE = f"marketplace-orders/{UUID}/approve_by_provider/"
HOME = "waldur.example.com"


def upgrade(request: httpx.Request) -> httpx.Response:
    """A server that sends everybody from http to https."""
    if request.url.scheme == "http":
        return httpx.Response(301, headers={"Location": str(request.url.copy_with(scheme="https"))})
    return httpx.Response(200, json={"uuid": UUID})


def elsewhere(status: int, location: str) -> httpx.Response:
    return httpx.Response(status, headers={"Location": location})


def test_a_write_sent_to_http_arrives_over_https_as_the_write_it_was(server: Scripted) -> None:
    server.api_url = f"http://{HOME}/api/"
    server.responder = upgrade
    server.waldur().fail_order(UUID, "no such account")
    expected = f"://{HOME}/api/marketplace-orders/{UUID}/set_state_erred/"
    assert [("POST", f"http{expected}"), ("POST", f"https{expected}")] == server.asked
    assert server.requests[0].content == server.requests[1].content != b""


def test_https_is_kept_once_the_server_asked_for_it(server: Scripted) -> None:
    server.api_url = f"http://{HOME}/api/"
    server.responder = upgrade
    waldur = server.waldur()
    waldur.whoami()
    waldur.whoami()
    assert [request.url.scheme for request in server.requests] == ["http", "https", "https"]
    assert f"https://{HOME}/api/" == waldur.base_url


def test_https_is_kept_after_a_redirected_list_too(server: Scripted) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        response = upgrade(request)
        return response if response.is_redirect else server.page([], 0)

    server.api_url = f"http://{HOME}:8080/api/"
    server.responder = answer
    waldur = server.waldur()
    assert waldur.orders(UUID, ["executing"]).complete
    assert f"https://{HOME}:8080/api/" == waldur.base_url


def test_a_redirect_over_the_trailing_slash_keeps_a_write_a_write(server: Scripted) -> None:
    server.replies = [elsewhere(301, f"/api/{APPROVE}".rstrip("/")), httpx.Response(200)]
    server.waldur().approve_order(UUID)
    assert [method for method, _ in server.asked] == ["POST", "POST"]


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_the_method_is_followed_on_the_same_host(
    server: Scripted, status: int
) -> None:
    server.replies = [elsewhere(status, f"/v2/api/{APPROVE}"), httpx.Response(200)]
    server.waldur().approve_order(UUID)
    assert ("POST", f"https://{HOME}/v2/api/{APPROVE}") == server.asked[1]


@pytest.mark.parametrize("status", [301, 302])
def test_a_write_never_becomes_a_read_of_another_page(server: Scripted, status: int) -> None:
    server.replies = [elsewhere(status, "/login/?next=/api/"), httpx.Response(200)]
    with pytest.raises(TemporaryError, match="a write cannot follow"):
        server.waldur().approve_order(UUID)
    assert len(server.requests) == 1


def test_a_write_that_is_sent_to_see_another_page_may_have_taken_effect(server: Scripted) -> None:
    server.replies = [elsewhere(303, f"/api/{APPROVE}"), httpx.Response(200)]
    with pytest.raises(LostAnswerError):
        server.waldur().approve_order(UUID)
    assert len(server.requests) == 1


@pytest.mark.guarantee("Secrets are in no log, plan, metric, process argument or error report")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "https://login.example.org/x",
        f"http://{HOME}/api/users/me/",
        "https://[oops",
        "//evil.example/",
    ],
)
def test_the_token_is_not_carried_away(server: Scripted, status: int, location: str) -> None:
    server.replies = [elsewhere(status, location), httpx.Response(200, json={"uuid": UUID})]
    with pytest.raises(TemporaryError, match="waldur_api_url"):
        server.waldur().whoami()
    assert len(server.requests) == 1


def test_a_read_follows_on_the_same_host(server: Scripted) -> None:
    server.replies = [
        elsewhere(302, "/other/api/users/me/"),
        httpx.Response(200, json={"uuid": UUID}),
    ]
    assert server.waldur().whoami().uuid.hex == UUID
    assert f"https://{HOME}/other/api/users/me/" == server.asked[1][1]


def test_a_passing_redirect_is_not_remembered(server: Scripted) -> None:
    server.api_url = f"http://{HOME}/api/"
    server.replies = [
        elsewhere(302, f"https://{HOME}/api/users/me/"),
        httpx.Response(200, json={"uuid": UUID}),
    ]
    waldur = server.waldur()
    waldur.whoami()
    assert f"http://{HOME}/api/" == waldur.base_url


def test_a_circle_of_redirects_ends(server: Scripted) -> None:
    server.replies = [elsewhere(302, "/api/users/me/")]
    with pytest.raises(TemporaryError, match="loop"):
        server.waldur().whoami()
    assert len(server.requests) <= 5
