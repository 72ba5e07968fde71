"""Whom the connections to a broker trust."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from waldur_site_agent.events.transport import ConnectionLostError
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.waldur.trust import trusted_authorities

if TYPE_CHECKING:
    from waldur_site_agent.events.transport import Address


def tls_context(address: Address) -> ssl.SSLContext | None:
    """Return how to check the broker's certificate, or nothing for a connection without TLS.

    The same authorities as for Waldur's API are trusted.

    Raises:
        ConnectionLostError: ``ca_file`` or the authorities of the machine cannot be read.
    """
    if not address.tls:
        return None
    try:
        context = trusted_authorities(address.ca_file)
    except PermanentError as error:
        raise ConnectionLostError(f"{address}: {error}") from error
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def why_unreachable(address: Address, error: Exception) -> str:
    """Say what went wrong before the two sides spoke, and what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted ({error.verify_message})"
        return f"{address}: {reason}; name the authority that signed it in ca_file"
    if isinstance(error, ssl.SSLError):
        reason = f"TLS fails ({error.reason or error})"
        return f"{address}: {reason}; check the port and websocket_use_tls"
    if isinstance(error, TimeoutError):
        return f"{address}: no answer in time; check host, port and the firewall"
    return f"{address}: {error or type(error).__name__}; check host and port, and that it runs"
