"""Waldur's API: a provider's offerings and their components."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from http import HTTPStatus

from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from waldur_site_agent_sandbox import rendering, rules, states
from waldur_site_agent_sandbox.api.people import project_accounts
from waldur_site_agent_sandbox.http import (
    Call,
    JsonResponse,
    Operation,
    Orderings,
    arrange,
    as_uuid,
    by_choice,
    by_text,
    by_uuid,
    choose_fields,
    empty_response,
    invalid,
    last,
    not_found,
    page_answer,
    select,
    values,
)
from waldur_site_agent_sandbox.records import Component, JsonObject, Offering

_OFFERINGS = "marketplace-provider-offerings/"
_OFFERING_STATES = ("Draft", "Active", "Paused", "Archived", "Unavailable")
_BILLING_TYPES = ("fixed", "usage", "limit", "one", "few")
_LIMIT_PERIODS = ("month", "quarterly", "annual", "total")
_NOT_OF_THE_API = ("is_priced", "is_builtin")
_COMPONENT = TypeAdapter(Component)
_LONGEST_TYPE = 50

_OFFERING_ORDERINGS: Orderings[Offering] = {
    "created": lambda row: str(rendering.timestamp(row.created)),
    "name": lambda row: row.name,
    "state": lambda row: row.state,
    "type": lambda row: row.type,
}


def _list_offerings(call: Call) -> Response:
    visibility = rules.visibility_of(call.tx, call.user)
    visible = [row for row in call.tx.world.offerings.values() if visibility.as_provider(row.uuid)]
    listed = {as_uuid(text.strip()) for text in last(call.query_params, "uuid_list").split(",")}
    rows = select(
        call,
        visible,
        [
            by_uuid("customer_uuid", lambda row: row.customer),
            by_choice("state", _OFFERING_STATES, lambda row: row.state),
            by_text("name", lambda row, text: text.lower() in row.name.lower()),
            by_text("name_exact", lambda row, text: row.name == text),
            by_text("uuid_list", lambda row, _text: row.uuid in listed),
            by_text("type", lambda row, _text: row.type in values(call.query_params, "type")),
        ],
    )
    rows = arrange(call, rows, _OFFERING_ORDERINGS, "name")
    return page_answer(call, rows, lambda row: rendering.offering(call.tx, row, call.api))


def _offering(call: Call) -> Offering:
    offering = call.tx.world.offerings.get(call.uuid())
    visibility = rules.visibility_of(call.tx, call.user)
    if offering is None or not visibility.as_provider(offering.uuid):
        raise not_found()
    return offering


def _retrieve_offering(call: Call) -> Response:
    whole = rendering.offering(call.tx, _offering(call), call.api)
    return JsonResponse(choose_fields(call, whole))


def _described(call: Call, uuid: str, before: Component | None = None) -> Component:
    """Read a component from the request; fields that it does not name stay as they are.

    Raises:
        RefusedError: 400 with the name of the field.
    """
    for name in ("billing_type", "type", "name"):
        if not states.required(call.fields, name):
            raise invalid({name: ["This field may not be blank."]})
    billing_type = call.fields["billing_type"]
    if billing_type not in _BILLING_TYPES:
        raise invalid({"billing_type": [f'"{billing_type}" is not a valid choice.']})
    if len(str(call.fields["type"])) > _LONGEST_TYPE:
        raise invalid({"type": ["Ensure this field has no more than 50 characters."]})
    period = call.fields.get("limit_period")
    if period not in (None, *_LIMIT_PERIODS):
        raise invalid({"limit_period": [f'"{period}" is not a valid choice.']})
    known: JsonObject = {
        name: value
        for name, value in call.fields.items()
        if name in Component.__dataclass_fields__
        and name not in _NOT_OF_THE_API
        and rendering.has_field(call.tx, "component", name)
    }
    kept = {} if before is None else asdict(before)
    try:
        return _COMPONENT.validate_python({**kept, **known, "uuid": uuid})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise invalid({name: ["A valid value is required."]}) from None


def _create_component(call: Call) -> Response:
    offering = _components_of(call)
    component = _described(call, call.tx.new_uuid())
    if component.type in {each.type for each in offering.components}:
        raise invalid({"non_field_errors": ["The fields offering, type must make a unique set."]})
    call.tx.world.put(replace(offering, components=(*offering.components, component)))
    newer = call.tx.generation.reached(7, 9, 0)
    return empty_response(HTTPStatus.CREATED if newer else HTTPStatus.OK)


def _update_component(call: Call) -> Response:
    offering = _components_of(call)
    uuid = as_uuid(str(states.required(call.fields, "uuid")))
    if uuid is None or uuid not in {each.uuid for each in offering.components}:
        raise invalid({"uuid": ["Component with this UUID is not found."]})
    before = next(each for each in offering.components if each.uuid == uuid)
    changed = _described(call, uuid, before)
    components = tuple(changed if each.uuid == uuid else each for each in offering.components)
    call.tx.world.put(replace(offering, components=components))
    return empty_response()


def _components_of(call: Call) -> Offering:
    offering = _offering(call)
    scopes = rules.OFFERING_OR_CUSTOMER
    rules.require(call.tx, call.user, rules.UPDATE_COMPONENTS, offering, scopes)
    return offering


def _list_accounts(kind: str, call: Call) -> Response:
    offering = _offering(call)
    return project_accounts(call, kind, lambda row: row.offering == offering.uuid)


OPERATIONS = (
    Operation("marketplace_provider_offerings_list", "GET", _OFFERINGS, _list_offerings),
    Operation(
        "marketplace_provider_offerings_retrieve",
        "GET",
        f"{_OFFERINGS}{{uuid}}/",
        _retrieve_offering,
    ),
    Operation(
        "marketplace_provider_offerings_create_offering_component",
        "POST",
        f"{_OFFERINGS}{{uuid}}/create_offering_component/",
        _create_component,
    ),
    Operation(
        "marketplace_provider_offerings_update_offering_component",
        "POST",
        f"{_OFFERINGS}{{uuid}}/update_offering_component/",
        _update_component,
    ),
    Operation(
        "marketplace_provider_offerings_list_project_service_accounts_list",
        "GET",
        f"{_OFFERINGS}{{uuid}}/list_project_service_accounts/",
        partial(_list_accounts, "service"),
        since=(7, 8, 8),
    ),
    Operation(
        "marketplace_provider_offerings_list_course_accounts_list",
        "GET",
        f"{_OFFERINGS}{{uuid}}/list_course_accounts/",
        partial(_list_accounts, "course"),
        since=(7, 8, 8),
    ),
)
