"""Proxies that the environment names: which one stands in between, and which cannot be used."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from waldur_site_agent.model.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_CREDENTIALS = re.compile(r"(^|//|[\s\"'(])[^/\s\"']*@")
_REMEDY = "correct or unset it in the environment that the agent is started with"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable that names it."""

    variable: str
    url: str
    """As the variable has it: it may hold a password."""

    @property
    def full_url(self) -> str:
        """The URL with its scheme; without one a proxy speaks HTTP."""
        return self.url if "://" in self.url else f"http://{self.url}"

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
    """The proxy that the environment names for a host, if any.

    Args:
        host: its name or address.
        kinds: which variables count, the first one that is set: ``https`` means ``https_proxy``
            and ``HTTPS_PROXY``.
        environ: the environment.
    """
    environ = os.environ if environ is None else environ
    for kind in kinds:
        found = _variable(f"{kind}_proxy", environ)
        if found is not None:
            _, exceptions = _variable("no_proxy", environ) or ("", "")
            bypassed = any(_covers(entry, host) for entry in exceptions.split(","))
            return None if bypassed else Proxy(*found)
    return None


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of ``no_proxy`` means this host, or a domain that it is in."""
    name = entry.strip().partition("://")[2] or entry.strip()
    bare = re.sub(r":\d+$", "", name) if name.count(":") == 1 else name
    domain = bare.strip("[]").lstrip("*").lstrip(".").lower()
    return (
        name == "*"
        or (bool(domain) and (host.lower() + ".").endswith(f".{domain}."))
        or (host.lower() == domain)
    )


def unusable_proxy(error: Exception, environ: Mapping[str, str] | None = None) -> PermanentError:
    """Why the client cannot be set up: names the variable that has something unusable."""
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


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The name and value of a variable; in lower case it counts over the other, empty not."""
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
        return f"it is not a URL ({masked(str(error))})"
    except ValueError:
        return "its scheme is none of http, https, socks5 and socks5h"
    if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return "a SOCKS proxy needs the package socksio beside the agent (pip install socksio)"
    return ""


def _problem_of_exception(entry: str) -> str:
    try:
        httpx.URL(entry if "://" in entry else f"all://*{entry}")
    except httpx.InvalidURL as error:
        return str(error)
    return ""
