"""What part of an offering a cycle looks at. An event never says more than that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Everything:
    """The whole offering: what the polling modes look at."""


@dataclass(frozen=True, slots=True)
class OrderScope:
    """One order."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class ResourceScope:
    """One resource: its members, limits and access."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class ProjectScope:
    """One project: the members of all its resources, its service and course accounts."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class UserScope:
    """One person as a user of the offering, by the UUID of the Waldur user."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class ImportScope:
    """One request to be told the accounts that no resource claims."""

    uuid: UUID


Scope: TypeAlias = Everything | OrderScope | ResourceScope | ProjectScope | UserScope | ImportScope
