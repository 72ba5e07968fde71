"""A cloud that names things itself, works slowly and tells little, with a backend for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import structlog

from harness.killing import KillSwitch
from harness.testbed import COMPONENTS, SimulatedSite, connection
from waldur_site_agent.backends import (
    Access,
    AddMembers,
    Backend,
    BackendResource,
    BackendSettings,
    BackendState,
    Capabilities,
    Check,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    Progress,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.backend import Facts, Placement, ResourceFacts, ResourceRequest
from waldur_site_agent.planning.plan import Thresholds
from waldur_site_agent.waldur import Waldur
from waldur_site_agent_sandbox import Sandbox
from waldur_site_agent_slurm.simulator import SimulatedSlurm


@dataclass
class Machine:
    """One thing in the cloud."""

    id: str
    order: UUID | None = None
    limits: dict[str, Decimal] = field(default_factory=dict)
    members: set[str] = field(default_factory=set)
    access: Access = Access.NORMAL
    flavour: str = ""
    ready: bool = True


@dataclass
class Cloud:
    """What is there; it outlives every agent."""

    machines: dict[str, Machine] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    """Which kinds of work take their time: create, limits, delete."""
    jobs: dict[str, tuple[str, str, dict[str, Decimal]]] = field(default_factory=dict)
    """By reference: the kind, the machine, and limits; removed once it was carried out."""
    finished: dict[str, SiteAgentError | None] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    is_away: bool = False

    def finish(self, error: SiteAgentError | None = None) -> None:
        """Finish all that takes its time, or fail at it."""
        for reference, (kind, name, limits) in list(self.jobs.items()):
            del self.jobs[reference]
            self.finished[reference] = error
            if error is not None:
                continue
            if kind == "delete":
                del self.machines[name]
            else:
                self.machines[name].limits |= limits
                self.machines[name].ready = True


class CloudBackend(Backend):
    """Speaks to the cloud; what it cannot tell depends on its capabilities."""

    supports = frozenset(
        {CreateResource, DeleteResource, SetLimits, AddMembers, RemoveMembers, SetAccess}
    )

    def __init__(self, cloud: Cloud, blade: KillSwitch, capabilities: Capabilities) -> None:
        super().__init__(BackendSettings(), {})
        self.cloud, self.blade, self.capabilities = cloud, blade, capabilities
        self.told: dict[UUID, ResourceFacts] = {}
        self.people: dict[str, str] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One call that the agent may die before or after."""
        if self.cloud.is_away:
            raise TemporaryError("the cloud does not answer")
        self.cloud.calls.append(name)
        last = self.blade.step(name)
        yield
        if last:
            self.blade.die()

    def hear(self, facts: Facts) -> None:
        """Remember what Waldur says."""
        self.told |= {each.uuid: each for each in facts.resources}
        self.people |= {user.username: user.user_email for user in facts.users}

    def diagnose(self) -> Iterable[Check]:
        """Nothing is ever wrong."""
        return ()

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """A name without anything above it."""
        return Placement(id=f"vm-{slug}", title=request.resource_name, parent="", organization="")

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:
        """What the capabilities allow to be seen."""
        with self.step("observe"):
            can, found = self.capabilities, {}
            named = {each.account for each in self.told.values()} | {*(ids or ())}
            for key, machine in self.cloud.machines.items():
                name = key.lower()
                if machine.ready and (can.tells_all or name in named):
                    found[name] = BackendResource(
                        id=name,
                        parent="",
                        members=frozenset(machine.members if can.tells_members else ()),
                        limits=dict(machine.limits) if can.tells_limits else {},
                        limits_are_known=can.tells_limits,
                        access=machine.access if can.tells_access else None,
                    )
            return BackendState(resources=found)

    def create_resource(self, action: CreateResource) -> Outcome:
        """Make a machine; of its own name if the cloud gives names."""
        with self.step("create"):
            name = action.placement.id
            if self.capabilities.assigns_ids:
                own = [m.id for m in self.cloud.machines.values() if m.order == action.order]
                name = own[0] if own else f"VM-{len(self.cloud.machines) + 100}"
            machine = self.cloud.machines.setdefault(name, Machine(name, action.order))
            if machine.order != action.order and not action.may_exist:
                raise PermanentError(f"{name}: exists already; choose another name")
            facts = action.facts
            machine.flavour = str(facts.attributes.get("flavour", "")) if facts else ""
            return self._begun(action, "create", machine, dict(action.limits))

    def set_limits(self, action: SetLimits) -> Outcome:
        """Set limits."""
        with self.step("limits"):
            limits = {k: v for k, v in action.limits.items() if v is not None}
            return self._begun(action, "limits", self._machine(action.resource), limits)

    def delete_resource(self, action: DeleteResource) -> Outcome:
        """Delete a machine."""
        with self.step("delete"):
            if action.resource not in {each.lower() for each in self.cloud.machines}:
                return Outcome(action, Result.UNCHANGED)
            return self._begun(action, "delete", self._machine(action.resource), {})

    def _begun(
        self,
        action: CreateResource | SetLimits | DeleteResource,
        kind: str,
        machine: Machine,
        limits: dict[str, Decimal],
    ) -> Outcome:
        assigned = machine.id if self.capabilities.assigns_ids and kind == "create" else ""
        reference = f"{kind}-{action.order}"
        if kind in self.cloud.slow and reference not in self.cloud.finished:
            machine.ready = machine.ready and kind != "create"
            self.cloud.jobs[reference] = (kind, machine.id, limits)
            return Outcome(action, Result.PENDING, assigned_id=assigned, reference=reference)
        if kind == "delete":
            del self.cloud.machines[machine.id]
        machine.limits |= limits
        return Outcome(action, Result.DONE, assigned_id=assigned)

    def progress(self, reference: str) -> Progress:
        """Whether a job is done."""
        with self.step("progress"):
            if reference in self.cloud.jobs:
                return Progress(Result.PENDING)
            error = self.cloud.finished.get(reference)
            return Progress(Result.FAILED if error else Result.DONE, error)

    def add_members(self, action: AddMembers) -> Outcome:
        """Let people in."""
        with self.step(f"add {' '.join(action.members)}"):
            self._machine(action.resource).members |= {*action.members}
            return Outcome(action, Result.DONE)

    def remove_members(self, action: RemoveMembers) -> Outcome:
        """Put people out."""
        with self.step(f"remove {' '.join(action.members)}"):
            self._machine(action.resource).members -= {*action.members}
            return Outcome(action, Result.DONE)

    def set_access(self, action: SetAccess) -> Outcome:
        """Pause or restore."""
        with self.step(f"access {action.access.value}"):
            self._machine(action.resource).access = action.access
            return Outcome(action, Result.DONE)

    def _machine(self, name: str) -> Machine:
        for key, machine in self.cloud.machines.items():
            if key.lower() == name:
                return machine
        raise PermanentError(f"{name}: there is no such machine; create it first")


