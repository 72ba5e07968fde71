"""Changes to a backend as values, and what became of them.

``resource`` is always the backend's own name of a resource (Slurm: the account), in the spelling
of :meth:`Backend.place`. Amounts are in backend units. Every action is idempotent: to find it
already done is success (``Result.UNCHANGED``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from waldur_site_agent.model.backend import Placement
from waldur_site_agent.model.errors import SiteAgentError


class Access(enum.Enum):
    """How far a resource may be used at the moment."""

    NORMAL = "normal"
    DOWNSCALED = "downscaled"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class CreateResource:
    """Make the resource, and the accounts above it that do not exist yet."""

    placement: Placement
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    """Limits to set together with the creation; a resource found half-made gets them too."""

    @property
    def resource(self) -> str:
        """The name of the resource to make."""
        return self.placement.id


@dataclass(frozen=True, slots=True)
class DeleteResource:
    """Stop the resource's work, remove its members, delete it.

    ``project_container`` is the project's account above it: it is deleted as well when it is
    really one of ours and nothing is left below it. A resource with other accounts below it is
    never deleted: that is a :class:`PermanentError`.
    """

    resource: str
    project_container: str | None = None


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Set the named limits and leave every other limit alone; ``None`` removes a limit."""

    resource: str
    limits: Mapping[str, Decimal | None]


@dataclass(frozen=True, slots=True)
class AddMembers:
    """Let these people use the resource."""

    resource: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoveMembers:
    """These people may no longer use the resource; their jobs in it end."""

    resource: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetMemberLimits:
    """Set the named limits of one member within the resource; ``None`` removes a limit."""

    resource: str
    member: str
    limits: Mapping[str, Decimal | None]


@dataclass(frozen=True, slots=True)
class SetAccess:
    """Pause, downscale or restore the resource.

    ``restore`` is what :attr:`BackendResource.metadata` said before the resource was restricted.
    """

    resource: str
    access: Access
    restore: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreateHomeDirectories:
    """Give these users a home directory where they have none."""

    users: tuple[str, ...]


Action: TypeAlias = (
    CreateResource
    | DeleteResource
    | SetLimits
    | AddMembers
    | RemoveMembers
    | SetMemberLimits
    | SetAccess
    | CreateHomeDirectories
)


def resource_of(action: Action) -> str:
    """The resource that an action changes; empty where it is about people alone."""
    match action:
        case CreateHomeDirectories():
            return ""
        case _:
            return action.resource


def members_of(action: Action) -> tuple[str, ...]:
    """Those whom an action lets into a resource, or puts out of it."""
    match action:
        case AddMembers() | RemoveMembers():
            return action.members
        case _:
            return ()


class Result(enum.Enum):
    """What became of an action."""

    DONE = "done"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Skipped:
    """One member of an action that was left out while the rest was carried out."""

    name: str
    error: SiteAgentError
    """Temporary: the member waits (the operating system does not know the user yet).
    Permanent: this member cannot be served (an unusable name)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one action; ``error`` is set exactly when the result is FAILED."""

    action: Action
    result: Result
    error: SiteAgentError | None = None
    skipped: tuple[Skipped, ...] = ()


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


class CheckStatus(enum.Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of a diagnosis: what was looked at, how it stands, and what to do about it."""

    name: str
    verdict: CheckStatus
    detail: str = ""
    remedy: str = ""
