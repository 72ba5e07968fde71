"""Records as JSON, in the form that a given release sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import date, datetime
from functools import cache

from pydantic import JsonValue

from waldur_site_agent_sandbox import states
from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.records import (
    AgentIdentity,
    AgentLog,
    AgentProcessor,
    AgentService,
    Component,
    ComponentUsage,
    Customer,
    EventConsumer,
    EventSubscription,
    JsonObject,
    Offering,
    OfferingUser,
    Order,
    Partition,
    Plan,
    Resource,
    Role,
    SubscriptionQueue,
    User,
    UserUsage,
)
from waldur_site_agent_sandbox.rules import roles_of
from waldur_site_agent_sandbox.store import Transaction

_RELEASES: dict[str, dict[str, tuple[int, ...]]] = {
    "user": {"token_expires_at": (8,), "has_usable_password": (8,)},
    "component": {
        "offering_uuid": (8,),
        "limit_decimal_places": (8,),
        "is_prepaid": (7, 9),
        "overage_component": (7, 9),
        "min_prepaid_duration": (7, 9),
        "max_prepaid_duration": (7, 9),
        "prepaid_duration_step": (8,),
        "min_renewal_duration": (8,),
        "max_renewal_duration": (8,),
        "renewal_duration_step": (8,),
    },
    "offering": {"partitions": (7, 9), "qos_profiles": (8,)},
    "order": {
        "customer_slug": (7,),
        "provider_slug": (7, 9),
        "request_comment": (7, 9),
        "start_date": (7, 9),
        "backend_id": (7, 8, 5),
        "order_subtype": (8,),
        "auto_approved": (8,),
    },
    "resource": {
        "customer_slug": (7, 6, 5),
        "project_slug": (7, 6, 5),
        "offering_slug": (7, 6, 5),
        "provider_slug": (7, 6, 5),
        "offering_state": (7, 6, 5),
        "offering_backend_id": (8,),
        "usage_limit_restriction": (8,),
        "has_api_keys": (8,),
    },
    "team": {"offering_user_state": (7, 8, 5)},
    "role": {},
    "provider": {"customer_slug": (7, 9), "allowed_domains": (8,)},
    "offering_user": {
        "state": (7, 7, 3),
        "service_provider_comment": (7, 7, 3),
        "service_provider_comment_url": (7, 7, 3),
        "has_consent": (7, 9),
        "offering_has_active_tos": (8,),
        "requires_reconsent": (7, 9),
        "user_first_name": (8,),
        "user_last_name": (8,),
        "runtime_state": (8,),
        "is_profile_complete": (8,),
        "uidnumber": (8,),
    },
    "service_account": {},
    "course_account": {
        "project_slug": (7, 9),
        "project_start_date": (7, 9),
        "project_end_date": (7, 9),
    },
    "user_limit": {},
    "component_usage": {"missing_usage_policy": (8, 1)},
    "user_usage": {"date": (8,)},
    "agent_identity": {"created_by": (8,), "compatibility": (8,)},
    "agent_service": {},
    "agent_processor": {},
    "subscription": {},
    "subscription_queue": {},
    "backend_resource": {},
    "backend_resource_request": {},
    "project": {"customer_slug": (8,), "affiliation": (8, 1), "user_affiliations": (8,)},
    "policy": {
        "carryover_factor": (8,),
        "affected_resources_count": (8,),
        "warnings": (8,),
    },
}
"""Fields that a later release added; all others have always existed."""

_NOVELTY_SINCE = (8, 1, 0)
_NOVELTY = "shadow_rating"
"""A field unknown to clients, which every object of a new server has."""

SHORT_ROLES = {
    "PROJECT.ADMIN": "admin",
    "PROJECT.MANAGER": "manager",
    "PROJECT.MEMBER": "member",
}


def timestamp(moment: datetime | None) -> str | None:
    """Format a time as Waldur does; the texts sort like the times."""
    if moment is None:
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def day(date_: date | None) -> str | None:
    """Format a date."""
    return None if date_ is None else date_.isoformat()


@cache
def _later_fields(generation: Generation, kind: str) -> frozenset[str]:
    """The fields of this kind that only later releases have."""
    added = _RELEASES[kind].items()
    return frozenset(name for name, release in added if not generation.reached(*release))


def has_field(tx: Transaction, kind: str, name: str) -> bool:
    """Whether objects of this kind have a field in this release."""
    return name not in _later_fields(tx.generation, kind)


def of_generation(tx: Transaction, kind: str, whole: JsonObject) -> JsonObject:
    """Remove fields that the release does not have yet, and add one that clients do not know."""
    later = _later_fields(tx.generation, kind)
    known: JsonObject = {name: value for name, value in whole.items() if name not in later}
    if tx.generation.reached(*_NOVELTY_SINCE):
        known[_NOVELTY] = {"grade": "A"}
    return known


def user(tx: Transaction, row: User, api: str, expires: datetime | None) -> JsonObject:
    """Print the user who asks."""
    permissions: list[JsonValue] = [
        {
            "user_uuid": row.uuid,
            "user_username": row.username,
            "user_name": row.full_name,
            "role_name": role.name,
            "scope_type": role.scope_type,
            "scope_uuid": role.scope,
            "scope_name": _scope_name(tx, role),
            "expiration_time": timestamp(role.expiration_time),
        }
        for role in roles_of(tx, row)
    ]
    first, _, last = row.full_name.partition(" ")
    return of_generation(
        tx,
        "user",
        {
            "url": f"{api}users/{row.uuid}/",
            "uuid": row.uuid,
            "username": row.username,
            "full_name": row.full_name,
            "first_name": first,
            "last_name": last,
            "email": row.email,
            "is_staff": row.is_staff,
            "is_active": row.is_active,
            "is_support": False,
            "token_lifetime": row.token_lifetime,
            "token_expires_at": timestamp(expires),
            "date_joined": timestamp(row.created),
            "has_usable_password": False,
            "permissions": permissions,
        },
    )


def component(tx: Transaction, row: Component, offering: Offering) -> JsonObject:
    """Print a component of an offering."""
    return of_generation(
        tx,
        "component",
        {
            **{name: value for name, value in asdict(row).items() if name != "is_priced"},
            "offering_uuid": offering.uuid,
            "factor": None,
            "limit_decimal_places": 0,
            "overage_component": None,
        },
    )


def offering(tx: Transaction, row: Offering, api: str) -> JsonObject:
    """Print an offering for its provider."""
    customer = tx.world.customers[row.customer]
    return of_generation(
        tx,
        "offering",
        {
            "url": f"{api}marketplace-provider-offerings/{row.uuid}/",
            "uuid": row.uuid,
            "created": timestamp(row.created),
            "name": row.name,
            "slug": row.slug,
            "description": "",
            "customer": f"{api}customers/{customer.uuid}/",
            "customer_uuid": customer.uuid,
            "customer_name": customer.name,
            "type": row.type,
            "state": row.state,
            "shared": row.shared,
            "billable": True,
            "backend_id": "",
            "backend_metadata": {},
            "components": [component(tx, each, row) for each in row.components],
            "plugin_options": row.plugin_options,
            "options": {"order": [], "options": {}},
            "resource_options": {"order": [], "options": {}},
            "partitions": [_partition(each) for each in row.partitions],
            "qos_profiles": [_qos_profile(each) for each in row.qos_profiles],
            "plans": [_plan(each, api) for each in row.plans],
        },
    )


def _plan(row: Plan, api: str) -> JsonObject:
    return {
        "url": f"{api}marketplace-provider-offerings/plans/{row.uuid}/",
        "uuid": row.uuid,
        "name": row.name,
        "description": "",
        "archived": False,
        "is_active": True,
        "quotas": row.quotas,
        "prices": {},
        "future_prices": {},
        "components": [],
    }


def _partition(row: Partition) -> JsonObject:
    options: list[JsonObject] = [
        {
            "uuid": row.uuid,
            "qos": row.uuid,
            "qos_name": name,
            "is_default": name == row.qos[0],
        }
        for name in row.qos
    ]
    return {"uuid": row.uuid, "partition_name": row.name, "qos_options": [*options]}


def _qos_profile(name: str) -> JsonObject:
    return {"name": name, "description": "", "grp_tres": "", "flags": ""}


def provider(tx: Transaction, row: Customer, api: str) -> JsonObject:
    """Print an organization as a service provider."""
    return of_generation(
        tx,
        "provider",
        {
            "url": f"{api}marketplace-service-providers/{row.service_provider}/",
            "uuid": row.service_provider,
            "created": timestamp(row.created),
            "description": "",
            "enable_notifications": True,
            "customer": f"{api}customers/{row.uuid}/",
            "customer_uuid": row.uuid,
            "customer_name": row.name,
            "customer_slug": row.slug,
            "customer_abbreviation": "",
            "customer_native_name": "",
            "allowed_domains": [],
        },
    )


def team_member(tx: Transaction, role: Role, offering_uuid: str, api: str) -> JsonObject:
    """Print a member of a project's team, with the person's account at an offering."""
    person = tx.world.users[role.user]
    account = tx.world.offering_user(offering_uuid, person.uuid)
    return of_generation(
        tx,
        "team",
        {
            "url": f"{api}users/{person.uuid}/",
            "uuid": person.uuid,
            "username": person.username,
            "full_name": person.full_name,
            "email": person.email,
            "role": SHORT_ROLES.get(role.name, role.name),
            "expiration_time": timestamp(role.expiration_time),
            "offering_user_username": account.username if account else None,
            "offering_user_state": account.state if account else None,
        },
    )


def project_role(tx: Transaction, role: Role, api: str) -> JsonObject:
    """Print a role in a project, for the provider's list over all projects."""
    project = tx.world.projects[role.scope]
    customer = tx.world.customers[project.customer]
    person = tx.world.users[role.user]
    return of_generation(
        tx,
        "role",
        {
            "created": timestamp(role.created),
            "expiration_time": timestamp(role.expiration_time),
            "created_by": None,
            "created_by_full_name": None,
            "created_by_username": None,
            "project": f"{api}projects/{project.uuid}/",
            "project_uuid": project.uuid,
            "project_name": project.name,
            "project_created": timestamp(project.created),
            "customer_uuid": customer.uuid,
            "customer_name": customer.name,
            "role": role.name,
            "role_name": role.name,
            "user": f"{api}users/{person.uuid}/",
            "user_uuid": person.uuid,
            "user_username": person.username,
            "user_full_name": person.full_name,
            "user_native_name": "",
            "user_email": person.email,
        },
    )


