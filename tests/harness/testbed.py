"""A sandbox, a simulated cluster, and agents that are thrown away after each cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import structlog

from waldur_site_agent.backends.processes import Runner
from waldur_site_agent.config import Offering
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.cycles.membership import MembershipReport, sync_membership
from waldur_site_agent.cycles.order_inputs import OrdersReport
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.marketplace import backend_components
from waldur_site_agent.planning.plan import Thresholds
from waldur_site_agent.waldur import Waldur
from waldur_site_agent_sandbox import Order, Project, Resource, Sandbox, User
from waldur_site_agent_sandbox.records import JsonObject
from waldur_site_agent_sandbox.server import ADDRESS
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import PollTimeout
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm, Version
from waldur_site_agent_slurm.simulator.state import SimAccount

COMPONENTS = {
    "cpu": ComponentSettings(
        measured_unit="k-Hours", unit_factor=Decimal(60000), accounting_type="limit", label="CPU"
    ),
    "mem": ComponentSettings(
        measured_unit="GB-hours", unit_factor=Decimal(61440), accounting_type="limit", label="RAM"
    ),
}
SETTINGS = {
    "customer_prefix": "c_",
    "project_prefix": "p_",
    "allocation_prefix": "a_",
    "qos_downscaled": "limited",
    "qos_paused": "paused",
}


def plain_transport() -> httpx.BaseTransport:
    """HTTP without TLS, and without reading the certificates of the machine for it."""
    return httpx.HTTPTransport(verify=False)


def connection(sandbox: Sandbox, url: str) -> httpx.BaseTransport:
    """The way to a sandbox: without a network, or over HTTP where it is served."""
    return sandbox.transport() if url == ADDRESS else plain_transport()


class Relay(httpx.BaseTransport):
    """A way to Waldur that leads through another; tests override what is between them."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()


