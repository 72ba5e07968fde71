"""URLs of databases, as ``coordination`` has them."""

from __future__ import annotations

import importlib.util
import ipaddress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

Dialect = Literal["postgresql", "mysql"]
TlsMode = Literal["disable", "prefer", "require", "verify-full"]

_DIALECTS: dict[str, Dialect] = {"postgresql": "postgresql", "postgres": "postgresql"}
_DIALECTS |= {"mysql": "mysql", "mariadb": "mysql"}
_PORTS: dict[Dialect, int] = {"postgresql": 5432, "mysql": 3306}
_DRIVERS: dict[Dialect, str] = {"postgresql": "pg8000", "mysql": "pymysql"}
_TLS: tuple[TlsMode, ...] = ("disable", "prefer", "require", "verify-full")
_EXAMPLE = (
    "expected a URL such as postgresql://agent:PASSWORD@db.example.com/agent or "
    "mysql://agent:PASSWORD@db.example.com/agent; % in a password is written %25"
)
_OPTIONS = (
    "after the question mark only sslmode (disable, prefer, require, verify-full) and sslrootcert "
    "(a file of certificate authorities) are known"
)


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where a database is and how to log in; its text form has neither user nor password."""

    dialect: Dialect
    host: str
    port: int
    database: str
    user: str
    password: str = field(default="", repr=False)
    tls: TlsMode = "prefer"
    ca_file: str = ""
    """Certificate authorities instead of those of the system, for ``verify-full``."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.dialect}://{host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, text: str) -> DatabaseUrl:
        """Read a URL.

        Raises:
            ValueError: it is not one that can be used; the message does not show it.
        """
        scheme, _, rest = text.partition("://")
        login, _, place = rest.rpartition("@")
        user, _, password = login.partition(":")  # with / or ? in it, it is no part of a URL
        try:
            parts = urlsplit(f"{scheme}://{place}")
            port = parts.port
            options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError:
            raise ValueError(_EXAMPLE) from None
        dialect = _DIALECTS.get(parts.scheme)
        database = unquote(parts.path.removeprefix("/"))
        if dialect is None or not parts.hostname or port == 0 or not text.isprintable():
            raise ValueError(_EXAMPLE)
        if not database or "/" in database or not user or parts.fragment:
            raise ValueError(f"a host, a user and the name of a database are needed: {_EXAMPLE}")
        return cls(
            dialect=dialect,
            host=parts.hostname,
            port=port or _PORTS[dialect],
            database=database,
            user=unquote(user),
            password=unquote(password),
            tls=_tls(options.pop("sslmode", "prefer")),
            ca_file=_last(options, "sslrootcert"),
        )

    @property
    def exposed(self) -> str:
        """What somebody on the network between agent and database could do; empty if nothing."""
        if self.tls == "verify-full" or _is_of_this_machine(self.host):
            return ""
        return (
            f"the certificate of {self.host} is not verified (sslmode={self.tls}): whoever is in "
            "between can learn the password and give several agents the same lease"
        )

    @property
    def missing_extra(self) -> str:
        """The extra of this distribution that the database needs and that is not installed."""
        return "" if importlib.util.find_spec(_DRIVERS[self.dialect]) else self.dialect


VERIFIED = "append ?sslmode=verify-full, and &sslrootcert=FILE for an authority of the site"
"""How to end :attr:`DatabaseUrl.exposed`."""


def _is_of_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _tls(text: str) -> TlsMode:
    for mode in _TLS:
        if mode == text:
            return mode
    raise ValueError(_OPTIONS)


def _last(options: dict[str, str], key: str) -> str:
    value = options.pop(key, "")
    if options:
        raise ValueError(_OPTIONS)
    return value
