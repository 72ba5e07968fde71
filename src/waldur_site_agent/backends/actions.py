"""Changes to a backend as values, and what became of them.

``resource`` is always the backend's own name of a resource (Slurm: the account), in the spelling
of :meth:`Backend.place`. Amounts are in backend units. Every action is idempotent: to find it
already done is success (``Result.UNCHANGED``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from waldur_site_agent.model.errors import SiteAgentError
    from waldur_site_agent.model.placement import Placement


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


class Result(enum.Enum):
    """What became of an action."""

    DONE = "done"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LeftOut:
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
    left_out: tuple[LeftOut, ...] = ()
