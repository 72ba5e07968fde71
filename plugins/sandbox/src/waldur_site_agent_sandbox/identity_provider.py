"""A small OpenID Connect provider: client credentials, and introspection for Waldur.

It has the two calls that an agent and its server need (RFC 6749, section 4.4, and RFC 7662), and
can be told to misbehave.
"""

from __future__ import annotations

import base64
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from waldur_site_agent_sandbox.server import served

TOKEN_PATH = "realms/hpc/protocol/openid-connect/token"  # noqa: S105  # a path
INTROSPECTION_PATH = f"{TOKEN_PATH}/introspect"


@dataclass(frozen=True)
class _Grant:
    username: str
    expires_at: float


class IdentityProvider:
    """Knows clients by id and secret, and gives them tokens for the users that they stand for."""

    def __init__(
        self, *, lifetime: float = 300, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a provider without clients.

        Args:
            lifetime: Seconds until a token expires.
            clock: Seconds that never go back.
        """
        self.lifetime = lifetime
        self.tells_lifetime: Callable[[float], object] = round
        """What ``expires_in`` says of a lifetime; ``None`` leaves it out."""
        self.trouble: Response | None = None
        """The answer to every request for a token instead of the right one."""
        self.requests: list[tuple[str, int]] = []
        """The path and status of every request."""
        self.tokens: list[str] = []
        """Every token, oldest first."""
        self._clock = clock
        self._clients: dict[str, tuple[str, str]] = {}
        self._grants: dict[str, _Grant] = {}
        self._numbers = itertools.count(1)
        self._changing = threading.Lock()

    def add_client(self, client_id: str, secret: str, username: str) -> None:
        """Add a client, or change its secret; its tokens stand for a user."""
        self._clients[client_id] = (secret, username)

    def revoke_all(self) -> None:
        """Make every token invalid, as after a restart without a database."""
        with self._changing:
            self._grants.clear()

    @property
    def granted(self) -> int:
        """How many tokens were given."""
        return len(self.tokens)

    @property
    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route(f"/{TOKEN_PATH}", self._token, methods=["POST"]),
            Route(f"/{INTROSPECTION_PATH}", self._introspect, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serve in a thread on a free port; yields the address, such as ``http://127.0.0.1:40123/``."""
        with served(self.app) as address:
            yield address

    async def _token(self, request: Request) -> Response:
        form = _form(await request.body())
        response = self.trouble or self._given(form)
        self.requests.append((request.url.path, response.status_code))
        return response

    def _given(self, form: dict[str, str]) -> Response:
        if form.get("grant_type") != "client_credentials":
            return _error(HTTPStatus.BAD_REQUEST, "unsupported_grant_type", "only one is known")
        username = self._authenticated(form.get("client_id", ""), form.get("client_secret", ""))
        if username is None:
            text = "Invalid client or Invalid client credentials"
            return _error(HTTPStatus.UNAUTHORIZED, "invalid_client", text)
        with self._changing:
            token = f"{next(self._numbers)}.{secrets.token_urlsafe(24)}"
            self._grants[token] = _Grant(username, self._clock() + self.lifetime)
            self.tokens.append(token)
        body: dict[str, object] = {"access_token": token, "token_type": "Bearer"}
        if (told := self.tells_lifetime(self.lifetime)) is not None:
            body["expires_in"] = told
        return JSONResponse(body)

    async def _introspect(self, request: Request) -> Response:
        form = _form(await request.body())
        response = self._examined(request.headers.get("authorization", ""), form.get("token", ""))
        self.requests.append((request.url.path, response.status_code))
        return response

    def _examined(self, authorization: str, token: str) -> Response:
        scheme, _, encoded = authorization.partition(" ")
        client_id, _, secret = base64.b64decode(encoded or "").decode().partition(":")
        if scheme.lower() != "basic" or self._authenticated(client_id, secret) is None:
            return _error(HTTPStatus.UNAUTHORIZED, "invalid_client", "Authentication failed")
        grant = self._grants.get(token)
        if grant is None or grant.expires_at <= self._clock():
            return JSONResponse({"active": False})
        return JSONResponse({"active": True, "username": grant.username})

    def _authenticated(self, client_id: str, secret: str) -> str | None:
        expected, username = self._clients.get(client_id, ("", ""))
        is_right = bool(expected) and secrets.compare_digest(expected.encode(), secret.encode())
        return username if is_right else None


def introspection(url: str, client_id: str, secret: str) -> Callable[[str], str | None]:
    """How a server asks a provider for the username behind a token; ``None`` for no valid one."""

    def ask(token: str) -> str | None:
        try:
            answer = httpx.post(
                url, data={"token": token}, auth=(client_id, secret), timeout=5, trust_env=False
            ).json()
        except (httpx.HTTPError, ValueError):
            return None
        is_active = isinstance(answer, dict) and answer.get("active") is True
        return str(answer.get("username", "")) if is_active else None

    return ask


def unavailable() -> Response:
    """The answer of a provider that restarts."""
    return _error(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", "restarting")


def redirect(target: str) -> Response:
    """The answer of a provider that has moved."""
    return RedirectResponse(target)


def _error(status: HTTPStatus, code: str, text: str) -> Response:
    return JSONResponse({"error": code, "error_description": text}, int(status))


def _form(content: bytes) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(content.decode()).items()}
