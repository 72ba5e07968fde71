"""What went wrong with one attempt: which error it is, and whether it may be tried again."""

from __future__ import annotations

import enum
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.waldur.address import Proxy, certificate_remedy, masked
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
    complains_of,
    is_api_answer,
    is_markup,
    server_words,
)

_DICE = random.SystemRandom()


def full_jitter(ceiling: float) -> float:
    """A random wait between nothing and ``ceiling`` seconds: agents of many sites spread out."""
    return _DICE.uniform(0, ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds for the phases of one attempt."""

    connect: float = 10.0
    read: float = 60.0
    """Between two pieces of the answer; Waldur computes long lists before it sends the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a request that may be repeated is sent, and the waits in between in seconds."""

    attempts: int = 4
    """All of them, the first included."""
    first_wait: float = 0.5
    longest_wait: float = 20.0
    longest_retry_after: float = 60.0
    """The most that a server's ``Retry-After`` is honoured; then the next cycle is soon enough."""
    jitter: Callable[[float], float] = full_jitter

    def wait_before(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait before the attempt of this number (2 is the first repetition)."""
        if retry_after is not None:
            return min(retry_after, self.longest_retry_after)
        doublings = min(attempt - 2, 30)
        return self.jitter(min(self.first_wait * 2.0**doublings, self.longest_wait))


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


_NEVER_REACHED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
_OF_PROXIES = frozenset(
    {
        httpx.codes.FORBIDDEN,
        httpx.codes.PROXY_AUTHENTICATION_REQUIRED,
        httpx.codes.BAD_GATEWAY,
        httpx.codes.SERVICE_UNAVAILABLE,
        httpx.codes.GATEWAY_TIMEOUT,
    }
)
_AUTHENTICATION_REMEDY = (
    "check waldur_api_token; a token with a lifetime dies when the agent is silent for longer: "
    "give the agent's user a token without one"
)
_TRANSITION_REFUSED = re.compile(r"\bcannot transition\b|\bfrom (its )?current state\b", re.I)
_NOT_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"}
_PLAIN_AT_TLS = re.compile(
    r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS", re.I
)
_NO_TLS_HERE = "start waldur_api_url with http://, or name the port at which https is served"
_TLS_HERE = "this port wants TLS: start waldur_api_url with https://"
_NOT_THE_API = "this is not an answer of Waldur's API: check waldur_api_url and the proxies"
_BUSY = "Waldur is busy or being restarted; it is tried again later"


class Repeat(enum.Enum):
    """Whether the same request may be sent again at once."""

    ALWAYS = "Waldur certainly did not act on it"
    IF_SAFE = "Waldur may have acted on it"
    NEVER = "the same request would meet the same answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """A failed attempt."""

    error: SiteAgentError
    repeat: Repeat = Repeat.NEVER
    retry_after: float | None = None
    """Seconds that the server asked to wait."""


def trouble_without_answer(
    error: httpx.RequestError,
    *,
    purpose: str,
    host: str,
    is_write: bool,
    proxy: Proxy | None = None,
) -> FailedAttempt:
    """Judge an attempt to which no answer came; ``proxy`` is what stands in between."""
    why = str(error) or type(error).__name__
    certificate = _certificate_error(error)
    if certificate is not None:
        text = f"cannot {purpose}: the certificate of {host} is not trusted ({certificate})"
        remedy = certificate_remedy(certificate)
        return FailedAttempt(error=TemporaryError(text, remedy=remedy))
    if _answered_without_tls(error):
        text = f"cannot {purpose}: {host} does not speak TLS at this port ({why})"
        return FailedAttempt(error=TemporaryError(text, remedy=_NO_TLS_HERE))
    if proxy is not None and isinstance(error, _NEVER_REACHED):
        return _proxy_trouble(f"cannot {purpose}", host, proxy, error)
    if isinstance(error, _NEVER_REACHED):
        text = f"cannot {purpose}: {host} cannot be reached ({why}); it is tried again later"
        remedy = "if this lasts, check the network and waldur_api_url"
        return FailedAttempt(error=TemporaryError(text, remedy=remedy), repeat=Repeat.ALWAYS)
    if isinstance(error, httpx.TimeoutException):
        why = f"{why}: no answer in time"
    by = f" through {proxy}" if proxy else ""
    return _lost(f"cannot {purpose}: {host} was asked{by} but did not answer ({why})", is_write)


def _proxy_trouble(text: str, host: str, proxy: Proxy, error: httpx.RequestError) -> FailedAttempt:
    """With a proxy in between, only the proxy itself is ever connected to."""
    why = masked(str(error)) or type(error).__name__
    if isinstance(error, httpx.ProxyError):
        text = f"{text}: {proxy} does not connect to {host} ({why})"
    else:
        text = f"{text}: {proxy} cannot be reached ({why}), so {host} was not asked"
    remedy = "it is tried again later; if this lasts, correct the variable, or add the host of "
    remedy += "waldur_api_url to NO_PROXY"
    return FailedAttempt(error=TemporaryError(text, remedy=remedy), repeat=Repeat.ALWAYS)


def trouble_in_answer(
    response: httpx.Response,
    *,
    purpose: str,
    host: str,
    is_write: bool,
    secret: str,
    proxy: Proxy | None = None,
) -> FailedAttempt:
    """Judge an answer whose status is not a success; ``proxy`` is what stands in between."""
    status = response.status_code
    if proxy is not None and status in _OF_PROXIES and response.url.scheme == "http":
        host = f"{host}, or {proxy},"
    words = server_words(response)
    if secret:
        words = words.replace(secret, "***")
    said = f"{host} answered HTTP {status}" + (f': "{words}"' if words else " without a word")
    text = f"cannot {purpose}: {said}"
    retry_after = read_retry_after(response.headers.get("retry-after"))
    if status == httpx.codes.TOO_MANY_REQUESTS:
        error = TemporaryError(text, remedy="it is tried again more slowly")
        return FailedAttempt(error=error, repeat=Repeat.ALWAYS, retry_after=retry_after)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return _server_trouble(text, status, retry_after, is_write)
    if status in {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY}:
        error = TemporaryError(text, remedy=_BUSY)
        return FailedAttempt(error=error, repeat=Repeat.IF_SAFE, retry_after=retry_after)
    return FailedAttempt(error=_refusal(text, status, response))


def _server_trouble(
    text: str, status: int, retry_after: float | None, is_write: bool
) -> FailedAttempt:
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        repeat = Repeat.IF_SAFE if retry_after is None else Repeat.ALWAYS
        return FailedAttempt(
            error=TemporaryError(text, remedy=_BUSY), repeat=repeat, retry_after=retry_after
        )
    if status in {httpx.codes.INTERNAL_SERVER_ERROR, httpx.codes.NOT_IMPLEMENTED}:
        # Waldur's writes are database transactions: after a 500 nothing has changed.
        remedy = "this is a fault in Waldur: its log tells more; it is tried again later"
        error = TemporaryError(text, remedy=remedy)
        return FailedAttempt(error=error, repeat=Repeat.IF_SAFE, retry_after=retry_after)
    return _lost(text, is_write, retry_after)


def _lost(text: str, is_write: bool, retry_after: float | None = None) -> FailedAttempt:
    error: TemporaryError
    if is_write:
        remedy = "it may have taken effect: what became of it is read before it is sent again"
        error = LostAnswerError(text, remedy=remedy)
    else:
        error = TemporaryError(text, remedy="it is tried again later")
    return FailedAttempt(error=error, repeat=Repeat.IF_SAFE, retry_after=retry_after)


def _refusal(text: str, status: int, response: httpx.Response) -> SiteAgentError:
    if status == httpx.codes.UNAUTHORIZED:
        return TokenRefusedError(text, remedy=_AUTHENTICATION_REMEDY)
    absent = status == httpx.codes.NOT_FOUND and not is_api_answer(response)
    if absent or status == httpx.codes.METHOD_NOT_ALLOWED:
        return AbsentOperationError(
            text,
            remedy="this server does not have the operation: check waldur_api_url, the server's "
            "version and the offering's type",
        )
    wants_tls = status == httpx.codes.BAD_REQUEST and _PLAIN_AT_TLS.search(response.text)
    elsewhere = status < httpx.codes.BAD_REQUEST or is_markup(response) or wants_tls
    if elsewhere or status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        # Not Waldur's verdict on the object: something between here and there said it.
        return TemporaryError(text, remedy=_TLS_HERE if wants_tls else _NOT_THE_API)
    if status == httpx.codes.BAD_REQUEST:
        return _invalid_request(text, response)
    kind, remedy = _REFUSALS.get(status, (PermanentError, ""))
    return kind(text, remedy=remedy)


def _invalid_request(text: str, response: httpx.Response) -> PermanentError:
    if _TRANSITION_REFUSED.search(text):
        return TransitionRefusedError(text, remedy="its state has moved on: read it again")
    if complains_of(response, "o"):
        return OrderingRefusedError(text, remedy="the list is read in the server's own order")
    if complains_of(response, "date"):
        return PastMonthRefusedError(text, remedy="past months are for staff to report")
    return PermanentError(text)


_REFUSALS: Mapping[int, tuple[type[PermanentError], str]] = {
    httpx.codes.FORBIDDEN: (
        AccessDeniedError,
        "give the agent's user the role that this needs (docs/waldur-api.md lists them)",
    ),
    httpx.codes.NOT_FOUND: (
        NotFoundError,
        "it was deleted, or the token's user may not see it",
    ),
    httpx.codes.CONFLICT: (ConflictError, ""),
    httpx.codes.UNSUPPORTED_MEDIA_TYPE: (BodyRefusedError, ""),
}


def _answered_without_tls(error: BaseException | None) -> bool:
    """Whether https was spoken to a server that speaks http at that port."""
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
