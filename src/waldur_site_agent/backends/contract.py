"""What every backend plugin offers the agent: state, actions, and what became of them.

``resource`` is always the backend's own name of a resource (Slurm: the account), in the spelling
of :meth:`Backend.place`. Amounts are in backend units. Every action is idempotent: to find it
already done is success (``Result.UNCHANGED``).
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from waldur_site_agent.backends.leases import Leases
from waldur_site_agent.config.switching import OldDefault, OldKeys
from waldur_site_agent.model.backend import (
    Container,
    Facts,
    Placement,
    ResourceFacts,
    ResourceRequest,
)
from waldur_site_agent.model.budget_notices import Consumption
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.marketplace import Component, OfferingUser, Order, WaldurOffering
from waldur_site_agent.model.standing import (
    Detail,
    MemberStanding,
    Refusal,
    ResourceStanding,
    Standing,
)
from waldur_site_agent.model.usage import Period, UsageReport


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a backend says about a pending order; without anything it is approved."""

    rejection: str = ""
    """Why the order is rejected; the customer sees it."""
    waiting_for: str = ""
    """What has to happen first; the backend is asked again in each pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can tell, beyond the kinds of action that it supports.

    The defaults are those of a backend that can be read completely. Whatever a backend cannot
    tell, the agent remembers in the ``backend_metadata`` of the resource in Waldur.
    """

    tells_members: bool = True
    """Whether ``observe`` shows who is in a resource."""
    tells_limits: bool = True
    """Whether ``observe`` shows limits."""
    tells_access: bool = True
    """Whether ``observe`` shows that a resource is paused or downscaled."""
    tells_all: bool = True
    """Whether ``observe()`` shows everything that exists. If not: the resources that Waldur names
    (:meth:`Backend.hear`), and those named by ``ids``."""
    recognizes_unfinished: bool = True
    """Whether parent and organization tell what an interrupted creation left from what belongs to
    somebody else. If not, the name is noted in Waldur before each creation."""
    keeps_deleted: bool = False
    """Whether deleted resources stay, empty. What is in the right place without members may then be
    one of them, so names are noted as without ``recognizes_unfinished``."""
    names_once: bool = False
    """Whether the name of a terminated resource is never given again."""
    more_names: int = 10
    """How many further names are tried where the offering names by project."""
    assigns_ids: bool = False
    """Whether the backend names resources itself; their ids are then kept as Waldur has them."""
    finishes_later: bool = False
    """Whether outcomes may be pending."""
    usage_may_decrease: bool = False
    """Whether usage is a level, such as bytes stored, so that a lower figure is no mistake."""
    keeps_usage: bool = True
    """Whether the usage of a deleted resource can still be read. If not, its last usage is
    reported before the deletion, as far as that succeeds, and the order does not wait for it."""
    makes_project_directories: bool = False
    """Whether new resources get a directory (:class:`CreateProjectDirectory`)."""
    needs_facts: bool = False
    """Whether :meth:`Backend.hear` is to be called, which costs one more list in each pass."""

    @property
    def adopts_unfinished(self) -> bool:
        """Whether what an interrupted creation left is recognised without a note in Waldur."""
        return self.recognizes_unfinished and not self.keeps_deleted


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
    job_limits: Mapping[str, Decimal] = field(default_factory=dict)
    """What a single job may use, of backends that support ``SetBudget``; set on this resource."""
    share: int | None = None
    """Its share among its siblings, of such backends; ``None`` if it has none of its own."""
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


@dataclass(frozen=True, slots=True)
class DirectoryReport:
    """How a home or project directory compares with the settings."""

    path: str
    differences: tuple[str, ...] = ()
    """What is not as configured, or why it could not be found out."""
    repaired: tuple[str, ...] = ()
    """What was corrected before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of a diagnosis: what was looked at, how it stands, and what to do about it."""

    name: str
    verdict: CheckStatus
    detail: str = ""
    remedy: str = ""


