"""A broker that misbehaves as no real one does on demand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from harness.patience import patience
from waldur_site_agent.events.broker import (
    Address,
    ConnectionLostError,
    LoginRefusedError,
    QueueRefusedError,
    Subscription,
)
from waldur_site_agent.events.stomp import Decoder, Frame, StompTransport, encode

SUBSCRIPTION = Subscription("vhost", "login", "5ecret", ("queue",), declared=True)
CONNECTED = Frame("CONNECTED", {"version": "1.2", "heart-beat": "100,100"})
RECEIPT = Frame("RECEIPT", {"receipt-id": "0"})

Answers = dict[str, list[Frame | bytes]]


@contextlib.contextmanager
def broker(
    answers: Answers, redirect: str = "", seen: list[Frame] | None = None
) -> Iterator[Address]:
    """Answer each command as told; heart-beats are neither sent nor missed."""

    def converse(websocket: ServerConnection) -> None:
        decoder = Decoder(1000)
        with contextlib.suppress(ConnectionClosed):
            for message in websocket:
                assert isinstance(message, str)
                for frame in decoder.feed(message.encode()):
                    if seen is not None:
                        seen.append(frame)
                    for answer in answers.get(frame.command, []):
                        wire = encode(answer) if isinstance(answer, Frame) else answer
                        websocket.send(wire, text=True)

    def redirected(_websocket: ServerConnection, _request: Request) -> Response | None:
        return Response(302, "Found", Headers(Location=redirect)) if redirect else None

    with serve(
        converse,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("v12.stomp")],
        process_request=redirected,
        ping_interval=None,
        close_timeout=1,
    ) as server:
        running = threading.Thread(target=server.serve_forever)
        running.start()
        try:
            yield Address("127.0.0.1", server.socket.getsockname()[1], "/ws", tls=False)
        finally:
            server.shutdown()
            running.join()


def reason_of(
    answers: Answers,
    kind: type[Exception] = ConnectionLostError,
    redirect: str = "",
    heartbeat_seconds: float = 60,
) -> str:
    with broker(answers, redirect) as address, pytest.raises(kind) as caught:
        StompTransport(address, heartbeat_seconds=heartbeat_seconds).connect(SUBSCRIPTION)
    assert "5ecret" not in str(caught.value)
    return str(caught.value)


def test_what_a_broker_echoes_of_the_password_is_not_told() -> None:
    refused = Frame("ERROR", {"message": "Bad CONNECT"}, b"no user\nwith 5ecret")
    reason = reason_of({"CONNECT": [refused]}, LoginRefusedError)
    assert "(Bad CONNECT: no user with ***); register with Waldur again" in reason


def test_another_version_is_not_taken_for_a_wrong_password() -> None:
    refused = Frame("ERROR", {"message": "Version mismatch"}, b"1.0")
    assert "does not speak STOMP 1.2" in reason_of({"CONNECT": [refused]})


@pytest.mark.parametrize("promise", ["", "0,0", "often"])
def test_a_broker_without_heart_beats_is_not_trusted_to_live(promise: str) -> None:
    connected = Frame("CONNECTED", {"heart-beat": promise})
    assert "promises no heart-beats" in reason_of({"CONNECT": [connected]})


def test_what_is_not_stomp_is_said_to_be_so() -> None:
    assert "not STOMP" in reason_of({"CONNECT": [b"<html>login</html>\n\n"]})
    assert "RECEIPT instead" in reason_of({"CONNECT": [RECEIPT]})


def test_an_error_in_place_of_a_confirmation_refuses_the_queue() -> None:
    refused = Frame("ERROR", {"message": "not_found"}, b"no queue 'queue'")
    answers: Answers = {"CONNECT": [CONNECTED], "SUBSCRIBE": [refused]}
    assert "no queue 'queue'" in reason_of(answers, QueueRefusedError)


def test_silence_in_place_of_a_confirmation_ends_the_attempt() -> None:
    silent: Answers = {"CONNECT": [CONNECTED]}
    assert "not even a heart-beat" in reason_of(silent, heartbeat_seconds=0.1)


def test_the_password_is_not_carried_to_another_address() -> None:
    seen: list[Frame] = []
    with broker({"CONNECT": [CONNECTED]}, seen=seen) as elsewhere:
        assert "where the password is not sent" in reason_of({}, redirect=str(elsewhere))
    assert seen == []


def test_the_login_is_what_the_registration_gave() -> None:
    seen: list[Frame] = []
    answers: Answers = {"CONNECT": [CONNECTED], "SUBSCRIBE": [RECEIPT]}
    with broker(answers, seen=seen) as address:
        StompTransport(address, prefetch=7, heartbeat_seconds=5).connect(SUBSCRIPTION).close()
    login, subscribing = seen
    assert login.headers == {
        "accept-version": "1.2",
        "host": "vhost",
        "login": "login",
        "passcode": "5ecret",
        "heart-beat": "5000,5000",
    }
    wanted = {"destination": "/amq/queue/queue", "ack": "client-individual", "prefetch-count": "7"}
    assert wanted.items() <= subscribing.headers.items()


def messages(*headers: dict[str, str]) -> list[Frame | bytes]:
    return [Frame("MESSAGE", found, b"{}") for found in headers]


def test_what_came_with_the_confirmation_is_delivered_until_the_connection_ends() -> None:
    known = {"subscription": "0", "ack": "a", "redelivered": "true"}
    unknown = {"destination": "/queue/other", "ack": "b"}
    garbage: list[Frame | bytes] = [b"MESSAGE\ncontent-length:1\n\n{}\0"]
    answers: Answers = {
        "CONNECT": [CONNECTED],
        "SUBSCRIBE": [*messages(known, unknown), RECEIPT],
        "ACK": garbage,
    }
    with broker(answers) as address:
        connection = StompTransport(address, heartbeat_seconds=60).connect(SUBSCRIPTION)
        first, second = connection.receive(patience()), connection.receive(patience())
        assert first is not None
        assert second is not None
        assert (first.queue, first.redelivered, second.queue) == ("queue", True, "/queue/other")
        connection.acknowledge(first)
        with pytest.raises(ConnectionLostError, match="not STOMP"):
            connection.receive(patience())
        for after in (lambda: connection.receive(0), lambda: connection.acknowledge(second)):
            _raises_lost(after)
        connection.close()
        connection.close()


def _raises_lost(call: Callable[[], object]) -> None:
    with pytest.raises(ConnectionLostError, match="not STOMP"):
        call()


def test_closing_wakes_whoever_waits_for_a_message() -> None:
    answers: Answers = {"CONNECT": [CONNECTED], "SUBSCRIBE": [RECEIPT]}
    with broker(answers) as address:
        connection = StompTransport(address, heartbeat_seconds=60).connect(SUBSCRIPTION)
        closing = threading.Timer(0.1, connection.close)
        closing.start()
        with pytest.raises(ConnectionLostError, match="closed by this side"):
            connection.receive(patience())
        closing.join()
    assert not [one for one in threading.enumerate() if one.name.startswith("stomp-")]
