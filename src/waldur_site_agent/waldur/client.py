"""The gateway's face: one method for each thing that the agent asks of Waldur."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from waldur_site_agent import __version__
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.waldur.address import ApiAddress
from waldur_site_agent.waldur.connection import Connection, without_cookies
from waldur_site_agent.waldur.offering_calls import OfferingCalls
from waldur_site_agent.waldur.offering_user_calls import OfferingUserCalls
from waldur_site_agent.waldur.operations import server as ops
from waldur_site_agent.waldur.order_calls import OrderCalls
from waldur_site_agent.waldur.patience import RetryPolicy, Timeouts
from waldur_site_agent.waldur.people_calls import PeopleCalls
from waldur_site_agent.waldur.resource_calls import ResourceCalls
from waldur_site_agent.waldur.usage_calls import UsageCalls

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from waldur_site_agent.model.people import User


class Waldur(OfferingCalls, OrderCalls, ResourceCalls, PeopleCalls, OfferingUserCalls, UsageCalls):
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
        verify: bool | str = True,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare the conversation; nothing is sent yet.

        Args:
            api_url: Waldur's API, with or without ``/api`` and the trailing slash.
            token: The API token of the agent's user.
            mode: The agent's mode; the server shows it in its log, and knows the agent by it.
            verify: Whether the server's certificate is checked, or a file or directory of
                certificate authorities to check it against.
            timeouts: Seconds for the phases of one attempt.
            retry: How often a failed request is sent again, and when.
            transport: Stands in for the network in tests.
            sleep: Waits for so many seconds; may raise to end the waiting.

        Raises:
            PermanentError: The URL, the token or the authorities cannot be used.
        """
        timeouts = timeouts or Timeouts()
        address = ApiAddress.parse(api_url)
        client = httpx.Client(
            headers={
                "User-Agent": f"waldur-site-agent-{mode}/{__version__}",
                "Accept": "application/json",
            },
            cookies=without_cookies(),
            verify=_trust(verify),
            timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect),
            transport=transport,
        )
        self._mode = mode
        super().__init__(
            Connection(
                address, client, token=token.strip(), retry=retry or RetryPolicy(), sleep=sleep
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

    def whoami(self) -> User:
        """The user whose token this is, with its roles."""
        return self._read(ops.ME)

    def server_version(self) -> str:
        """The version of the server, as it spells it."""
        return self._read(ops.VERSION).version


def _trust(verify: bool | str) -> bool | ssl.SSLContext:
    if isinstance(verify, bool):
        return verify
    authorities = Path(verify)
    try:
        if authorities.is_dir():
            return ssl.create_default_context(capath=authorities)
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise PermanentError(
            f"the certificate authorities {verify!r} cannot be used ({error}); "
            "verify_ssl takes true, false, or a file or directory of PEM certificates"
        ) from error
