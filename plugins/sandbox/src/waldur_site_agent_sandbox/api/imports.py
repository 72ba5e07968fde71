"""Waldur's API: importable backend resources, and requests to find them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus

from starlette.responses import Response

from waldur_site_agent_sandbox import rules, states
from waldur_site_agent_sandbox.api.agents import text_of
from waldur_site_agent_sandbox.http import (
    Call,
    JsonResponse,
    Operation,
    arrange,
    as_uuid,
    by_choice,
    by_text,
    by_time,
    by_uuid,
    invalid,
    not_found,
    page_answer,
    select,
    wrong_state,
)
from waldur_site_agent_sandbox.records import BackendResource, BackendResourceRequest, JsonObject
from waldur_site_agent_sandbox.rendering import of_generation, timestamp

_RESOURCES = "backend-resources/"
_REQUESTS = "backend-resource-requests/"
_REQUEST_STATES = ("Sent", "Processing", "Done", "Erred")
_SINCE = (7, 6, 8)


def _created(row: BackendResource | BackendResourceRequest) -> str:
    return str(timestamp(row.created))


def _list_resources(call: Call) -> Response:
    visibility = rules.visibility_of(call.tx, call.user)
    everything = call.tx.world.backend_resources.values()
    visible = [row for row in everything if visibility.as_provider(row.offering)]
    rows = select(
        call,
        visible,
        [
            by_uuid("offering_uuid", lambda row: row.offering),
            by_uuid("project_uuid", lambda row: row.project),
            by_text("backend_id", lambda row, text: row.backend_id == text),
            by_text("name", lambda row, text: text.lower() in row.name.lower()),
            by_text("name_exact", lambda row, text: row.name == text),
            by_time("created", lambda row: row.created),
            by_time("modified", lambda row: row.modified),
        ],
    )
    rows = arrange(call, rows, {"created": _created}, "created")
    return page_answer(call, rows, lambda row: _print_resource(call, row), offers_fields=False)


def _create_resource(call: Call) -> Response:
    """Take in what an agent found; the same thing twice makes two of it."""
    offering = _referred(call, "offering", call.tx.world.offerings)
    project = _referred(call, "project", call.tx.world.projects)
    metadata = call.fields.get("backend_metadata", {})
    if not isinstance(metadata, dict):
        raise invalid({"backend_metadata": ["Expected a dictionary."]})
    row = BackendResource(
        uuid=call.tx.new_uuid(),
        created=call.tx.now,
        modified=call.tx.now,
        name=text_of(call.fields, "name", 150),
        project=project,
        offering=offering,
        backend_id=str(call.fields.get("backend_id", "")),
        backend_metadata=metadata,
    )
    _require_rights(call, offering)
    call.tx.world.put(row)
    return JsonResponse(_print_resource(call, row), HTTPStatus.CREATED)


def _referred(call: Call, name: str, table: Mapping[str, object]) -> str:
    given = str(states.required(call.fields, name))
    uuid = as_uuid(given)
    if uuid is None:
        raise invalid({name: [f"“{given}” is not a valid UUID."]})
    if uuid not in table:
        raise invalid({name: [f"Object with uuid={given} does not exist."]})
    return uuid


def _require_rights(call: Call, offering: str) -> None:
    right, scopes = rules.MANAGE_BACKEND_RESOURCES, rules.OFFERING_OR_CUSTOMER
    rules.require(call.tx, call.user, right, call.tx.world.offerings[offering], scopes)


def _list_requests(call: Call) -> Response:
    visibility = rules.visibility_of(call.tx, call.user)
    everything = call.tx.world.backend_resource_requests.values()
    visible = [row for row in everything if visibility.as_provider(row.offering)]
    rows = select(
        call,
        visible,
        [
            by_uuid("offering_uuid", lambda row: row.offering),
            by_choice("state", _REQUEST_STATES, lambda row: row.state),
            by_time("created", lambda row: row.created),
            by_time("modified", lambda row: row.modified),
        ],
    )
    rows = arrange(call, rows, {"created": _created}, "created")
    return page_answer(call, rows, lambda row: _print_request(call, row), offers_fields=False)


def _visible_request(call: Call) -> BackendResourceRequest:
    row = call.tx.world.backend_resource_requests.get(call.uuid())
    visibility = rules.visibility_of(call.tx, call.user)
    if row is None or not visibility.as_provider(row.offering):
        raise not_found()
    return row


def _retrieve_request(call: Call) -> Response:
    return JsonResponse(_print_request(call, _visible_request(call)))


def _authorized_request(call: Call, *valid: str) -> BackendResourceRequest:
    row = _visible_request(call)
    _require_rights(call, row.offering)
    if row.state not in valid:
        raise wrong_state(*valid)
    return row


def _start_processing(call: Call) -> Response:
    row = _authorized_request(call, "Sent")
    now = call.tx.now
    call.tx.world.put(replace(row, state="Processing", started=now, modified=now))
    return JsonResponse({"status": "Backend resource request is being processed."})


def _set_done(call: Call) -> Response:
    row = _authorized_request(call, "Processing")
    now = call.tx.now
    call.tx.world.put(replace(row, state="Done", finished=now, modified=now))
    return JsonResponse({"status": "Backend resource request is done."})


def _set_erred(call: Call) -> Response:
    """Set a request to Erred, whatever its state."""
    row = _authorized_request(call, *_REQUEST_STATES)
    failed = replace(
        row,
        state="Erred",
        finished=call.tx.now,
        modified=call.tx.now,
        error_message=states.require_text(call.fields, "error_message"),
        error_traceback=states.require_text(call.fields, "error_traceback"),
    )
    call.tx.world.put(failed)
    return JsonResponse({"status": "Backend resource request is erred."})


def _print_resource(call: Call, row: BackendResource) -> JsonObject:
    project = call.tx.world.projects[row.project]
    return of_generation(
        call.tx,
        "backend_resource",
        {
            "url": f"{call.api}{_RESOURCES}{row.uuid}/",
            "uuid": row.uuid,
            "name": row.name,
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "project": project.uuid,
            "project_name": project.name,
            "project_url": f"{call.api}projects/{project.uuid}/",
            "backend_id": row.backend_id,
            "backend_metadata": row.backend_metadata,
            **_offering_side(call, row.offering),
        },
    )


def _print_request(call: Call, row: BackendResourceRequest) -> JsonObject:
    return of_generation(
        call.tx,
        "backend_resource_request",
        {
            "url": f"{call.api}{_REQUESTS}{row.uuid}/",
            "uuid": row.uuid,
            "created": timestamp(row.created),
            "modified": timestamp(row.modified),
            "started": timestamp(row.started),
            "finished": timestamp(row.finished),
            "state": row.state,
            "error_message": row.error_message,
            "error_traceback": row.error_traceback,
            **_offering_side(call, row.offering),
        },
    )


def _offering_side(call: Call, uuid: str) -> JsonObject:
    offering = call.tx.world.offerings[uuid]
    return {
        "offering": offering.uuid,
        "offering_name": offering.name,
        "offering_url": f"{call.api}marketplace-provider-offerings/{offering.uuid}/",
    }


def _operation(name: str, method: str, path: str, run: Callable[[Call], Response]) -> Operation:
    return Operation(name, method, path, run, since=_SINCE)


_ONE = f"{_REQUESTS}{{uuid}}/"
OPERATIONS = (
    _operation("backend_resources_list", "GET", _RESOURCES, _list_resources),
    _operation("backend_resources_create", "POST", _RESOURCES, _create_resource),
    _operation("backend_resource_requests_list", "GET", _REQUESTS, _list_requests),
    _operation("backend_resource_requests_retrieve", "GET", _ONE, _retrieve_request),
    _operation(
        "backend_resource_requests_start_processing",
        "POST",
        f"{_ONE}start_processing/",
        _start_processing,
    ),
    _operation("backend_resource_requests_set_done", "POST", f"{_ONE}set_done/", _set_done),
    _operation("backend_resource_requests_set_erred", "POST", f"{_ONE}set_erred/", _set_erred),
)
