"""What the agent asks about orders."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from waldur_site_agent.model.marketplace import Order
from waldur_site_agent.waldur.codec import uuid_text
from waldur_site_agent.waldur.errors import BodyRefusedError
from waldur_site_agent.waldur.http import Call
from waldur_site_agent.waldur.listing import ApiClient, Listing
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


class OrdersApi(ApiClient):
    """Orders, and how they are moved."""

    def orders(self, offering_uuid: UUID | str, states: Iterable[str]) -> Listing[Order]:
        """The orders of an offering in these states, oldest first."""
        return self._list(
            ORDERS,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            state=[*states],
        )

    def order(self, uuid: UUID | str) -> Order:
        """One order as it is now."""
        return self._read(ORDER, uuid)

    def approve_order(self, uuid: UUID | str) -> None:
        """Approve an order that is pending on the provider; a second approval is a conflict.

        The order is executing afterwards, or waits for its start date: read it again.
        """
        call = Call.of(APPROVE_ORDER, uuid=uuid_text(uuid))
        try:
            self._connection.send(call)
        except BodyRefusedError:
            self._connection.send(call.without_body())

    def reject_order(self, uuid: UUID | str, comment: str = "") -> None:
        """Reject an order that is pending on the provider; servers before 8 drop the comment."""
        body = {"provider_rejection_comment": comment} if comment else {}
        self._write(REJECT_ORDER, uuid, body)

    def complete_order(self, uuid: UUID | str) -> None:
        """Mark an executing order as done."""
        self._write(COMPLETE_ORDER, uuid)

    def fail_order(self, uuid: UUID | str, message: str, traceback: str = "") -> None:
        """Mark an order as erred. Waldur does not look at its state: read it before."""
        # Servers index both keys: leaving one out is answered with HTTP 500.
        self._write(FAIL_ORDER, uuid, {"error_message": message, "error_traceback": traceback})

    def set_order_backend_id(self, uuid: UUID | str, backend_id: str) -> None:
        """Note an identifier of ours on an order; absent before server 7.8.5."""
        self._write(SET_ORDER_BACKEND_ID, uuid, {"backend_id": backend_id})
