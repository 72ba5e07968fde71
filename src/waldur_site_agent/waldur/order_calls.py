"""What the agent asks about orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.waldur.bodies import uuid_text
from waldur_site_agent.waldur.connection import Call
from waldur_site_agent.waldur.conversation import Conversation
from waldur_site_agent.waldur.errors import BodyRefusedError
from waldur_site_agent.waldur.operations import orders as ops

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from waldur_site_agent.model.orders import Order
    from waldur_site_agent.waldur.listing import Listing


class OrderCalls(Conversation):
    """Orders, and how they are moved."""

    def orders(self, offering_uuid: UUID | str, states: Iterable[str]) -> Listing[Order]:
        """The orders of an offering in these states, oldest first."""
        return self._list(
            ops.ORDERS,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            state=[*states],
        )

    def order(self, uuid: UUID | str) -> Order:
        """One order as it is now."""
        return self._read(ops.ORDER, uuid)

    def approve_order(self, uuid: UUID | str) -> None:
        """Approve an order that is pending on the provider; a second approval is a conflict.

        The order is executing afterwards, or waits for its start date: read it again.
        """
        call = Call.of(ops.APPROVE_ORDER, uuid=uuid_text(uuid))
        try:
            self._connection.send(call)
        except BodyRefusedError:
            self._connection.send(call.without_body())

    def reject_order(self, uuid: UUID | str, comment: str = "") -> None:
        """Reject an order that is pending on the provider; servers before 8 drop the comment."""
        body = {"provider_rejection_comment": comment} if comment else {}
        self._write(ops.REJECT_ORDER, uuid, body)

    def complete_order(self, uuid: UUID | str) -> None:
        """Mark an executing order as done."""
        self._write(ops.COMPLETE_ORDER, uuid)

    def fail_order(self, uuid: UUID | str, message: str, traceback: str = "") -> None:
        """Mark an order as erred. Waldur does not look at its state: read it before."""
        # Servers index both keys: leaving one out is answered with HTTP 500.
        self._write(ops.FAIL_ORDER, uuid, {"error_message": message, "error_traceback": traceback})

    def set_order_backend_id(self, uuid: UUID | str, backend_id: str) -> None:
        """Note an identifier of ours on an order; absent before server 7.8.5."""
        self._write(ops.SET_ORDER_BACKEND_ID, uuid, {"backend_id": backend_id})
