from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    ConflictError,
    LostAnswerError,
    NotFoundError,
    TokenRefusedError,
    TransitionRefusedError,
    Waldur,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.waldur.conftest import Scripted

UUID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
PAGE = "<html><title>Not here</title><body>Log in</body></html>"


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (
            httpx.Response(400, json={"backend_id": ["Taken."]}),
            PermanentError,
            "backend_id: Taken.",
        ),
        (httpx.Response(400, json=["Project 'x' is expired."]), PermanentError, "is expired"),
        (httpx.Response(401, json={"detail": "Token has expired."}), TokenRefusedError, "expired"),
        (httpx.Response(403, json={"detail": "No permission."}), AccessDeniedError, "No perm"),
        (httpx.Response(404, json={"detail": "Not found."}), NotFoundError, "Not found."),
        (httpx.Response(404, html=PAGE), AbsentOperationError, "Not here"),
        (httpx.Response(404, text="default backend"), AbsentOperationError, "default backend"),
        (httpx.Response(404), AbsentOperationError, "without a message"),
        (
            httpx.Response(
                400,
                html="<title>400 The plain HTTP request was sent to HTTPS port</title>",
            ),
            TemporaryError,
            "this port requires TLS: start waldur_api_url with https://",
        ),
        (
            httpx.Response(400, text="Client sent an HTTP request to an HTTPS server.\n"),
            TemporaryError,
            "this port requires TLS: start waldur_api_url with https://",
        ),
        (
            httpx.Response(405, json={"detail": "Method not allowed."}),
            AbsentOperationError,
            "not al",
        ),
        (
            httpx.Response(409, json={"detail": "Valid states for operation: executing."}),
            ConflictError,
            "Valid states for operation: executing.",
        ),
        (httpx.Response(424, json={"detail": "Disabled."}), PermanentError, "Disabled."),
    ],
    ids=lambda value: str(getattr(value, "status_code", "")),
)
def test_a_refusal_becomes_its_error_with_the_servers_words(
    server: Scripted, reply: httpx.Response, kind: type[Exception], words: str
) -> None:
    server.replies = [reply]
    with pytest.raises(kind) as caught:
        server.waldur().complete_order(UUID)
    assert kind is type(caught.value)
    assert words in str(caught.value)
    assert f"cannot mark order {UUID} as done: waldur.example.com answered HTTP" in str(
        caught.value
    )
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [300, 304, 400, 403, 407, 409, 413])
def test_a_page_of_some_proxy_is_not_waldurs_verdict(server: Scripted, status: int) -> None:
    server.replies = [httpx.Response(status, html=PAGE)]
    with pytest.raises(TemporaryError, match="not a response of Waldur's API"):
        server.waldur().complete_order(UUID)


def test_a_refused_token_says_what_to_do_and_marks_nothing_as_failed(server: Scripted) -> None:
    server.replies = [httpx.Response(401, json={"detail": "Invalid token."})]
    with pytest.raises(TemporaryError) as caught:
        server.waldur().whoami()
    assert "waldur_api_token" in str(caught.value)
    assert "lifetime" in str(caught.value)


def test_a_server_that_repeats_the_token_does_not_put_it_into_the_message(
    server: Scripted,
) -> None:
    server.responder = lambda request: httpx.Response(
        400, json={"detail": f"You sent {request.headers['authorization']}"}
    )
    with pytest.raises(PermanentError) as caught:
        server.waldur().whoami()
    assert "You sent Token ***" in str(caught.value)


def test_an_untrusted_certificate_is_told_apart_and_not_tried_again(server: Scripted) -> None:
    failure = httpx.ConnectError("handshake failed")
    failure.__cause__ = ssl.SSLCertVerificationError("self-signed")
    server.replies = [failure]
    with pytest.raises(TemporaryError, match="ca_file"):
        server.waldur().whoami()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, html=PAGE),
        httpx.Response(200, text=PAGE),
        httpx.Response(200, text="OK"),
        httpx.Response(200),
        httpx.Response(204),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json=None),
        httpx.Response(200, json="me"),
    ],
    ids=["page", "unlabelled page", "text", "empty", "204", "bytes", "list", "null", "string"],
)
def test_a_read_that_is_answered_with_something_else_is_tried_later(
    server: Scripted, reply: httpx.Response
) -> None:
    server.replies = [reply]
    with pytest.raises(
        TemporaryError, match=r"waldur\.example\.com sent an invalid response to GET /api/users/me/"
    ):
        server.waldur().whoami()


