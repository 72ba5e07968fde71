"""What every backend plugin offers the agent.

Names of resources and amounts are as in :mod:`waldur_site_agent.backends.actions`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from waldur_site_agent.backends.actions import (
    Access,
    Action,
    AddMembers,
    CreateHomeDirectories,
    CreateProjectDirectory,
    CreateResource,
    DeleteResource,
    Grant,
    MoveContainer,
    Outcome,
    Progress,
    RemoveMembers,
    ResetUsage,
    Result,
    SetAccess,
    SetBudget,
    SetLimits,
    SetMemberLimits,
)
from waldur_site_agent.backends.backend_settings import BackendSettings
from waldur_site_agent.backends.checks import Check, DirectoryReport
from waldur_site_agent.backends.leases import Leases
from waldur_site_agent.backends.state import (
    BackendResource,
    BackendState,
    Capabilities,
    standing_of,
)
from waldur_site_agent.model.backend import Facts, Placement, ResourceFacts, ResourceRequest
from waldur_site_agent.model.budget_notices import Consumption
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.marketplace import Component, Order, WaldurOffering
from waldur_site_agent.model.standing import Standing
from waldur_site_agent.model.usage import Period, UsageReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a backend says about a pending order; without anything it is approved."""

    rejection: str = ""
    """Why the order is rejected; the customer sees it."""
    waiting_for: str = ""
    """What has to happen first; the backend is asked again in each pass."""


HOOKS: Mapping[type, str] = {
    CreateResource: "create_resource",
    DeleteResource: "delete_resource",
    MoveContainer: "move_container",
    SetLimits: "set_limits",
    AddMembers: "add_members",
    RemoveMembers: "remove_members",
    SetMemberLimits: "set_member_limits",
    SetAccess: "set_access",
    SetBudget: "set_budget",
    ResetUsage: "reset_usage",
    CreateHomeDirectories: "create_home_directories",
    CreateProjectDirectory: "create_project_directory",
}
"""The method that the default :meth:`Backend.apply` calls for each kind of action."""


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

    def resources_with(self, users: Iterable[str]) -> frozenset[str] | None:  # noqa: ARG002 - for overriding
        """The resources that have any of these users as a member, or more of them.

        For passes over a few users: the others are not read then. ``None``, as by default, where
        that cannot be told for certain at less cost than by :meth:`observe`.

        Raises:
            TemporaryError: the backend could not be read.
        """
        return None

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

        Asked when a period of a budget begins, of backends that support ``ResetUsage``. Resources
        of which it is not known are left out; their budgets wait.

        Raises:
            TemporaryError: it could not be read.
        """
        raise PermanentError(f"{type(self).__name__} cannot tell what counts against limits")

    def counts_loaded_at(self) -> str:
        """When the backend last loaded what it counts against limits, in its own words.

        After another time, a reset may be undone and counts may be older or lost, so budgets are
        compared with them again. Empty where that cannot happen, or is not known.

        Raises:
            TemporaryError: it could not be read.
        """
        return ""

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
        hook: Callable[[Action], Outcome] = getattr(self, HOOKS[type(action)])
        return hook(action)

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