def offering_user(tx: Transaction, row: OfferingUser, api: str) -> JsonObject:
    """Print a person's account at an offering."""
    person = tx.world.users[row.user]
    place = tx.world.offerings[row.offering]
    customer = tx.world.customers[place.customer]
    first, _, last = person.full_name.partition(" ")
    return of_generation(
        tx,
        "offering_user",
        {
            "url": f"{api}marketplace-offering-users/{row.uuid}/",
            "uuid": row.uuid,
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "username": row.username,
            "state": row.state,
            "is_restricted": row.is_restricted,
            "user": f"{api}users/{person.uuid}/",
            "user_uuid": person.uuid,
            "user_username": person.username,
            "user_full_name": person.full_name,
            "user_first_name": first,
            "user_last_name": last,
            "user_email": person.email,
            "offering": f"{api}marketplace-provider-offerings/{place.uuid}/",
            "offering_uuid": place.uuid,
            "offering_name": place.name,
            "customer_uuid": customer.uuid,
            "customer_name": customer.name,
            "service_provider_comment": row.service_provider_comment,
            "service_provider_comment_url": row.service_provider_comment_url,
            "has_consent": place.has_terms and row.has_consent,
            "requires_reconsent": False,
            "offering_has_active_tos": place.has_terms,
            "runtime_state": "Active",
            "is_profile_complete": True,
            "uidnumber": None,
        },
    )


