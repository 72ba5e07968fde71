"""Whom the connections to a broker trust."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from waldur_site_agent.events.transport import ConnectionLostError
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.waldur.trust import certificate_remedy, trusted_authorities

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
        raise ConnectionLostError(f"{address}: {error.problem}", remedy=error.remedy) from error
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def unreachable(address: Address, error: Exception) -> ConnectionLostError:
    """Say what went wrong before the two sides spoke, and what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted ({error.verify_message})"
        remedy = certificate_remedy(error)
    elif isinstance(error, ssl.SSLError):
        reason = f"TLS fails ({error.reason or error})"
        remedy = "check the port and websocket_use_tls"
    elif isinstance(error, TimeoutError):
        reason, remedy = "no answer in time", "check host, port and the firewall"
    else:
        reason = f"{error or type(error).__name__}"
        remedy = "check host and port, and that it runs"
    return ConnectionLostError(f"{address}: {reason}", remedy=remedy)
