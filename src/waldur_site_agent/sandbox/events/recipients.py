"""Who is told of something: the queues of users with a role on the selling side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.sandbox import permissions
from waldur_site_agent.sandbox.events.occurrences import Destination
from waldur_site_agent.sandbox.records_agents import subscription_queue_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from waldur_site_agent.sandbox.events.occurrences import Occurrence
    from waldur_site_agent.sandbox.records import JsonObject
    from waldur_site_agent.sandbox.records_agents import EventSubscription
    from waldur_site_agent.sandbox.store import Transaction

_SCHEMA_VERSION = 1


def plain_payload(what: Occurrence) -> JsonObject:
    """Give what a queue for one kind of change gets."""
    return {**what.payload, "offering_uuid": what.offering}


def unified_payload(what: Occurrence) -> JsonObject:
    """Give what an agent's one queue gets."""
    envelope: JsonObject = {"object_type": what.object_type, "schema_version": _SCHEMA_VERSION}
    return {**plain_payload(what), **envelope, **what.more}


def destinations(tx: Transaction, what: Occurrence) -> list[Destination]:
    """Give the messages that tell everybody who wants to know and may.

    A user with a unified queue gets nothing in queues of the older kind.
    """
    if what.object_type not in tx.generation.event_types:
        return []
    return [*_unified(tx, what), *_of_subscriptions(tx, what)]


def _unified(tx: Transaction, what: Occurrence) -> Iterator[Destination]:
    for consumer in tx.world.event_consumers.values():
        identity = tx.world.agent_identities[consumer.identity]
        wanted = not consumer.object_types or what.object_type in consumer.object_types
        if identity.offering == what.offering and wanted and _may_know(tx, consumer.user, what):
            yield Destination(
                vhost=consumer.user,
                queue=consumer.queue,
                made_by_server=True,
                topic=None,
                payload=unified_payload(what),
            )


def _of_subscriptions(tx: Transaction, what: Occurrence) -> Iterator[Destination]:
    unified_users = {row.user for row in tx.world.event_consumers.values()}
    made = {
        (row.subscription, row.offering, row.object_type)
        for row in tx.world.subscription_queues.values()
    }
    for row in tx.world.event_subscriptions.values():
        wish = (row.uuid, what.offering, what.object_type)
        if (
            row.user in unified_users
            or not _observes(row, what)
            or not _may_know(tx, row.user, what)
        ):
            continue
        if tx.generation.makes_queues and wish not in made:
            continue
        topic = f"subscription/{row.uuid}/offering/{what.offering}/{what.object_type}"
        yield Destination(
            vhost=row.user,
            queue=subscription_queue_name(*wish),
            made_by_server=tx.generation.makes_queues,
            topic=topic if tx.generation.publishes_over_mqtt else None,
            payload=plain_payload(what),
        )


def _observes(row: EventSubscription, what: Occurrence) -> bool:
    return any(_matches(each, what) for each in row.observable_objects)


def _matches(wish: JsonValue, what: Occurrence) -> bool:
    return isinstance(wish, dict) and wish.get("object_type") == what.object_type


def _may_know(tx: Transaction, user: str, what: Occurrence) -> bool:
    return permissions.sight_of(tx, tx.world.users[user]).as_provider(what.offering)