def _scope_name(tx: Transaction, role: Role) -> str:
    if role.scope_type == "customer":
        return tx.world.customers[role.scope].name
    if role.scope_type == "project":
        return tx.world.projects[role.scope].name
    return tx.world.offerings[role.scope].name


_EMPTY_RESOURCE: JsonObject = {
    "description": "",
    "effective_id": "",
    "limit_usage": {},
    "resource_uuid": None,
    "resource_type": None,
    "report": [],
    "endpoints": [],
    "usage_limit_restriction": "",
    "has_api_keys": False,
    "offering_backend_id": "",
}
"""Fields of a resource that the sandbox never fills."""


def order(tx: Transaction, row: Order, api: str) -> JsonObject:
    """Print an order."""
    resource = tx.world.resources.get(row.resource)
    return of_generation(
        tx,
        "order",
        {
            "url": f"{api}marketplace-orders/{row.uuid}/",
            "uuid": row.uuid,
            "slug": f"order-{row.uuid[:6]}",
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "completed_at": timestamp(row.completed_at),
            "type": row.type,
            "state": row.state,
            "limits": row.limits,
            "attributes": row.attributes,
            "start_date": day(row.start_date),
            "backend_id": row.backend_id,
            "error_message": row.error_message,
            "error_traceback": row.error_traceback,
            "provider_rejection_comment": row.provider_rejection_comment,
            "marketplace_resource_uuid": row.resource,
            "resource_uuid": None,
            "resource_type": None,
            "resource_name": resource.name if resource else "",
            "plan_uuid": row.plan or None,
            "cost": "0.0000000000",
            "output": "",
            "request_comment": None,
            "termination_comment": None,
            "can_terminate": row.state in {"pending-consumer", "pending-provider"},
            "order_subtype": None,
            "auto_approved": False,
            **_offering_side(tx, row.offering, api),
            **_consumer_side(tx, row.project),
        },
    )


