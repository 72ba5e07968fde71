"""Waldur's API: limits of single users, and the policies that own limits."""

from __future__ import annotations

from starlette.responses import Response

from waldur_site_agent_sandbox import permissions
from waldur_site_agent_sandbox.http import Call, Operation
from waldur_site_agent_sandbox.queries import by_text, by_uuid, page_answer, select
from waldur_site_agent_sandbox.records import JsonObject, PeriodicPolicy, UserLimit
from waldur_site_agent_sandbox.rendering import of_generation, timestamp


def _list_user_limits(call: Call) -> Response:
    world = call.tx.world
    visibility = permissions.sight_of(call.tx, call.user)
    visible = [
        row
        for row in world.user_limits.values()
        if visibility.as_provider(world.resources[row.resource].offering)
        or visibility.as_consumer(world.resources[row.resource].project)
    ]
    rows = select(
        call,
        visible,
        [
            by_uuid("offering_uuid", lambda row: world.resources[row.resource].offering),
            by_uuid("resource_uuid", lambda row: row.resource),
            by_text("resource", lambda row, text: _resource_url(call, row) == text),
            by_text("component_type", lambda row, text: row.component_type == text),
            by_text("username", lambda row, text: _username(call, row) == text),
        ],
    )
    return page_answer(call, rows, lambda row: _print_limit(call, row), offers_fields=False)


def _resource_url(call: Call, row: UserLimit) -> str:
    return f"{call.api}marketplace-resources/{row.resource}/"


def _username(call: Call, row: UserLimit) -> str | None:
    return call.tx.world.offering_users[row.account].username


def _print_limit(call: Call, row: UserLimit) -> JsonObject:
    resource = call.tx.world.resources[row.resource]
    components = call.tx.world.offerings[resource.offering].components
    component = next(each.uuid for each in components if each.type == row.component_type)
    whole: JsonObject = {
        "url": f"{call.api}component-user-usage-limits/{row.uuid}/",
        "uuid": row.uuid,
        "resource": _resource_url(call, row),
        "component": component,
        "component_type": row.component_type,
        "user": f"{call.api}marketplace-offering-users/{row.account}/",
        "limit": row.limit,
    }
    return of_generation(call.tx, "user_limit", whole)


def _list_policies(call: Call) -> Response:
    visibility = permissions.sight_of(call.tx, call.user)
    policies = call.tx.world.periodic_policies.values()
    visible = [row for row in policies if visibility.as_provider(row.offering)]
    rows = select(
        call,
        visible,
        [
            by_uuid("scope_uuid", lambda row: row.offering),
            by_text("scope", lambda row, text: _offering_url(call, row) == text),
        ],
    )
    return page_answer(call, rows, lambda row: _print_policy(call, row), offers_fields=False)


def _offering_url(call: Call, row: PeriodicPolicy) -> str:
    return f"{call.api}marketplace-provider-offerings/{row.offering}/"


def _print_policy(call: Call, row: PeriodicPolicy) -> JsonObject:
    offering = call.tx.world.offerings[row.offering]
    whole: JsonObject = {
        "uuid": row.uuid,
        "url": f"{call.api}marketplace-slurm-periodic-usage-policies/{row.uuid}/",
        "scope": _offering_url(call, row),
        "scope_name": offering.name,
        "scope_uuid": offering.uuid,
        "actions": "",
        "created": timestamp(row.created),
        "created_by_full_name": "",
        "created_by_username": "",
        "has_fired": False,
        "fired_datetime": timestamp(row.created),
        "options": {},
        "organization_groups": [],
        "apply_to_all": True,
        "component_limits_set": [],
        "period": 3,
        "period_name": "Quarterly",
        "limit_type": "GrpTRESMins",
        "carryover_factor": 50,
        "grace_ratio": 0.2,
        "carryover_enabled": True,
        "raw_usage_reset": True,
        "qos_strategy": "threshold",
        "affected_resources_count": 0,
        "warnings": [],
    }
    return of_generation(call.tx, "policy", whole)


OPERATIONS = (
    Operation(
        "component_user_usage_limits_list",
        "GET",
        "component-user-usage-limits/",
        _list_user_limits,
        since=(7, 6, 5),
    ),
    Operation(
        "marketplace_slurm_periodic_usage_policies_list",
        "GET",
        "marketplace-slurm-periodic-usage-policies/",
        _list_policies,
        since=(7, 8, 8),
    ),
)
