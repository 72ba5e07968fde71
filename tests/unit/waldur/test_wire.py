"""The gateway on real sockets: what really happens when a connection breaks."""

from __future__ import annotations

import socketserver
import threading
from typing import TYPE_CHECKING

import pytest

from harness.patience import patience
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.waldur import LostAnswerError, RetryPolicy, Timeouts, Waldur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UUID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
ME = b'{"uuid": "' + UUID.encode() + b'"}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n" + ME
CUT_SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 4400\r\n\r\n" + ME
NONSENSE = b"220 mail.example.com ESMTP\r\n"


class Wire(socketserver.ThreadingTCPServer):
    """Sends the next of its replies to each request, then closes the connection."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, replies: list[bytes | None]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.replies = replies
        self.requests: list[bytes] = []
        self.closing = threading.Event()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/"


class Exchange(socketserver.StreamRequestHandler):
    """One connection."""

    server: Wire

    def handle(self) -> None:
        request = self.rfile.readline()
        length = 0
        while (line := self.rfile.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self.rfile.read(length)
        self.server.requests.append(request)
        reply = self.server.replies.pop(0)
        if reply is None:
            self.server.closing.wait(patience())
        else:
            self.wfile.write(reply)


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    wires: list[Wire] = []

    def start(*replies: bytes | None) -> Wire:
        server = Wire([*replies])
        wires.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in wires:
        server.closing.set()
        server.shutdown()
        server.server_close()


def waldur_at(url: str, *, read_seconds: float = 120.0) -> Waldur:
    return Waldur(
        url,
        "token",
        timeouts=Timeouts(read=read_seconds),
        retry=RetryPolicy(attempts=2),
        sleep=lambda _: None,
    )


@pytest.mark.parametrize("broken", [b"", CUT_SHORT, NONSENSE], ids=["cut", "short", "nonsense"])
def test_a_read_over_a_broken_connection_is_tried_again(
    wire: Callable[..., Wire], broken: bytes
) -> None:
    server = wire(broken, WHOLE)
    with waldur_at(server.api_url) as waldur:
        assert waldur.whoami().uuid.hex == UUID
    assert len(server.requests) == 2


@pytest.mark.parametrize("broken", [b"", CUT_SHORT, NONSENSE], ids=["cut", "short", "nonsense"])
def test_a_write_over_a_broken_connection_may_have_landed(
    wire: Callable[..., Wire], broken: bytes
) -> None:
    server = wire(broken, WHOLE)
    with waldur_at(server.api_url) as waldur, pytest.raises(LostAnswerError):
        waldur.approve_order(UUID)
    assert len(server.requests) == 1


def test_a_write_to_a_server_that_hangs_may_have_landed(wire: Callable[..., Wire]) -> None:
    server = wire(None)
    with (
        waldur_at(server.api_url, read_seconds=0.2) as waldur,
        pytest.raises(LostAnswerError, match="timed out"),
    ):
        waldur.complete_order(UUID)


def test_a_write_to_a_port_where_nobody_listens_never_got_through() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Exchange) as unused:
        port = unused.server_address[1]
    with waldur_at(f"http://127.0.0.1:{port}/") as waldur, pytest.raises(TemporaryError) as caught:
        waldur.complete_order(UUID)
    assert not isinstance(caught.value, LostAnswerError)
    assert "cannot be reached" in str(caught.value)


def test_a_connection_that_the_server_closed_between_two_calls_is_replaced(
    wire: Callable[..., Wire],
) -> None:
    server = wire(WHOLE, WHOLE)
    with waldur_at(server.api_url) as waldur:
        waldur.whoami()
        waldur.whoami()
    assert len(server.requests) == 2
