"""What the environment says of proxies: used where it is right, named in one line where not."""

from __future__ import annotations

import os
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness.proxies import a_proxy as passing_proxy
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.waldur import AccessTokens, Client, RetryPolicy, Waldur
from waldur_site_agent.waldur.address import Proxy, masked, proxy_for
from waldur_site_agent_sandbox import Sandbox
from waldur_site_agent_sandbox.identity_provider import TOKEN_PATH, IdentityProvider

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def a_proxy(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that gives one answer to everybody; its address, and what it was asked."""
    asked: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().strip())
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def dead_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert isinstance(port, int)
        return port


def connections_to(port: int) -> int:
    """How many sockets this process has that are connected to a port."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as one:
            found += one.getpeername()[1] == port
    return found


def failure(url: str = "https://waldur.example.org/api/", proxy: str = "") -> SiteAgentError:
    with (
        pytest.raises(SiteAgentError) as caught,
        Waldur(url, "a-token", proxy=proxy, retry=RetryPolicy(attempts=1)) as waldur,
    ):
        waldur.whoami()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.guarantee("waldur-api: Proxies")
def test_a_dead_proxy_is_named_and_its_password_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    port = dead_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://agent:secret@127.0.0.1:{port}")
    error = failure()
    assert isinstance(error, TemporaryError)
    assert f"the proxy http://***@127.0.0.1:{port} (HTTPS_PROXY) cannot be reached" in str(error)
    assert "secret" not in str(error)


def test_a_proxy_that_refuses_is_named_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as (address, asked):
        monkeypatch.setenv("all_proxy", f"http://{address}")
        error = failure()
    assert asked[0] == b"CONNECT waldur.example.org:443 HTTP/1.1"
    assert f"the proxy http://{address} (all_proxy) cannot connect" in str(error)
    assert "407" in str(error)
    assert isinstance(error, TemporaryError)


def test_a_proxys_answer_instead_of_waldurs_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    with a_proxy(said) as (address, _):
        monkeypatch.setenv("HTTP_PROXY", f"http://{address}")
        error = failure("http://waldur.example.org/api/")
    assert f"the proxy http://{address} (HTTP_PROXY)" in str(error)
    assert isinstance(error, TemporaryError)


@pytest.mark.guarantee("waldur-api: Proxies")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALL_PROXY", "socks5://agent:secret@127.0.0.1:9", "needs the package socksio"),
        ("https_proxy", "foo://agent:secret@proxy", "its scheme must be http"),
        ("HTTP_PROXY", "http://agent:secret@proxy:port", "it is not a URL"),
        ("HTTPS_PROXY", "http://agent:s/e@cret@[::1", "it is not a URL"),
        ("NO_PROXY", "localhost,[::1", "'[::1' is neither a host name nor an address"),
        ("no_proxy", "b\u00fccher.example", "'b\u00fccher.example' is neither"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, value)
    error = failure()
    assert isinstance(error, PermanentError)
    assert name in str(error)
    assert words in str(error)
    assert "cret" not in str(error)


def test_a_host_that_is_an_exception_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{dead_port()}")
    monkeypatch.setenv("NO_PROXY", "localhost, 127.0.0.1")
    sandbox = Sandbox("8.1.3")
    with sandbox.serve() as url, Waldur(url, sandbox.token) as waldur:
        assert waldur.whoami().uuid


@pytest.mark.parametrize(
    ("exceptions", "host", "is_proxied"),
    [
        ("", "waldur.example.org", True),
        ("*", "waldur.example.org", False),
        ("example.org", "waldur.example.org", False),
        (".example.org", "waldur.example.org", False),
        ("waldur.example.org:443", "waldur.example.org", False),
        ("https://waldur.example.org", "waldur.example.org", False),
        ("example.org", "example.com", True),
        ("aldur.example.org", "waldur.example.org", True),
        ("::1", "::1", False),
    ],
)
def test_who_is_asked_through_the_proxy(exceptions: str, host: str, is_proxied: bool) -> None:
    environ = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": exceptions}
    expected = Proxy("HTTPS_PROXY", "http://proxy:3128") if is_proxied else None
    assert proxy_for(host, ("https", "all"), environ) == expected


def test_lower_case_counts_and_empty_means_none() -> None:
    environ = {"https_proxy": "", "HTTPS_PROXY": "http://a:1", "ALL_PROXY": "http://b:2"}
    assert proxy_for("h", ("https", "all"), environ) == Proxy("ALL_PROXY", "http://b:2")


def test_credentials_are_masked_wherever_they_stand() -> None:
    text = "cannot use 'http://me:pw@proxy:3128' or me:pw@other, mail to nobody"
    assert masked(text) == "cannot use 'http://***@proxy:3128' or ***@other, mail to nobody"


# global_proxy of the configuration


@pytest.mark.guarantee("waldur-api: Proxies")
@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_the_proxy_of_the_configuration_serves_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{dead_port()}")
    monkeypatch.setenv("NO_PROXY", "*")
    sandbox = Sandbox("8.1.3")
    with sandbox.serve() as url, passing_proxy(scheme, "agent", "p@ss/w-rd") as proxy:
        proxy.aliases["waldur.internal"] = "127.0.0.1"
        hidden = url.replace("127.0.0.1", "waldur.internal")
        port = hidden.rpartition(":")[2].partition("/")[0]
        address = f"{scheme}://agent:p%40ss%2Fw-rd@{proxy.address}"
        with Waldur(hidden, sandbox.token, proxy=address) as waldur:
            assert waldur.whoami().username == sandbox.agent.username
            assert str(waldur.proxy) == f"the proxy {scheme}://***@{proxy.address} (global_proxy)"
    assert proxy.targets == [f"waldur.internal:{port}"]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_dead_proxy_of_the_configuration_is_named_with_its_key(scheme: str) -> None:
    port = dead_port()
    error = failure(proxy=f"{scheme}://agent:secret@127.0.0.1:{port}")
    assert isinstance(error, TemporaryError)
    assert f"the proxy {scheme}://***@127.0.0.1:{port} (global_proxy) cannot be" in str(error)
    assert "correct global_proxy in the configuration" in str(error)
    assert "NO_PROXY" not in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_refuses_the_login_is_named_and_its_connection_closed(scheme: str) -> None:
    with passing_proxy(scheme, "agent", "right-one") as proxy:
        before = connections_to(proxy.port)
        error = failure(proxy=f"{scheme}://agent:wrong-one@{proxy.address}")
        assert connections_to(proxy.port) == before
    assert f"the proxy {scheme}://***@{proxy.address} (global_proxy) cannot" in str(error)
    assert "wrong-one" not in str(error)
    assert proxy.targets == []


@pytest.mark.parametrize(
    "value", ["ftp://a:secret@b:1", "http://a:secret@b:port", "http://a:s/e@[::1"]
)
def test_a_proxy_that_cannot_be_used_is_named_with_its_key(value: str) -> None:
    error = failure(proxy=value)
    assert isinstance(error, PermanentError)
    assert "(global_proxy) cannot be used" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_tokens_of_an_identity_provider_come_through_the_proxy(scheme: str) -> None:
    provider = IdentityProvider()
    provider.add_client("agent-1", "a-secret", "agent")
    with provider.serve() as address, passing_proxy(scheme) as proxy:
        client = Client(token_url=f"{address}{TOKEN_PATH}", id="agent-1", secret="a-secret")
        login = AccessTokens(client, proxy=f"{scheme}://{proxy.address}")
        assert login.header() == f"Bearer {provider.tokens[0]}"
    assert len(proxy.targets) == 1
    dead = AccessTokens(client, proxy=f"{scheme}://{proxy.address}")
    with pytest.raises(TemporaryError) as caught:
        dead.header()
    assert f"the proxy {scheme}://{proxy.address} (global_proxy) cannot be reached" in str(
        caught.value
    )
