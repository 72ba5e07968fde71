"""What the agent asks about offerings."""

from __future__ import annotations

from uuid import UUID

from waldur_site_agent.model.marketplace import (
    PeriodicPolicy,
    ServiceProvider,
    WaldurComponent,
    WaldurOffering,
)
from waldur_site_agent.waldur.codec import COMPONENT_KEYS, component_body, uuid_text
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import listing_pages, reading, writing

OFFERING = reading(
    "marketplace_provider_offerings_retrieve",
    "read offering {uuid}",
    "marketplace-provider-offerings/{uuid}/",
    WaldurOffering,
    query=("field",),
)
CREATE_COMPONENT = writing(
    "marketplace_provider_offerings_create_offering_component",
    "create a component of offering {uuid}",
    "marketplace-provider-offerings/{uuid}/create_offering_component/",
    body=COMPONENT_KEYS,
    safe_to_repeat=False,
)
UPDATE_COMPONENT = writing(
    "marketplace_provider_offerings_update_offering_component",
    "update a component of offering {uuid}",
    "marketplace-provider-offerings/{uuid}/update_offering_component/",
    body=("uuid", *COMPONENT_KEYS),
    safe_to_repeat=True,
)
SERVICE_PROVIDERS = listing_pages(
    "marketplace_service_providers_list",
    "list the service providers of customer {uuid}",
    "marketplace-service-providers/",
    ServiceProvider,
    filters=("customer_uuid",),
    ordered_by="customer_name",  # ``created`` is not on offer here
)
PERIODIC_POLICIES = listing_pages(
    "marketplace_slurm_periodic_usage_policies_list",
    "list the periodic usage policies of offering {uuid}",
    "marketplace-slurm-periodic-usage-policies/",
    PeriodicPolicy,
    filters=("scope_uuid",),
    ordered_by=None,
    chooses_fields=False,
)


class OfferingsApi(ApiClient):
    """Offerings, their components and policies, and who sells them."""

    def offering(self, uuid: UUID | str) -> WaldurOffering:
        """An offering with its components."""
        return self._read(OFFERING, uuid)

    def create_component(self, offering_uuid: UUID | str, component: WaldurComponent) -> None:
        """Add a component to an offering; values that it leaves empty are Waldur's to choose."""
        self._write(CREATE_COMPONENT, offering_uuid, component_body(component))

    def update_component(self, offering_uuid: UUID | str, component: WaldurComponent) -> None:
        """Change a component, found by its own UUID; what it leaves empty stays as it is."""
        if component.uuid is None:
            raise ValueError(f"component {component.type!r} was not read from Waldur: no UUID")
        body = {"uuid": component.uuid.hex, **component_body(component)}
        self._write(UPDATE_COMPONENT, offering_uuid, body)

    def service_providers(self, customer_uuid: UUID | str) -> Listing[ServiceProvider]:
        """The service provider that a customer is: one, or none."""
        return self._list(
            SERVICE_PROVIDERS, uuid_text(customer_uuid), customer_uuid=uuid_text(customer_uuid)
        )

    def periodic_policies(self, offering_uuid: UUID | str) -> Listing[PeriodicPolicy]:
        """The periodic usage policies of an offering; absent before server 7.8.8.

        While there is one, Waldur drops changes of the agent to limits of limit components.
        """
        return self._list(
            PERIODIC_POLICIES, uuid_text(offering_uuid), scope_uuid=uuid_text(offering_uuid)
        )
