"""Connections to one server with one token: sending operations, retries, redirects.

What is returned from here is a successful response; everything else is raised as a temporary or
permanent error.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import structlog

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.waldur.address import ApiAddress, Proxy, Redirect
from waldur_site_agent.waldur.errors import LostAnswerError, is_markup
from waldur_site_agent.waldur.operation import Operation
from waldur_site_agent.waldur.retry import (
    FailedAttempt,
    Repeat,
    RetryPolicy,
    classify_error,
    classify_response,
)

QueryValue = str | int | bool | Sequence[str]

_log = structlog.get_logger(__name__)
_MAX_REDIRECTS = 5
_KEEPS_METHOD = frozenset({httpx.codes.TEMPORARY_REDIRECT, httpx.codes.PERMANENT_REDIRECT})
_PERMANENT = frozenset({httpx.codes.MOVED_PERMANENTLY, httpx.codes.PERMANENT_REDIRECT})
_REDIRECTS = frozenset({httpx.codes.FOUND, httpx.codes.SEE_OTHER}) | _KEEPS_METHOD | _PERMANENT


class Connection:
    """A pool of connections to one server, with one token. Threads may share it."""

    def __init__(
        self,
        address: ApiAddress,
        client: httpx.Client,
        *,
        token: str,
        retry: RetryPolicy,
        sleep: Callable[[float], None],
        now: Callable[[], datetime],
        proxy: Proxy | None = None,
    ) -> None:
        """``proxy`` is the proxy that the client uses, for messages."""
        self._proxy = proxy
        self.now = now
        self.address = address
        self.on_request: Callable[[str, int | str, float], None] | None = None
        """Called for each request with the operation, HTTP status or ``"error"``, and seconds."""
        self.last_date = ("", now())
        """The ``Date`` header of the last response, and when the response came."""
        self._client = client
        self._client.headers["Authorization"] = f"Token {_checked(token)}"
        self._token = token
        self._retry = retry
        self._sleep = sleep
        self._counts: Counter[tuple[str, int | str]] = Counter()
        self._counting = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def request_counts(self) -> Counter[tuple[str, int | str]]:
        """How many requests were sent, by operation and HTTP status or ``"error"``."""
        with self._counting:
            return Counter(self._counts)

    def send(self, call: Call, *, once: bool = False) -> httpx.Response:
        """Send until there is a successful response, or a retry is pointless.

        ``once`` is for requests whose meaning depends on the time: they are never sent again, even
        if the server did not act on them.

        Raises:
            TemporaryError: Waldur could not be reached, or its response is invalid.
            LostAnswerError: The same, but a write may have taken effect.
            PermanentError: Waldur refused.
        """
        lost: LostAnswerError | None = None
        attempts = 1 if once else self._retry.attempts
        for attempt in range(1, attempts + 1):
            outcome = self._attempt(call)
            if isinstance(outcome, httpx.Response):
                return outcome
            if isinstance(outcome.error, LostAnswerError):
                lost = outcome.error
            again = outcome.repeat is Repeat.ALWAYS or (
                outcome.repeat is Repeat.IF_SAFE and call.operation.safe_to_repeat
            )
            if not again or attempt == attempts:
                if lost is not None and type(outcome.error) is TemporaryError:
                    raise LostAnswerError(f"{outcome.error}; an earlier attempt: {lost}")
                raise outcome.error
            self._sleep(self._retry.wait_before(attempt + 1, outcome.retry_after))
        raise AssertionError("a retry policy has at least one attempt")

    def _attempt(self, call: Call) -> httpx.Response | FailedAttempt:
        is_write = call.operation.is_write
        try:
            response = self._follow(call)
        except httpx.RequestError as error:
            return classify_error(
                error,
                purpose=call.purpose,
                host=self.address.host,
                is_write=is_write,
                proxy=self._proxy,
            )
        if isinstance(response, FailedAttempt):
            return response
        if not response.is_success:
            return classify_response(
                response,
                purpose=call.purpose,
                host=self.address.host,
                is_write=is_write,
                secret=self._token,
                proxy=self._proxy,
            )
        if is_write and is_markup(response):
            text = (
                f"cannot {call.purpose}: {self.address.host} answered with a web page instead of a "
                "response of Waldur's API: check waldur_api_url and the proxies"
            )
            return FailedAttempt(
                error=LostAnswerError(f"{text}; the request may have taken effect")
            )
        return response

    def _follow(self, call: Call) -> httpx.Response | FailedAttempt:
        """Send, and follow redirects that keep the method and the token's host."""
        url = httpx.URL(self.address.join(call.path), params=call.query or None)
        for _ in range(_MAX_REDIRECTS):
            response = self._exchange(call, url)
            if response.status_code not in _REDIRECTS:
                return response
            redirect = Redirect.read(str(url), response.headers.get("location", ""))
            refused = self._refused_redirect(call, response.status_code, redirect)
            if refused is not None:
                return refused
            if response.status_code in _PERMANENT and redirect.secure_origin is not None:
                self.address = self.address.over(redirect.secure_origin)
            url = httpx.URL(redirect.target)
        text = f"cannot {call.purpose}: {self.address.host} redirects in a loop"
        return FailedAttempt(error=TemporaryError(f"{text}; check waldur_api_url and the proxies"))

    def _refused_redirect(
        self, call: Call, status: int, redirect: Redirect
    ) -> FailedAttempt | None:
        text = f"cannot {call.purpose}: {self.address.host} redirects (HTTP {status}) to"
        shown = redirect.target.partition("?")[0]
        if not redirect.stays_on_host:
            why = "where the token is not sent; if it is correct, set waldur_api_url to it"
            return FailedAttempt(error=TemporaryError(f"{text} {shown}, {why}"))
        if call.operation.is_write and status == httpx.codes.SEE_OTHER:
            why = "instead of answering; the request may have taken effect"
            return FailedAttempt(error=LostAnswerError(f"{text} {shown} {why}"))
        if call.operation.is_write and status not in _KEEPS_METHOD and not redirect.keeps_path:
            why = "which a write cannot follow; check waldur_api_url and the proxies"
            return FailedAttempt(error=TemporaryError(f"{text} {shown}, {why}"))
        return None

    def _exchange(self, call: Call, url: httpx.URL) -> httpx.Response:
        headers = {} if call.content is None else {"Content-Type": "application/json"}
        request = self._client.build_request(
            call.operation.method, url, content=call.content, headers=headers
        )
        status: int | str = "error"
        began = time.monotonic()
        try:
            response = self._client.send(request)
            status = response.status_code
            self.last_date = (response.headers.get("date", ""), self.now())
        finally:
            seconds = time.monotonic() - began
            with self._counting:
                self._counts[call.operation.id, status] += 1
            if self.on_request is not None:
                self.on_request(call.operation.id, status, seconds)
            _log.debug(
                "waldur request",
                operation=call.operation.id,
                status=status,
                seconds=round(seconds, 3),
            )
        return response


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation on one object, ready to be sent."""

    operation: Operation[object | None]
    purpose: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    content: bytes | None = None
    """The JSON body; ``None`` where none is sent."""

    @classmethod
    def of(
        cls,
        operation: Operation[object | None],
        *,
        uuid: str = "",
        query: Mapping[str, QueryValue] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Call:
        """Fill in a declared operation.

        ``uuid`` (32 hexadecimal digits) is the object in the path or, for lists, in error messages.
        A sequence in ``query`` becomes one parameter per value.
        """
        undeclared = {*(query or ())} - {*operation.query} | {*(body or ())} - {
            *(operation.body or ())
        }
        if undeclared:
            raise ValueError(f"{operation.id} declares no {', '.join(sorted(undeclared))}")
        content = None
        if operation.body is not None:
            content = json.dumps(body or {}, allow_nan=False).encode()
        return cls(
            operation=operation,
            purpose=operation.purpose.format(uuid=uuid),
            path=operation.path.format(uuid=uuid),
            query=tuple(_parameters(query or {})),
            content=content,
        )

    def without_body(self) -> Call:
        """The same call, for servers that accept no body."""
        return Call(
            operation=self.operation, purpose=self.purpose, path=self.path, query=self.query
        )


def without_cookies() -> CookieJar:
    """A cookie jar that stays empty: with a session cookie, Waldur requires a CSRF token."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _checked(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise PermanentError(
            "waldur_api_token cannot be used: it is empty or has characters that no token has; "
            "copy it again from the profile of the agent's user in Waldur"
        )
    return token


def _parameters(query: Mapping[str, QueryValue]) -> list[tuple[str, str]]:
    parameters: list[tuple[str, str]] = []
    for name, value in query.items():
        if isinstance(value, bool):
            parameters.append((name, "true" if value else "false"))
        elif isinstance(value, str | int):
            parameters.append((name, str(value)))
        else:
            parameters.extend((name, one) for one in value)
    return parameters
