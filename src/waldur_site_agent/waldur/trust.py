"""Whose word is taken for it that a server is who it says it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx

from waldur_site_agent.model.errors import PermanentError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

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


_UNKNOWN_AUTHORITY = "name the authority that signed it in ca_file, or install it on this machine"
_STRICT = (
    "Python 3.13 and later accept only authorities that follow RFC 5280: reissue the CA "
    "certificate with {what} and replace it in ca_file; server certificates that it signed with "
    "the same key stay valid"
)
_REMEDIES: Mapping[int, str] = {
    92: _STRICT.format(what="keyUsage=critical,keyCertSign,cRLSign"),
    89: _STRICT.format(what="basicConstraints=critical,CA:TRUE"),
    79: _STRICT.format(what="basicConstraints=critical,CA:TRUE"),
    24: _STRICT.format(what="basicConstraints=critical,CA:TRUE"),
    32: _STRICT.format(what="keyUsage=critical,keyCertSign,cRLSign"),
    86: _STRICT.format(what="subjectKeyIdentifier=hash"),
    85: "reissue the server's certificate with authorityKeyIdentifier=keyid: Python 3.13 and later "
    "require it",
    10: "renew the server's certificate, or the authority's if that is what has expired",
    9: "check the clock of this machine",
    62: "use the name that the certificate was issued for, or reissue it with this name",
    64: "use the name that the certificate was issued for, or reissue it with this address",
}
"""By OpenSSL's code of the verification error (``openssl verify`` lists them)."""


def certificate_remedy(error: ssl.SSLCertVerificationError) -> str:
    """What to do about a certificate that was refused."""
    return _REMEDIES.get(getattr(error, "verify_code", 0), _UNKNOWN_AUTHORITY)