def resource(tx: Transaction, row: Resource, api: str, wants: Callable[[str], bool]) -> JsonObject:
    """Print a resource for its provider, with its orders if the client asks for them."""
    whole: JsonObject = {
        **_EMPTY_RESOURCE,
        "url": f"{api}marketplace-provider-resources/{row.uuid}/",
        "uuid": row.uuid,
        "created": timestamp(row.created),
        "modified": timestamp(row.modified),
        "name": row.name,
        "slug": row.slug,
        "state": row.state,
        "backend_id": row.backend_id,
        "backend_metadata": row.backend_metadata,
        "limits": row.limits,
        "current_usages": row.current_usages,
        "attributes": row.attributes,
        "options": row.options or None,
        "plan_uuid": row.plan or None,
        "end_date": day(row.end_date),
        "paused": row.paused,
        "downscaled": row.downscaled,
        "restrict_member_access": row.restrict_member_access,
        "error_message": row.error_message,
        "error_traceback": row.error_traceback,
        "last_sync": timestamp(row.last_sync or row.created),
        "offering_slug": tx.world.offerings[row.offering].slug,
        "offering_state": tx.world.offerings[row.offering].state,
        "project": f"{api}projects/{row.project}/",
        "project_end_date": day(tx.world.projects[row.project].end_date),
        **_offering_side(tx, row.offering, api),
        **_consumer_side(tx, row.project),
    }
    if wants("order_in_progress"):
        in_progress = tx.world.order_in_progress(row.uuid)
        whole["order_in_progress"] = order(tx, in_progress, api) if in_progress else None
    if wants("creation_order"):
        creations = (o for o in tx.world.orders_of(row.uuid) if o.type == "Create")
        creation = next(creations, None)
        whole["creation_order"] = order(tx, creation, api) if creation else None
    return of_generation(tx, "resource", whole)


def _offering_side(tx: Transaction, uuid: str, api: str) -> JsonObject:
    place = tx.world.offerings[uuid]
    provider_ = tx.world.customers[place.customer]
    return {
        "offering": f"{api}marketplace-provider-offerings/{place.uuid}/",
        "offering_uuid": place.uuid,
        "offering_name": place.name,
        "offering_type": place.type,
        "offering_shared": place.shared,
        "offering_plugin_options": place.plugin_options,
        "provider_uuid": provider_.uuid,
        "provider_name": provider_.name,
        "provider_slug": provider_.slug,
    }


