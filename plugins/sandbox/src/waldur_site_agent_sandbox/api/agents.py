"""Waldur's API: agent identities, services and heartbeat."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from http import HTTPStatus

from starlette.responses import Response

from waldur_site_agent_sandbox import rendering, rules, states
from waldur_site_agent_sandbox.http import (
    Call,
    JsonResponse,
    Operation,
    as_uuid,
    by_text,
    by_uuid,
    invalid,
    not_found,
    page_answer,
    select,
)
from waldur_site_agent_sandbox.records import (
    AgentIdentity,
    AgentLog,
    AgentProcessor,
    AgentService,
    JsonObject,
    Offering,
)

_IDENTITIES = "marketplace-site-agent-identities/"
_SERVICES = "marketplace-site-agent-services/"
_SINCE = (7, 8, 5)


def text_of(fields: JsonObject, name: str, longest: int) -> str:
    """Read a required text.

    Raises:
        RefusedError: 400 with its name.
    """
    text = str(states.required(fields, name))
    if not text:
        raise invalid({name: ["This field may not be blank."]})
    if len(text) > longest:
        raise invalid({name: [f"Ensure this field has no more than {longest} characters."]})
    return text


def _optional(fields: JsonObject, name: str, longest: int | None = None) -> str | None:
    given = fields.get(name)
    if given is None:
        return None
    if longest is not None and len(str(given)) > longest:
        raise invalid({name: [f"Ensure this field has no more than {longest} characters."]})
    return str(given)


def require_agent_rights(call: Call, offering: Offering) -> None:
    """Require permission to run agents for an offering.

    Raises:
        RefusedError: 403.
    """
    newer = call.tx.generation.accepts_offering_scope
    scopes = rules.OFFERING_OR_CUSTOMER if newer else rules.CUSTOMER
    rules.require(call.tx, call.user, rules.CREATE_OFFERING, offering, scopes)


def identity_of(call: Call, uuid: str | None = None) -> AgentIdentity:
    """Return the agent identity of a call, if the user may run it.

    Raises:
        RefusedError: 404 or 403.
    """
    identity = call.tx.world.agent_identities.get(uuid or call.uuid())
    visibility = rules.visibility_of(call.tx, call.user)
    if identity is None or not visibility.as_provider(identity.offering):
        raise not_found()
    require_agent_rights(call, call.tx.world.offerings[identity.offering])
    return identity


def _list(call: Call) -> Response:
    visibility = rules.visibility_of(call.tx, call.user)
    everything = call.tx.world.agent_identities.values()
    visible = [row for row in everything if visibility.as_provider(row.offering)]
    rows = select(
        call,
        visible,
        [
            by_uuid("offering_uuid", lambda row: row.offering),
            by_text("name", lambda row, text: row.name == text),
            by_text("version", lambda row, text: row.version == text),
        ],
    )
    rows.sort(key=lambda row: row.created)
    return page_answer(
        call,
        rows,
        lambda row: rendering.identity(call.tx, row, call.api),
        offers_fields=False,
    )


def _described_offering(call: Call) -> Offering:
    given = str(states.required(call.fields, "offering"))
    uuid = as_uuid(given)
    if uuid is None:
        raise invalid({"offering": [f"“{given}” is not a valid UUID."]})
    offering = call.tx.world.offerings.get(uuid)
    if offering is None:
        raise invalid({"offering": [f"Object with uuid={given} does not exist."]})
    if offering.type not in states.AGENT_TYPES:
        raise invalid({"offering": ["Offering type is not compatible with site agents."]})
    return offering


def _described(call: Call, uuid: str, before: AgentIdentity | None) -> AgentIdentity:
    """Read an identity from the request; omitted fields keep their value."""
    offering = _described_offering(call)
    if before is not None and before.offering != offering.uuid:
        raise invalid({"offering": ["Offering cannot be changed."]})
    fields = call.fields
    identity = before or AgentIdentity(
        uuid=uuid,
        created=call.tx.now,
        modified=call.tx.now,
        offering=offering.uuid,
        name="",
        created_by=call.user.uuid,
    )
    dependencies = fields.get("dependencies", [*identity.dependencies])
    if not isinstance(dependencies, list):
        raise invalid({"dependencies": ["Expected a list of items."]})
    if not all(
        isinstance(each, dict) and {"package", "version"} <= set(each) for each in dependencies
    ):
        raise invalid({"dependencies": ["Each needs a package and a version."]})
    return replace(
        identity,
        name=text_of(fields, "name", 150),
        version=_optional({"version": identity.version, **fields}, "version", 100),
        dependencies=tuple(dependencies),
        config_file_path=_optional(
            {"config_file_path": identity.config_file_path, **fields}, "config_file_path", 150
        ),
        config_file_content=_optional(
            {"config_file_content": identity.config_file_content, **fields}, "config_file_content"
        ),
        last_restarted=_restarted(call, identity),
        modified=call.tx.now,
    )


def _restarted(call: Call, identity: AgentIdentity) -> datetime:
    given = call.fields.get("last_restarted")
    if given is None:
        return identity.last_restarted or call.tx.now
    try:
        return datetime.fromisoformat(str(given)).astimezone(call.tx.now.tzinfo)
    except ValueError:
        raise invalid({"last_restarted": ["Datetime has wrong format."]}) from None


def _store_identity(call: Call, identity: AgentIdentity) -> None:
    twin = any(
        (row.offering, row.name) == (identity.offering, identity.name) and row.uuid != identity.uuid
        for row in call.tx.world.agent_identities.values()
    )
    if twin:
        text = "The fields offering, name must make a unique set."
        raise invalid({"non_field_errors": [text]})
    call.tx.world.put(identity)


def _create(call: Call) -> Response:
    require_agent_rights(call, _described_offering(call))
    identity = _described(call, call.tx.new_uuid(), None)
    _store_identity(call, identity)
    printed = rendering.identity(call.tx, identity, call.api)
    return JsonResponse(printed, HTTPStatus.CREATED)


def _update(call: Call) -> Response:
    before = identity_of(call)
    identity = _described(call, before.uuid, before)
    _store_identity(call, identity)
    return JsonResponse(rendering.identity(call.tx, identity, call.api))


def _register_service(call: Call) -> Response:
    identity = identity_of(call)
    name = text_of(call.fields, "name", 150)
    mode = _optional(call.fields, "mode", 100)
    rows = call.tx.world.agent_services.values()
    before = next((r for r in rows if (r.identity, r.name) == (identity.uuid, name)), None)
    service = before or AgentService(
        uuid=call.tx.new_uuid(),
        created=call.tx.now,
        modified=call.tx.now,
        identity=identity.uuid,
        name=name,
        registered=call.tx.now,
    )
    service = replace(
        service,
        mode=mode or service.mode,
        state="Active",
        registered=call.tx.now,
        modified=call.tx.now,
    )
    call.tx.world.put(service)
    status = HTTPStatus.OK if before else HTTPStatus.CREATED
    return JsonResponse(rendering.service(call.tx, service, call.api), status)


def _service(call: Call) -> AgentService:
    service = call.tx.world.agent_services.get(call.uuid())
    if service is None:
        raise not_found()
    identity_of(call, service.identity)
    return service


def _register_processor(call: Call) -> Response:
    service = _service(call)
    name = text_of(call.fields, "name", 150)
    backend_type = text_of(call.fields, "backend_type", 100)
    call.tx.world.put(replace(service, state=states.service_state(call.tx, service)))
    rows = states.processors_of(call.tx, service)
    before = next((row for row in rows if row.name == name), None)
    processor = before or AgentProcessor(
        uuid=call.tx.new_uuid(),
        created=call.tx.now,
        modified=call.tx.now,
        service=service.uuid,
        name=name,
        backend_type=backend_type,
        last_run=call.tx.now,
    )
    version = _optional(call.fields, "backend_version", 100) or processor.backend_version
    processor = replace(
        processor,
        backend_type=backend_type,
        backend_version=version,
        last_run=call.tx.now,
        modified=call.tx.now,
    )
    call.tx.world.put(processor)
    status = HTTPStatus.OK if before else HTTPStatus.CREATED
    return JsonResponse(rendering.processor(call.tx, processor, call.api), status)


def _set_statistics(call: Call) -> Response:
    service = _service(call)
    statistics = states.required(call.fields, "statistics")
    if not isinstance(statistics, dict):
        raise invalid({"statistics": ["Expected a dictionary."]})
    service = replace(service, statistics=statistics, modified=call.tx.now)
    call.tx.world.put(service)
    return JsonResponse(rendering.service(call.tx, service, call.api))


_LEVELS = ("CRITICAL", "DEBUG", "ERROR", "INFO", "WARNING")


def _logged(call: Call, fields: object) -> AgentLog:
    if not isinstance(fields, dict):
        raise invalid({"non_field_errors": ["Invalid data. Expected a dictionary."]})
    uuid = as_uuid(str(states.required(fields, "agent_identity_uuid")))
    identity = call.tx.world.agent_identities.get(uuid or "")
    visibility = rules.visibility_of(call.tx, call.user)
    if identity is None or not visibility.as_provider(identity.offering):
        raise invalid({"agent_identity_uuid": ["Agent identity not found."]})
    level = str(states.required(fields, "level"))
    if level not in _LEVELS:
        raise invalid({"level": [f'"{level}" is not a valid choice.']})
    moment = states.required(fields, "timestamp")
    if not isinstance(moment, int | float):
        raise invalid({"timestamp": ["A valid number is required."]})
    return AgentLog(
        uuid=call.tx.new_uuid(),
        created=call.tx.now,
        identity=identity.uuid,
        timestamp=float(moment),
        level=level,
        message=str(states.required(fields, "message")),
        module=str(states.required(fields, "module")),
    )


def _send_log(call: Call) -> Response:
    if not isinstance(call.sent, list):
        raise invalid({"non_field_errors": ["Expected a list of items."]})
    rows = [_logged(call, fields) for fields in call.sent]
    for row in rows:
        call.tx.world.put(row)
    shown = [rendering.agent_log(call.tx, row, call.api) for row in rows]
    return JsonResponse(shown, HTTPStatus.CREATED)


OPERATIONS = (
    Operation(
        "marketplace_site_agent_logs_create",
        "POST",
        "marketplace-site-agent-logs/",
        _send_log,
        since=(8, 0, 9),
    ),
    Operation("marketplace_site_agent_identities_list", "GET", _IDENTITIES, _list, since=_SINCE),
    Operation(
        "marketplace_site_agent_identities_create", "POST", _IDENTITIES, _create, since=_SINCE
    ),
    Operation(
        "marketplace_site_agent_identities_update",
        "PUT",
        f"{_IDENTITIES}{{uuid}}/",
        _update,
        since=_SINCE,
    ),
    Operation(
        "marketplace_site_agent_identities_register_service",
        "POST",
        f"{_IDENTITIES}{{uuid}}/register_service/",
        _register_service,
        since=_SINCE,
    ),
    Operation(
        "marketplace_site_agent_services_register_processor",
        "POST",
        f"{_SERVICES}{{uuid}}/register_processor/",
        _register_processor,
        since=_SINCE,
    ),
    Operation(
        "marketplace_site_agent_services_set_statistics",
        "POST",
        f"{_SERVICES}{{uuid}}/set_statistics/",
        _set_statistics,
        since=_SINCE,
    ),
)