def test_a_login_page_in_answer_to_a_write_leaves_open_what_happened(server: Scripted) -> None:
    server.replies = [httpx.Response(200, html=PAGE)]
    with pytest.raises(LostAnswerError, match="web page"):
        server.waldur().complete_order(UUID)
    assert len(server.requests) == 1


@pytest.mark.parametrize("token", ["", "  ", "to ken", "token\r\nX-Evil: 1", "tokén"])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(PermanentError) as caught:
        Waldur("https://waldur.example.com/api/", token)
    assert "waldur_api_token" in str(caught.value)
    assert not token.strip() or token not in str(caught.value)


@pytest.mark.parametrize("uuid", ["", "../users/me", "42", "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7g"])
def test_what_is_no_uuid_is_not_asked_for(server: Scripted, uuid: str) -> None:
    with pytest.raises(PermanentError, match="not a UUID"):
        server.waldur().order(uuid)
    assert server.requests == []


CANNOT = "Cannot transition to OK from current state: 5. Valid states: Requested, Creating"


@pytest.mark.parametrize(
    "move",
    [
        Waldur.begin_creating,
        Waldur.set_ok,
        Waldur.set_pending_account_linking,
        Waldur.set_pending_additional_validation,
        Waldur.set_validation_complete,
        Waldur.set_error_creating,
        Waldur.set_deleting,
        Waldur.set_deleted,
    ],
)
@pytest.mark.parametrize("body", [{"detail": CANNOT}, [CANNOT]])
def test_a_move_that_the_state_does_not_allow_is_told_apart(
    server: Scripted, move: Callable[[Waldur, str], None], body: object
) -> None:
    server.replies = [httpx.Response(400, json=body)]
    with pytest.raises(TransitionRefusedError, match=f"offering user {UUID}.*read it again$"):
        move(server.waldur(), UUID)
    assert len(server.requests) == 1


def test_another_mistake_in_a_move_is_not_taken_for_a_matter_of_state(server: Scripted) -> None:
    server.replies = [httpx.Response(400, json={"comment_url": ["Enter a valid URL."]})]
    with pytest.raises(PermanentError, match="Enter a valid URL") as caught:
        server.waldur().set_pending_account_linking(UUID, "link it", "nowhere")
    assert not isinstance(caught.value, TransitionRefusedError)


def test_a_move_whose_answer_was_lost_is_not_sent_again(server: Scripted) -> None:
    server.replies = [httpx.ReadTimeout("slow"), httpx.Response(200)]
    with pytest.raises(LostAnswerError):
        server.waldur().set_deleted(UUID)
    assert len(server.requests) == 1


def test_a_username_whose_answer_was_lost_is_sent_again(server: Scripted) -> None:
    user = {"uuid": UUID, "user_uuid": UUID, "username": "ada", "state": "OK"}
    server.replies = [httpx.ReadTimeout("slow"), httpx.Response(200, json=user)]
    assert server.waldur().set_username(UUID, "ada").state == "OK"
    assert [request.method for request in server.requests] == ["PATCH", "PATCH"]


@pytest.mark.parametrize(
    "ask",
    [
        Waldur.service_accounts,
        Waldur.course_accounts,
        Waldur.offering_service_accounts,
        Waldur.offering_course_accounts,
        Waldur.user_limits,
        Waldur.periodic_policies,
    ],
)
def test_a_list_that_the_server_does_not_have_is_absent_and_not_empty(
    server: Scripted, ask: Callable[[Waldur, str], object]
) -> None:
    server.replies = [httpx.Response(404, html=PAGE)]
    with pytest.raises(AbsentOperationError):
        ask(server.waldur(), UUID)
