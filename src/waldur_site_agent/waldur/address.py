"""The API's address: URL, redirects, TLS and proxies."""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import httpx

from waldur_site_agent.model.errors import PermanentError

_EXAMPLE = "write it like https://waldur.example.com/api/"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_CHARACTERS = re.compile(r"[\w.:%-]+")
_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_UNKNOWN_AUTHORITY = (
    "set ca_file to the CA certificate that signed it, or install it on this machine"
)
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
    10: "renew the expired certificate: the server's or that of its CA",
    9: "check the clock of this machine",
    62: "use the name that the certificate was issued for, or reissue it for this name",
    64: "use the name that the certificate was issued for, or reissue it for this address",
}
"""By OpenSSL's code of the verification error (``openssl verify`` lists them)."""
_SHORTEST_PART = 3
_CREDENTIALS = re.compile(r"(^|//|[\s\"'(])[^/\s\"']*@")
_REMEDY = "correct or unset it in the agent's environment"


@dataclass(frozen=True, slots=True)
class ApiAddress:
    """The normal form of an API URL: ``scheme://host[:port][/prefix]/api/``."""

    origin: str
    """Scheme, host and port, without a trailing slash."""
    prefix: str = ""
    """The path above ``/api/``, with a leading and without a trailing slash, or empty."""

    @classmethod
    def parse(cls, url: str) -> ApiAddress:
        """Read an API URL with or without ``/api``, a trailing slash or a path prefix.

        Raises:
            PermanentError: The text is not the URL of an API.
        """
        text = url.strip()
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise _unusable(f"{error}") from error
        if parts.scheme not in _DEFAULT_PORTS:
            raise _unusable("it does not start with https:// or http://")
        if not _HOST_CHARACTERS.fullmatch(host):
            raise _unusable("it has no host" if not host else f"{host!r} is not a host name")
        if parts.username is not None or parts.password is not None:
            raise _unusable("it contains a user name or password, which is not allowed here")
        if parts.query or parts.fragment:
            raise _unusable("it has a query or a fragment, which an API URL must not have")
        steps = [step for step in parts.path.split("/") if step]
        if steps and steps[-1] == "api":
            steps.pop()
        shown_host = f"[{host}]" if ":" in host else host
        shown_port = "" if port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{port}"
        address = cls(
            origin=f"{parts.scheme}://{shown_host}{shown_port}",
            prefix="".join(f"/{step}" for step in steps),
        )
        try:
            httpx.URL(address.url)
        except httpx.InvalidURL as error:
            raise _unusable(f"{error}") from error
        return address

    @property
    def url(self) -> str:
        """The API's URL, with the trailing slash."""
        return f"{self.origin}{self.prefix}/api/"

    @property
    def host(self) -> str:
        """The host, with the port if it is not the default; for messages."""
        return self.origin.partition("://")[2]

    def join(self, path: str) -> str:
        """The URL of a path below the API, such as ``users/me/``."""
        return f"{self.url}{path.lstrip('/')}"

    def over(self, origin: str) -> ApiAddress:
        """The same API at another origin."""
        return ApiAddress(origin=origin, prefix=self.prefix)


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect, and whether it may be followed."""

    source: str
    target: str

    @classmethod
    def read(cls, source: str, location: str) -> Redirect:
        """Resolve a ``Location`` header against the URL of the request."""
        try:
            target = urljoin(source, location)
        except ValueError:
            target = location
        return cls(source=source, target=target)

    @property
    def stays_on_host(self) -> bool:
        """Whether the target is the same origin, or the same host over https instead of http."""
        try:
            before, after = httpx.URL(self.source), httpx.URL(self.target)
            differs = before.host != after.host or bool(after.userinfo)
        except (httpx.InvalidURL, ValueError):  # a ValueError: a host that is no IDNA name
            return False
        if differs:
            return False
        if (before.scheme, before.port) == (after.scheme, after.port):
            return True
        return before.scheme == "http" and after.scheme == "https"

    @property
    def keeps_path(self) -> bool:
        """Whether the target is the same address but for the scheme or the trailing slash."""
        before, after = urlsplit(self.source), urlsplit(self.target)
        return (
            before.path.rstrip("/") == after.path.rstrip("/")
            and before.query == after.query
            and not after.fragment
        )

    @property
    def secure_origin(self) -> str | None:
        """The https origin to use from now on, if the redirect only adds encryption."""
        before, after = urlsplit(self.source), urlsplit(self.target)
        adds_encryption = before.scheme == "http" and after.scheme == "https"
        if not adds_encryption or before.path != after.path or not self.stays_on_host:
            return None
        return ApiAddress.parse(f"https://{after.netloc}").origin


def trusted_authorities(ca_file: str) -> ssl.SSLContext:
    """The certificate authorities that are trusted for TLS.

    They are those of the machine and those that come with the HTTP client, or, instead of both,
    those in ``SSL_CERT_FILE`` or ``SSL_CERT_DIR``; and those in ``ca_file`` (PEM).

    Raises:
        PermanentError: A file cannot be read, or contains no certificate.
    """
    chosen = [name for name in _CA_VARIABLES if os.environ.get(name)]
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
                remedy="set it to a file of PEM certificates that the agent can read",
            ) from error
    return context


def shared_authorities(ca_file: str = "") -> ssl.SSLContext:
    """The same, as one context for all clients, which must not change it; it costs time and memory.

    It is read again after a change of the files or of the variables that name them.

    Raises:
        PermanentError: A file cannot be read, or contains no certificate.
    """
    defaults = ssl.get_default_verify_paths()
    chosen = tuple(os.environ.get(name, "") for name in _CA_VARIABLES)
    files = (ca_file, *chosen, defaults.cafile or "", defaults.capath or "")
    return _shared_authorities(ca_file, chosen, tuple(map(_version_of, files)))


@lru_cache(maxsize=8)
def _shared_authorities(
    ca_file: str,
    chosen: tuple[str, ...],  # noqa: ARG001 - part of the key
    versions: tuple[tuple[int, ...], ...],  # noqa: ARG001 - part of the key
) -> ssl.SSLContext:
    return trusted_authorities(ca_file)


def _version_of(file: str) -> tuple[int, ...]:
    try:
        found = os.stat(file)  # noqa: PTH116 - an empty name is no path
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def certificate_remedy(error: ssl.SSLCertVerificationError) -> str:
    """What to do about a certificate that failed verification."""
    return _REMEDIES.get(getattr(error, "verify_code", 0), _UNKNOWN_AUTHORITY)


GLOBAL_PROXY = "global_proxy"
"""The key of the configuration that sets a proxy for everything, whatever the environment says."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the environment variable or configuration key that sets it."""

    variable: str
    url: str = field(repr=False)
    """As it is set; it may contain a password."""

    @classmethod
    def configured(cls, url: str) -> Proxy | None:
        """The proxy of the configuration, if it has one."""
        return cls(GLOBAL_PROXY, url) if url else None

    @property
    def full_url(self) -> str:
        """The URL with its scheme; the default is http."""
        return self.url if "://" in self.url else f"http://{self.url}"

    def remedy(self, host: str) -> str:
        """What to do if the proxy does not do for a host, such as ``the broker's host``."""
        if self.variable == GLOBAL_PROXY:
            return f"correct {GLOBAL_PROXY} in the configuration"
        return f"correct {self.variable}, or add {host} to NO_PROXY"

    def concealed(self, text: str) -> str:
        """A text about this proxy, such as another library's message, without the login.

        Where a password has a slash or a question mark, libraries quote a part of it as a port.
        """
        login = self.url.rpartition("@")[0].rpartition("://")[2].lstrip("/")
        parts = [part for part in re.split(r"[/?#@:]", login) if len(part) >= _SHORTEST_PART]
        for secret in (login, *sorted(parts, key=len, reverse=True)):
            text = text.replace(secret, "***") if secret else text
        return masked(text)

    def __str__(self) -> str:
        credentials, at, address = self.url.rpartition("@")
        scheme = credentials.partition("://")[0] + "://" if "://" in credentials else ""
        shown = f"{scheme}***@{address}" if at else self.url
        return f"the proxy {shown} ({self.variable})"


