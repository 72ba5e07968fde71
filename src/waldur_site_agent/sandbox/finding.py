"""Which record a person means who types a UUID, a slug, a username or a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from waldur_site_agent.sandbox.operations import as_uuid
from waldur_site_agent.sandbox.world import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

R = TypeVar("R", bound=Record)


def find(table: Mapping[str, R], wanted: R | str, kind: str) -> R:
    """Give the record that a person means.

    Raises:
        LookupError: There is none, or more than one of that name.
    """
    if not isinstance(wanted, str):
        return table[wanted.uuid]
    uuid = as_uuid(wanted)
    if uuid is not None and uuid in table:
        return table[uuid]
    found = [row for row in table.values() if wanted in _names(row)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} {kind} called {wanted!r}; use the UUID")
    return found[0]


def _names(record: Record) -> set[str]:
    return {str(getattr(record, field, "")) for field in ("slug", "username", "name")}
