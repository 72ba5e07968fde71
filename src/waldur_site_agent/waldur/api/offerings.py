"""Offerings, their components and policies, and their service providers."""

from __future__ import annotations

from uuid import UUID

from waldur_site_agent.model.budgets import PeriodicPolicy, PolicyResult
from waldur_site_agent.model.marketplace import (
    OfferingPlan,
    OfferingPlans,
    ServiceProvider,
    WaldurComponent,
    WaldurOffering,
)
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import COMPONENT_KEYS, Operation, component_body, uuid_text

OFFERING = Operation(
    id="marketplace_provider_offerings_retrieve",
    purpose="read offering {uuid}",
    path="marketplace-provider-offerings/{uuid}/",
    answer=WaldurOffering,
    chooses_fields=True,
)
PLANS = Operation(
    id="marketplace_provider_offerings_retrieve",
    purpose="read the plans of offering {uuid}",
    path="marketplace-provider-offerings/{uuid}/",
    answer=OfferingPlans,
    chooses_fields=True,
)
CREATE_COMPONENT: Operation[None] = Operation(
    id="marketplace_provider_offerings_create_offering_component",
    purpose="create a component of offering {uuid}",
    method="POST",
    path="marketplace-provider-offerings/{uuid}/create_offering_component/",
    body=COMPONENT_KEYS,
)
UPDATE_COMPONENT: Operation[None] = Operation(
    id="marketplace_provider_offerings_update_offering_component",
    purpose="update a component of offering {uuid}",
    method="POST",
    path="marketplace-provider-offerings/{uuid}/update_offering_component/",
    body=("uuid", *COMPONENT_KEYS),
    idempotent=True,
)
SERVICE_PROVIDERS = Operation(
    id="marketplace_service_providers_list",
    purpose="list the service providers of customer {uuid}",
    path="marketplace-service-providers/",
    answer=ServiceProvider,
    filters=("customer_uuid",),
    paged=True,
    orders=("customer_name",),  # this list cannot be sorted by ``created``
    chooses_fields=True,
)
PERIODIC_POLICIES = Operation(
    id="marketplace_slurm_periodic_usage_policies_list",
    purpose="list the periodic usage policies of offering {uuid}",
    path="marketplace-slurm-periodic-usage-policies/",
    answer=PeriodicPolicy,
    filters=("scope_uuid",),
    paged=True,
)
REPORT_POLICY_RESULT: Operation[None] = Operation(
    id="marketplace_slurm_periodic_usage_policies_report_command_result",
    purpose="report what became of periodic usage policy {uuid}",
    method="POST",
    path="marketplace-slurm-periodic-usage-policies/{uuid}/report-command-result/",
    body=("resource_uuid", "success", "error_message", "commands_executed"),
)


class OfferingsApi(ApiClient):
    """Offerings, their components and policies, and their service providers."""

    def offering(self, uuid: UUID | str) -> WaldurOffering:
        """An offering with its components."""
        return self._read(OFFERING, uuid)

    def plans(self, uuid: UUID | str) -> tuple[OfferingPlan, ...]:
        """The plans by which an offering is sold."""
        return self._read(PLANS, uuid).plans

    def create_component(self, offering_uuid: UUID | str, component: WaldurComponent) -> None:
        """Add a component to an offering; Waldur chooses the values that are left empty."""
        self._write(CREATE_COMPONENT, offering_uuid, component_body(component))

    def update_component(self, offering_uuid: UUID | str, component: WaldurComponent) -> None:
        """Change a component, found by its own UUID; values left empty stay as they are."""
        if component.uuid is None:
            raise ValueError(f"component {component.type!r} was not read from Waldur: no UUID")
        body = {"uuid": component.uuid.hex, **component_body(component)}
        self._write(UPDATE_COMPONENT, offering_uuid, body)

    def service_providers(self, customer_uuid: UUID | str) -> Listing[ServiceProvider]:
        """The service provider of a customer: one or none."""
        return self._list(
            SERVICE_PROVIDERS, uuid_text(customer_uuid), customer_uuid=uuid_text(customer_uuid)
        )

    def periodic_policies(self, offering_uuid: UUID | str) -> Listing[PeriodicPolicy]:
        """The periodic usage policies of an offering; absent before server 7.8.8.

        While there is one, Waldur drops the agent's changes to limits of limit components.
        """
        return self._list(
            PERIODIC_POLICIES, uuid_text(offering_uuid), scope_uuid=uuid_text(offering_uuid)
        )

    def report_policy_result(self, policy_uuid: UUID | str, result: PolicyResult) -> None:
        """Report what became of applying a policy to a resource; absent before server 8.0.

        Waldur accepts it from staff only.
        """
        body = {
            "resource_uuid": result.resource_uuid.hex,
            "success": result.success,
            "error_message": result.error_message,
            "commands_executed": list(result.commands_executed),
        }
        self._write(REPORT_POLICY_RESULT, policy_uuid, body)