@dataclass
class SimulatedCloudSite(SimulatedSite):
    """A sandbox and the cloud, with agents in between that live for one cycle."""

    cloud: Cloud = field(default_factory=Cloud)
    capabilities: Capabilities = field(default_factory=Capabilities)
    blade: KillSwitch = field(default_factory=KillSwitch)
    timeout_hours: float | None = None

    def able(self, **capabilities: bool) -> SimulatedCloudSite:
        """The same site with a backend of other capabilities."""
        return replace(self, capabilities=Capabilities(**capabilities))

    def offering(self) -> Offering:
        """The configuration of the sandbox's offering."""
        return Offering.model_validate(
            {
                "name": "Test cloud",
                "waldur_api_url": self.url,
                "waldur_api_token": self.sandbox.token,
                "waldur_offering_uuid": self.sandbox.offering.uuid,
                "order_processing_backend": "cloud",
                "backend_components": COMPONENTS,
                "pending_order_timeout_hours": self.timeout_hours,
                "limits": self.limits,
            }
        )

    def backend(self, offering: Offering) -> Backend:  # noqa: ARG002 - for overriding
        """The backend of a new agent."""
        return CloudBackend(self.cloud, self.blade, self.capabilities)

    @contextmanager
    def agent(self) -> Iterator[Site]:
        """A new agent that remembers nothing."""
        offering = self.offering()
        sleep = self.sleeps.append
        with Waldur(
            self.url,
            offering.token,
            mode="test",
            verify=False,
            transport=self.blade.transport(connection(self.sandbox, self.url)),
            sleep=sleep,
        ) as waldur:
            yield Site(
                offering=offering,
                waldur=waldur,
                backend=self.backend(offering),
                thresholds=Thresholds(
                    max_removals_percent=Decimal(30),
                    max_removals=10,
                    removals_allowed=self.removals_allowed,
                ),
                log=structlog.get_logger(),
                sleep=sleep,
                now=self.now,
            )


@contextmanager
def a_simulated_cloud_site(
    version: str = "8.1.3", **capabilities: bool
) -> Iterator[SimulatedCloudSite]:
    """A sandbox, and a cloud whose backend has these capabilities."""
    yield SimulatedCloudSite(
        Sandbox(version), SimulatedSlurm(), Path(), capabilities=Capabilities(**capabilities)
    )