def _consumer_side(tx: Transaction, uuid: str) -> JsonObject:
    project = tx.world.projects[uuid]
    customer = tx.world.customers[project.customer]
    return {
        "project_uuid": project.uuid,
        "project_name": project.name,
        "project_slug": project.slug,
        "project_description": project.description,
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
        "customer_slug": customer.slug,
    }


def usage(tx: Transaction, row: ComponentUsage) -> JsonObject:
    """Print the usage of a component in a month."""
    component = _component(tx, row)
    return of_generation(
        tx,
        "component_usage",
        {
            "uuid": row.uuid,
            "created": timestamp(row.created),
            "description": row.description,
            "type": row.component_type,
            "name": component.name if component else "",
            "measured_unit": component.measured_unit if component else "",
            "usage": f"{row.usage:.2f}",
            "date": timestamp(row.reported),
            "recurring": row.recurring,
            "missing_usage_policy": "reuse" if row.recurring else "none",
            "billing_period": day(row.billing_period),
            "modified_by": _number_of(tx, row.modified_by),
            **_place(tx, row),
        },
    )


def user_usage(tx: Transaction, row: UserUsage, api: str) -> JsonObject:
    """Print one person's usage."""
    parent = tx.world.component_usages[row.component_usage]
    component = _component(tx, parent)
    account = f"{api}marketplace-offering-users/{row.account}/" if row.account else None
    return of_generation(
        tx,
        "user_usage",
        {
            "uuid": row.uuid,
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "user": account,
            "username": row.username,
            "component_usage": f"{api}marketplace-component-usages/{parent.uuid}/",
            "component_type": parent.component_type,
            "usage": f"{row.usage:.2f}",
            "measured_unit": component.measured_unit if component else "",
            "description": "",
            "backend_id": "",
            "date": timestamp(parent.reported),
            "billing_period": day(parent.billing_period),
            **_place(tx, parent),
        },
    )


def _place(tx: Transaction, row: ComponentUsage) -> JsonObject:
    resource = tx.world.resources[row.resource]
    offering = tx.world.offerings[resource.offering]
    project = tx.world.projects[resource.project]
    customer = tx.world.customers[project.customer]
    return {
        "resource_uuid": resource.uuid,
        "resource_name": resource.name,
        "offering_uuid": offering.uuid,
        "offering_name": offering.name,
        "project_uuid": project.uuid,
        "project_name": project.name,
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
    }


def _component(tx: Transaction, row: ComponentUsage) -> Component | None:
    components = tx.world.offerings[tx.world.resources[row.resource].offering].components
    return next((each for each in components if each.type == row.component_type), None)


def _number_of(tx: Transaction, user: str) -> int | None:
    """Return the user's primary key in the database."""
    return list(tx.world.users).index(user) + 1 if user in tx.world.users else None


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


def agent_log(tx: Transaction, row: AgentLog, api: str) -> JsonObject:
    """Print a line of an agent's log."""
    offering = tx.world.agent_identities[row.identity].offering
    return {
        "uuid": row.uuid,
        "offering": f"{api}marketplace-provider-offerings/{offering}/",
        "offering_uuid": offering,
        "agent_identity_uuid": row.identity,
        "timestamp": row.timestamp,
        "level": row.level,
        "message": row.message,
        "module": row.module,
        "created": timestamp(row.created),
    }


def service(tx: Transaction, row: AgentService, api: str) -> JsonObject:
    """Print a service with its processors."""
    owner = tx.world.agent_identities[row.identity]
    processors = [_nested_processor(each, api) for each in states.processors_of(tx, row)]
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
    """Print an event subscription."""
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
    """Print a queue for one kind of event at one offering."""
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
    """Print how to connect to an agent's unified queue; the password is not included."""
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
        "state": states.service_state(tx, row),
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
