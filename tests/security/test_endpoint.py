"""Whoever reaches the endpoint: slow, many, malformed and oversized requests."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harness.patience import eventually, patience
from waldur_site_agent.service.endpoint import Endpoint
from waldur_site_agent.service.health import Health

HALF = b"GET /health HTTP/1.1\r\nHost: agent\r\n"
WHOLE = HALF + b"\r\n"
CAP = 16


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endpoint(clock: Clock) -> Iterator[Endpoint]:
    endpoint = Endpoint("127.0.0.1:0", Health(), lambda: b"# metrics\n", monotonic=clock)
    yield endpoint
    endpoint.close()


@contextmanager
def connections(port: int, count: int, sent: bytes = HALF) -> Iterator[list[socket.socket]]:
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    try:
        for client in clients:
            client.settimeout(patience())
            client.sendall(sent)
        yield clients
    finally:
        for client in clients:
            client.close()


def status(port: int, path: str = "/health") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience())
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def answer_to(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=patience()) as client:
        with suppress(OSError):  # an oversized request is cut off while it is sent
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
        return _everything(client)


def _everything(client: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := client.recv(65536):
            received += chunk
    except ConnectionResetError:  # closed with unread bytes in it
        pass
    return received


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.guarantee("security: Threat model")
def test_slow_clients_hold_at_most_sixteen_connections_and_no_thread_each(
    endpoint: Endpoint,
) -> None:
    threads, before = threading.active_count(), open_descriptors()
    with connections(endpoint.port, 100):
        assert status(endpoint.port) == 200
        assert open_descriptors() - before <= 100 + CAP
        assert threading.active_count() == threads


def test_a_request_that_is_not_complete_in_ten_seconds_is_cut_off_however_it_drips(
    endpoint: Endpoint, clock: Clock
) -> None:
    with connections(endpoint.port, 1) as (client,):
        assert status(endpoint.port) == 200  # so the other connection was accepted before
        for _ in range(9):
            clock.now += 1
            client.sendall(b"X")
        assert status(endpoint.port) == 200
        clock.now += 1.5
        assert _everything(client) == b""


def test_a_client_that_does_not_read_its_answer_is_cut_off(clock: Clock) -> None:
    endpoint = Endpoint("127.0.0.1:0", Health(), lambda: b"#" * 20_000_000, monotonic=clock)
    try:
        with connections(endpoint.port, 1, b"GET /metrics HTTP/1.1\r\n\r\n") as (client,):
            assert client.recv(1) == b"H"
            clock.now += 11
            assert status(endpoint.port) == 200
            assert len(_everything(client)) < 20_000_000
    finally:
        endpoint.close()


@pytest.mark.guarantee("security: Threat model")
def test_accepting_pauses_while_file_descriptors_are_short(
    endpoint: Endpoint, clock: Clock
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()
    client.settimeout(patience())
    with client, capture_logs() as logged:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            client.connect(("127.0.0.1", endpoint.port))
            eventually(lambda: logged, "the warning")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.sendall(WHOLE)
        clock.now += 1.5
        assert _everything(client).startswith(b"HTTP/1.1 200 ")
    assert [entry["log_level"] for entry in logged] == ["warning"]


def test_a_request_of_more_than_eight_kilobytes_is_refused(endpoint: Endpoint) -> None:
    for request in (b"GET /" + b"a" * 100_000, HALF + b"X: y\r\n" * 100_000):
        assert answer_to(endpoint.port, request)[:13] in (b"HTTP/1.1 431 ", b"")
    assert status(endpoint.port) == 200


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET http://[ HTTP/1.1", b"400"),
        (b"GET http://evil.example/health HTTP/1.1", b"200"),
        (b"GET //evil.example/health HTTP/1.1", b"404"),
        (b"GET /../../etc/passwd HTTP/1.1", b"404"),
        (b"GET /health%00 HTTP/1.1", b"404"),
        (b"POST /health HTTP/1.1", b"405"),
        (b"BREW /health HTTP/1.1", b"405"),
        (b"CONNECT evil.example:443 HTTP/1.1", b"405"),
        (b"GET", b"400"),
        (b"", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET /\x1b]0;owned\x07 HTTP/1.1", b"400"),
        (b"GET /\xff\xfe HTTP/1.1", b"400"),
        (b"GET /health SMTP/9", b"400"),
    ],
    ids=repr,
)
def test_an_odd_request_gets_a_plain_refusal(
    endpoint: Endpoint, request_line: bytes, expected: bytes
) -> None:
    with capture_logs() as logged:
        answer = answer_to(endpoint.port, request_line + b"\r\nHost: \x1b[2J\r\n\r\n")
    assert answer.split(b" ")[1] == expected
    assert b"\x1b" not in answer
    assert b"evil" not in answer
    assert not any("exc_info" in entry for entry in logged)


def test_a_defect_in_a_report_is_one_answer_and_the_endpoint_goes_on() -> None:
    def broken() -> bytes:
        raise RuntimeError("no metrics today")

    endpoint = Endpoint("127.0.0.1:0", Health(), broken)
    try:
        with capture_logs() as logged:
            assert status(endpoint.port, "/metrics") == 500
        assert [bool(entry["exc_info"]) for entry in logged] == [True]
        assert status(endpoint.port) == 200
    finally:
        endpoint.close()


def test_a_head_request_gets_no_body(endpoint: Endpoint) -> None:
    head, _, body = answer_to(endpoint.port, WHOLE.replace(b"GET", b"HEAD")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b""


def test_the_endpoint_can_be_a_unix_socket_that_others_cannot_use(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    for _ in range(2):  # the second finds what a killed agent left
        endpoint = Endpoint(f"unix:{path}", Health(), lambda: b"")
        assert path.stat().st_mode & 0o007 == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(patience())
            client.connect(str(path))
            client.sendall(WHOLE)
            assert _everything(client).startswith(b"HTTP/1.1 200 ")
        if _ == 0:
            left = path.with_suffix(".left")
            os.link(path, left)
            endpoint.close()
            left.rename(path)
    endpoint.close()
    assert not path.exists()


def test_a_unix_socket_replaces_neither_a_file_nor_a_socket_in_use(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("somebody's file")
    with pytest.raises(OSError, match="not a socket"):
        Endpoint(f"unix:{path}", Health(), lambda: b"")
    assert path.read_text() == "somebody's file"
    path.unlink()
    first = Endpoint(f"unix:{path}", Health(), lambda: b"")
    try:
        with pytest.raises(OSError, match="in use"):
            Endpoint(f"unix:{path}", Health(), lambda: b"")
    finally:
        first.close()


def test_a_unix_socket_is_not_made_where_everybody_can_write(tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    with pytest.raises(OSError, match="everybody can write"):
        Endpoint(f"unix:{public / 'agent.sock'}", Health(), lambda: b"")


@pytest.mark.guarantee("security: Threat model")
def test_answers_take_at_most_a_fifth_of_a_core_however_many_are_asked_for() -> None:
    rests: list[float] = []
    spent = iter([0.0, 0.05, 1.0, 1.0, 2.0, 9.0])

    class Watched(Endpoint):
        def _rest(self, seconds: float) -> None:
            rests.append(round(seconds, 6))

    served = Watched("127.0.0.1:0", Health(), lambda: b"", cpu=lambda: next(spent))
    try:
        assert [status(served.port) for _ in range(3)] == [200] * 3
    finally:
        served.close()
    assert rests == [0.2, 0.0, 1.0]


def test_an_endpoint_that_rests_can_be_closed() -> None:
    spent = iter([0.0, 100.0])
    served = Endpoint("127.0.0.1:0", Health(), lambda: b"", cpu=lambda: next(spent))
    with connections(served.port, 1) as (client,):
        client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        served.close()
    assert not served._thread.is_alive()
