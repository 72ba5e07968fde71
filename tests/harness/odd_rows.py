"""A Waldur that answers with one odd row, as servers, proxies and hand-made corrections do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from harness.testbed import plain_transport

Row = dict[str, Any]


class OddRows(httpx.BaseTransport):
    """Changes the rows of answers to GET requests of which a path is part."""

    def __init__(
        self, path: str, is_odd: Callable[[Row], bool], changes: Mapping[str, object]
    ) -> None:
        """``changes`` are put into every row that ``is_odd``; ``KeyError`` leaves a field out."""
        self._path, self._is_odd, self._changes = path, is_odd, changes
        self._inner = plain_transport()
        self.struck = 0

    def close(self) -> None:
        self._inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
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
