"""The gateway's face: one method for each thing that the agent asks of Waldur."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from waldur_site_agent import __version__
from waldur_site_agent.waldur.address import (
    ApiAddress,
    Proxy,
    proxy_for,
    trusted_authorities,
    unusable_proxy,
)
from waldur_site_agent.waldur.api.agents import AgentIdentitiesApi, EventsApi, ServerApi
from waldur_site_agent.waldur.api.imports import ImportsApi
from waldur_site_agent.waldur.api.offerings import OfferingsApi
from waldur_site_agent.waldur.api.orders import OrdersApi
from waldur_site_agent.waldur.api.people import OfferingUsersApi, PeopleApi
from waldur_site_agent.waldur.api.resources import ResourcesApi
from waldur_site_agent.waldur.api.usage import UsageApi
from waldur_site_agent.waldur.http import Connection, without_cookies
from waldur_site_agent.waldur.retry import RetryPolicy, Timeouts


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Waldur(
    ServerApi,
    OfferingsApi,
    OrdersApi,
    ResourcesApi,
    PeopleApi,
    OfferingUsersApi,
    UsageApi,
    AgentIdentitiesApi,
    EventsApi,
    ImportsApi,
):
    """Waldur's REST API at one server with one token; threads may share it.

    Every method raises ``TemporaryError`` when Waldur cannot be asked or answers badly, and
    ``PermanentError`` when it refuses; :mod:`waldur_site_agent.waldur.errors` has the kinds.
    UUIDs may be given as text, with or without dashes.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        *,
        mode: str = "agent",
        verify: bool = True,
        authorities: str = "",
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        """Prepare the conversation; nothing is sent yet.

        Args:
            api_url: Waldur's API, with or without ``/api`` and the trailing slash.
            token: The API token of the agent's user.
            mode: The agent's mode; the server shows it in its log, and knows the agent by it.
            verify: Whether the server's certificate is checked.
            authorities: A file of authorities (PEM) to trust besides those of the machine.
            timeouts: Seconds for the phases of one attempt.
            retry: How often a failed request is sent again, and when.
            transport: Stands in for the network in tests.
            sleep: Waits for so many seconds; may raise to end the waiting.
            now: The time, in UTC.

        Raises:
            PermanentError: The URL, the token, the authorities, or a proxy that the environment
                names cannot be used.
        """
        address = ApiAddress.parse(api_url)
        trusted = trusted_authorities(authorities) if verify else False
        try:
            client = httpx.Client(
                headers=_headers(mode),
                cookies=without_cookies(),
                verify=trusted,
                timeout=_phases(timeouts or Timeouts()),
                transport=transport,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise unusable_proxy(error) from error
        self._mode = mode
        super().__init__(
            Connection(
                address,
                client,
                token=token.strip(),
                retry=retry or RetryPolicy(),
                sleep=sleep,
                now=now,
                proxy=_proxy_for(address) if transport is None else None,
            )
        )

    def __repr__(self) -> str:
        return f"Waldur({self.base_url!r}, mode={self._mode!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the object is not usable afterwards."""
        self._connection.close()

    @property
    def base_url(self) -> str:
        """The API's URL in its normal form, such as ``https://waldur.example.com/api/``."""
        return self._connection.address.url

    @property
    def request_counts(self) -> Counter[tuple[str, int | str]]:
        """How many requests were sent, by (operation id, HTTP status or ``"error"``)."""
        return self._connection.request_counts

    @property
    def requests_made(self) -> int:
        """How many requests were sent, repetitions and redirects included."""
        return self.request_counts.total()

    def watch_requests(self, told: Callable[[str, int | str, float], None]) -> None:
        """Tell of each request from now on: operation id, HTTP status or ``"error"``, seconds.

        Called in the thread that made the request, before its answer is looked at.
        """
        self._connection.told = told

    def clock_ahead_seconds(self) -> float | None:
        """How far the server's clock was ahead of ours at its last answer; behind is negative.

        ``None`` before the first answer, and where the server does not send the time. To the
        second: the header has no more, and the way of the answer counts as being behind.
        """
        said, received = self._connection.last_date
        try:
            date = parsedate_to_datetime(said)
        except ValueError:
            return None
        return (date - received).total_seconds() if date.tzinfo else None


def _proxy_for(address: ApiAddress) -> Proxy | None:
    parts = urlsplit(address.origin)
    return proxy_for(parts.hostname or "", (parts.scheme, "all"))


def _headers(mode: str) -> dict[str, str]:
    agent = f"waldur-site-agent-{mode}/{__version__}"
    return {"User-Agent": agent, "Accept": "application/json"}


def _phases(timeouts: Timeouts) -> httpx.Timeout:
    return httpx.Timeout(timeouts.read, connect=timeouts.connect)
