from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.waldur import ConflictError, LostAnswerError, RetryPolicy

if TYPE_CHECKING:
    from unit.waldur.conftest import Reply, Scripted

UUID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
ME = httpx.Response(200, json={"uuid": UUID})
DONE = httpx.Response(200)

NEVER_REACHED: list[Reply] = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout(""),
    httpx.PoolTimeout(""),
]
LOST: list[Reply] = [
    httpx.ReadTimeout(""),
    httpx.WriteTimeout(""),
    httpx.ReadError("reset by peer"),
    httpx.WriteError("broken pipe"),
    httpx.RemoteProtocolError("server disconnected"),
    httpx.DecodingError("bad gzip"),
    httpx.Response(502),
    httpx.Response(504),
    httpx.Response(520),
]
UNPROCESSED: list[Reply] = [
    httpx.Response(429),
    httpx.Response(503, headers={"Retry-After": "1"}),
]
NOTHING_CHANGED: list[Reply] = [httpx.Response(500), httpx.Response(503), httpx.Response(408)]


def name(reply: Reply) -> str:
    if isinstance(reply, Exception):
        return type(reply).__name__
    return f"{reply.status_code}{'+retry-after' if 'retry-after' in reply.headers else ''}"


@pytest.mark.parametrize("reply", NEVER_REACHED + LOST + UNPROCESSED + NOTHING_CHANGED, ids=name)
def test_reading_is_tried_again(server: Scripted, reply: Reply) -> None:
    server.replies = [reply, ME]
    server.waldur().whoami()
    assert len(server.requests) == 2
    assert len(server.waits) == 1


@pytest.mark.parametrize("reply", NEVER_REACHED + LOST + UNPROCESSED + NOTHING_CHANGED, ids=name)
def test_a_write_that_is_safe_to_repeat_is_tried_again(server: Scripted, reply: Reply) -> None:
    server.replies = [reply, DONE]
    server.waldur().set_backend_id(UUID, "hpc_climate")
    assert len(server.requests) == 2
    assert server.requests[0].content == server.requests[1].content


@pytest.mark.parametrize("reply", NEVER_REACHED + UNPROCESSED, ids=name)
def test_any_write_is_tried_again_when_waldur_certainly_did_not_act(
    server: Scripted, reply: Reply
) -> None:
    server.replies = [reply, DONE]
    server.waldur().approve_order(UUID)
    assert len(server.requests) == 2


@pytest.mark.parametrize("reply", LOST, ids=name)
def test_a_write_whose_answer_is_lost_is_not_sent_again(server: Scripted, reply: Reply) -> None:
    server.replies = [reply]
    with pytest.raises(LostAnswerError) as caught:
        server.waldur().complete_order(UUID)
    assert len(server.requests) == 1
    assert f"mark order {UUID} as done" in str(caught.value)
    assert "may have taken effect" in str(caught.value)


@pytest.mark.parametrize("reply", NOTHING_CHANGED, ids=name)
def test_a_write_that_failed_in_waldur_is_left_for_later(server: Scripted, reply: Reply) -> None:
    server.replies = [reply]
    with pytest.raises(TemporaryError) as caught:
        server.waldur().complete_order(UUID)
    assert len(server.requests) == 1
    assert not isinstance(caught.value, LostAnswerError)


@pytest.mark.parametrize("reply", NEVER_REACHED + UNPROCESSED, ids=name)
def test_a_write_that_never_got_through_is_not_called_lost(server: Scripted, reply: Reply) -> None:
    server.replies = [reply]
    with pytest.raises(TemporaryError) as caught:
        server.waldur().complete_order(UUID)
    assert len(server.requests) == 4
    assert not isinstance(caught.value, LostAnswerError)


def test_an_answer_lost_on_the_way_is_not_forgotten_when_waldur_goes_away(server: Scripted) -> None:
    server.replies = [httpx.ReadTimeout(""), httpx.ConnectError("refused")]
    with pytest.raises(LostAnswerError):
        server.waldur().set_backend_id(UUID, "hpc_climate")


def test_a_read_that_gets_no_answer_is_never_called_lost(server: Scripted) -> None:
    server.replies = [httpx.ReadTimeout("")]
    with pytest.raises(TemporaryError) as caught:
        server.waldur().whoami()
    assert not isinstance(caught.value, LostAnswerError)


def test_a_refusal_ends_the_attempts(server: Scripted) -> None:
    server.replies = [httpx.Response(503), httpx.Response(409, json={"detail": "Valid states."})]
    with pytest.raises(ConflictError):
        server.waldur().set_as_ok(UUID)
    assert len(server.requests) == 2


def test_waits_grow_between_the_attempts(server: Scripted) -> None:
    server.replies = [httpx.Response(502)]
    with pytest.raises(TemporaryError):
        server.waldur().whoami()
    assert server.waits == [0.5, 1.0, 2.0]


def test_the_server_says_how_long_to_wait(server: Scripted) -> None:
    server.replies = [httpx.Response(429, headers={"Retry-After": "7"}), ME]
    server.waldur().whoami()
    assert server.waits == [7.0]


def test_the_server_cannot_stop_the_agent_for_a_day(server: Scripted) -> None:
    server.replies = [httpx.Response(503, headers={"Retry-After": "86400"}), ME]
    server.waldur(retry=RetryPolicy(longest_retry_after=60)).whoami()
    assert server.waits == [60.0]


def test_the_attempts_are_as_many_as_the_policy_says(server: Scripted) -> None:
    server.replies = [httpx.ConnectError("refused")]
    with pytest.raises(TemporaryError):
        server.waldur(retry=RetryPolicy(attempts=2)).whoami()
    assert len(server.requests) == 2


def test_a_stop_asked_for_during_the_wait_ends_it(server: Scripted) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt(seconds)

    server.replies = [httpx.Response(502)]
    waldur = server.waldur()
    waldur._connection._sleep = stop
    with pytest.raises(KeyboardInterrupt):
        waldur.whoami()
    assert len(server.requests) == 1


def test_requests_are_counted_with_repetitions_and_failures(server: Scripted) -> None:
    server.replies = [httpx.ConnectError("refused"), httpx.Response(502), ME]
    waldur = server.waldur()
    waldur.whoami()
    assert waldur.requests_made == 3
    assert waldur.request_counts == {
        ("users_me_retrieve", "error"): 1,
        ("users_me_retrieve", 502): 1,
        ("users_me_retrieve", 200): 1,
    }
