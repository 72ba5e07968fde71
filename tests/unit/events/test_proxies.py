"""A proxy on the way to the broker: named in one line, its password masked."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.proxies import a_proxy
from waldur_site_agent.events.broker import Address, ConnectionLostError, Subscription
from waldur_site_agent.events.stomp import StompTransport

BROKER = Address(host="broker.example.org", port=443, path="/rmqws-stomp")
VARIABLES = ("ws", "wss", "socks", "http", "https", "all", "no")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)


def failure(broker: Address = BROKER) -> str:
    subscription = Subscription(vhost="v", login="l", password="p", queues=("q",), declared=False)
    with pytest.raises(ConnectionLostError) as caught:
        StompTransport(broker).connect(subscription)
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


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
def test_a_dead_proxy_of_the_configuration_is_named_with_its_key(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = failure(replace(BROKER, proxy=f"{scheme}://agent:secret@127.0.0.1:{port}"))
    assert f"the proxy {scheme}://***@127.0.0.1:{port} (global_proxy) fails" in text
    assert "correct global_proxy in the configuration" in text


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_the_proxy_of_the_configuration_is_asked_for_the_brokers_name(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Names are resolved at the proxy, and the environment does not count."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with (
        a_proxy(scheme, "agent", "secret") as proxy,
        socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as silent,
    ):
        proxy.aliases["broker.internal"] = "127.0.0.1"
        port = silent.server_address[1]
        threading.Thread(target=silent.handle_request, daemon=True).start()
        address = f"{scheme}://agent:secret@{proxy.address}"
        broker = Address("broker.internal", port, "/ws", tls=False, proxy=address)
        failure(broker)
    assert proxy.targets == [f"broker.internal:{port}"]
    assert "secret" not in repr(broker)
