"""What the agent asks about offerings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.waldur.bodies import component_body, uuid_text
from waldur_site_agent.waldur.conversation import Conversation
from waldur_site_agent.waldur.operations import offerings as ops

if TYPE_CHECKING:
    from uuid import UUID

    from waldur_site_agent.model.offerings import (
        PeriodicPolicy,
        ServiceProvider,
        WaldurComponent,
        WaldurOffering,
    )
    from waldur_site_agent.waldur.listing import Listing


class OfferingCalls(Conversation):
    """Offerings, their components and policies, and who sells them."""

    def offering(self, uuid: UUID | str) -> WaldurOffering:
        """An offering with its components."""
        return self._read(ops.OFFERING, uuid)

    def create_component(self, offering_uuid: UUID | str, component: WaldurComponent) -> None:
        """Add a component to an offering; values that it leaves empty are Waldur's to choose."""
        self._write(ops.CREATE_COMPONENT, offering_uuid, component_body(component))

    def update_component(self, offering_uuid: UUID | str, component: WaldurComponent) -> None:
        """Change a component, found by its own UUID; what it leaves empty stays as it is."""
        if component.uuid is None:
            raise ValueError(f"component {component.type!r} was not read from Waldur: no UUID")
        body = {"uuid": component.uuid.hex, **component_body(component)}
        self._write(ops.UPDATE_COMPONENT, offering_uuid, body)

    def service_providers(self, customer_uuid: UUID | str) -> Listing[ServiceProvider]:
        """The service provider that a customer is: one, or none."""
        return self._list(
            ops.SERVICE_PROVIDERS, uuid_text(customer_uuid), customer_uuid=uuid_text(customer_uuid)
        )

    def periodic_policies(self, offering_uuid: UUID | str) -> Listing[PeriodicPolicy]:
        """The periodic usage policies of an offering; absent before server 7.8.8.

        While there is one, Waldur drops changes of the agent to limits of limit components.
        """
        return self._list(
            ops.PERIODIC_POLICIES, uuid_text(offering_uuid), scope_uuid=uuid_text(offering_uuid)
        )