def masked(text: str) -> str:
    """The text without user names and passwords in URLs."""
    return _CREDENTIALS.sub(r"\1***@", text)


def proxy_for(
    host: str, kinds: Sequence[str], environ: Mapping[str, str] | None = None
) -> Proxy | None:
    """The proxy that the environment sets for a host, if any.

    Args:
        host: Its name or address.
        kinds: The variables to look at, the first one that is set counts: ``https`` means
            ``https_proxy`` and ``HTTPS_PROXY``.
        environ: The environment.
    """
    environ = os.environ if environ is None else environ
    for kind in kinds:
        found = _variable(f"{kind}_proxy", environ)
        if found is not None:
            _, exceptions = _variable("no_proxy", environ) or ("", "")
            bypassed = any(_covers(entry, host) for entry in exceptions.split(","))
            return None if bypassed else Proxy(*found)
    return None


def proxy_to(url: str, configured: Proxy | None) -> Proxy | None:
    """The proxy for a URL: that of the configuration, or else of the environment."""
    if configured is not None:
        return configured
    parts = urlsplit(url)
    return proxy_for(parts.hostname or "", (parts.scheme, "all"))


def unusable_proxy(
    error: Exception, environ: Mapping[str, str] | None = None, proxy: Proxy | None = None
) -> PermanentError:
    """Why the HTTP client cannot be set up: the proxy of the file, or the invalid variable."""
    if proxy is not None and proxy.variable == GLOBAL_PROXY:
        why = _problem_of_proxy(proxy.url) or proxy.concealed(str(error))
        text = f"{proxy} cannot be used: {why}"
        return PermanentError(text, remedy=f"correct {GLOBAL_PROXY} in the configuration")
    environ = os.environ if environ is None else environ
    for kind in ("http", "https", "all"):
        found = _variable(f"{kind}_proxy", environ)
        problem = _problem_of_proxy(found[1]) if found else ""
        if found and problem:
            return PermanentError(f"{Proxy(*found)} cannot be used: {problem}", remedy=_REMEDY)
    name, exceptions = _variable("no_proxy", environ) or ("", "")
    for entry in map(str.strip, exceptions.split(",")):
        if problem := _problem_of_exception(entry):
            text = f"{name} cannot be used: {entry!r} is neither a host name nor an address"
            return PermanentError(f"{text} ({problem})", remedy=_REMEDY)
    names = ", ".join(sorted(name for name in environ if name.lower().endswith("_proxy")))
    return PermanentError(
        f"the proxies of the environment ({names or 'none is set'}) cannot be used: "
        f"{masked(str(error))}",
        remedy=_REMEDY,
    )


