"""Connections to one server with one token: sending operations, timeouts, retries, redirects.

What is returned from here is a successful response; everything else is raised as a temporary or
permanent error.
"""

from __future__ import annotations

import enum
import json
import random
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol
from urllib.parse import urlencode

import httpx
import structlog

from waldur_site_agent import __version__
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.waldur.address import (
    ApiAddress,
    Proxy,
    Redirect,
    certificate_remedy,
    masked,
    unusable_proxy,
)
from waldur_site_agent.waldur.body import body_text, is_markup, shorten
from waldur_site_agent.waldur.errors import (
    AbsentOperationError,
    AccessDeniedError,
    BodyRefusedError,
    ConflictError,
    LostAnswerError,
    NotFoundError,
    OrderingRefusedError,
    PastMonthRefusedError,
    TokenRefusedError,
    TransitionRefusedError,
    error_names,
    error_text,
    is_json,
)
from waldur_site_agent.waldur.operation import Operation
from waldur_site_agent.waldur.transport import (
    ENCODING,
    Deadline,
    UnusableResponseError,
    observe_deadlines,
    read_response,
    until,
)

_random = random.SystemRandom()
_NEVER_REACHED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
_PROXY_STATUSES = frozenset(
    {
        httpx.codes.FORBIDDEN,
        httpx.codes.PROXY_AUTHENTICATION_REQUIRED,
        httpx.codes.BAD_GATEWAY,
        httpx.codes.SERVICE_UNAVAILABLE,
        httpx.codes.GATEWAY_TIMEOUT,
    }
)
_TRANSITION_REFUSED = re.compile(r"\bcannot transition\b|\bfrom (its )?current state\b", re.I)
_NOT_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"}
_HTTP_TO_TLS_PORT = re.compile(
    r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS", re.I
)
_USE_HTTP = "start {key} with http://, or set the port that serves https"
_USE_HTTPS = "this port requires TLS: start waldur_api_url with https://"
_NOT_THE_API = "this is not a response of Waldur's API: check waldur_api_url and the proxies"
_RETRY = "it will be retried"
_BUSY = f"Waldur is busy or restarting; {_RETRY}"


