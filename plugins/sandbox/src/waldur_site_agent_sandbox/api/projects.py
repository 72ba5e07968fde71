"""Waldur's API: projects, as their members and as providers see them."""

from __future__ import annotations

from starlette.responses import Response

from waldur_site_agent_sandbox import permissions
from waldur_site_agent_sandbox.api.providers import holds_right, seller_of, served_projects
from waldur_site_agent_sandbox.http import Call, JsonResponse, Operation, denied, not_found
from waldur_site_agent_sandbox.queries import (
    Filter,
    arrange,
    by_text,
    by_time,
    choose_fields,
    page_answer,
    select,
)
from waldur_site_agent_sandbox.records import JsonObject, Project
from waldur_site_agent_sandbox.rendering import day, of_generation, timestamp

_PROJECTS = "projects/"


def _answer(call: Call, visible: list[Project]) -> Response:
    customers = call.tx.world.customers
    slug: list[Filter[Project]] = [by_text("slug", lambda row, text: row.slug == text)]
    rows = select(
        call,
        visible,
        [
            by_text("name", lambda row, text: text.lower() in row.name.lower()),
            by_text("name_exact", lambda row, text: row.name == text),
            by_text("query", lambda row, text: text.lower() in f"{row.name} {row.slug}".lower()),
            by_text("backend_id", lambda _row, _text: False),
            by_time("created", lambda row: row.created),
            *(slug if call.tx.generation.reached(7, 6, 5) else []),
        ],
    )
    orderings = {
        "created": lambda row: str(timestamp(row.created)),
        "name": lambda row: row.name,
        "end_date": lambda row: str(day(row.end_date)),
        "customer_name": lambda row: customers[row.customer].name,
    }
    rows = arrange(call, rows, orderings, "name")
    return page_answer(call, rows, lambda row: _print(call, row))


def _list(call: Call) -> Response:
    """List the projects that a user has a role in; a provider's buyers are not among them."""
    visibility = permissions.sight_of(call.tx, call.user)
    everything = call.tx.world.projects.values()
    return _answer(call, [row for row in everything if visibility.as_consumer(row.uuid)])


def _retrieve(call: Call) -> Response:
    project = call.tx.world.projects.get(call.uuid())
    visibility = permissions.sight_of(call.tx, call.user)
    if project is None or not visibility.as_consumer(project.uuid):
        raise not_found()
    return JsonResponse(choose_fields(call, _print(call, project)))


def _list_for_provider(call: Call) -> Response:
    seller = seller_of(call)
    if not holds_right(call, seller, permissions.LIST_PROJECTS):
        raise denied()
    served = served_projects(call, seller)
    everything = call.tx.world.projects.values()
    return _answer(call, [row for row in everything if row.uuid in served])


def _print(call: Call, row: Project) -> JsonObject:
    customer = call.tx.world.customers[row.customer]
    return of_generation(
        call.tx,
        "project",
        {
            "url": f"{call.api}{_PROJECTS}{row.uuid}/",
            "uuid": row.uuid,
            "created": timestamp(row.created),
            "name": row.name,
            "slug": row.slug,
            "description": row.description,
            "end_date": day(row.end_date),
            "start_date": None,
            "backend_id": "",
            "is_removed": False,
            "is_industry": False,
            "customer": f"{call.api}customers/{customer.uuid}/",
            "customer_uuid": customer.uuid,
            "customer_name": customer.name,
            "customer_slug": customer.slug,
            "customer_abbreviation": "",
            "customer_native_name": "",
            "user_affiliations": [],
            "affiliation": None,
        },
    )


OPERATIONS = (
    Operation("projects_list", "GET", _PROJECTS, _list),
    Operation("projects_retrieve", "GET", f"{_PROJECTS}{{uuid}}/", _retrieve),
    Operation(
        "marketplace_service_providers_projects_list",
        "GET",
        "marketplace-service-providers/{provider}/projects/",
        _list_for_provider,
    ),
)