def _unusable(why: str) -> PermanentError:
    # The URL is not repeated: it may contain a pasted token or password.
    return PermanentError(f"waldur_api_url cannot be used: {why}", remedy=_EXAMPLE)


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of ``no_proxy`` matches this host or its domain."""
    name = entry.strip().partition("://")[2] or entry.strip()
    bare = re.sub(r":\d+$", "", name) if name.count(":") == 1 else name
    domain = bare.strip("[]").lstrip("*").lstrip(".").lower()
    return (
        name == "*"
        or (bool(domain) and (host.lower() + ".").endswith(f".{domain}."))
        or (host.lower() == domain)
    )


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The name and value of a variable; lower case takes precedence, empty means unset."""
    for spelling in _spellings(name):
        if spelling in environ:
            return (spelling, environ[spelling]) if environ[spelling] else None
    return None


def _spellings(name: str) -> Iterable[str]:
    return name.lower(), name.upper()


def _problem_of_proxy(url: str) -> str:
    try:
        scheme = httpx.Proxy(Proxy("", url).full_url).url.scheme
    except httpx.InvalidURL as error:
        return f"it is not a URL ({Proxy('', url).concealed(str(error))})"
    except ValueError:
        return "its scheme must be http, https, socks5 or socks5h"
    if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return 'a SOCKS proxy needs the package socksio (pip install "waldur-site-agent[socks]")'
    return ""


def _problem_of_exception(entry: str) -> str:
    try:
        httpx.URL(entry if "://" in entry else f"all://*{entry}")
    except httpx.InvalidURL as error:
        return str(error)
    return ""
