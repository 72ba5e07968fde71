"""A broken or hostile Waldur, or somebody in between: memory, time and requests stay bounded."""

from __future__ import annotations

import gzip
import itertools
import json
import socketserver
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.waldur import LostAnswerError, RetryPolicy, Waldur
from waldur_site_agent.waldur.body import page_text
from waldur_site_agent.waldur.listing import read_pages

MIB = 1 << 20
UUID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
URL = "https://waldur.example.com/api/"
REFUSED = 400
Responder = Callable[[httpx.Request], httpx.Response]


class Ticking:
    """A clock that moves on by itself whenever somebody looks at it."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Chunks(httpx.SyncByteStream):
    """A body that counts how much of it was read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.read, self.closed = chunks, 0, False

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.read += len(chunk)
            yield chunk

    def close(self) -> None:
        self.closed = True


def waldur(responder: Responder, **options: object) -> Waldur:
    return Waldur(
        URL,
        "3f0c41ea9d",
        transport=httpx.MockTransport(responder),
        retry=RetryPolicy(attempts=2),
        sleep=lambda _: None,
        **options,  # type: ignore[arg-type]  # any of the constructor's options
    )


def always(**response: object) -> Responder:
    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(**response)  # type: ignore[arg-type]  # what a response can be made of

    return respond


