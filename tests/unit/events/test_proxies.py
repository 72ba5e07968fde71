"""A proxy on the way to the broker: named in one line, its password masked."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from waldur_site_agent.events.broker import Address, ConnectionLostError, Subscription
from waldur_site_agent.events.stomp import StompTransport

BROKER = Address(host="broker.example.org", port=443, path="/rmqws-stomp")
VARIABLES = ("ws", "wss", "socks", "http", "https", "all", "no")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)


def failure() -> str:
    subscription = Subscription(vhost="v", login="l", password="p", queues=("q",), declared=False)
    with pytest.raises(ConnectionLostError) as caught:
        StompTransport(BROKER).connect(subscription)
    text = str(caught.value)
    assert "\n" not in text
    assert "secret" not in text
    return text


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "wss_proxy"])
def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(name, f"http://agent:secret@127.0.0.1:{port}")
    assert f"the proxy http://***@127.0.0.1:{port} ({name}) fails" in failure()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("foo://agent:secret@proxy", "scheme foo"),
        ("http://agent:secret@proxy:port", "Port could not be cast"),
        ("socks5://agent:secret@127.0.0.1:9", "***@127.0.0.1:9"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    text = failure()
    assert "(HTTPS_PROXY) fails" in text
    assert words in text


@pytest.fixture
def refusing() -> Iterator[int]:
    """A proxy that refuses everybody; its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch, refusing: int) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{refusing}")
    text = failure()
    assert f"the proxy http://127.0.0.1:{refusing} (ALL_PROXY) fails" in text
    assert "407" in text
