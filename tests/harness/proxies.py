"""Proxies that pass traffic on: HTTP (forwarding and CONNECT) and SOCKS5, with or without login."""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit


@dataclass
class TestProxy:
    """A proxy, and whom it was asked to reach."""

    __test__: ClassVar[bool] = False

    port: int
    user: str = ""
    password: str = ""
    targets: list[str] = field(default_factory=list)
    """``host:port`` as the client named it, for each connection."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Where names lead that only the proxy can resolve."""

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def connect(self, host: str, port: int) -> socket.socket:
        """Reach a target on behalf of a client."""
        self.targets.append(f"{host}:{port}")
        return socket.create_connection((self.aliases.get(host, host), port), timeout=10)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    proxy: TestProxy
    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; the handshake is left to the thread that serves it."""
        taken, address = super().get_request()
        if self.context is not None:
            taken = self.context.wrap_socket(taken, server_side=True, do_handshake_on_connect=False)
        return taken, address

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that go away, or do not trust the certificate."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def pump(self, target: socket.socket) -> None:
        """Pass bytes on in both directions until one side ends."""
        with target:
            back = threading.Thread(target=_copy, args=(target, self.connection), daemon=True)
            back.start()
            with suppress(OSError):
                while piece := self.rfile.read1():
                    target.sendall(piece)
                target.shutdown(socket.SHUT_WR)
            back.join(5)


class _Http(_Handler):
    def handle(self) -> None:
        method, url, version = self.rfile.readline().decode().split()
        headers = list(iter(lambda: self.rfile.readline().decode().strip(), ""))
        proxy = self.server.proxy
        login = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        ours = [line for line in headers if line.lower().startswith("proxy-")]
        if proxy.user and f"proxy-authorization: basic {login}".lower() not in map(str.lower, ours):
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        if method == "CONNECT":
            host, _, port = url.rpartition(":")
            target = proxy.connect(host, int(port))
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            parts = urlsplit(url)
            target = proxy.connect(parts.hostname or "", parts.port or 80)
            kept = [line for line in headers if line not in ours]
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            once = [line for line in kept if not line.lower().startswith("connection:")]
            lines = [f"{method} {path} {version}", *once, "Connection: close", "", ""]
            target.sendall("\r\n".join(lines).encode())
        self.pump(target)


class _Socks(_Handler):
    def handle(self) -> None:
        proxy = self.server.proxy
        _, count = self.rfile.read(2)
        self.rfile.read(count)
        self.wfile.write(bytes([5, 2 if proxy.user else 0]))
        if proxy.user:
            _, length = self.rfile.read(2)
            user = self.rfile.read(length).decode()
            password = self.rfile.read(self.rfile.read(1)[0]).decode()
            is_right = (user, password) == (proxy.user, proxy.password)
            self.wfile.write(bytes([1, 0 if is_right else 1]))
            if not is_right:
                return
        _, _, _, kind = self.rfile.read(4)
        if kind == 3:
            host = self.rfile.read(self.rfile.read(1)[0]).decode()
        else:
            host = socket.inet_ntoa(self.rfile.read(4))
        (port,) = struct.unpack("!H", self.rfile.read(2))
        target = proxy.connect(host, port)
        self.wfile.write(bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
        self.pump(target)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        source.settimeout(None)
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def a_proxy(
    scheme: str, user: str = "", password: str = "", certificate: Path | None = None
) -> Iterator[TestProxy]:
    """A proxy in a thread.

    Args:
        scheme: ``http``, or ``https``, or one that begins with ``socks``.
        user: whom it lets in; everybody if empty.
        password: that user's password.
        certificate: that of an ``https`` proxy, with its key in a file with the suffix ``.key``.
    """
    handler = _Socks if scheme.startswith("socks") else _Http
    with _Server(("127.0.0.1", 0), handler) as server:
        if certificate is not None:
            server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.proxy = TestProxy(server.server_address[1], user, password)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.proxy
        finally:
            server.shutdown()
            thread.join()
