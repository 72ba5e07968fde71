"""Orders. Moving one is never repeated blindly: its state may have changed in between."""

from __future__ import annotations

from waldur_site_agent.model.orders import Order
from waldur_site_agent.waldur.operation import listing_pages, reading, writing

ORDERS = listing_pages(
    "marketplace_orders_list",
    "list the orders of offering {uuid}",
    "marketplace-orders/",
    Order,
    filters=("offering_uuid", "state"),
    extra_fields=("offering_uuid",),
)
ORDER = reading(
    "marketplace_orders_retrieve",
    "read order {uuid}",
    "marketplace-orders/{uuid}/",
    Order,
    query=("field",),
)
APPROVE_ORDER = writing(
    "marketplace_orders_approve_by_provider",
    "approve order {uuid}",
    "marketplace-orders/{uuid}/approve_by_provider/",
    body=(),
    safe_to_repeat=False,
)
REJECT_ORDER = writing(
    "marketplace_orders_reject_by_provider",
    "reject order {uuid}",
    "marketplace-orders/{uuid}/reject_by_provider/",
    body=("provider_rejection_comment",),
    safe_to_repeat=False,
)
COMPLETE_ORDER = writing(
    "marketplace_orders_set_state_done",
    "mark order {uuid} as done",
    "marketplace-orders/{uuid}/set_state_done/",
    safe_to_repeat=False,
)
FAIL_ORDER = writing(
    "marketplace_orders_set_state_erred",
    "mark order {uuid} as erred",
    "marketplace-orders/{uuid}/set_state_erred/",
    body=("error_message", "error_traceback"),
    safe_to_repeat=False,
)
SET_ORDER_BACKEND_ID = writing(
    "marketplace_orders_set_backend_id",
    "set the backend id of order {uuid}",
    "marketplace-orders/{uuid}/set_backend_id/",
    body=("backend_id",),
    safe_to_repeat=True,
)
