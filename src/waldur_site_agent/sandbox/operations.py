"""How a call of Waldur's API is declared, and what a rule gets to see of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from waldur_site_agent.sandbox.answers import invalid, not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from waldur_site_agent.sandbox.answers import Answer
    from waldur_site_agent.sandbox.records import JsonObject, User
    from waldur_site_agent.sandbox.store import Transaction


@dataclass(frozen=True, slots=True)
class Query:
    """The part of the URL after the question mark; a name may stand there more than once."""

    pairs: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Give every non-empty value of a name."""
        return [value for key, value in self.pairs if key == name and value]

    def last(self, name: str) -> str:
        """Give the last value of a name, or nothing: how a filter for one value reads."""
        values = self.all(name)
        return values[-1] if values else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated request, as a rule sees it."""

    tx: Transaction
    user: User
    """The user who calls."""
    path: Mapping[str, str]
    query: Query
    body: JsonValue
    url: str
    """Scheme, host and path of the request, without its query."""
    api: str
    """Where the API begins, such as ``http://127.0.0.1:8080/api/``."""

    def uuid(self, name: str = "uuid") -> str:
        """Give the UUID in the path.

        Raises:
            RefusedError: 404, where it is none.
        """
        found = as_uuid(self.path[name])
        if found is None:
            raise not_found()
        return found

    @property
    def fields(self) -> JsonObject:
        """The body as an object; a missing body is an empty one.

        Raises:
            RefusedError: 400, where it is something else.
        """
        if isinstance(self.body, dict):
            return self.body
        kind = type(self.body).__name__
        message = f"Invalid data. Expected a dictionary, but got {kind}."
        raise invalid({"non_field_errors": [message]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A call that the server offers. ``name`` is its operationId in the API's description."""

    name: str
    method: str
    path: str
    """Below ``/api/``, with a slash at the end."""
    run: Callable[[Call], Answer]
    since: tuple[int, ...] = ()
    """The first release that has it; older ones do not know the path."""


def as_uuid(text: str) -> str | None:
    """Give 32 hex digits for a UUID with or without dashes, ``None`` for anything else."""
    try:
        return UUID(text).hex
    except ValueError:
        return None
