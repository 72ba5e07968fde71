"""Whose word is taken for it that a server is who it says it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx

from waldur_site_agent.model.errors import PermanentError

if TYPE_CHECKING:
    import ssl

_CHOSEN_BY_ENVIRONMENT = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def trusted_authorities(ca_file: str = "") -> ssl.SSLContext:
    """The certificate authorities to check a server against.

    They are those of the machine and those that come with the client, or, in place of both, what
    ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name; and, besides, those in ``ca_file`` (PEM).

    Raises:
        PermanentError: A file cannot be read, or holds no certificate.
    """
    chosen = [name for name in _CHOSEN_BY_ENVIRONMENT if os.environ.get(name)]
    try:
        context = httpx.create_ssl_context()
    except OSError as error:
        raise PermanentError(
            f"the certificate authorities of this machine cannot be used ({error})",
            remedy=f"check {' and '.join(chosen) or 'its installation'}",
        ) from error
    if not chosen:
        context.load_default_certs()
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            raise PermanentError(
                f"ca_file {ca_file!r} cannot be used ({error})",
                remedy="it names a file of PEM certificates that the agent may read",
            ) from error
    return context
