"""The client of Waldur's REST API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import httpx

from waldur_site_agent.waldur.address import ApiAddress, Proxy, proxy_to, shared_authorities
from waldur_site_agent.waldur.api.agents import AgentIdentitiesApi, EventsApi, ServerApi
from waldur_site_agent.waldur.api.imports import ImportsApi
from waldur_site_agent.waldur.api.offerings import OfferingsApi
from waldur_site_agent.waldur.api.orders import OrdersApi
from waldur_site_agent.waldur.api.people import OfferingUsersApi, PeopleApi
from waldur_site_agent.waldur.api.resources import ResourcesApi
from waldur_site_agent.waldur.api.usage import UsageApi
from waldur_site_agent.waldur.http import Connection, Login, RetryPolicy, Timeouts, open_client
from waldur_site_agent.waldur.tokens import ApiToken


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
    """Waldur's REST API on one server with one token; threads may share it.

    Every method raises ``TemporaryError`` if Waldur cannot be reached or its response is invalid,
    and ``PermanentError`` if it refuses; :mod:`waldur_site_agent.waldur.errors` lists the kinds.
    UUIDs may be given as text, with or without dashes.
    """

    def __init__(
        self,
        api_url: str,
        login: str | Login,
        *,
        mode: str = "agent",
        verify: bool = True,
        authorities: str = "",
        proxy: str = "",
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            api_url: Waldur's API, with or without ``/api`` and the trailing slash.
            login: The API token of the agent's user, or another way to log in.
            mode: The agent's mode, part of the ``User-Agent`` header.
            verify: Whether the server's certificate is checked.
            authorities: A file of CA certificates (PEM) to trust besides those of the machine.
            proxy: A proxy for all requests; without it those of the environment are used.
            timeouts: Seconds for the phases of one attempt.
            retry: How often a failed request is sent again, and when.
            transport: Replaces the network in tests.
            sleep: Waits for a number of seconds; may raise to end the wait.
            now: The time, in UTC.
            monotonic: Seconds of a clock that is never set, for deadlines.

        Raises:
            PermanentError: The URL, the token, the CA certificates, or a proxy set in the
                environment cannot be used.
        """
        timeouts = timeouts or Timeouts()
        address = ApiAddress.parse(api_url)
        trusted = shared_authorities(authorities) if verify else False
        configured = Proxy.configured(proxy)
        client = open_client(trusted, configured, mode, timeouts, transport)
        self._mode = mode
        super().__init__(
            Connection(
                address,
                client,
                login=ApiToken.of(login) if isinstance(login, str) else login,
                retry=retry or RetryPolicy(),
                sleep=sleep,
                now=now,
                monotonic=monotonic,
                whole_seconds=timeouts.whole,
                proxy=proxy_to(address.origin, configured) if transport is None else None,
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
        """Close the connections; the client cannot be used afterwards."""
        self._connection.close()

    @property
    def base_url(self) -> str:
        """The API's URL in its normal form, such as ``https://waldur.example.com/api/``."""
        return self._connection.address.url

    @property
    def proxy(self) -> Proxy | None:
        """The proxy that requests go through; its text form has no password."""
        return self._connection.proxy

    @property
    def request_counts(self) -> Counter[tuple[str, int | str]]:
        """How many requests were sent, by (operation id, HTTP status or ``"error"``)."""
        return self._connection.request_counts

    @property
    def requests_made(self) -> int:
        """How many requests were sent, including retries and redirects."""
        return self.request_counts.total()

    def watch_requests(self, on_request: Callable[[str, int | str, float], None]) -> None:
        """Call back for each request with operation id, HTTP status or ``"error"``, and seconds.

        Called in the thread that made the request, before its response is read.
        """
        self._connection.on_request = on_request

    def ask_before_writing(self, may_write: Callable[[], None]) -> None:
        """Call ``may_write`` before each request that changes something; it may raise.

        Its ``TemporaryError`` then is that of the request, which is not sent.
        """
        self._connection.before_write = may_write

    def clock_ahead_seconds(self) -> float | None:
        """How far the server's clock was ahead of ours in its last response; negative if behind.

        ``None`` before the first response, and if the server does not send the time. Precise to a
        second, like the header; the response's travel time counts as being behind.
        """
        header, received = self._connection.last_date
        try:
            date = parsedate_to_datetime(header)
        except (ValueError, OverflowError, TypeError):
            return None
        return (date - received).total_seconds() if date.tzinfo else None
