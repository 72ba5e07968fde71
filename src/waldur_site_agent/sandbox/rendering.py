"""Records as JSON, the way servers of a generation print them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from waldur_site_agent.sandbox.permissions import roles_of

if TYPE_CHECKING:
    from datetime import date, datetime

    from pydantic import JsonValue

    from waldur_site_agent.sandbox.records import (
        Component,
        Customer,
        JsonObject,
        Offering,
        OfferingUser,
        Role,
        User,
    )
    from waldur_site_agent.sandbox.store import Transaction

_RELEASES: dict[str, dict[str, tuple[int, ...]]] = {
    "user": {"token_expires_at": (8,), "has_usable_password": (8,)},
    "component": {
        "offering_uuid": (8,),
        "limit_decimal_places": (8,),
        "is_prepaid": (7, 9),
        "overage_component": (7, 9),
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
"""Fields that came with a later release; those not listed were always there."""

_NOVELTY_SINCE = (8, 1, 0)
_NOVELTY = "shadow_rating"
"""A field that no client knows; each object of a new server has it."""

SHORT_ROLES = {
    "PROJECT.ADMIN": "admin",
    "PROJECT.MANAGER": "manager",
    "PROJECT.MEMBER": "member",
}


def timestamp(moment: datetime | None) -> str | None:
    """Print a time as Waldur does; the texts sort like the times."""
    if moment is None:
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def day(date_: date | None) -> str | None:
    """Print a date."""
    return None if date_ is None else date_.isoformat()


def of_generation(tx: Transaction, kind: str, whole: JsonObject) -> JsonObject:
    """Leave out what the server's generation does not know yet, add what clients do not."""
    releases = _RELEASES[kind]
    known: JsonObject = {
        name: value
        for name, value in whole.items()
        if tx.generation.reached(*releases.get(name, ()))
    }
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
            "is_prepaid": False,
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
            "partitions": [],
            "qos_profiles": [],
        },
    )


def provider(tx: Transaction, row: Customer, api: str) -> JsonObject:
    """Print an organization in its role of selling."""
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
    """Print a member of a project's team, with the account that the person has at an offering."""
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
            "has_consent": True,
            "requires_reconsent": False,
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
