"""What a backend has, as one consistent reading."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from waldur_site_agent.backends.actions import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResource:
    """One named thing of the backend: a resource of ours, a container, or a stranger's account."""

    id: str
    parent: str | None = None
    organization: str = ""
    members: frozenset[str] = frozenset()
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    """Only what is set on this very resource, in backend units; nothing inherited."""
    limits_are_known: bool = True
    """False where a limit is set that could not be read: one that is missing above may be there."""
    member_limits: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)
    access: Access | None = None
    """``None`` when the backend has no such notion or the site has set something of its own."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = True
    """False where an interrupted creation is not seen in the limits: a part that every resource
    has is missing, and ``CreateResource`` makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendState:
    """Everything that carries a name in the backend, from one complete read.

    A read that failed or came back short is never a state: it is a :class:`TemporaryError`.
    """

    resources: Mapping[str, BackendResource]

    def members_of(self, resource: str) -> frozenset[str]:
        """Who is in a resource; nobody where there is none."""
        found = self.resources.get(resource)
        return found.members if found is not None else frozenset()

    def children(self, resource: str) -> tuple[str, ...]:
        """The names of the accounts directly below ``resource``, sorted."""
        return tuple(sorted(r.id for r in self.resources.values() if r.parent == resource))


class Verdict(enum.Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of a diagnosis: what was looked at, how it stands, and what to do about it."""

    name: str
    verdict: Verdict
    detail: str = ""
    remedy: str = ""
