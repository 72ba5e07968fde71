"""Event subscriptions of a user. None is ever deleted: the last one takes all queues with it."""

from __future__ import annotations

from waldur_site_agent.model.events import SubscriptionQueue
from waldur_site_agent.waldur.operation import listing_pages, making
from waldur_site_agent.waldur.rows import EventSubscriptionRow

_PATH = "event-subscriptions/"

EVENT_SUBSCRIPTIONS = listing_pages(
    "event_subscriptions_list",
    "list the event subscriptions",
    _PATH,
    EventSubscriptionRow,
    filters=("user_uuid",),
    chooses_fields=False,
)
CREATE_EVENT_SUBSCRIPTION = making(
    "event_subscriptions_create",
    "create an event subscription",
    _PATH,
    EventSubscriptionRow,
    body=("description", "observable_objects"),
    safe_to_repeat=False,
)
EVENT_QUEUES = listing_pages(
    "event_subscription_queues_list",
    "count the queues of event subscriptions",
    "event-subscription-queues/",
    SubscriptionQueue,
    filters=(),
    ordered_by=None,
    chooses_fields=False,
)
CREATE_QUEUE = making(
    "event_subscriptions_create_queue",
    "create a queue of event subscription {uuid}",
    f"{_PATH}{{uuid}}/create_queue/",
    SubscriptionQueue,
    body=("offering_uuid", "object_type"),
    safe_to_repeat=True,
)
