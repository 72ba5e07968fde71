"""Waldur's API: usage of components and of users."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from pydantic import JsonValue
from starlette.responses import Response

from waldur_site_agent_sandbox import rendering, rules, states
from waldur_site_agent_sandbox.http import (
    Call,
    Filter,
    Operation,
    RefusedError,
    all_fields,
    arrange,
    as_uuid,
    by_day,
    by_text,
    by_uuid,
    empty_response,
    invalid,
    last,
    not_found,
    page_answer,
    scattered,
    select,
)
from waldur_site_agent_sandbox.records import ComponentUsage, JsonObject, Resource, UserUsage
from waldur_site_agent_sandbox.rules import ReportedUsage, Visibility

_USAGES = "marketplace-component-usages/"
_USER_USAGES = "marketplace-component-user-usages/"
_LONGEST_USERNAME = 100

T = TypeVar("T")


def _visible(visibility: Visibility, resource: Resource) -> bool:
    return visibility.as_provider(resource.offering) or visibility.as_consumer(resource.project)


def _resource_of(call: Call, row: ComponentUsage) -> Resource:
    return call.tx.world.resources[row.resource]


def _parent_of(call: Call, row: UserUsage) -> ComponentUsage:
    return call.tx.world.component_usages[row.component_usage]


def _filters(call: Call) -> list[Filter[ComponentUsage]]:
    """Return the filters that both lists have."""
    world = call.tx.world
    return [
        by_uuid("resource_uuid", lambda row: row.resource),
        by_uuid("offering_uuid", lambda row: _resource_of(call, row).offering),
        by_uuid("project_uuid", lambda row: _resource_of(call, row).project),
        by_uuid(
            "customer_uuid", lambda row: world.projects[_resource_of(call, row).project].customer
        ),
        by_text("resource", lambda row, text: text.rstrip("/").rpartition("/")[2] == row.resource),
        by_text("type", lambda row, text: row.component_type == text),
        by_text("billing_period_year", lambda row, text: str(row.billing_period.year) == text),
        by_text("billing_period_month", lambda row, text: str(row.billing_period.month) == text),
        by_day("date_after", lambda row, day: row.reported.date() >= day),
        by_day("date_before", lambda row, day: row.reported.date() <= day),
    ]


def _list(call: Call) -> Response:
    visibility = rules.visibility_of(call.tx, call.user)
    rows = call.tx.world.component_usages.values()
    visible = [row for row in rows if _visible(visibility, _resource_of(call, row))]
    month: Filter[ComponentUsage] = by_day(
        "billing_period", lambda row, day: row.billing_period == day
    )
    found = select(call, visible, [*_filters(call), month])
    found.sort(key=lambda row: row.component_type)
    found.sort(key=lambda row: row.reported, reverse=True)
    if last(call.query_params, "o"):
        orderings = {
            "billing_period": lambda row: f"{row.billing_period}{scattered(call, row.uuid)}",
            "usage": lambda row: f"{row.usage:030.2f}{scattered(call, row.uuid)}",
        }
        found = arrange(call, found, orderings, "")
    return page_answer(call, found, lambda row: rendering.usage(call.tx, row))


def _list_user_usages(call: Call) -> Response:
    world = call.tx.world
    visibility = rules.visibility_of(call.tx, call.user)
    parents = [
        r for r in world.component_usages.values() if _visible(visibility, _resource_of(call, r))
    ]
    month: Filter[ComponentUsage] = by_day(
        "component_usage__billing_period", lambda row, day: row.billing_period == day
    )
    chosen = {row.uuid for row in select(call, parents, [*_filters(call), month])}
    visible = [row for row in world.user_usages.values() if row.component_usage in chosen]
    named: Filter[UserUsage] = by_text(
        "username", lambda row, text: text.lower() in row.username.lower()
    )
    found = select(call, visible, [named])
    if last(call.query_params, "o"):
        orderings = {
            "component_usage__billing_period": lambda row: (
                f"{_parent_of(call, row).billing_period}{scattered(call, row.uuid)}"
            ),
            "usage": lambda row: f"{row.usage:030.2f}{scattered(call, row.uuid)}",
            "username": lambda row: f"{row.username}{scattered(call, row.uuid)}",
        }
        found = arrange(call, found, orderings, "")
    return page_answer(call, found, lambda row: rendering.user_usage(call.tx, row, call.api))


def _set_usage(call: Call) -> Response:
    resource, items, moment = all_fields(
        lambda: _reported_resource(call),
        lambda: _items(call, _read_component),
        lambda: rules.moment_of(call.tx, call.fields),
    )
    offering = call.tx.world.offerings[resource.offering]
    scopes = rules.OFFERING_OR_CUSTOMER
    rules.require(call.tx, call.user, rules.SET_USAGE, offering, scopes)
    rules.report(call.tx, resource, items, moment, call.user)
    return empty_response(HTTPStatus.CREATED)


def _reported_resource(call: Call) -> Resource:
    given = str(states.required(call.fields, "resource"))
    uuid = as_uuid(given)
    if uuid is None:
        raise invalid({"resource": [f"“{given}” is not a valid UUID."]})
    resource = call.tx.world.resources.get(uuid)
    if resource is None:
        raise invalid({"resource": [f"Object with uuid={given} does not exist."]})
    return resource


def _items(call: Call, read: Callable[[JsonObject], T]) -> list[T]:
    """Read ``usages``; the error of an item is at its position in a list of errors.

    Raises:
        RefusedError: 400.
    """
    given = states.required(call.fields, "usages")
    if not isinstance(given, list):
        kind = type(given).__name__
        raise invalid({"usages": [f'Expected a list of items but got type "{kind}".']})
    read_: list[T] = []
    errors: list[JsonValue] = []
    for item in given:
        try:
            if not isinstance(item, dict):
                kind = type(item).__name__
                text = f"Invalid data. Expected a dictionary, but got {kind}."
                raise invalid({"non_field_errors": [text]})
            read_.append(read(item))
            errors.append({})
        except RefusedError as refusal:
            errors.append(refusal.body)
    if len(read_) < len(given):
        raise invalid({"usages": errors})
    return read_


def _read_component(item: JsonObject) -> JsonObject:
    rules.amount(states.required(item, "amount"), "amount")
    states.required(item, "type")
    return item


def _anchor(call: Call) -> ComponentUsage:
    row = call.tx.world.component_usages.get(call.uuid())
    visibility = rules.visibility_of(call.tx, call.user)
    if row is None or not _visible(visibility, _resource_of(call, row)):
        raise not_found()
    offering = call.tx.world.offerings[_resource_of(call, row).offering]
    scopes = rules.OFFERING_OR_CUSTOMER
    rules.require(call.tx, call.user, rules.SET_USAGE, offering, scopes)
    return row


def _part(call: Call, fields: JsonObject) -> ReportedUsage:
    username = str(states.required(fields, "username"))
    if not username:
        raise invalid({"username": ["This field may not be blank."]})
    if len(username) > _LONGEST_USERNAME:
        text = f"Ensure this field has no more than {_LONGEST_USERNAME} characters."
        raise invalid({"username": [text]})
    return ReportedUsage(
        username=username,
        usage=rules.amount(fields.get("usage", 0), "usage"),
        account=_account(call, fields.get("user")),
        moment=rules.moment_of(call.tx, fields),
    )


def _account(call: Call, link: JsonValue) -> str:
    if link is None:
        return ""
    kind, _, last = str(link).rstrip("/").rpartition("/")
    uuid = as_uuid(last)
    if uuid is None or not kind.endswith("/marketplace-offering-users"):
        raise invalid({"user": ["Invalid hyperlink - No URL match."]})
    if uuid not in call.tx.world.offering_users:
        raise invalid({"user": ["Invalid hyperlink - Object does not exist."]})
    return uuid


def _set_user_usage(call: Call) -> Response:
    anchor = _anchor(call)
    rules.report_users(call.tx, anchor, [_part(call, call.fields)], call.user)
    return empty_response(HTTPStatus.CREATED)


def _set_user_usages(call: Call) -> Response:
    anchor = _anchor(call)
    parts = _items(call, lambda item: _part(call, item))
    rules.report_users(call.tx, anchor, parts, call.user)
    return empty_response(HTTPStatus.CREATED)


OPERATIONS = (
    Operation("marketplace_component_usages_list", "GET", _USAGES, _list),
    Operation("marketplace_component_user_usages_list", "GET", _USER_USAGES, _list_user_usages),
    Operation("marketplace_component_usages_set_usage", "POST", f"{_USAGES}set_usage/", _set_usage),
    Operation(
        "marketplace_component_usages_set_user_usage",
        "POST",
        f"{_USAGES}{{uuid}}/set_user_usage/",
        _set_user_usage,
    ),
    Operation(
        "marketplace_component_usages_set_user_usages",
        "POST",
        f"{_USAGES}{{uuid}}/set_user_usages/",
        _set_user_usages,
        since=(8, 0, 5),
    ),
)
