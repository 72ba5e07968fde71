"""The offering, and the organization that sells it."""

from __future__ import annotations

from waldur_site_agent.model.offerings import PeriodicPolicy, ServiceProvider, WaldurOffering
from waldur_site_agent.waldur.bodies import COMPONENT_KEYS
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
