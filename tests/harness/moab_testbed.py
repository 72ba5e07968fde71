"""A house whose resources are accounts of a simulated accounting manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog

from harness.testbed import SimulatedSite
from waldur_site_agent.backends.processes import Runner
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent.planning.plan import Thresholds
from waldur_site_agent.waldur import Waldur
from waldur_site_agent_moab.backend import MoabBackend
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.simulator import SimulatedMam
from waldur_site_agent_sandbox import Order, Sandbox
from waldur_site_agent_slurm.simulator import SimulatedSlurm

DEPOSIT = {"measured_unit": "EUR", "accounting_type": "limit", "label": "Deposit"}
MOAB_SETTINGS = {"customer_prefix": "c_", "project_prefix": "p_", "allocation_prefix": "a_"}


@dataclass
class SimulatedMoabSite(SimulatedSite):
    """Both sides, and what tests ask of them."""

    mam: SimulatedMam = field(default_factory=SimulatedMam)
    mam_runner: Callable[[Runner], Runner] = lambda runner: runner
    components: dict[str, Any] = field(default_factory=lambda: {"deposit": DEPOSIT})

    def offering(self) -> Offering:
        """The configuration of the sandbox's offering."""
        return Offering.model_validate(
            {
                "name": "Test bank",
                "waldur_api_url": self.url,
                "waldur_api_token": self.sandbox.token,
                "waldur_offering_uuid": self.sandbox.offering.uuid,
                "order_processing_backend": "moab",
                "backend_settings": MOAB_SETTINGS | self.settings,
                "backend_components": self.components,
            }
        )

    @contextmanager
    def agent(self) -> Iterator[Site]:
        """A new agent that remembers nothing."""
        offering = self.offering()
        settings = MoabSettings.model_validate(
            {**offering.backend_settings, "lock_file": self.lock_file}
        )
        backend = MoabBackend(
            settings,
            offering.components,
            runner=self.mam_runner(self.mam.runner()),
            lock_wait_seconds=0.2,
        )
        sleep = self.sleeps.append
        if self.retries:
            backend.pause_with(sleep)
        transport = self.connection()
        with Waldur(
            self.url, offering.token, mode="test", verify=False, transport=transport, sleep=sleep
        ) as waldur:
            site = Site(
                offering=offering,
                waldur=waldur,
                backend=backend,
                thresholds=Thresholds(
                    max_removals_percent=Decimal(30), max_removals=10, removals_allowed=False
                ),
                log=structlog.get_logger(),
                sleep=sleep,
            )
            yield site
            site.conditions.settle(site.log, site.now(), complete=True)

    def report(self) -> UsageCycleReport:
        """One pass of report by a new agent."""
        with self.agent() as site:
            return report_usage(site)

    def order(self, project: Any, name: str = "run", **limits: float) -> Order:
        """A new create order."""
        return super().order(project, name, **(limits or {"deposit": 100}))

    def name_of(self, order: Order) -> str:
        """The account that the order's resource names."""
        return self.resource(order).backend_id

    def members(self, order: Order) -> set[str]:
        """The users of that account."""
        return set(self.mam.state.accounts[self.name_of(order)].users)

    @property
    def accounts(self) -> set[str]:
        """The names of all accounts but root."""
        return set(self.mam.state.accounts) - {"root"}

    def accounts_of(self, tag: str) -> set[str]:
        """The accounts of the customer ``uni`` with a tag."""
        above = f"c_uni{tag}"
        projects = {above, *self._below(above)}
        return projects.union(*(self._below(name) for name in projects)) & self.accounts

    def _below(self, organization: str) -> set[str]:
        accounts = self.mam.state.accounts.values()
        return {account.name for account in accounts if account.organization == organization}

    def forget(self) -> None:
        """Count requests and commands from now on."""
        super().forget()
        self.mam.commands_run.clear()
        self.mam.history.clear()


@contextmanager
def a_simulated_moab_site(lock_file: Path) -> Iterator[SimulatedMoabSite]:
    """A sandbox that sells deposits, and an empty accounting manager."""
    sandbox = Sandbox()
    sandbox.customer.add_component("deposit", "limit", "EUR", name="Deposit")
    yield SimulatedMoabSite(sandbox, SimulatedSlurm(), lock_file)
