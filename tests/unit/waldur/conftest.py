"""A Waldur that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import pytest

from waldur_site_agent.waldur import RetryPolicy, Waldur

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKEN = "3f0c41ea9d"

Reply = httpx.Response | Exception
Responder = Callable[[httpx.Request], httpx.Response]


@dataclass
class Scripted:
    """Replies in order, the last one again and again; or by a function of the request."""

    replies: list[Reply] = field(default_factory=list)
    responder: Responder | None = None
    requests: list[httpx.Request] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    api_url: str = "https://waldur.example.com/api/"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.responder is not None:
            return self.responder(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        # A response object is bound to one request: each gets its own copy.
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [
            (request.method, str(request.url.copy_with(query=None))) for request in self.requests
        ]

    def waldur(self, **changes: object) -> Waldur:
        retry = RetryPolicy(attempts=4, jitter=lambda ceiling: ceiling)
        options: dict[str, object] = {"mode": "order_process", "retry": retry, **changes}
        return Waldur(
            self.api_url,
            TOKEN,
            transport=httpx.MockTransport(self),
            sleep=self.waits.append,
            **options,  # type: ignore[arg-type]  # tests replace any of the constructor's options
        )

    @staticmethod
    def page(rows: Iterable[object], total: int | None, **headers: str) -> httpx.Response:
        counted = {} if total is None else {"X-Result-Count": str(total)}
        return httpx.Response(200, json=list(rows), headers={**counted, **headers})


@pytest.fixture
def server() -> Scripted:
    return Scripted()
