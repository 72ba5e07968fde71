"""A sandbox and a plugin of version 1 behind the adapter, with fresh agents in between."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from uuid import UUID

from harness.cloud import SimulatedCloudSite
from waldur_site_agent.backends import Backend
from waldur_site_agent.config import Offering
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent_sandbox import Order, Sandbox
from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_v1_plugins import adapter, aliases

PLUGIN = Path(__file__).parents[1] / "data" / "v1_plugin"
"""Where the plugin written for version 1 is, as somebody else would have it."""

CAMPUS = "campus_storage.backend:CampusBackend"
CLOUD = "campus_storage.backend:CloudBackend"
OLD = "campus_storage.backend:OldBackend"


def campus() -> Any:
    """The file server that the plugin of the tests speaks to."""
    if str(PLUGIN) not in sys.path:
        sys.path.append(str(PLUGIN))
    aliases.provide()
    return importlib.import_module("campus_storage.service")


def adapted(value: str, name: str = "campus", group: str = "waldur_site_agent.backends") -> Any:
    """The class of an entry point behind the adapter."""
    campus()
    return adapter.adapt(EntryPoint(name, value, group), "campus-storage")


@dataclass
class V1Site(SimulatedCloudSite):
    """Both sides, and what tests ask of them."""

    cls: Any = None
    backend_settings: dict[str, Any] = field(default_factory=dict)

    def backend(self, offering: Offering) -> Backend:
        """A new backend; the plugin behind it is made anew for each pass."""
        settings = self.cls.Settings.model_validate(self.backend_settings)
        backend: Backend = self.cls(settings, offering.components)
        return backend

    def offering(self) -> Offering:
        """The configuration of the sandbox's offering."""
        offering = super().offering()
        changed: dict[str, Any] = {"reporting_backend": "cloud", "limits": "report"}
        if self.components:
            changed["backend_components"] = self.components
        return offering.model_copy(update=changed)

    def made_elsewhere(self, backend_id: str) -> Order:
        """An order that another backend has done, under this id."""
        order = self.order(self.project(ada="ada01"), "Lake")
        with self.agent() as site:
            site.waldur.approve_order(order.uuid)
            site.waldur.set_backend_id(UUID(str(self.resource(order).uuid)), backend_id)
            site.waldur.complete_order(order.uuid)
        return order

    def report(self) -> UsageCycleReport:
        """One pass of report by a new agent."""
        with self.agent() as site:
            return report_usage(site)


@contextmanager
def a_v1_site(cls: Any, **settings: Any) -> Iterator[V1Site]:
    """A sandbox, and a plugin of version 1 with these settings."""
    yield V1Site(Sandbox(), SimulatedSlurm(), Path(), cls=cls, backend_settings=settings)


@contextmanager
def a_v1_storage_site(cls: Any, **settings: Any) -> Iterator[V1Site]:
    """The same, with storage as the one component that is sold, in GB."""
    storage = ComponentSettings(measured_unit="GB", accounting_type="limit", label="Storage")
    sandbox = Sandbox()
    sandbox.customer.add_component("storage", "limit", "GB", name="Storage")
    yield V1Site(
        sandbox,
        SimulatedSlurm(),
        Path(),
        cls=cls,
        backend_settings=settings,
        components={"storage": storage},
    )


@contextmanager
def a_v1_usage_site(cls: Any, components: Iterable[str], **settings: Any) -> Iterator[V1Site]:
    """The same, with components that are billed by usage."""
    sandbox = Sandbox()
    for name in components:
        sandbox.customer.add_component(name, "usage", "h", name=name)
    written = {
        name: ComponentSettings(measured_unit="h", accounting_type="usage", label=name)
        for name in components
    }
    yield V1Site(
        sandbox, SimulatedSlurm(), Path(), cls=cls, backend_settings=settings, components=written
    )