@dataclass
class SimulatedSite:
    """Both sides, and what tests ask of them."""

    sandbox: Sandbox
    slurm: SimulatedSlurm
    lock_file: Path
    url: str = ADDRESS
    """Where Waldur is: within this process, or served over HTTP while :meth:`served`."""
    settings: dict[str, Any] = field(default_factory=dict)
    runner: Callable[[Runner], Runner] = lambda runner: runner
    transport: Callable[[httpx.BaseTransport], httpx.BaseTransport] = lambda inner: inner
    unknown_to_the_system: frozenset[str] = frozenset()
    system_names: dict[str, str] = field(default_factory=dict)
    """How the operating system spells names, where its directory ignores case."""
    sleeps: list[float] = field(default_factory=list)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    token: str = ""
    removals_allowed: bool = False
    remove_unknown_users: bool = False
    recreate: bool = False
    refuses_missing_limits: bool = False
    limits: str = "backend"
    moved_projects: str = "follow"
    require_consent: bool = False
    components: dict[str, ComponentSettings] = field(default_factory=dict)
    retries: bool = False
    """Whether the backend tries again within a pass; it pauses in ``sleeps``."""

    def offering(self) -> Offering:
        """The configuration of the sandbox's offering."""
        return Offering.model_validate(
            {
                "name": "Test cluster",
                "waldur_api_url": self.url,
                "waldur_api_token": self.token or self.sandbox.token,
                "waldur_offering_uuid": self.sandbox.offering.uuid,
                "order_processing_backend": "slurm",
                "backend_settings": SETTINGS | self.settings,
                "backend_components": COMPONENTS | self.components,
                "limits": self.limits,
                "moved_projects": self.moved_projects,
                "require_consent": self.require_consent,
            }
        )

    @contextmanager
    def served(self) -> Iterator[None]:
        """Serve the sandbox over HTTP while the body runs, to this process and to others."""
        if self.url != ADDRESS:
            yield
            return
        with self.sandbox.serve() as self.url:
            yield
        self.url = ADDRESS

    def connection(self) -> httpx.BaseTransport:
        """The way of a new agent to Waldur."""
        return self.transport(connection(self.sandbox, self.url))

    @contextmanager
    def agent(self) -> Iterator[Site]:
        """A new agent that remembers nothing."""
        offering = self.offering()
        settings = SlurmSettings.model_validate(
            {**offering.backend_settings, "lock_file": self.lock_file}
        )
        backend = SlurmBackend(
            settings,
            backend_components(offering.components),
            runner=self.runner(self.slurm.runner()),
            user_exists=lambda name: name not in self.unknown_to_the_system,
            system_name=lambda name: self.system_names.get(name, name),
            patience=PollTimeout(seconds=1, pause=0.01),
            lock_wait_seconds=0.2,
            now=lambda: self.now().timestamp(),
        )
        transport = self.connection()
        sleep = self.sleeps.append
        if self.retries:
            backend.pause_with(sleep)
        with Waldur(
            self.url,
            offering.token,
            mode="test",
            verify=False,
            transport=transport,
            sleep=sleep,
            now=self.now,
        ) as waldur:
            site = Site(
                offering=offering,
                waldur=waldur,
                backend=backend,
                thresholds=Thresholds(
                    max_removals_percent=Decimal(30),
                    max_removals=10,
                    removals_allowed=self.removals_allowed,
                ),
                log=structlog.get_logger(),
                sleep=sleep,
                now=self.now,
                remove_unknown_users=self.remove_unknown_users,
                recreate=self.recreate,
                refuses_missing_limits=self.refuses_missing_limits,
            )
            yield site
            site.conditions.settle(site.log, site.now(), complete=True)

    def cycle(self, *, dry_run: bool = False) -> OrdersReport:
        """One pass of order_process by a new agent."""
        with self.agent() as site:
            return process_orders(site, dry_run=dry_run)

    def sync(self, *, dry_run: bool = False) -> MembershipReport:
        """One pass of membership_sync by a new agent."""
        with self.agent() as site:
            return sync_membership(site, dry_run=dry_run)

    def project(self, slug: str = "climate", customer: str = "uni", **people: str) -> Project:
        """A project with people, given as waldur_name=username; all have working accounts."""
        side = self.sandbox.customer
        if not any(c.slug == customer for c in side.world.customers.values()):
            side.add_customer(customer.title(), customer)
        project = side.add_project(slug.title(), customer, slug)
        for person, username in people.items():
            side.add_member(project, self.person(person, username))
        return project

    def person(self, name: str, username: str) -> User:
        """A person with a working account at the offering."""
        side = self.sandbox.customer
        known = [user for user in side.world.users.values() if user.username == name]
        user = known[0] if known else side.add_user(name)
        side.set_account(user, username)
        return user

    def order(self, project: Project | str, name: str = "run", **limits: float) -> Order:
        """A new create order."""
        wanted: JsonObject = {**limits} or {"cpu": 10}
        return self.sandbox.customer.place_create_order(project, name, wanted)

    def state(self, order: Order) -> str:
        """The order's state now."""
        return self.sandbox.customer.current(order).state

    def resource(self, order: Order) -> Resource:
        """The order's resource now."""
        return self.sandbox.customer.resource_of(order)

    def account(self, order: Order) -> SimAccount:
        """The account that the order's resource names."""
        return self.slurm.state.accounts[self.resource(order).backend_id]

    def members(self, order: Order) -> set[str]:
        """The users of that account."""
        return set(self.account(order).members)

    @property
    def accounts(self) -> set[str]:
        """The names of all accounts but root."""
        return set(self.slurm.state.accounts) - {"root"}

    def members_of(self, resource: Resource) -> set[str]:
        """The users of the account that a resource names."""
        return set(self.slurm.state.accounts[resource.backend_id].members)

    def settled(self, project: Project | str, name: str = "run", **limits: float) -> Resource:
        """A resource after a first membership pass, so that the next has nothing to do."""
        resource = self.created(project, name, **limits)
        self.sync()
        self.forget()
        return self.sandbox.customer.current(resource)

    @contextmanager
    def lists_a_moment_old(self, changes: int = 1, *, up_to: bool = False) -> Iterator[None]:
        """Show in every list the world as it was some changes ago, or in each up to so many ago."""
        self.sandbox.faults.add("*_list", "stale", times=None, changes_ago=changes, up_to=up_to)
        try:
            yield
        finally:
            self.sandbox.faults.clear()

    def forget(self) -> None:
        """Count requests and commands from now on."""
        self.sandbox.requests.clear()
        self.slurm.commands_run.clear()
        self.slurm.history.clear()

    @property
    def writing_commands(self) -> int:
        """How many commands wrote since it was forgotten."""
        return self.slurm.commands_run["sacctmgr write"]

    def created(self, project: Project | str, name: str = "run", **limits: float) -> Resource:
        """A resource that is there and OK."""
        order = self.order(project, name, **limits)
        self.cycle()
        resource = self.resource(order)
        assert resource.state == "OK", resource
        self.forget()
        return resource

    def copy(self, lock_file: Path) -> SimulatedSite:
        """Another site that begins as this one is now: a tenth of what building it again costs."""
        sandbox = self.sandbox.copy()
        return replace(
            self,
            sandbox=sandbox,
            now=sandbox.clock.now if self.now == self.sandbox.clock.now else self.now,
            slurm=self.slurm.copy(),
            lock_file=lock_file,
            url=ADDRESS,
            settings=dict(self.settings),
            system_names=dict(self.system_names),
            sleeps=[],
            components=dict(self.components),
        )

    def with_(self, **changes: Any) -> SimulatedSite:
        """The same house, seen by agents that differ in something."""
        return replace(self, **changes)


@contextmanager
def a_simulated_site(
    lock_file: Path, version: str = "8.1.3", slurm: Version = "22.05"
) -> Iterator[SimulatedSite]:
    """A sandbox within this process and an empty cluster, of these versions."""
    yield SimulatedSite(Sandbox(version), SimulatedSlurm(version=slurm), lock_file)
