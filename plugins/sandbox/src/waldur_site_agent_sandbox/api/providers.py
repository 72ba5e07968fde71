"""Waldur's API: service providers, and projects as providers and as their members see them."""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from waldur_site_agent_sandbox import rendering, rules
from waldur_site_agent_sandbox.api.people import project_accounts
from waldur_site_agent_sandbox.http import (
    Call,
    Filter,
    JsonResponse,
    Operation,
    Orderings,
    arrange,
    by_flag,
    by_text,
    by_time,
    by_uuid,
    choose_fields,
    denied,
    not_found,
    page_answer,
    select,
)
from waldur_site_agent_sandbox.records import Customer, JsonObject, Project, Role
from waldur_site_agent_sandbox.rendering import day, of_generation, timestamp

_PROVIDERS = "marketplace-service-providers/"


def _sellers(call: Call) -> list[Customer]:
    """List the service providers in which the user has a role, including roles on an offering."""
    visibility = rules.visibility_of(call.tx, call.user)
    offerings = call.tx.world.offerings.values()
    sellers = {row.customer: None for row in offerings if visibility.as_provider(row.uuid)}
    return [call.tx.world.customers[uuid] for uuid in sellers]


def _list_providers(call: Call) -> Response:
    rows = select(call, _sellers(call), [by_uuid("customer_uuid", lambda row: row.uuid)])
    rows = arrange(
        call,
        rows,
        {
            "created": lambda row: str(rendering.timestamp(row.created)),
            "customer_name": lambda row: row.name,
        },
        "created",
    )
    return page_answer(call, rows, lambda row: rendering.provider(call.tx, row, call.api))


def _holds_right(call: Call, seller: Customer, right: str) -> bool:
    """Return whether the user has a permission on the organization itself."""
    return call.user.is_staff or any(
        right in rules.rights_of(role.name, call.tx.generation)
        for role in rules.roles_of(call.tx, call.user)
        if role.scope == seller.uuid
    )


def _seller_of(call: Call) -> Customer:
    """Return the organization whose service provider is in the path.

    Raises:
        RefusedError: 404.
    """
    wanted = call.uuid("provider")
    seller = next((row for row in _sellers(call) if row.service_provider == wanted), None)
    if seller is None:
        raise not_found()
    return seller


def _served_projects(call: Call, seller: Customer) -> set[str]:
    """Projects that have a live resource of a shared offering of this provider."""
    world = call.tx.world
    return {
        row.project
        for row in world.resources.values()
        if row.state != "Terminated"
        and world.offerings[row.offering].customer == seller.uuid
        and world.offerings[row.offering].shared
    }


def _list_project_permissions(call: Call) -> Response:
    seller = _seller_of(call)
    if not _holds_right(call, seller, rules.LIST_PROJECT_PERMISSIONS):
        raise denied()
    world = call.tx.world
    served = _served_projects(call, seller)
    active = world.active_roles(call.tx.now)
    roles = [role for role in active if role.scope_type == "project" and role.scope in served]
    activity: list[Filter[Role]] = [by_flag("is_active", lambda _role: True)]
    rows = select(
        call,
        roles,
        [
            by_uuid("user", lambda role: role.user),
            by_uuid("scope_uuid", lambda role: role.scope),
            by_text("username", lambda role, text: world.users[role.user].username == text),
            by_text("role_name", lambda role, text: role.name == text),
            by_text("scope_name", lambda r, text: text in world.projects[r.scope].name),
            *(activity if call.tx.generation.reached(8) else []),
        ],
    )
    rows = arrange(call, rows, _role_orderings(call), "created")
    return page_answer(call, rows, lambda role: rendering.project_role(call.tx, role, call.api))


def _role_orderings(call: Call) -> Orderings[Role]:
    users = call.tx.world.users
    return {
        "created": lambda role: str(rendering.timestamp(role.created)),
        "email": lambda role: users[role.user].email,
        "expiration_time": lambda role: str(rendering.timestamp(role.expiration_time)),
        "full_name": lambda role: users[role.user].full_name,
        "native_name": lambda _role: "",
        "role": lambda role: role.name,
        "username": lambda role: users[role.user].username,
    }


def _list_accounts(kind: str, call: Call) -> Response:
    seller = _seller_of(call)
    if not rules.has_role_on(call.tx, call.user, seller):
        raise denied()
    offerings = call.tx.world.offerings
    return project_accounts(call, kind, lambda row: offerings[row.offering].customer == seller.uuid)


_PROJECTS = "projects/"


def _project_page(call: Call, visible: list[Project]) -> Response:
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
    return page_answer(call, rows, lambda row: _print_project(call, row))


def _list_projects(call: Call) -> Response:
    """List the projects that a user has a role in, not those of a provider's customers."""
    visibility = rules.visibility_of(call.tx, call.user)
    everything = call.tx.world.projects.values()
    return _project_page(call, [row for row in everything if visibility.as_consumer(row.uuid)])


def _retrieve_project(call: Call) -> Response:
    project = call.tx.world.projects.get(call.uuid())
    visibility = rules.visibility_of(call.tx, call.user)
    if project is None or not visibility.as_consumer(project.uuid):
        raise not_found()
    return JsonResponse(choose_fields(call, _print_project(call, project)))


def _list_for_provider(call: Call) -> Response:
    seller = _seller_of(call)
    if not _holds_right(call, seller, rules.LIST_PROJECTS):
        raise denied()
    served = _served_projects(call, seller)
    everything = call.tx.world.projects.values()
    return _project_page(call, [row for row in everything if row.uuid in served])


def _print_project(call: Call, row: Project) -> JsonObject:
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
    Operation("marketplace_service_providers_list", "GET", _PROVIDERS, _list_providers),
    Operation(
        "marketplace_service_providers_project_permissions_list",
        "GET",
        f"{_PROVIDERS}{{provider}}/project_permissions/",
        _list_project_permissions,
    ),
    Operation(
        "marketplace_service_providers_project_service_accounts_list",
        "GET",
        f"{_PROVIDERS}{{provider}}/project_service_accounts/",
        partial(_list_accounts, "service"),
        since=(7, 7, 6),
    ),
    Operation(
        "marketplace_service_providers_course_accounts_list",
        "GET",
        f"{_PROVIDERS}{{provider}}/course_accounts/",
        partial(_list_accounts, "course"),
        since=(7, 7, 8),
    ),
    Operation("projects_list", "GET", _PROJECTS, _list_projects),
    Operation("projects_retrieve", "GET", f"{_PROJECTS}{{uuid}}/", _retrieve_project),
    Operation(
        "marketplace_service_providers_projects_list",
        "GET",
        "marketplace-service-providers/{provider}/projects/",
        _list_for_provider,
    ),
)
