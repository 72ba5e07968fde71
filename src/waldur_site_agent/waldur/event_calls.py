"""What the agent asks about event subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.waldur.bodies import uuid_text
from waldur_site_agent.waldur.connection import Call
from waldur_site_agent.waldur.conversation import Conversation
from waldur_site_agent.waldur.decoding import decode, read_json
from waldur_site_agent.waldur.errors import AbsentOperationError
from waldur_site_agent.waldur.operations import events as ops

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from waldur_site_agent.model.events import EventSubscription, SubscriptionQueue
    from waldur_site_agent.waldur.listing import Listing


class EventCalls(Conversation):
    """Subscriptions of the token's user, and their queues.

    There is no way to delete one: Waldur would remove the user's virtual host with the last of
    them, and every queue and event in it.
    """

    def event_subscriptions(
        self, user_uuid: UUID | str | None = None
    ) -> Listing[EventSubscription]:
        """The subscriptions that the token's user sees; of everybody, or of one user."""
        user = {} if user_uuid is None else {"user_uuid": uuid_text(user_uuid)}
        listing = self._list(ops.EVENT_SUBSCRIPTIONS, **user)
        return listing.with_items(row.read() for row in listing.items)

    def create_event_subscription(
        self, description: str, object_types: Sequence[str]
    ) -> EventSubscription:
        """Subscribe the token's user; a second call makes a second subscription."""
        body = {
            "description": description,
            "observable_objects": [{"object_type": name} for name in object_types],
        }
        call = Call.of(ops.CREATE_EVENT_SUBSCRIPTION, body=body)
        response = self._connection.send(call)
        return decode(ops.CREATE_EVENT_SUBSCRIPTION, read_json(response), response).read()

    def makes_event_queues(self) -> bool:
        """Whether the server makes queues for events itself, as those from 7.9.9 on do."""
        try:
            self._count(ops.EVENT_QUEUES)
        except AbsentOperationError:
            return False
        return True

    def create_queue(
        self, subscription_uuid: UUID | str, offering_uuid: UUID | str, object_type: str
    ) -> SubscriptionQueue:
        """Have the queue made, or found, that one offering's events of a type go to.

        Absent before server 7.9.9, where the first SUBSCRIBE makes the queue.
        """
        body = {"offering_uuid": uuid_text(offering_uuid), "object_type": object_type}
        return self._change(ops.CREATE_QUEUE, subscription_uuid, body)
