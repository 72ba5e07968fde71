"""How the agent logs in: with a token of Waldur, or as a client of an OpenID Connect provider."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.waldur.address import Proxy, Redirect, proxy_to, shared_authorities
from waldur_site_agent.waldur.body import is_markup, load_json, shorten
from waldur_site_agent.waldur.errors import TokenRefusedError, error_text
from waldur_site_agent.waldur.http import Timeouts, classify_error, open_client
from waldur_site_agent.waldur.transport import Deadline, read_response, until

_TIMEOUT_SECONDS = 30.0
_RENEW_SECONDS = 30.0
"""How long before its end a token is renewed, so that no request is under way with an old one."""
_DEFAULT_LIFETIME_SECONDS = 300.0
"""The lifetime of a token whose provider does not say it."""
_PAUSE_SECONDS = 1.0
"""How long after a failure the provider is not asked again, whichever thread wants a token."""
_PURPOSE = "get an access token"
_CHECK_CLIENT = (
    "check oidc_client_id and oidc_client_secret, and that the identity provider allows client "
    "credentials for this client"
)
_CHECK_URL = "check oidc_token_url and the proxies"
_RETRY = "it will be retried"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token of Waldur itself; a :class:`~waldur_site_agent.waldur.http.Login`."""

    token: str = field(repr=False)
    remedy: str = (
        "check waldur_api_token; a token with a lifetime expires when the agent is idle for "
        "longer: give the agent's user a token without a lifetime"
    )

    @classmethod
    def of(cls, text: str) -> ApiToken:
        """A token as it stands in the configuration.

        Raises:
            PermanentError: It cannot be sent in a header.
        """
        token = text.strip()
        if not _is_well_formed(token):
            raise PermanentError(
                "waldur_api_token cannot be used: it is empty or has characters that no token has; "
                "copy it again from the profile of the agent's user in Waldur"
            )
        return cls(token)

    def header(self) -> str:
        """See :class:`Login`."""
        return f"Token {self.token}"

    def renew(self, refused: str) -> bool:  # noqa: ARG002 - there is only this one
        """See :class:`Login`."""
        return False

    def mask(self, text: str) -> str:
        """See :class:`Login`."""
        return text.replace(self.token, "***")


@dataclass(frozen=True, slots=True)
class Client:
    """A client of an identity provider, as registered there."""

    token_url: str
    id: str
    secret: str = field(repr=False)

    @property
    def host(self) -> str:
        """The provider's host, for messages."""
        return urlsplit(self.token_url).netloc.rpartition("@")[2]


@dataclass(slots=True)
class _Held:
    """An access token, and until when it is used."""

    token: str = field(repr=False)
    renew_at: float
    expires_at: float