def gzip_bomb(mebibytes: int) -> bytes:
    """A stream of gzip that expands a thousandfold; its checksum comes too late to matter."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = compressor.compress(b"[") + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(b" " * MIB) + compressor.flush(zlib.Z_FULL_FLUSH)
    return start + block * mebibytes


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status", [200, 400, 502])
def test_a_small_answer_that_expands_to_gigabytes_takes_little_memory(status: int) -> None:
    bomb = gzip_bomb(3 * 1024)
    respond = always(
        status_code=status,
        headers={"Content-Encoding": "gzip"},
        stream=Chunks(bomb[start : start + 65536] for start in range(0, len(bomb), 65536)),
    )
    with memory_below(64 * MIB), pytest.raises(SiteAgentError):
        waldur(respond).order(UUID)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "deflate", "\x80"])
def test_an_encoding_that_was_not_asked_for_is_a_bad_answer(encoding: str) -> None:
    asked: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        body = gzip.compress(gzip.compress(b"{}"))
        headers = [(b"Content-Encoding", encoding.encode("latin-1"))]
        return httpx.Response(200, headers=headers, stream=Chunks(iter([body])))

    with pytest.raises(TemporaryError, match="cannot be used"):
        waldur(respond).order(UUID)
    assert asked == ["gzip"]


def test_an_answer_in_gzip_is_read() -> None:
    respond = always(
        status_code=200,
        headers={"Content-Encoding": "gzip"},
        stream=Chunks(iter([gzip.compress(b'{"uuid": "%s"}' % UUID.encode())])),
    )
    assert waldur(respond).whoami().uuid.hex == UUID


@pytest.mark.guarantee("security: Threat model")
def test_an_endless_answer_is_left_after_sixteen_megabytes() -> None:
    body = Chunks(itertools.repeat(b" " * 65536))
    with memory_below(64 * MIB), pytest.raises(TemporaryError, match="larger than 16 MiB"):
        waldur(always(status_code=200, stream=body)).order(UUID)
    assert body.read < 17 * MIB
    assert body.closed


def test_the_answer_to_a_write_that_cannot_be_read_may_have_taken_effect() -> None:
    body = Chunks(itertools.repeat(b" " * 65536))
    with pytest.raises(LostAnswerError):
        waldur(always(status_code=200, stream=body)).complete_order(UUID)


@pytest.mark.parametrize("status", [302, 400, 403, 404, 500, 502])
def test_of_an_error_page_only_some_kilobytes_are_read(status: int) -> None:
    start = b"<html><title>Go away</title>"
    body = Chunks(itertools.chain([start], itertools.repeat(b"<title" * 1000)))
    with pytest.raises(SiteAgentError):
        waldur(always(status_code=status, stream=body, headers={"Location": "/x"})).order(UUID)
    assert body.read <= 5 * 24 * 1024  # five redirects at most


@pytest.mark.parametrize(
    "page",
    [
        "<title" * 1_000_000,
        "<title>" * 1_000_000,
        "<script>" * 1_000_000,
        "<!--" * 1_000_000,
        "<" * 5_000_000,
        "<script" * 1_000_000,
        "&" * 1_000_000,
    ],
    ids=lambda page: str(page[:8]),
)
def test_text_is_found_in_a_page_without_going_back(page: str) -> None:
    assert len(page_text(page.encode())) <= len(page)  # a quadratic search would take an hour


def test_a_body_that_drips_is_left_after_three_minutes_and_not_asked_for_again() -> None:
    body = Chunks(itertools.repeat(b" "))
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, stream=body)

    with pytest.raises(TemporaryError, match="timed out"):
        waldur(respond, monotonic=Ticking(5)).order(UUID)
    assert body.read <= 180 / 5
    assert len(requests) == 1


class Dripping(socketserver.StreamRequestHandler):
    """Sends the head of a response byte by byte, without end."""

    def handle(self) -> None:
        self.rfile.readline()
        server = self.server
        assert isinstance(server, Drip)
        try:
            for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nX: ", itertools.repeat(ord("x"))):
                server.sent += 1
                self.wfile.write(bytes([byte]))
                if server.stop.wait(0.001):
                    return
        except OSError:
            server.stop.set()


class Drip(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Dripping)
        self.sent, self.stop = 0, threading.Event()


@pytest.mark.guarantee("security: Threat model")
def test_a_head_that_drips_is_left_after_three_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Drip() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        agent = Waldur(
            f"http://127.0.0.1:{server.server_address[1]}/api/",
            "3f0c41ea9d",
            sleep=lambda _: None,
            monotonic=Ticking(1),
        )
        with agent, pytest.raises(TemporaryError, match="timed out"):
            agent.order(UUID)
        server.stop.set()
        server.shutdown()
    assert server.sent < 50_000


def lying_pages(rows_a_page: int) -> tuple[Responder, list[int]]:
    asked: list[int] = []

    def respond(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params["page"])
        asked.append(page)
        rows = [{"uuid": f"{page * rows_a_page + n:032x}"} for n in range(rows_a_page)]
        return httpx.Response(200, json=rows, headers={"X-Result-Count": str(10**9)})

    return respond, asked


@pytest.mark.guarantee("security: Threat model")
def test_a_list_that_never_ends_is_left_after_a_thousand_pages() -> None:
    respond, asked = lying_pages(1)
    with pytest.raises(TemporaryError, match="1000 pages"):
        waldur(respond).offering_users(UUID)
    assert len(asked) == 1000


def test_a_list_that_never_ends_is_left_after_many_rows() -> None:
    respond, asked = lying_pages(50_000)

    def fetch(page: int) -> httpx.Response:
        request = httpx.Request("GET", f"{URL}things/?page={page}")
        response = respond(request)
        response.request = request
        return response

    with pytest.raises(TemporaryError, match="rows"):
        read_pages(fetch, lambda *_: None)
    assert len(asked) <= 2_000_000 // 50_000 + 4


def test_a_list_whose_pages_all_come_late_is_left_after_half_an_hour() -> None:
    respond, asked = lying_pages(1)
    with pytest.raises(TemporaryError, match="minutes"):
        waldur(respond, monotonic=Ticking(20)).offering_users(UUID)
    assert len(asked) <= 1800 / 20


DEEP = [b"[" * depth + b"]" * depth for depth in (400, 900, 5000, 200_000)]
DEEP_OBJECTS = [b'{"a":' * depth + b"1" + b"}" * depth for depth in (400, 900, 5000, 200_000)]
ODD_BODIES = [
    *DEEP,
    *DEEP_OBJECTS,
    *(b'[{"uuid": "%s", "name": %s}]' % (UUID.encode(), deep) for deep in (*DEEP, *DEEP_OBJECTS)),
    b"[{%s}]" % b",".join(b'"a%d": %s' % (n, b"[" * 60 + b"]" * 60) for n in range(50)),
    b"9" * 5000,
    b'[{"uuid": "%s", "id": %s}]' % (UUID.encode(), b"9" * 5000),
    b"1e999999",
    b"\xff\xfe[\x00",
    b"\x00\x00\xfe\xff",
    b"\xef\xbb\xbf[]",
    b'"\\ud800"',
    b'[{"uuid": "\\ud800"}]',
    b'[{"uuid": {}}]',
    b'[{"uuid": ["a"]}]',
]
ODD_HEADERS: list[dict[str, str]] = [
    {"X-Result-Count": "9" * 5000},
    {"X-Result-Count": "-1"},
    {"X-Result-Count": "²"},
    {"Date": "Thu, 99 Foo 99999999999999999999 99:99:99 GMT"},
    {"Date": "Thu, 01 Jan 1970 00:00:00 +999999999999999"},
    {"Date": "1 Jan 99999 00:00:00 GMT"},
    {"Date": "x" * 5000},
    {"Retry-After": "9" * 5000},
    {"Retry-After": "Thu, 01 Jan 99999 00:00:00 +9999999999999"},
    {"Link": "<" * 5000},
    {"Link": '<x>; rel="next"' * 500},
    *({"Content-Type": f"text/plain; charset={name}"} for name in (
        "idna", "hex", "zlib", "bz2", "rot13", "punycode", "undefined", "base64", "unicode_escape",
        "raw_unicode_escape", "mbcs", "no-such", "\x00", "utf-7", "x" * 5000,
    )),
]  # fmt: skip


@pytest.mark.parametrize("status", [200, 400, 404, 503])
@pytest.mark.parametrize("body", ODD_BODIES, ids=lambda body: repr(body[:30]))
def test_an_odd_body_is_a_bad_answer_and_no_defect(body: bytes, status: int) -> None:
    _only_expected_errors(status, {}, body)


@pytest.mark.parametrize("status", [200, 400, 404, 503])
@pytest.mark.parametrize("headers", ODD_HEADERS, ids=lambda headers: repr(headers)[:50])
def test_an_odd_header_is_a_bad_answer_and_no_defect(headers: dict[str, str], status: int) -> None:
    for body in (b"[]", b"caf\xe9 - -", json.dumps([{"uuid": UUID}]).encode()):
        _only_expected_errors(status, headers, body)


def _only_expected_errors(status: int, headers: dict[str, str], body: bytes) -> None:
    raw = [(name.encode(), value.encode("utf-8")) for name, value in headers.items()]

    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=raw, stream=Chunks(iter([body])))

    agent = waldur(respond)
    uses: list[Callable[[], object]] = [
        lambda: agent.offering_users(UUID).require_complete("accounts"),
        lambda: agent.order(UUID),
        lambda: agent.complete_order(UUID),
        agent.whoami,
        agent.clock_ahead_seconds,
    ]
    for use in uses:
        message = ""
        try:
            use()
        except (TemporaryError, PermanentError) as error:
            message = str(error)
        assert len(message.encode()) < 1000


def test_half_a_surrogate_pair_in_a_name_is_replaced_on_arrival() -> None:
    row = b'{"uuid": "%s", "username": "a\\ud800\\udc00b\\udfffc \\\\ud800"}' % UUID.encode()
    found = waldur(always(status_code=200, content=row)).whoami()
    assert found.username == "a\U00010000b\ufffdc \\ud800"


ELSEWHERE = [
    "https://evil.example/api/",
    "//evil.example/api/",
    "///evil.example/",
    "\\\\evil.example\\",
    "https://waldur.example.com@evil.example/",
    "https://user:secret@waldur.example.com/api/",
    "https://waldur.example.com.evil.example/",
    "https://waldur.example.com:8443/api/",
    "http://waldur.example.com/api/",
    "ftp://waldur.example.com/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "http://[",
    "https://waldur.example.com\t.evil.example/",
    "https://waldur.example.com%2eevil.example/",
    "https://xn--waldur-.example.com/",
    "https://WALDUR.example.com\uff0fevil.example/",
    "https://" + "a" * 5000,
    "?" * 5000,
    "",
]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 399])
@pytest.mark.parametrize("location", ELSEWHERE, ids=lambda location: repr(location)[:40])
def test_a_redirect_takes_the_token_nowhere_else(location: str, status: int) -> None:
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, headers=[(b"Location", location.encode())])

    agent = waldur(respond)
    for use in (lambda: agent.order(UUID), lambda: agent.complete_order(UUID)):
        with pytest.raises(SiteAgentError) as caught:
            use()
        assert "secret" not in str(caught.value)
    assert {(request.url.scheme, request.url.netloc) for request in asked} == {
        ("https", b"waldur.example.com")
    }
    assert len(asked) <= 20


def test_no_cookie_is_kept_and_no_wait_is_longer_than_a_minute() -> None:
    asked: list[httpx.Request] = []
    waits: list[float] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        headers = {"Set-Cookie": "sessionid=1; Path=/", "Retry-After": "9" * 300}
        return httpx.Response(503, headers=headers)

    agent = Waldur(
        URL,
        "3f0c41ea9d",
        transport=httpx.MockTransport(respond),
        sleep=waits.append,
    )
    with pytest.raises(TemporaryError):
        agent.order(UUID)
    assert len(asked) == len(waits) + 1
    assert max(waits) <= 60
    assert not any("cookie" in request.headers for request in asked)


def pages_of(rows: int, row: Mapping[str, object]) -> Responder:
    """A list of equally odd rows, told apart by their UUIDs."""

    def respond(request: httpx.Request) -> httpx.Response:
        size, page = (int(request.url.params[name]) for name in ("page_size", "page"))
        numbers = range((page - 1) * size, min(page * size, rows))
        found = [{"uuid": f"{number:032x}", **row} for number in numbers]
        return httpx.Response(200, json=found, headers={"X-Result-Count": str(rows)})

    return respond


def test_a_list_of_many_unusable_rows_keeps_neither_their_errors_nor_is_it_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("waldur_site_agent.waldur.listing.MAX_UNREADABLE", 900)
    hostile = {"limits": "none", "name": "x" * 1000}
    few = waldur(pages_of(900, hostile)).resources(UUID)
    assert (few.items, len(few.unreadable)) == ((), 900)
    for each in few.unreadable:  # a traceback would keep the whole response
        assert (each.error.__traceback__, each.error.__cause__, each.error.__context__) == (
            None,
        ) * 3
    with pytest.raises(TemporaryError, match="row 901 field 'limits'"):
        waldur(pages_of(2000, hostile)).resources(UUID)
