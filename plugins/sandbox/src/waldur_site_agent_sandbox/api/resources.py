"""Waldur's API: a provider's resources, user limits, and policies that set limits."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from waldur_site_agent_sandbox import rendering, rules, states
from waldur_site_agent_sandbox.http import (
    Call,
    Filter,
    JsonResponse,
    Operation,
    arrange,
    by_choice,
    by_flag,
    by_text,
    by_time,
    by_uuid,
    by_uuids,
    choose_fields,
    denied,
    empty_response,
    invalid,
    not_found,
    page_answer,
    select,
    server_bug,
    wants,
)
from waldur_site_agent_sandbox.records import JsonObject, Resource, UserLimit
from waldur_site_agent_sandbox.rendering import of_generation

_PATH = "marketplace-provider-resources/"


def _filters(call: Call) -> list[Filter[Resource]]:
    world = call.tx.world
    in_work: list[Filter[Resource]] = [
        by_choice(
            "order_state",
            states.ORDER_STATES,
            lambda r: order.state if (order := world.order_in_progress(r.uuid)) else "",
        )
    ]
    by_offering = by_uuids if call.tx.generation.reached(7, 6, 5) else by_uuid
    return [
        by_offering("offering_uuid", lambda resource: resource.offering),
        by_uuid("project_uuid", lambda resource: resource.project),
        by_uuid("customer_uuid", lambda resource: world.projects[resource.project].customer),
        by_uuid("provider_uuid", lambda resource: world.offerings[resource.offering].customer),
        by_choice("state", states.RESOURCE_STATES, lambda resource: resource.state),
        by_text("backend_id", lambda resource, text: resource.backend_id == text),
        by_text("name", lambda resource, text: text.lower() in resource.name.lower()),
        by_text("name_exact", lambda resource, text: resource.name == text),
        by_text("query", lambda r, text: text.lower() in f"{r.name} {r.uuid}".lower()),
        by_flag("paused", lambda resource: resource.paused),
        by_flag("downscaled", lambda resource: resource.downscaled),
        by_flag("restrict_member_access", lambda resource: resource.restrict_member_access),
        by_time("created", lambda resource: resource.created),
        by_time("modified", lambda resource: resource.modified),
        *(in_work if call.tx.generation.reached(8) else []),
    ]


def _list(call: Call) -> Response:
    world = call.tx.world
    visibility = rules.visibility_of(call.tx, call.user)
    visible = [row for row in world.resources.values() if visibility.as_provider(row.offering)]
    rows = arrange(
        call,
        select(call, visible, _filters(call)),
        {
            "backend_id": lambda row: row.backend_id,
            "created": lambda row: str(rendering.timestamp(row.created)),
            "customer_name": lambda row: world.customer_of(row.project).name,
            "end_date": lambda _row: "",
            "name": lambda row: row.name,
            "offering_name": lambda row: world.offerings[row.offering].name,
            "plan_name": lambda _row: "",
            "project_name": lambda row: world.projects[row.project].name,
            "state": lambda row: row.state,
        },
        "created",
    )
    return page_answer(call, rows, lambda row: _print(call, row))


def _print(call: Call, resource: Resource) -> JsonObject:
    return rendering.resource(call.tx, resource, call.api, lambda name: wants(call, name))


def _resource(call: Call) -> Resource:
    resource = call.tx.world.resources.get(call.uuid())
    visibility = rules.visibility_of(call.tx, call.user)
    if resource is None or not visibility.as_provider(resource.offering):
        raise not_found()
    return resource


def _authorized(call: Call, right: str, scopes: frozenset[str] = rules.CUSTOMER) -> Resource:
    resource = _resource(call)
    offering = call.tx.world.offerings[resource.offering]
    rules.require(call.tx, call.user, right, offering, scopes)
    if offering.state == "Unavailable" and call.tx.generation.reached(8, 0, 9):
        raise invalid({"detail": "Offering is unavailable."})
    return resource


def _retrieve(call: Call) -> Response:
    return JsonResponse(choose_fields(call, _print(call, _resource(call))))


def _team(call: Call) -> Response:
    resource = _resource(call)
    roles = call.tx.world.team(resource.project, call.tx.now)
    return JsonResponse(
        [rendering.team_member(call.tx, role, resource.offering, call.api) for role in roles]
    )


def _set_backend_id(call: Call) -> Response:
    scopes = rules.OFFERING_OR_CUSTOMER
    resource = _authorized(call, rules.SET_BACKEND_ID, scopes)
    if "backend_id" not in call.fields:
        raise server_bug()
    backend_id = str(states.required(call.fields, "backend_id"))
    if backend_id == resource.backend_id:
        return JsonResponse({"status": "Resource backend_id is not changed."})
    states.set_resource(call.tx, resource, backend_id=backend_id)
    return JsonResponse({"status": "Resource backend_id has been changed."})


def _required_object(call: Call, name: str) -> JsonObject:
    given = states.required(call.fields, name)
    if not isinstance(given, dict):
        raise invalid({name: ["Value must be valid JSON."]})
    return given


def _set_limits(call: Call) -> Response:
    resource = _authorized(call, rules.SET_STATE)
    limits = _required_object(call, "limits")
    if call.tx.generation.checks_limit_names:
        known = {each.type for each in call.tx.world.offerings[resource.offering].components}
        unknown = sorted(set(limits) - known)
        if unknown:
            raise invalid({"limits": [f"Invalid components: {', '.join(unknown)}."]})
    kept = states.limits_under_policy(call.tx, resource, limits)
    states.set_resource(call.tx, resource, limits=kept)
    return JsonResponse({"status": "The resource limits are updated"})


def _set_backend_metadata(call: Call) -> Response:
    resource = _authorized(call, rules.SET_BACKEND_METADATA)
    metadata = _required_object(call, "backend_metadata")
    states.set_resource(call.tx, resource, backend_metadata=metadata)
    return JsonResponse({"status": "The backend metadata is updated"})


def _refresh_last_sync(call: Call) -> Response:
    resource = _authorized(call, rules.SET_STATE)
    states.set_resource(call.tx, resource, last_sync=call.tx.now)
    return empty_response()


def _set_as_ok(call: Call) -> Response:
    states.set_resource_ok(call.tx, _authorized(call, rules.SET_STATE))
    return empty_response()


def _set_as_erred(call: Call) -> Response:
    newer = call.tx.generation.accepts_offering_scope
    scopes = rules.OFFERING_OR_CUSTOMER if newer else rules.CUSTOMER
    resource = _authorized(call, rules.SET_STATE, scopes)
    if not call.tx.generation.lets_provider_set_errors and not call.user.is_staff:
        raise denied()
    message = str(call.fields.get("error_message") or resource.error_message)
    traceback = str(call.fields.get("error_traceback") or resource.error_traceback)
    states.set_resource(
        call.tx, resource, state="Erred", error_message=message, error_traceback=traceback
    )
    return empty_response()


def _action(name: str, run: Callable[[Call], Response], since: tuple[int, ...] = ()) -> Operation:
    return Operation(
        f"marketplace_provider_resources_{name}",
        "POST",
        f"{_PATH}{{uuid}}/{name}/",
        run,
        since=since,
    )


def _list_user_limits(call: Call) -> Response:
    world = call.tx.world
    visibility = rules.visibility_of(call.tx, call.user)
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


OPERATIONS = (
    Operation("marketplace_provider_resources_list", "GET", _PATH, _list),
    Operation("marketplace_provider_resources_retrieve", "GET", f"{_PATH}{{uuid}}/", _retrieve),
    Operation("marketplace_provider_resources_team_list", "GET", f"{_PATH}{{uuid}}/team/", _team),
    _action("set_backend_id", _set_backend_id),
    _action("set_limits", _set_limits, since=(7, 6, 5)),
    _action("set_backend_metadata", _set_backend_metadata),
    _action("refresh_last_sync", _refresh_last_sync, since=(7, 6, 5)),
    _action("set_as_ok", _set_as_ok, since=(7, 6, 5)),
    _action("set_as_erred", _set_as_erred),
    Operation(
        "component_user_usage_limits_list",
        "GET",
        "component-user-usage-limits/",
        _list_user_limits,
        since=(7, 6, 5),
    ),
)
