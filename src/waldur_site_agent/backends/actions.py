"""The actions that a backend carries out, and what became of them.

``resource`` is always the backend's own name of a resource (Slurm: the account), in the spelling
of ``Backend.place``. Amounts are in backend units. Every action is idempotent: to find it
already done is success (``Result.UNCHANGED``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from waldur_site_agent.model.backend import Container, Placement, ResourceFacts
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
    facts: ResourceFacts | None = field(default=None, compare=False, repr=False)
    """What Waldur says about the resource: what was ordered, and more."""
    order: UUID | None = field(default=None, compare=False)
    """The order; the same for each attempt, so that the backend can recognise a repetition."""
    may_exist: bool = field(default=False, compare=False)
    """An earlier attempt may have been interrupted, so a resource of this name is the order's own.
    Only of backends without ``recognizes_unfinished``."""

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
    order: UUID | None = field(default=None, compare=False)
    """The order, as in :class:`CreateResource`."""


@dataclass(frozen=True, slots=True)
class MoveContainer:
    """Put a project's account, with everything below it, below another customer's account.

    Accounts that do not exist are made. An account that is neither below ``previous`` nor where
    it belongs has been moved by somebody else meanwhile: that is a :class:`TemporaryError`.
    """

    containers: tuple[Container, ...]
    """Outermost first; the last one is the account that moves, the one before it its new parent."""
    previous: str
    """The account below which it was found; empty where it is missing."""
    astray: tuple[str, ...] = ()
    """Accounts of customers that hold resources of the project, left there by a move that was
    interrupted: they go below the project's account."""

    @property
    def resource(self) -> str:
        """The account that moves."""
        return self.container.id

    @property
    def container(self) -> Container:
        """The account that moves, with its new parent."""
        return self.containers[-1]


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Set the named limits and leave every other limit alone; ``None`` removes a limit."""

    resource: str
    limits: Mapping[str, Decimal | None]
    order: UUID | None = field(default=None, compare=False)
    """The order, as in :class:`CreateResource`; ``None`` where no order asks for it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What new members get in a resource; empty values are what the backend gives anyway."""

    partitions: tuple[str, ...] = ()
    """The parts of the machine that they may use."""
    qos: str = ""
    """The quality of service that they get there."""

    def __str__(self) -> str:
        parts = []
        if self.partitions:
            parts.append(f"partition {','.join(self.partitions)}")
        if self.qos:
            parts.append(f"QOS {self.qos}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class AddMembers:
    """Let these people use the resource; those who are in it already keep what they have."""

    resource: str
    members: tuple[str, ...]
    grant: Grant = Grant()


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

    ``restore`` is what :attr:`BackendResource.metadata` said before the resource was restricted,
    as far as it is known.
    """

    resource: str
    access: Access
    restore: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreateHomeDirectories:
    """Give these users a home directory where they have none, with the quota that goes with it."""

    users: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreateProjectDirectory:
    """Make the directory of the resource's members where there is none, with its quota.

    What fails is left out (:attr:`Outcome.skipped`) and tried again in later passes; the order
    does not wait for it.
    """

    resource: str


@dataclass(frozen=True, slots=True)
class SetBudget:
    """Set the named limits of a resource's budget, and its share; everything else stays.

    ``None`` removes a limit.
    """

    resource: str
    limits: Mapping[str, Decimal | None] = field(default_factory=dict)
    per_job: bool = False
    """Whether they limit what a single job may use, instead of all jobs together."""
    share: int | None = None
    """The share among its siblings; ``None`` leaves it."""


@dataclass(frozen=True, slots=True)
class ResetUsage:
    """Let what counts against the limits of a resource start from zero; records of usage stay.

    A backend that counts no more than ``used`` has been reset already.
    """

    resource: str
    period: str
    """The period that begins, for messages."""
    used: Mapping[str, Decimal] = field(default_factory=dict)
    """What was used of this period when the action was planned."""


Action: TypeAlias = (
    CreateResource
    | DeleteResource
    | MoveContainer
    | SetLimits
    | AddMembers
    | RemoveMembers
    | SetMemberLimits
    | SetAccess
    | SetBudget
    | ResetUsage
    | CreateHomeDirectories
    | CreateProjectDirectory
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
    PENDING = "pending"
    """The backend has taken it on and finishes it later; of backends with ``finishes_later``."""


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
    assigned_id: str = ""
    """Of creations: the id that the backend gave, where it is not the one of the placement."""
    reference: str = ""
    """Of pending outcomes: by what :meth:`Backend.progress` is asked for it later."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How work stands that the backend finishes later: done, failed (for good), or pending."""

    result: Result
    error: SiteAgentError | None = None
    """Set exactly when the result is FAILED; a temporary one means: ask again."""
    assigned_id: str = ""
    """As in :class:`Outcome`, where it became known only now."""
