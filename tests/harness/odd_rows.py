"""A Waldur that answers with one odd row, as servers, proxies and hand-made corrections do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from harness.testbed import Relay

Row = dict[str, Any]


class OddRows:
    """Changes the rows of answers to GET requests of which a path is part."""

    def __init__(
        self, path: str, is_odd: Callable[[Row], bool], changes: Mapping[str, object]
    ) -> None:
        """``changes`` are put into every row that ``is_odd``; ``KeyError`` leaves a field out."""
        self._path, self._is_odd, self._changes = path, is_odd, changes
        self.struck = 0

    def between(self, inner: httpx.BaseTransport) -> httpx.BaseTransport:
        """Change what comes from another way to Waldur."""
        return _Changing(inner, self)

    def changed(self, request: httpx.Request, response: httpx.Response) -> httpx.Response:
        """The response with its odd rows changed, if the request is one of those meant."""
        if request.method != "GET" or self._path not in request.url.path:
            return response
        response.read()
        body = json.loads(response.content) if response.status_code == httpx.codes.OK else None
        if body is None:
            return response
        for row in body if isinstance(body, list) else [body]:
            if self._is_odd(row):
                self.struck += 1
                row.update(self._changes)
                for name in [n for n, value in row.items() if value is KeyError]:
                    del row[name]
        headers = {k: v for k, v in response.headers.items() if k.lower() != "content-length"}
        headers.pop("content-encoding", None)
        return httpx.Response(response.status_code, headers=headers, content=json.dumps(body))


class _Changing(Relay):
    def __init__(self, inner: httpx.BaseTransport, odd: OddRows) -> None:
        super().__init__(inner)
        self._odd = odd

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._odd.changed(request, super().handle_request(request))