class BackendSettings(BaseModel):
    """Base of a plugin's ``backend_settings``: unknown keys are refused, values are frozen.

    The docstring below a field is its line in the generated reference and in the JSON Schema.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, use_attribute_docstrings=True
    )

    version_1: ClassVar[OldKeys] = {}
    """The keys of version 1 that a site may have in its file, and what became of each."""
    version_1_defaults: ClassVar[tuple[OldDefault, ...]] = ()
    """The defaults that were others in version 1 and change bills or access."""

    located_by: ClassVar[tuple[str, ...] | None] = None
    """The keys that tell which machine is meant; ``None``: only all keys together tell it."""

    def is_same_place_as(self, other: BackendSettings) -> bool:
        """Whether two offerings with these settings have their resources on the same machine.

        The usage of an account there is then one and the same, whichever of them reports it.
        """
        keys = type(self).model_fields if self.located_by is None else self.located_by
        return type(self) is type(other) and all(
            getattr(self, key) == getattr(other, key) for key in keys
        )


class Backend(ABC):
    """A place where resources live: a Slurm cluster, an accounting manager, a portal.

    A backend speaks backend units only, keeps no state that it could not read again, and never
    decides who should have access: it reads, and it carries out actions. Everything it raises is
    a :class:`TemporaryError` (the state of the world is unknown or unchanged, try again) or a
    :class:`PermanentError`; names that come from Waldur are checked before they are used.
    """

    Settings: ClassVar[type[BackendSettings]] = BackendSettings
    """The model against which ``backend_settings`` of an offering is checked at start."""

    supports: frozenset[type] = frozenset()
    """The kinds of action this backend can carry out; no other kind is ever planned.

    Set on the class, or on the instance where it depends on the settings.
    """

    capabilities: Capabilities = Capabilities()
    """What this backend can tell; set on the class or on the instance."""

    leases: Leases | None = None
    """What several agents share the work by; ``None`` where there is one agent."""
    _may_write: Callable[[], None] | None = None

    budget_limit_type: str = "GrpTRESMins"
    """The limit that budgets set where the policy in Waldur names none; set as ``supports``."""

    def __init__(self, settings: BackendSettings, components: Mapping[str, Component]) -> None:
        """Remember, but do nothing yet: a constructor neither reads nor starts anything."""
        self.settings = settings
        self.components = components

    def close(self) -> None:
        """Give back what the backend holds; called once, when the agent stops."""
        return

    def coordinate(self, leases: Leases | None, may_write: Callable[[], None] | None) -> None:
        """Work as one of several agents; called once, before anything is read or applied.

        Args:
            leases: for a backend with one writer at a time: who holds its lease, writes.
            may_write: asked before each action of the default :meth:`apply`; raises a
                ``TemporaryError`` when another agent may have taken over the offering.
        """
        self.leases, self._may_write = leases, may_write

    def hear(self, facts: Facts) -> None:  # noqa: B027 - optional
        """Hear what Waldur says about resources and people, before anything is read or applied.

        Called in each pass if ``capabilities.needs_facts``, and again for what is read later in
        the pass; a resource that is told again replaces what was said of it before.
        """

    def progress(self, reference: str) -> Progress:
        """How work stands that an outcome of ``Result.PENDING`` left to the backend.

        Asked in each pass until it is done or has failed for good.

        Args:
            reference: the outcome's own.

        Raises:
            TemporaryError: it could not be found out.
        """
        error = PermanentError(
            f'{type(self).__name__} does not know of any work "{reference}" that it finishes '
            "later; complete the order by hand"
        )
        return Progress(Result.FAILED, error)

    @abstractmethod
    def diagnose(self) -> Iterable[Check]:
        """Say whether the backend is there and set up well, one check after the other.

        Never raises: what goes wrong is a check that failed, with its remedy.
        """

    @abstractmethod
    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """Name and place a resource of ``request``, using ``slug`` as the stem of its name.

        Pure: nothing is read or started.

        Raises:
            PermanentError: a name cannot be used in this backend; the text says which and why.
        """

    @abstractmethod
    def observe(self, ids: Iterable[str] | None = None) -> BackendState:
        """Read what the backend has: all of it, or at least the resources named by ``ids``.

        One bulk read, never one read per resource; a resource that is not in the answer does not
        exist.

        Raises:
            TemporaryError: the read failed or is not known to be complete.
        """

    def explain(self, resources: Iterable[str], users: Iterable[str] = ()) -> Standing:
        """How resources and users stand, and why work there would be refused; for support desks.

        Reads only, and needs no right to write. This default says what :meth:`observe` shows, as
        far as ``capabilities`` go; a backend overrides it that knows more.

        Args:
            resources: the resources asked about.
            users: the users asked about, in each of these resources.

        Raises:
            TemporaryError: the backend could not be read.
        """
        names, people = tuple(resources), tuple(users)
        state = self.observe(names) if names else BackendState(resources={})
        return Standing(
            resources={
                name: standing_of(state.resources.get(name), people, self.capabilities)
                for name in names
            }
        )

    def usage(self, since: Mapping[str, datetime], period: Period) -> UsageReport:
        """What was used of each resource in the period, in total and by user, exactly.

        One bulk read for all resources. Work is cut at both ends of the period; what still runs
        counts up to now.

        Args:
            since: the resources to report, each with the aware moment from which its usage
                counts: what ran before under the same name belonged to another resource.
            period: the time to report; its end may lie in the future.

        Raises:
            TemporaryError: the read failed or is not known to be complete; nothing is reported.
            PermanentError: the backend cannot report usage.
        """
        return self.usages(since, [period])[0]

    def consumption(self, resources: Iterable[str]) -> Mapping[str, Mapping[str, Consumption]]:
        """What is used of the limits on consumption of each resource, by component type.

        Only limits that are used up count, such as those on core-hours; a resource or component
        without one is left out. This default knows of none.

        Raises:
            TemporaryError: the backend could not be read.
        """
        del resources
        return {}

    def usages(
        self,
        since: Mapping[str, datetime],
        periods: Sequence[Period],
    ) -> tuple[UsageReport, ...]:
        """The same for several periods that do not overlap, one report for each, in their order.

        A backend overrides :meth:`usage`, or this method where one read serves all periods.
        """
        if type(self).usage is Backend.usage:
            raise PermanentError(
                f"{type(self).__name__} cannot report usage; name another reporting_backend or none"
            )
        return tuple(self.usage(since, period) for period in periods)

    def verify_usage(self, period: Period) -> Iterable[str]:  # noqa: ARG002 - for overriding
        """Compare the usage of a closed period with a second source, where the backend has one.

        Returns:
            A line for each difference, and nothing when the two agree or there is no second
            source or the site does not ask for the comparison.

        Raises:
            TemporaryError: the second source could not be read or is not ready yet.
        """
        return ()

    def counted_usage(
        self,
        resources: Iterable[str],  # noqa: ARG002 - for overriding
    ) -> Mapping[str, Mapping[str, Decimal]]:
        """What counts against the limits of these resources at the moment, in backend units.

        Asked when a period of a budget begins, of backends that support ``ResetUsage``.

        Raises:
            TemporaryError: it could not be read, or not of every resource.
        """
        raise PermanentError(f"{type(self).__name__} cannot tell what counts against limits")

    def grant(
        self,
        offering: WaldurOffering,  # noqa: ARG002 - for overriding
        attributes: Mapping[str, Any],  # noqa: ARG002 - for overriding
    ) -> Grant:
        """What new members of a resource get besides being in it.

        Pure: nothing is read or started.

        Args:
            offering: as Waldur has it.
            attributes: those of the resource, which the customer chose with the order.

        Raises:
            PermanentError: what was ordered is nothing that the offering has, or no name.
        """
        return Grant()

    def is_of_a_customer(self, account: BackendResource) -> bool:  # noqa: ARG002 - for overriding
        """Whether an account looks like one that was made for a customer; pure.

        Accounts of projects are moved away from such accounts, and from those of customers whom
        Waldur shows; others are an administrator's choice.
        """
        return False

    def access_to_set(self, access: Access) -> Access:
        """What the backend makes of a state, where it cannot tell all of them apart."""
        return access

    def not_yet_usable(self, users: Iterable[str]) -> frozenset[str]:  # noqa: ARG002 - for overriding
        """Which of these users cannot be added yet, so that they wait instead of failing.

        Cheap and in process: nothing is started. Slurm: users the operating system does not know.
        """
        return frozenset()

    def is_listed_as(self, name: str, listed: str) -> bool:  # noqa: ARG002 - for overriding
        """Whether a member who is listed with other capitals than Waldur's name is that user.

        Args:
            name: the username in Waldur.
            listed: the same name but for capitals, as the backend has it.

        Raises:
            TemporaryError: it could not be found out.
        """
        return True

    def counts(self, component: str) -> bool:  # noqa: ARG002 - for overriding
        """Whether usage of a configured component can be told at all; of others nothing is."""
        return True

    def limits_to_set(
        self,
        resource: str,  # noqa: ARG002 - for overriding
        limits: Mapping[str, Decimal | None],
    ) -> Mapping[str, Decimal | None]:
        """Which of the ordered limits are to be set at all; the others stay as they are.

        Args:
            resource: what the customer calls the resource, for messages.
            limits: by component of the backend, as ordered, in Waldur's measured units.
        """
        return limits

    def settable_limit(self, component: str, amount: Decimal) -> Decimal:  # noqa: ARG002 - for overriding
        """The limit that is set for an amount of backend units; pure.

        Backends that keep whole numbers override it and round up, so that nobody gets less than
        was bought; the plan shows the rounded limit.
        """
        return amount

    def limits_agree(self, component: str, wanted: Decimal, found: Decimal) -> bool:  # noqa: ARG002 - for overriding
        """Whether a limit that was read back is the wanted one, as far as the backend can tell.

        Backends that print limits with fewer digits than they keep override it.
        """
        return wanted == found

    def missing_home_directories(self, users: Iterable[str]) -> frozenset[str]:  # noqa: ARG002 - for overriding
        """Which of these users have no home directory but should get one.

        Cheap and in process: nothing is started.
        """
        return frozenset()

    def unset_quotas(self, users: Iterable[str]) -> frozenset[str]:  # noqa: ARG002 - for overriding
        """Which of these users have a home whose quota could not be set when it was made.

        Cheap and in process. ``CreateHomeDirectories`` sets it.
        """
        return frozenset()

    def unfinished_directories(self, resources: Iterable[str]) -> frozenset[str]:  # noqa: ARG002 - for overriding
        """Which of these resources have a project directory that is not complete yet.

        Cheap and in process. ``CreateProjectDirectory`` completes it.
        """
        return frozenset()

    def check_directories(
        self,
        resources: Iterable[str],  # noqa: ARG002 - for overriding
        users: Iterable[str],  # noqa: ARG002 - for overriding
        *,
        repair: bool = False,  # noqa: ARG002 - for overriding
        replace_quotas: bool = False,  # noqa: ARG002 - for overriding
    ) -> Iterable[DirectoryReport]:
        """Compare project directories and homes with the settings.

        Args:
            resources: whose project directories to look at.
            users: whose homes to look at.
            repair: correct what differs; quotas only where there is none.
            replace_quotas: with ``repair``: also quotas that somebody has set otherwise.
        """
        return ()

    def session(self) -> AbstractContextManager[None]:
        """Join the parts of one pass: an ``observe``, and every ``apply`` that follows from it.

        Within the block ``apply`` may build on what was read before, and a backend that lets in
        one writer at a time may keep others out from the first ``apply`` to the end. What cannot
        be undone, and every refusal for good, still rests on a reading of its own. This default
        joins nothing.
        """
        return nullcontext()

    def apply(self, actions: Sequence[Action]) -> Iterable[Outcome]:
        """Carry out the actions in their order; one outcome for each, as they become known.

        This default calls one hook per action. A backend that can do many things in one command
        overrides it; the outcomes stay one per action.
        """
        for action in actions:
            yield self._apply_one(action)

    def _apply_one(self, action: Action) -> Outcome:
        try:
            if self._may_write is not None:
                self._may_write()
            return self._dispatch(action)
        except SiteAgentError as error:
            return Outcome(action, Result.FAILED, error)

    def _dispatch(self, action: Action) -> Outcome:
        hooks: Mapping[type, Callable[[Any], Outcome]] = {
            CreateResource: self.create_resource,
            DeleteResource: self.delete_resource,
            MoveContainer: self.move_container,
            SetLimits: self.set_limits,
            AddMembers: self.add_members,
            RemoveMembers: self.remove_members,
            SetMemberLimits: self.set_member_limits,
            SetAccess: self.set_access,
            SetBudget: self.set_budget,
            ResetUsage: self.reset_usage,
            CreateHomeDirectories: self.create_home_directories,
            CreateProjectDirectory: self.create_project_directory,
        }
        return hooks[type(action)](action)

    def create_resource(self, action: CreateResource) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def delete_resource(self, action: DeleteResource) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def move_container(self, action: MoveContainer) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def set_limits(self, action: SetLimits) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def add_members(self, action: AddMembers) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def remove_members(self, action: RemoveMembers) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def set_member_limits(self, action: SetMemberLimits) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def set_access(self, action: SetAccess) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def set_budget(self, action: SetBudget) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def reset_usage(self, action: ResetUsage) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def create_home_directories(self, action: CreateHomeDirectories) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def create_project_directory(self, action: CreateProjectDirectory) -> Outcome:
        """Hook of the default :meth:`apply`."""
        return self._unsupported(action)

    def _unsupported(self, action: Action) -> Outcome:
        error = PermanentError(
            f"{type(self).__name__} cannot carry out {type(action).__name__}; "
            "the plugin does not list it under 'supports'"
        )
        return Outcome(action, Result.FAILED, error)

    def pause_with(self, pause: Callable[[float], None]) -> None:  # noqa: ARG002 - for overriding
        """Wait with ``pause`` before something is tried again within a pass.

        It takes seconds and may raise a ``TemporaryError``, because the agent stops.
        """
        return

    def decide(self, order: Order, facts: ResourceFacts | None) -> Decision:  # noqa: ARG002 - for overriding
        """Decide on a pending order; asked only where the site sets ``approve_orders: backend``.

        Args:
            order: the order; ``limits`` are in Waldur's measured units.
            facts: what Waldur says about its resource; never ``None``, for the order waits then.

        Raises:
            TemporaryError: there is no decision yet; asked again in the next pass.
        """
        return Decision()

    def watch_commands(self, told: Callable[[str, str, float], None]) -> None:  # noqa: ARG002 - for overriding
        """Tell of each external command from now on, for health and metrics.

        A backend that starts commands calls ``told`` after each, with the name that
        :meth:`commands_run` uses, ``"success"`` or ``"failure"``, and the seconds that it took.
        It should: a long cycle is told from a stuck one by what comes back meanwhile.
        """
        return

    def commands_run(self) -> Mapping[str, int]:
        """How often each external command was started so far, for logs, metrics and tests."""
        return {}


def standing_of(
    found: BackendResource | None, users: Iterable[str], capabilities: Capabilities
) -> ResourceStanding:
    """What a reading says of one resource and of users in it, as far as the backend can tell."""
    if found is None:
        missing = Refusal(rule="the resource", value="the backend does not have it")
        return ResourceStanding(exists=False, refusals=(missing,))
    details = [Detail("below", found.parent)] if found.parent else []
    if capabilities.tells_limits:
        details += [Detail(f"limit of {n}", f"{v:f}") for n, v in sorted(found.limits.items())]
    if capabilities.tells_access and found.access is not None:
        details.append(Detail("access", found.access.value))
    if capabilities.tells_members:
        details.append(Detail("members", str(len(found.members))))
    is_paused = capabilities.tells_access and found.access is Access.PAUSED
    paused = Refusal(rule="access", value="the resource is paused")
    return ResourceStanding(
        exists=True,
        details=tuple(details),
        refusals=(paused,) if is_paused else (),
        members={user: _standing_of_member(user, found, capabilities) for user in users},
    )


def _standing_of_member(
    user: str, found: BackendResource, capabilities: Capabilities
) -> MemberStanding:
    if not capabilities.tells_members:
        return MemberStanding()
    is_member = user in found.members
    outside = Refusal(rule="membership", value=f"{user} is not in {found.id}")
    limits = sorted(found.member_limits.get(user, {}).items())
    return MemberStanding(
        is_member=is_member,
        details=tuple(Detail(f"own limit of {n}", f"{v:f}") for n, v in limits),
        refusals=() if is_member else (outside,),
    )


class UserActionRequired(SiteAgentError):  # noqa: N818 - sites know its children by these names
    """The person must do something before a username can be given; tried again each cycle.

    The message and the link are shown to the person in Waldur. Keep both the same from cycle to
    cycle: each change costs requests, and may send the person a mail.
    """

    def __init__(self, message: str, url: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.url = url


class AccountLinkingRequired(UserActionRequired):
    """The person must link an existing account first."""


class AdditionalValidationRequired(UserActionRequired):
    """The person must be validated by other means first."""


class UsernameBackend(ABC):
    """Finds or makes the username of a person at this site.

    It is asked about one person after the other, never in parallel. ``TemporaryError`` leaves the
    person as it is until the next cycle, ``PermanentError`` marks the account as failed in Waldur
    (and is tried again each cycle all the same); anything else counts as a defect of the plugin
    and is treated as temporary.
    """

    Settings: ClassVar[type[BackendSettings]] = BackendSettings
    """The model against which ``username_management_settings`` is checked at start."""

    generating_has_effects: ClassVar[bool] = True
    """Whether :meth:`generate_username` changes anything at the site, such as a directory.

    A dry run does not call it then, and only says that a name would be made.
    """

    def __init__(self, settings: BackendSettings) -> None:
        """Remember, but do nothing yet: a constructor neither reads nor starts anything."""
        self.settings = settings

    def names_held(self, holders: Mapping[str, frozenset[UUID]]) -> None:  # noqa: B027 - optional
        """Hear which names are taken: called once per cycle, before anybody is asked about.

        Args:
            holders: for each name in Waldur, in lower case, the people (``user_uuid``) who have
                it, whatever the state of their account but Deleted. What is given in the course
                of the cycle is not added.
        """

    @abstractmethod
    def get_username(self, offering_user: OfferingUser) -> str | None:
        """Return the username that the person already has at the site, or ``None``.

        Never changes anything.

        Raises:
            AccountLinkingRequired, AdditionalValidationRequired: the person must act first.
        """

    @abstractmethod
    def generate_username(self, offering_user: OfferingUser) -> str | None:
        """Make a username for the person; ``None`` when this backend makes none.

        Raises:
            AccountLinkingRequired, AdditionalValidationRequired: the person must act first.
        """

    def close(self) -> None:
        """Give back what the backend holds; called once, when the agent stops."""
        return


class NoUsernames(UsernameBackend):
    """Makes no usernames and knows none: nobody's account is touched."""

    generating_has_effects = False

    def get_username(self, offering_user: OfferingUser) -> str | None:  # noqa: ARG002 - the contract's
        """No name is known."""
        return None

    def generate_username(self, offering_user: OfferingUser) -> str | None:  # noqa: ARG002 - the contract's
        """No name is made."""
        return None
