"""Usage of a month. Every amount is the whole of the month so far, and may be said twice."""

from __future__ import annotations

from waldur_site_agent.model.usage import ComponentUsage
from waldur_site_agent.waldur.operation import listing_pages, writing
from waldur_site_agent.waldur.rows import ComponentUserUsageRow

_PATH = "marketplace-component-usages/"

COMPONENT_USAGES = listing_pages(
    "marketplace_component_usages_list",
    "list the usage of offering {uuid}",
    _PATH,
    ComponentUsage,
    filters=("offering_uuid", "billing_period"),
    ordered_by=None,  # all that is on offer is alike for many rows: at first, every usage is zero
    other_orders=("usage", "-usage"),
    extra_fields=("offering_uuid",),
)
COMPONENT_USER_USAGES = listing_pages(
    "marketplace_component_user_usages_list",
    "list the usage of single users of offering {uuid}",
    "marketplace-component-user-usages/",
    ComponentUserUsageRow,
    filters=("offering_uuid", "component_usage__billing_period"),
    ordered_by=None,
    other_orders=("username", "-username"),
    extra_fields=("offering_uuid",),
)
SET_USAGE = writing(
    "marketplace_component_usages_set_usage",
    "report the usage of resource {uuid}",
    f"{_PATH}set_usage/",
    body=("resource", "usages", "date"),
    safe_to_repeat=True,
)
USAGE_DATES = writing(  # sent without ``usages``, so that no server takes it
    "marketplace_component_usages_set_usage",
    "find out whether reports of usage may be dated",
    f"{_PATH}set_usage/",
    body=("usages", "date"),
    safe_to_repeat=True,
)
SET_USER_USAGE = writing(
    "marketplace_component_usages_set_user_usage",
    "report one user's part of component usage {uuid}",
    f"{_PATH}{{uuid}}/set_user_usage/",
    body=("username", "usage", "user"),
    safe_to_repeat=True,
)
SET_USER_USAGES = writing(
    "marketplace_component_usages_set_user_usages",
    "report the users' parts of component usage {uuid}",
    f"{_PATH}{{uuid}}/set_user_usages/",
    body=("usages",),
    safe_to_repeat=True,
)
