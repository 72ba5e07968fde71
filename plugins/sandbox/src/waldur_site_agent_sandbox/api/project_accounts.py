"""Service accounts and course accounts: which of them a provider sees, and how they are printed."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from waldur_site_agent_sandbox.http import Call
from waldur_site_agent_sandbox.queries import (
    Orderings,
    arrange,
    by_choice,
    by_text,
    by_uuid,
    page_answer,
    select,
)
from waldur_site_agent_sandbox.records import JsonObject, ProjectAccount, Resource
from waldur_site_agent_sandbox.rendering import day, of_generation, timestamp


def answer(call: Call, kind: str, concerns: Callable[[Resource], bool]) -> Response:
    """Answer with the accounts of projects that have a live resource that concerns the asker.

    Closed accounts are among them; service accounts without a username are not.
    """
    world = call.tx.world
    projects = {
        row.project
        for row in world.resources.values()
        if row.state != "Terminated" and concerns(row)
    }
    accounts = [
        row
        for row in world.project_accounts.values()
        if row.kind == kind and row.project in projects and (row.username or kind == "course")
    ]
    rows = select(
        call,
        accounts,
        [
            by_uuid("project_uuid", lambda row: row.project),
            by_text("username", lambda row, text: row.username == text),
            by_text("email", lambda row, text: row.email == text),
            by_choice(
                "state", call.tx.generation.project_account_states[kind], lambda row: row.state
            ),
        ],
    )
    rows = arrange(call, rows, _ORDERINGS, "created") if _sorts(call, kind) else rows
    return page_answer(call, rows, lambda row: _print(call, row), offers_fields=False)


_ORDERINGS: Orderings[ProjectAccount] = {
    "created": lambda row: str(timestamp(row.created)),
    "modified": lambda row: str(timestamp(row.modified)),
    "username": lambda row: row.username or "",
    "email": lambda row: row.email,
    "state": lambda row: row.state,
}


def _sorts(call: Call, kind: str) -> bool:
    """Only the provider's list of course accounts has an order to choose, on newer servers."""
    return kind == "course" and "provider" in call.path_params and call.tx.generation.reached(8)


def _print(call: Call, row: ProjectAccount) -> JsonObject:
    project = call.tx.world.projects[row.project]
    customer = call.tx.world.customers[project.customer]
    path = "project-service-accounts" if row.kind == "service" else "course-accounts"
    whole: JsonObject = {
        "url": f"{call.api}marketplace-{path}/{row.uuid}/",
        "uuid": row.uuid,
        "created": timestamp(row.created),
        "modified": timestamp(row.modified),
        "username": row.username,
        "description": row.description,
        "error_message": "",
        "error_traceback": "",
        "state": row.state,
        "email": row.email,
        "project": project.uuid,
        "project_uuid": project.uuid,
        "project_name": project.name,
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
    }
    if row.kind == "service":
        whole |= {
            "token": None,
            "expires_at": None,
            "preferred_identifier": "",
            "customer_abbreviation": "",
        }
    else:
        whole |= {
            "project_slug": project.slug,
            "project_start_date": None,
            "project_end_date": day(project.end_date),
            "user_uuid": None,
        }
    return of_generation(call.tx, f"{row.kind}_account", whole)
