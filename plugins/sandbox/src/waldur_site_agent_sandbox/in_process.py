"""The way to the sandbox without a network: each request is answered in the caller's thread."""

from __future__ import annotations

from collections.abc import Coroutine, MutableMapping
from email.utils import format_datetime
from typing import Any

import httpx
from starlette.applications import Starlette

from waldur_site_agent_sandbox.asgi import CUT_EXTENSION
from waldur_site_agent_sandbox.store import Clock

Message = MutableMapping[str, Any]

ADDRESS = "http://waldur.invalid/api/"
"""What clients call the API that they reach in this way."""


class InProcessTransport(httpx.BaseTransport):
    """Gives requests to the sandbox's application; what it does is repeatable."""

    def __init__(self, app: Starlette, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request.

        Raises:
            httpx.RemoteProtocolError: The connection is cut.
        """
        exchange = _Exchange(request)
        _run(self._app(exchange.scope(), exchange.receive, exchange.send))
        if exchange.is_cut:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        date = format_datetime(self._clock.now(), usegmt=True).encode()
        headers = [*exchange.headers, (b"date", date)]
        return httpx.Response(exchange.status, headers=headers, content=bytes(exchange.content))


class _Exchange:
    """One request and its answer, in the words of ASGI."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._body_is_read = False
        self.is_cut = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content = bytearray()

    def scope(self) -> dict[str, Any]:
        url = self._request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "server": (url.host, url.port or 80),
            "client": ("127.0.0.1", 0),
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "root_path": "",
            "query_string": url.query,
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "extensions": {CUT_EXTENSION: {"abort": self._cut}},
        }

    async def receive(self) -> Message:
        if self._body_is_read:
            return {"type": "http.disconnect"}
        self._body_is_read = True
        return {"type": "http.request", "body": self._request.read(), "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.content += message.get("body", b"")

    def _cut(self) -> None:
        self.is_cut = True


def _run(answering: Coroutine[Any, Any, None]) -> None:
    """Run to the end what waits for nothing that is not there at once."""
    try:
        answering.send(None)
    except StopIteration:
        return
    answering.close()
    message = "the sandbox waits for something; a fault with latency needs a server"
    raise RuntimeError(message)