class AccessTokens:
    """Access tokens for a client of an identity provider (client credentials, RFC 6749, 4.4).

    A :class:`~waldur_site_agent.waldur.http.Login`. A token is renewed before it expires; while
    the provider is away, it is used to its end. Threads and connections may share the object:
    together they fetch one token at a time.
    """

    remedy = (
        "Waldur must trust this identity provider and know the client's user: check oidc_token_url "
        "and oidc_client_id, and the OIDC settings of the server"
    )

    def __init__(
        self,
        client: Client,
        *,
        verify: bool = True,
        authorities: str = "",
        proxy: str = "",
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_token: Callable[[str], None] = lambda _token: None,
    ) -> None:
        """Prepare; the provider is not asked yet.

        Args:
            client: Who the agent is there.
            verify: Whether the provider's certificate is checked.
            authorities: A file of CA certificates (PEM) to trust besides those of the machine.
            proxy: A proxy for the requests; without it those of the environment are used.
            timeouts: Seconds for one request; by default thirty for all of it.
            clock: Seconds that never go back.
            on_token: Told of each new token, so that it can be kept out of the log.

        Raises:
            PermanentError: The CA certificates or the proxy cannot be used.
        """
        self._client = client
        self._timeouts = timeouts or Timeouts(read=_TIMEOUT_SECONDS, whole=_TIMEOUT_SECONDS)
        self._configured = Proxy.configured(proxy)
        self._trusted = shared_authorities(authorities) if verify else False
        self._open_http().close()
        self._clock = clock
        self._on_token = on_token
        self._one_at_a_time = threading.Lock()
        self._held: _Held | None = None
        self._failure: TemporaryError | None = None
        self._ask_again_at = -math.inf

    def header(self) -> str:
        """See :class:`Login`."""
        with self._one_at_a_time:
            held = self._held
            if held is None or self._clock() >= held.renew_at:
                held = self._renewed(held)
            return f"Bearer {held.token}"

    def renew(self, refused: str) -> bool:
        """See :class:`Login`; a token that another thread has replaced already is kept."""
        with self._one_at_a_time:
            if self._held is not None and refused == f"Bearer {self._held.token}":
                self._held = None
        return True

    def mask(self, text: str) -> str:
        """See :class:`Login`."""
        held = self._held
        for secret in (self._client.secret, held.token if held is not None else ""):
            text = text.replace(secret, "***") if secret else text
        return text

    def seconds_left(self) -> float:
        """How long the present token is valid; fetches one if there is none.

        Raises:
            TemporaryError: The provider gives none.
        """
        self.header()
        held = self._held
        return 0.0 if held is None else held.expires_at - self._clock()

    def _renewed(self, held: _Held | None) -> _Held:
        """A fresh token, or the present one as long as it is valid and there is no other."""
        now = self._clock()
        if self._failure is None or now >= self._ask_again_at:
            self._failure = None
            try:
                self._held = held = self._fetched(now)
            except TemporaryError as error:
                self._failure, self._ask_again_at = error, self._clock() + _PAUSE_SECONDS
            else:
                self._on_token(held.token)
                return held
        if held is not None and now < held.expires_at:
            return held
        failure = self._failure or TemporaryError(f"cannot {_PURPOSE}", remedy=_RETRY)
        # a new one each time: a traceback grows with every raise of the same object
        raise type(failure)(failure.problem, remedy=failure.remedy) from failure

    def _fetched(self, now: float) -> _Held:
        response = self._answer()
        if not response.is_success:
            raise self._refused(response)
        token, lifetime = self._read(response)
        renew_in = max(lifetime - _RENEW_SECONDS, lifetime / 2)
        return _Held(token, renew_at=now + renew_in, expires_at=now + lifetime)

    def _open_http(self) -> httpx.Client:
        return open_client(self._trusted, self._configured, "login", self._timeouts)

    def _answer(self) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client.id,
            "client_secret": self._client.secret,
        }
        deadline = Deadline(self._timeouts.whole, time.monotonic)
        try:
            with self._open_http() as http, until(deadline):
                request = http.build_request("POST", self._client.token_url, data=form)
                return read_response(http.send(request, stream=True), deadline)
        except httpx.RequestError as error:
            failed = classify_error(
                error,
                purpose=_PURPOSE,
                host=self._client.host,
                is_write=False,
                proxy=proxy_to(self._client.token_url, self._configured),
                key="oidc_token_url",
            )
            raise failed.error from error

    def _refused(self, response: httpx.Response) -> TemporaryError:
        status = response.status_code
        text = f"cannot {_PURPOSE}: {self._client.host} answered HTTP {status}"
        if said := self.mask(error_text(response)):
            text += f': "{said}"'
        if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT):
            return TemporaryError(text, remedy=_RETRY)
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return TemporaryError(text, remedy=_RETRY)
        if response.has_redirect_location:
            target = Redirect.read(self._client.token_url, response.headers["location"]).target
            shown = shorten(target.partition("?")[0])
            where = f"{text} and redirects to {shown}, where the secret is not sent"
            return TokenRefusedError(where, remedy="if that is right, set oidc_token_url to it")
        is_answer = status in (400, 401, 403) and not is_markup(response)
        return TokenRefusedError(text, remedy=_CHECK_CLIENT if is_answer else _CHECK_URL)

    def _read(self, response: httpx.Response) -> tuple[str, float]:
        """The token and its lifetime in seconds."""
        try:
            body = load_json(response.content)
        except ValueError:
            body = None
        token = body.get("access_token") if isinstance(body, dict) else None
        if not isinstance(token, str) or not _is_well_formed(token):
            raise TokenRefusedError(
                f"cannot {_PURPOSE}: the answer of {self._client.host} has no access_token",
                remedy=_CHECK_URL,
            )
        lifetime = body.get("expires_in") if isinstance(body, dict) else None
        return token, _seconds(lifetime)


def _seconds(lifetime: object) -> float:
    """The lifetime that a provider gives, which may be text; the usual one if it is none."""
    seconds = math.nan
    if isinstance(lifetime, int | float | str) and not isinstance(lifetime, bool):
        with suppress(ValueError, OverflowError):
            seconds = float(lifetime)
    return seconds if math.isfinite(seconds) and seconds > 0 else _DEFAULT_LIFETIME_SECONDS


def _is_well_formed(token: str) -> bool:
    return bool(token) and token.isascii() and token.isprintable() and " " not in token
