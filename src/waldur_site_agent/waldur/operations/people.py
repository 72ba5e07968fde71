"""Who has a role in a project, and the accounts that projects have."""

from __future__ import annotations

from waldur_site_agent.model.people import ProjectAccount, ProjectRole
from waldur_site_agent.waldur.operation import listing_pages

PROJECT_ROLES = listing_pages(
    "marketplace_service_providers_project_permissions_list",
    "list the project roles of service provider {uuid}",
    "marketplace-service-providers/{uuid}/project_permissions/",
    ProjectRole,
    filters=("is_active",),
)
SERVICE_ACCOUNTS = listing_pages(
    "marketplace_service_providers_project_service_accounts_list",
    "list the service accounts of service provider {uuid}",
    "marketplace-service-providers/{uuid}/project_service_accounts/",
    ProjectAccount,
    filters=("project_uuid",),
    ordered_by=None,
    chooses_fields=False,
)
COURSE_ACCOUNTS = listing_pages(
    "marketplace_service_providers_course_accounts_list",
    "list the course accounts of service provider {uuid}",
    "marketplace-service-providers/{uuid}/course_accounts/",
    ProjectAccount,
    filters=("project_uuid",),
    chooses_fields=False,
)
OFFERING_SERVICE_ACCOUNTS = listing_pages(
    "marketplace_provider_offerings_list_project_service_accounts_list",
    "list the service accounts of offering {uuid}",
    "marketplace-provider-offerings/{uuid}/list_project_service_accounts/",
    ProjectAccount,
    filters=(),
    ordered_by=None,
    chooses_fields=False,
)
OFFERING_COURSE_ACCOUNTS = listing_pages(
    "marketplace_provider_offerings_list_course_accounts_list",
    "list the course accounts of offering {uuid}",
    "marketplace-provider-offerings/{uuid}/list_course_accounts/",
    ProjectAccount,
    filters=(),
    ordered_by=None,
    chooses_fields=False,
)
