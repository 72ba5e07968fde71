"""Agents, their services and their queues as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.sandbox import agents
from waldur_site_agent.sandbox.rendering import of_generation, timestamp

if TYPE_CHECKING:
    from waldur_site_agent.sandbox.records import JsonObject
    from waldur_site_agent.sandbox.records_agents import (
        AgentIdentity,
        AgentProcessor,
        AgentService,
        EventConsumer,
        EventSubscription,
        SubscriptionQueue,
    )
    from waldur_site_agent.sandbox.store import Transaction


def identity(tx: Transaction, row: AgentIdentity, api: str) -> JsonObject:
    """Print an agent with its services."""
    services = [each for each in tx.world.agent_services.values() if each.identity == row.uuid]
    return of_generation(
        tx,
        "agent_identity",
        {
            "uuid": row.uuid,
            "url": f"{api}marketplace-site-agent-identities/{row.uuid}/",
            "offering": row.offering,
            "name": row.name,
            "version": row.version,
            "dependencies": [*row.dependencies],
            "config_file_path": row.config_file_path,
            "config_file_content": row.config_file_content,
            "last_restarted": timestamp(row.last_restarted),
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "created_by": row.created_by,
            "services": [_nested_service(tx, each, api) for each in services],
            "compatibility": {"status": "unknown", "message": "", "minimum_required": ""},
        },
    )


def service(tx: Transaction, row: AgentService, api: str) -> JsonObject:
    """Print a service with its processors."""
    owner = tx.world.agent_identities[row.identity]
    processors = [_nested_processor(each, api) for each in agents.processors_of(tx, row)]
    whole: JsonObject = {
        **_nested_service(tx, row, api),
        "identity": owner.uuid,
        "identity_name": owner.name,
        "processors": [*processors],
    }
    return of_generation(tx, "agent_service", whole)


def processor(tx: Transaction, row: AgentProcessor, api: str) -> JsonObject:
    """Print a processor."""
    owner = tx.world.agent_services[row.service]
    whole: JsonObject = {
        **_nested_processor(row, api),
        "service": owner.uuid,
        "service_name": owner.name,
    }
    return of_generation(tx, "agent_processor", whole)


def subscription(tx: Transaction, row: EventSubscription, api: str) -> JsonObject:
    """Print a user's wish to be told of changes."""
    person = tx.world.users[row.user]
    return of_generation(
        tx,
        "subscription",
        {
            "uuid": row.uuid,
            "url": f"{api}event-subscriptions/{row.uuid}/",
            "user": f"{api}users/{person.uuid}/",
            "user_uuid": person.uuid,
            "user_username": person.username,
            "user_full_name": person.full_name,
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "source_ip": row.source_ip,
            "description": row.description,
            "observable_objects": [*row.observable_objects],
        },
    )


def subscription_queue(tx: Transaction, row: SubscriptionQueue, api: str) -> JsonObject:
    """Print a queue for one kind of change at one offering."""
    owner = tx.world.event_subscriptions[row.subscription]
    return of_generation(
        tx,
        "subscription_queue",
        {
            "uuid": row.uuid,
            "url": f"{api}event-subscription-queues/{row.uuid}/",
            "event_subscription": f"{api}event-subscriptions/{owner.uuid}/",
            "event_subscription_uuid": owner.uuid,
            "offering_uuid": row.offering,
            "object_type": row.object_type,
            "queue_name": row.name,
            "vhost": owner.user,
            "created": timestamp(row.created),
        },
    )


def consumer(row: EventConsumer) -> JsonObject:
    """Print how to read an agent's one queue; nothing of it is the password."""
    return {
        "rmq_username": row.login,
        "queue_name": row.queue,
        "vhost": row.user,
        "observable_object_types": [*row.object_types],
    }


def _nested_service(tx: Transaction, row: AgentService, api: str) -> JsonObject:
    return {
        "uuid": row.uuid,
        "url": f"{api}marketplace-site-agent-services/{row.uuid}/",
        "name": row.name,
        "mode": row.mode,
        "state": agents.state_of(tx, row),
        "statistics": row.statistics,
        "created": timestamp(row.created),
        "modified": timestamp(row.modified),
    }


def _nested_processor(row: AgentProcessor, api: str) -> JsonObject:
    return {
        "uuid": row.uuid,
        "url": f"{api}marketplace-site-agent-processors/{row.uuid}/",
        "name": row.name,
        "backend_type": row.backend_type,
        "backend_version": row.backend_version,
        "last_run": timestamp(row.last_run),
        "created": timestamp(row.created),
        "modified": timestamp(row.modified),
    }
