"""``/health`` and ``/metrics`` over HTTP, on an address of the site's choice; nothing else."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from waldur_site_agent.service.health import Health

_PATIENCE_SECONDS = 10.0
"""How long a client may take to say what it wants."""
_TEXT = "text/plain; charset=utf-8"
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_JSON = "application/json"


class Endpoint:
    """Serves in threads that do not keep the process alive."""

    def __init__(self, address: str, health: Health, exposition: Callable[[], bytes]) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not one of this machine.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        server = _ServerV6 if ":" in host else _Server
        self._server = server((host, int(port)), _Handler)
        self._server.health = health
        self._server.exposition = exposition
        self.address = address
        threading.Thread(
            target=self._server.serve_forever, name=f"endpoint {address}", daemon=True
        ).start()

    @property
    def port(self) -> int:
        """Where it listens; of interest where the address asked for port 0."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    address_family = AF_INET
    daemon_threads = True
    health: Health
    exposition: Callable[[], bytes]

    def server_bind(self) -> None:
        """Bind, without asking the name service what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _ServerV6(_Server):
    address_family = AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_SECONDS
    server: _Server
    server_version = "waldur-site-agent"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one of the two questions."""
        status, kind, body = self._answer(urlsplit(self.path).path.rstrip("/"))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that the base class looks for

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            return HTTPStatus.OK, _EXPOSITION, self.server.exposition()
        if path == "/health":
            alive = self.server.health.verdict().alive
            status = HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE
            return status, _JSON, json.dumps(self.server.health.report(), default=str).encode()
        return HTTPStatus.NOT_FOUND, _TEXT, b"there are /health and /metrics\n"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
        """A scrape every few seconds is nothing to log but when somebody looks for it."""
        structlog.get_logger().debug("endpoint", said=format % args)
