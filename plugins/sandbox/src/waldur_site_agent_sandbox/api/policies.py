"""Waldur's API: periodic usage policies, and what agents report of them."""

from __future__ import annotations

from starlette.responses import Response

from waldur_site_agent_sandbox import rules, states
from waldur_site_agent_sandbox.http import (
    Call,
    Operation,
    as_uuid,
    by_text,
    by_uuid,
    denied,
    empty_response,
    invalid,
    not_found,
    page_answer,
    select,
)
from waldur_site_agent_sandbox.policies import PERIOD_NAMES
from waldur_site_agent_sandbox.records import JsonObject, PeriodicPolicy, PolicyResult
from waldur_site_agent_sandbox.rendering import of_generation, timestamp

_PATH = "marketplace-slurm-periodic-usage-policies/"
_MODES = ("production", "emulator")


def _list(call: Call) -> Response:
    visibility = rules.visibility_of(call.tx, call.user)
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
    return page_answer(call, rows, lambda row: _print(call, row), offers_fields=False)


def _offering_url(call: Call, row: PeriodicPolicy) -> str:
    return f"{call.api}marketplace-provider-offerings/{row.offering}/"


def _print(call: Call, row: PeriodicPolicy) -> JsonObject:
    offering = call.tx.world.offerings[row.offering]
    whole: JsonObject = {
        "uuid": row.uuid,
        "url": f"{call.api}{_PATH}{row.uuid}/",
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
        "apply_to_all": row.apply_to_all,
        "component_limits_set": [],
        "period": row.period,
        "period_name": PERIOD_NAMES.get(row.period, ""),
        "limit_type": row.limit_type,
        "tres_billing_enabled": row.tres_billing_enabled,
        "tres_billing_weights": row.tres_billing_weights,
        "carryover_factor": row.carryover_factor,
        "grace_ratio": row.grace_ratio,
        "carryover_enabled": row.carryover_enabled,
        "raw_usage_reset": row.raw_usage_reset,
        "qos_strategy": "threshold",
        "affected_resources_count": 0,
        "warnings": [],
    }
    return of_generation(call.tx, "policy", whole)


def _report(call: Call) -> Response:
    """Record a result; staff only, so a provider's agent is denied."""
    policy = call.tx.world.periodic_policies.get(call.uuid())
    visibility = rules.visibility_of(call.tx, call.user)
    if policy is None or not visibility.as_provider(policy.offering):
        raise not_found()
    if not call.user.is_staff:
        raise denied()
    wanted = as_uuid(str(states.required(call.fields, "resource_uuid")))
    resource = call.tx.world.resources.get(wanted or "")
    if resource is None:
        raise invalid({"resource_uuid": ["Resource does not exist."]})
    success = states.required(call.fields, "success")
    if not isinstance(success, bool):
        raise invalid({"success": ["Must be a valid boolean."]})
    mode, commands = call.fields.get("mode", "production"), call.fields.get("commands_executed", [])
    if mode not in _MODES:
        raise invalid({"mode": [f'"{mode}" is not a valid choice.']})
    if not isinstance(commands, list) or not all(isinstance(c, str) and c for c in commands):
        raise invalid({"commands_executed": ["Not a list of texts."]})
    call.tx.world.put(
        PolicyResult(
            uuid=call.tx.new_uuid(),
            created=call.tx.now,
            policy=policy.uuid,
            resource=resource.uuid,
            success=success,
            error_message=str(call.fields.get("error_message") or ""),
            mode=str(mode),
            commands_executed=tuple(map(str, commands)),
        )
    )
    return empty_response()


OPERATIONS = (
    Operation(
        "marketplace_slurm_periodic_usage_policies_list", "GET", _PATH, _list, since=(7, 8, 8)
    ),
    Operation(
        "marketplace_slurm_periodic_usage_policies_report_command_result",
        "POST",
        f"{_PATH}{{uuid}}/report-command-result/",
        _report,
        since=(8, 0, 0),
    ),
)