def full_jitter(ceiling: float) -> float:
    """A random wait of at most ``ceiling`` seconds, so that agents of many sites spread out."""
    return _random.uniform(0, ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds for the phases of one attempt."""

    connect: float = 10.0
    read: float = 60.0
    """Between two chunks of the response; Waldur builds long lists before it sends anything."""
    whole: float = 180.0
    """For the whole attempt, however the response drips in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a request that may be repeated is sent, and the waits in between, in seconds."""

    attempts: int = 4
    """The number of attempts, the first included."""
    first_wait: float = 0.5
    longest_wait: float = 20.0
    longest_retry_after: float = 60.0
    """The longest ``Retry-After`` that is honoured; beyond that, the next cycle retries."""
    jitter: Callable[[float], float] = full_jitter

    def wait_before(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait before the attempt of this number (2 is the first retry)."""
        if retry_after is not None:
            return min(retry_after, self.longest_retry_after)
        doublings = min(attempt - 2, 30)
        return self.jitter(min(self.first_wait * 2.0**doublings, self.longest_wait))


class Repeat(enum.Enum):
    """Whether the same request may be sent again immediately."""

    ALWAYS = "Waldur did not act on it"
    IF_SAFE = "Waldur may have acted on it"
    NEVER = "the same request would get the same answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """A failed attempt."""

    error: SiteAgentError
    repeat: Repeat = Repeat.NEVER
    retry_after: float | None = None
    """Seconds that the server asked to wait."""


class Login(Protocol):
    """What the agent presents to Waldur; see :mod:`waldur_site_agent.waldur.tokens`."""

    @property
    def remedy(self) -> str:
        """What to do if Waldur refuses it."""
        ...

    def header(self) -> str:
        """The ``Authorization`` header.

        Raises:
            TemporaryError: There is no token at present; nothing was sent to Waldur.
        """
        ...

    def renew(self, refused: str) -> bool:
        """Whether another header is to be had in place of one that Waldur refused."""
        ...

    def mask(self, text: str) -> str:
        """A text of the server without the secrets."""
        ...


def classify_error(
    error: httpx.RequestError,
    *,
    purpose: str,
    host: str,
    is_write: bool,
    proxy: Proxy | None = None,
    key: str = "waldur_api_url",
) -> FailedAttempt:
    """Classify an attempt that got no response.

    ``proxy`` is the proxy that it went through, ``key`` the configuration key of the address.
    """
    why = str(error) or type(error).__name__
    certificate = _certificate_error(error)
    if certificate is not None:
        text = f"cannot {purpose}: the certificate of {host} is not trusted ({certificate})"
        remedy = certificate_remedy(certificate)
        return FailedAttempt(error=TemporaryError(text, remedy=remedy))
    if _answered_without_tls(error):
        text = f"cannot {purpose}: {host} does not speak TLS on this port ({why})"
        return FailedAttempt(error=TemporaryError(text, remedy=_USE_HTTP.format(key=key)))
    if proxy is not None and isinstance(error, _NEVER_REACHED):
        return _proxy_failure(f"cannot {purpose}", host, proxy, error)
    if isinstance(error, _NEVER_REACHED):
        text = f"cannot {purpose}: {host} cannot be reached ({why}); {_RETRY}"
        remedy = f"if this persists, check the network and {key}"
        return FailedAttempt(error=TemporaryError(text, remedy=remedy), repeat=Repeat.ALWAYS)
    if isinstance(error, UnusableResponseError):
        text = f"cannot {purpose}: the response of {host} cannot be used: {why}"
        return replace(_lost(text, is_write), repeat=Repeat.NEVER)
    if isinstance(error, httpx.TimeoutException):
        why = f"{why}: timed out"
    by = f" through {proxy}" if proxy else ""
    return _lost(f"cannot {purpose}: no response from {host}{by} ({why})", is_write)


def classify_response(
    response: httpx.Response,
    *,
    purpose: str,
    host: str,
    is_write: bool,
    login: Login,
    proxy: Proxy | None = None,
) -> FailedAttempt:
    """Classify an unsuccessful response; ``proxy`` is the proxy that it came through."""
    status = response.status_code
    if proxy is not None and status in _PROXY_STATUSES and response.url.scheme == "http":
        host = f"{host}, or {proxy},"
    message = login.mask(error_text(response))
    answered = f"{host} answered HTTP {status}"
    text = f"cannot {purpose}: {answered}" + (f': "{message}"' if message else " without a message")
    retry_after = read_retry_after(response.headers.get("retry-after"))
    if status == httpx.codes.TOO_MANY_REQUESTS:
        error = TemporaryError(text, remedy="it will be retried more slowly")
        return FailedAttempt(error=error, repeat=Repeat.ALWAYS, retry_after=retry_after)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return _server_failure(text, status, retry_after, is_write)
    if status in {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY}:
        error = TemporaryError(text, remedy=_BUSY)
        return FailedAttempt(error=error, repeat=Repeat.IF_SAFE, retry_after=retry_after)
    if status == httpx.codes.UNAUTHORIZED:
        return FailedAttempt(error=TokenRefusedError(text, remedy=login.remedy))
    return FailedAttempt(error=_refusal(text, status, response))


def read_retry_after(header: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number or an HTTP date, else ``None``."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now())
    except (ValueError, OverflowError):
        return None


_REFUSALS: Mapping[int, tuple[type[PermanentError], str]] = {
    httpx.codes.FORBIDDEN: (
        AccessDeniedError,
        "give the agent's user a role with this permission (see docs/waldur-api.md)",
    ),
    httpx.codes.NOT_FOUND: (
        NotFoundError,
        "it was deleted, or the token's user may not see it",
    ),
    httpx.codes.CONFLICT: (ConflictError, ""),
    httpx.codes.UNSUPPORTED_MEDIA_TYPE: (BodyRefusedError, ""),
}


def _proxy_failure(text: str, host: str, proxy: Proxy, error: httpx.RequestError) -> FailedAttempt:
    """Connections go to the proxy, never to the host behind it."""
    why = proxy.concealed(str(error)) or type(error).__name__
    if isinstance(error, httpx.ProxyError):
        text = f"{text}: {proxy} cannot connect to {host} ({why})"
    else:
        text = f"{text}: {proxy} cannot be reached ({why}), so nothing was sent to {host}"
    remedy = f"{_RETRY}; if this persists, {proxy.remedy(host)}"
    return FailedAttempt(error=TemporaryError(text, remedy=remedy), repeat=Repeat.ALWAYS)


def _server_failure(
    text: str, status: int, retry_after: float | None, is_write: bool
) -> FailedAttempt:
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        repeat = Repeat.IF_SAFE if retry_after is None else Repeat.ALWAYS
        return FailedAttempt(
            error=TemporaryError(text, remedy=_BUSY), repeat=repeat, retry_after=retry_after
        )
    if status in {httpx.codes.INTERNAL_SERVER_ERROR, httpx.codes.NOT_IMPLEMENTED}:
        # Waldur's writes are database transactions: after a 500 nothing has changed.
        remedy = f"this is an error in Waldur, see its log; {_RETRY}"
        error = TemporaryError(text, remedy=remedy)
        return FailedAttempt(error=error, repeat=Repeat.IF_SAFE, retry_after=retry_after)
    return _lost(text, is_write, retry_after)


def _lost(text: str, is_write: bool, retry_after: float | None = None) -> FailedAttempt:
    error: TemporaryError
    if is_write:
        remedy = "it may have taken effect; the object is read before anything is sent again"
        error = LostAnswerError(text, remedy=remedy)
    else:
        error = TemporaryError(text, remedy=_RETRY)
    return FailedAttempt(error=error, repeat=Repeat.IF_SAFE, retry_after=retry_after)


def _refusal(text: str, status: int, response: httpx.Response) -> SiteAgentError:
    absent = status == httpx.codes.NOT_FOUND and not is_json(response)
    if absent or status == httpx.codes.METHOD_NOT_ALLOWED:
        return AbsentOperationError(
            text,
            remedy="this server does not have the operation: check waldur_api_url, the server's "
            "version and the offering's type",
        )
    requires_tls = status == httpx.codes.BAD_REQUEST and bool(
        _HTTP_TO_TLS_PORT.search(body_text(response))
    )
    not_waldur = status < httpx.codes.BAD_REQUEST or is_markup(response) or requires_tls
    if not_waldur or status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        # Not Waldur's answer about the object, but that of something in between.
        return TemporaryError(text, remedy=_USE_HTTPS if requires_tls else _NOT_THE_API)
    if status == httpx.codes.BAD_REQUEST:
        return _invalid_request(text, response)
    kind, remedy = _REFUSALS.get(status, (PermanentError, ""))
    return kind(text, remedy=remedy)


def _invalid_request(text: str, response: httpx.Response) -> PermanentError:
    if _TRANSITION_REFUSED.search(text):
        return TransitionRefusedError(text, remedy="its state has changed: read it again")
    if error_names(response, "o"):
        return OrderingRefusedError(text, remedy="the list is read in the server's own order")
    if error_names(response, "date"):
        return PastMonthRefusedError(text, remedy="only staff may report closed months")
    return PermanentError(text)


def _answered_without_tls(error: BaseException | None) -> bool:
    """Whether https was used on a port that speaks http."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS:
            return True
        error = error.__cause__ or error.__context__
    return False


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


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
        login: Login,
        retry: RetryPolicy,
        sleep: Callable[[float], None],
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        whole_seconds: float,
        proxy: Proxy | None = None,
    ) -> None:
        self.monotonic = monotonic
        self._whole_seconds = whole_seconds
        self.proxy = proxy
        """The proxy that the client uses, for messages."""
        self.now = now
        self.address = address
        self.on_request: Callable[[str, int | str, float], None] | None = None
        """Called for each request with the operation, HTTP status or ``"error"``, and seconds."""
        self.before_write: Callable[[], None] | None = None
        """Called before each writing request; what it raises keeps the request from being sent."""
        self.last_date = ("", now())
        """The ``Date`` header of the last response, and when the response came."""
        self._client = client
        self._login = login
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
        if self.before_write is not None and call.operation.is_write:
            self.before_write()
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
        """Send with the present token, and once more with another if Waldur refuses it."""
        authorization = self._authorization(call)
        if isinstance(authorization, FailedAttempt):
            return authorization
        outcome = self._attempt_as(authorization, call)
        is_refused = isinstance(outcome, FailedAttempt) and isinstance(
            outcome.error, TokenRefusedError
        )
        if is_refused and self._login.renew(authorization):
            another = self._authorization(call)
            if isinstance(another, FailedAttempt):
                return another
            return self._attempt_as(another, call)
        return outcome

    def _attempt_as(self, authorization: str, call: Call) -> httpx.Response | FailedAttempt:
        is_write = call.operation.is_write
        deadline = Deadline(self._whole_seconds, self.monotonic)
        try:
            response = self._follow(call, authorization, deadline)
        except httpx.RequestError as error:
            failed = classify_error(
                error,
                purpose=call.purpose,
                host=self.address.host,
                is_write=is_write,
                proxy=self.proxy,
            )
            return replace(failed, repeat=Repeat.NEVER) if deadline.missed else failed
        if isinstance(response, FailedAttempt):
            return response
        if not response.is_success:
            return classify_response(
                response,
                purpose=call.purpose,
                host=self.address.host,
                is_write=is_write,
                login=self._login,
                proxy=self.proxy,
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

    def _authorization(self, call: Call) -> str | FailedAttempt:
        """The header; a failure if there is no token, so that nothing was sent."""
        try:
            return self._login.header()
        except TemporaryError as error:
            text = f"cannot {call.purpose}: {error.problem}"
            repeat = Repeat.NEVER if isinstance(error, TokenRefusedError) else Repeat.ALWAYS
            return FailedAttempt(error=type(error)(text, remedy=error.remedy), repeat=repeat)

    def _follow(
        self, call: Call, authorization: str, deadline: Deadline
    ) -> httpx.Response | FailedAttempt:
        """Send, and follow redirects that keep the method and the token's host."""
        url = httpx.URL(self.address.join(call.path) + _encoded(call.query))
        for _ in range(_MAX_REDIRECTS):
            response = self._exchange(call, url, authorization, deadline)
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
        shown = shorten(masked(redirect.target.partition("?")[0]))
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

    def _sent(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._client.send(request, stream=True)
        except (httpx.InvalidURL, UnicodeError) as error:  # the client reads redirects at once
            raise UnusableResponseError("it redirects to what is not a URL") from error

    def _exchange(
        self, call: Call, url: httpx.URL, authorization: str, deadline: Deadline
    ) -> httpx.Response:
        headers = {"Authorization": authorization}
        if call.content is not None:
            headers["Content-Type"] = "application/json"
        request = self._client.build_request(
            call.operation.method, url, content=call.content, headers=headers
        )
        status: int | str = "error"
        began = time.monotonic()
        try:
            with until(deadline):
                response = read_response(self._sent(request), deadline)
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


def _as_json(body: object, purpose: str) -> bytes:
    """The body of a write.

    Raises:
        PermanentError: it repeats a number of Waldur's that is none in JSON, such as ``1e999``.
    """
    try:
        return json.dumps(body, allow_nan=False).encode()
    except ValueError as error:
        raise PermanentError(
            f"cannot {purpose}: it has a number that JSON cannot express",
            remedy="correct what Waldur has there, such as the backend_metadata of the resource",
        ) from error


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
        body: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
    ) -> Call:
        """Fill in a declared operation.

        ``uuid`` (32 hexadecimal digits) is the object in the path or, for lists, in error messages.
        A sequence in ``query`` becomes one parameter per value; one in ``body`` is a JSON list.
        """
        rows = [body] if isinstance(body, Mapping) else body or ()
        keys = {key for row in rows for key in row}
        undeclared = {*(query or ())} - {*operation.query} | keys - {*(operation.body or ())}
        if undeclared:
            raise ValueError(f"{operation.id} declares no {', '.join(sorted(undeclared))}")
        purpose = operation.purpose.format(uuid=uuid)
        content = None
        if operation.body is not None:
            content = _as_json(body or {}, purpose)
        return cls(
            operation=operation,
            purpose=purpose,
            path=operation.path.format(uuid=uuid),
            query=tuple(_parameters(query or {})),
            content=content,
        )

    def without_body(self) -> Call:
        """The same call, for servers that accept no body."""
        return Call(
            operation=self.operation, purpose=self.purpose, path=self.path, query=self.query
        )


def open_client(
    trusted: ssl.SSLContext | bool,
    proxy: Proxy | None,
    mode: str,
    timeouts: Timeouts,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """An HTTP client; nothing is sent yet.

    Args:
        trusted: The certificate authorities, or ``False`` for none.
        proxy: The proxy of the configuration; without it those of the environment are used.
        mode: The agent's mode, part of the ``User-Agent`` header.
        timeouts: Seconds for the phases of one attempt.
        transport: Replaces the network in tests.

    Raises:
        PermanentError: A proxy cannot be used.
    """
    agent = f"waldur-site-agent-{mode}/{__version__}"
    try:
        client = httpx.Client(
            headers={
                "User-Agent": agent,
                "Accept": "application/json",
                "Accept-Encoding": ENCODING,
            },
            cookies=_without_cookies(),
            verify=trusted,
            timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect),
            transport=transport,
            proxy=None if proxy is None else _for_client(proxy, trusted),
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise unusable_proxy(error, proxy=proxy) from error
    observe_deadlines(client)
    return client


def _for_client(proxy: Proxy, trusted: ssl.SSLContext | bool) -> httpx.Proxy:
    over_tls = proxy.full_url.startswith("https://")
    context = trusted if over_tls and isinstance(trusted, ssl.SSLContext) else None
    return httpx.Proxy(proxy.full_url, ssl_context=context)


@lru_cache(maxsize=256)
def _encoded(query: tuple[tuple[str, str], ...]) -> str:
    """The query with its question mark; most lists ask for the same fields each time."""
    return f"?{urlencode(query)}" if query else ""


def _without_cookies() -> CookieJar:
    """A cookie jar that stays empty: with a session cookie, Waldur requires a CSRF token."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


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
