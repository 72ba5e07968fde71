"""What backends are told of the attributes and options of each kind of order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.cloud import CloudBackend, SimulatedCloudSite
from waldur_site_agent.backends import Capabilities, CreateResource, Decision, Outcome
from waldur_site_agent.config import Offering
from waldur_site_agent.model.backend import Placement, ResourceFacts, ResourceRequest
from waldur_site_agent.model.marketplace import Order
from waldur_site_agent_sandbox import Order as OrderRecord
from waldur_site_agent_sandbox import Sandbox
from waldur_site_agent_slurm.simulator import SimulatedSlurm

Told = tuple[str, str, Any, Any]
"""Where and by which order, a flavour that was ordered, a colour that may be changed."""


class Listening(CloudBackend):
    """Writes down what it is told."""

    told_of_orders: list[Told]

    def decide(self, order: Order, facts: ResourceFacts | None) -> Decision:
        assert facts is not None
        self._note("decide", order.type, facts)
        if self.capabilities.needs_facts:
            self._note("hear", order.type, self.told[facts.uuid])
        return Decision()

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        told = ("place", "", request.attributes.get("flavour"), None)
        self.told_of_orders.append(told)
        return super().place(request, slug)

    def create_resource(self, action: CreateResource) -> Outcome:
        assert action.facts is not None
        self._note("create", "", action.facts)
        return super().create_resource(action)

    def _note(self, where: str, kind: str, facts: ResourceFacts) -> None:
        flavour, colour = facts.attributes.get("flavour"), facts.options.get("colour")
        self.told_of_orders.append((where, kind, flavour, colour))


@dataclass
class ListeningSite(SimulatedCloudSite):
    told: list[Told] = field(default_factory=list)

    def offering(self) -> Offering:
        return super().offering().model_copy(update={"approve_orders": "backend"})

    def backend(self, offering: Offering) -> Listening:  # noqa: ARG002 - as the other
        backend = Listening(self.cloud, self.blade, self.capabilities)
        backend.told_of_orders = self.told
        return backend


@pytest.mark.parametrize("needs_facts", [False, True])
def test_attributes_and_options_reach_the_backend_with_every_kind_of_order(
    needs_facts: bool,
) -> None:
    capabilities = Capabilities(needs_facts=needs_facts)
    site = ListeningSite(Sandbox(), SimulatedSlurm(), Path(), capabilities=capabilities)
    side = site.sandbox.customer
    order = side.place_create_order(
        site.project(ada="ada01"), "Ocean", {"cpu": 1}, {"flavour": "large"}
    )
    resource = side.edit(site.resource(order), options={"colour": "blue"})
    options: dict[str, Any] = {"new_options": {"colour": "red"}}
    orders: dict[str, Callable[[], OrderRecord]] = {
        "Create": lambda: order,
        "Update": lambda: side.place_update_order(resource, None, options),
        "Terminate": lambda: side.place_terminate_order(resource),
        "Restore": lambda: side.place_restore_order(resource),
    }
    colours = {"Create": "blue", "Update": "red", "Terminate": "red", "Restore": "red"}
    for kind, place in orders.items():
        placed = place()
        site.told.clear()
        site.cycle()
        assert site.state(placed) == "done"
        colour = colours[kind]
        assert ("decide", kind, "large", colour) in site.told
        assert not needs_facts or ("hear", kind, "large", colour) in site.told
        if kind in ("Create", "Restore"):
            assert ("create", "", "large", colour) in site.told
            assert ("place", "", "large", None) in site.told
