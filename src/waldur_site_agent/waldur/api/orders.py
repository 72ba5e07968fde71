"""Orders: listing, approving, completing and failing them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from waldur_site_agent.model.marketplace import Order
from waldur_site_agent.waldur.errors import BodyRefusedError
from waldur_site_agent.waldur.http import Call
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import Operation, uuid_text

ORDERS = Operation(
    id="marketplace_orders_list",
    purpose="list the orders of offering {uuid}",
    path="marketplace-orders/",
    answer=Order,
    filters=("offering_uuid", "state"),
    paged=True,
    orders=("created",),
    chooses_fields=True,
    extra_fields=("offering_uuid",),
)
ORDER = Operation(
    id="marketplace_orders_retrieve",
    purpose="read order {uuid}",
    path="marketplace-orders/{uuid}/",
    answer=Order,
    chooses_fields=True,
)
APPROVE_ORDER: Operation[None] = Operation(
    id="marketplace_orders_approve_by_provider",
    purpose="approve order {uuid}",
    method="POST",
    path="marketplace-orders/{uuid}/approve_by_provider/",
    body=(),
)
REJECT_ORDER: Operation[None] = Operation(
    id="marketplace_orders_reject_by_provider",
    purpose="reject order {uuid}",
    method="POST",
    path="marketplace-orders/{uuid}/reject_by_provider/",
    body=("provider_rejection_comment",),
)
COMPLETE_ORDER: Operation[None] = Operation(
    id="marketplace_orders_set_state_done",
    purpose="mark order {uuid} as done",
    method="POST",
    path="marketplace-orders/{uuid}/set_state_done/",
)
FAIL_ORDER: Operation[None] = Operation(
    id="marketplace_orders_set_state_erred",
    purpose="mark order {uuid} as erred",
    method="POST",
    path="marketplace-orders/{uuid}/set_state_erred/",
    body=("error_message", "error_traceback"),
)
SET_ORDER_BACKEND_ID: Operation[None] = Operation(
    id="marketplace_orders_set_backend_id",
    purpose="set the backend id of order {uuid}",
    method="POST",
    path="marketplace-orders/{uuid}/set_backend_id/",
    body=("backend_id",),
    idempotent=True,
)


class OrdersApi(ApiClient):
    """Orders and their state changes."""

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

        Afterwards the order is executing or waits for its start date: read it again.
        """
        call = Call.of(APPROVE_ORDER, uuid=uuid_text(uuid))
        try:
            self._connection.send(call)
        except BodyRefusedError:
            self._connection.send(call.without_body())

    def reject_order(self, uuid: UUID | str, reason: str) -> None:
        """Reject an order that is pending on the provider; the customer sees the reason."""
        self._write(REJECT_ORDER, uuid, {"provider_rejection_comment": reason})

    def complete_order(self, uuid: UUID | str) -> None:
        """Mark an executing order as done."""
        self._write(COMPLETE_ORDER, uuid)

    def fail_order(self, uuid: UUID | str, message: str, traceback: str = "") -> None:
        """Mark an order as erred. Waldur does not check its state: read the order first."""
        # Servers answer HTTP 500 if either key is missing.
        self._write(FAIL_ORDER, uuid, {"error_message": message, "error_traceback": traceback})

    def set_order_backend_id(self, uuid: UUID | str, backend_id: str) -> None:
        """Set the backend's own reference of an order that it finishes later.

        Raises:
            AbsentOperationError: servers before 7.8.5 do not have it.
        """
        self._write(SET_ORDER_BACKEND_ID, uuid, {"backend_id": backend_id})
