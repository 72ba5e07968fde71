"""The base of small fakes of the services that published plugins speak to over HTTP.

They know what the plugins ask for and no more; each can be away, answer everything with 500, or
break off every answer in the middle.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, Any]
Json = dict[str, Any]


class Service(ABC):
    """What a fake has, and how it answers."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.trouble = ""
        """Empty, ``500`` (every answer), ``half`` (of every answer) or ``away``."""

    @abstractmethod
    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """The status and the JSON (or text) of an answer."""

    @property
    def writes(self) -> list[str]:
        """The requests that change something."""
        return [each for each in self.requests if each.split(" ")[0] not in ("GET", "HEAD")]

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve it on a port of its own."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            text = self.rfile.read(length).decode()
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            if service.trouble == "away":
                self.close_connection = True
                return
            if service.trouble == "500":
                self._send(500, {"message": "oops"})
                return
            service.requests.append(f"{self.command} {self.path} {text}".strip())
            self._send(*service.answer(self.command, parts.path, query, _body(text)))

        def _send(self, status: int, answer: Any) -> None:
            whole = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            if service.trouble == "half":
                whole = whole[: len(whole) // 2]
            kind = "application/xml" if isinstance(answer, str) else "application/json"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if isinstance(answer, dict) and "Location" in answer:
                self.send_header("Location", answer["Location"])
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve  # noqa: N815

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    return Handler


def _body(text: str) -> Any:
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return {key: values[0] for key, values in parse_qs(text).items()}
