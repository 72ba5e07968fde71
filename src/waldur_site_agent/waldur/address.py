"""Where the API is, and which redirects from there may be followed with the token in hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx

from waldur_site_agent.model.errors import PermanentError

_EXAMPLE = "write it like https://waldur.example.com/api/"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_CHARACTERS = re.compile(r"[\w.:%-]+")


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
            raise _unusable("it names no host" if not host else f"{host!r} is not a host's name")
        if parts.username is not None or parts.password is not None:
            raise _unusable("it holds a user name or a password, which have no place here")
        if parts.query or parts.fragment:
            raise _unusable("it has a query or a fragment, which an API URL has not")
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
        """The host, and the port where it is not the usual one; for messages."""
        return self.origin.partition("://")[2]

    def join(self, path: str) -> str:
        """The URL of a path below the API, such as ``users/me/``."""
        return f"{self.url}{path.lstrip('/')}"

    def over(self, origin: str) -> ApiAddress:
        """The same API at another origin."""
        return ApiAddress(origin=origin, prefix=self.prefix)


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect as the server sent it, judged by what it would do with token and method."""

    source: str
    target: str

    @classmethod
    def read(cls, source: str, location: str) -> Redirect:
        """Resolve a ``Location`` header against the URL that was asked."""
        try:
            target = urljoin(source, location)
        except ValueError:
            target = location
        return cls(source=source, target=target)

    @property
    def keeps_the_token_home(self) -> bool:
        """Whether the target is the same origin, or the same host over https instead of http."""
        try:
            before, after = httpx.URL(self.source), httpx.URL(self.target)
        except httpx.InvalidURL:
            return False
        if before.host != after.host or after.userinfo:
            return False
        if (before.scheme, before.port) == (after.scheme, after.port):
            return True
        return before.scheme == "http" and after.scheme == "https"

    @property
    def keeps_the_path(self) -> bool:
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
        if not adds_encryption or before.path != after.path or not self.keeps_the_token_home:
            return None
        return ApiAddress.parse(f"https://{after.netloc}").origin


def _unusable(why: str) -> PermanentError:
    # The URL itself is not repeated: people paste tokens and passwords into it.
    return PermanentError(f"waldur_api_url cannot be used: {why}", remedy=_EXAMPLE)
