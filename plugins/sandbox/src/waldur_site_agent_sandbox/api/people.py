"""Waldur's API: users, offering users, and accounts of projects; the server's version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

from starlette.responses import Response

from waldur_site_agent_sandbox import rendering, rules, states
from waldur_site_agent_sandbox.http import (
    Call,
    Filter,
    JsonResponse,
    Operation,
    Orderings,
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
    scattered,
    select,
)
from waldur_site_agent_sandbox.records import JsonObject, OfferingUser, ProjectAccount, Resource
from waldur_site_agent_sandbox.rendering import day, of_generation, timestamp
from waldur_site_agent_sandbox.rules import Visibility
from waldur_site_agent_sandbox.states import Transition


def _me(call: Call) -> Response:
    lifetime = call.user.token_lifetime
    expires = None if lifetime is None else call.tx.now + timedelta(seconds=lifetime)
    whole = rendering.user(call.tx, call.user, call.api, expires)
    return JsonResponse(choose_fields(call, whole))


def _version(call: Call) -> Response:
    if not call.user.is_staff:
        raise denied()
    version = call.tx.generation.version
    return JsonResponse({"version": version, "latest_version": version})


_PATH = "marketplace-offering-users/"
_LONGEST_USERNAME = 100


def _visible(call: Call, visibility: Visibility, row: OfferingUser) -> bool:
    if visibility.everything or row.user == call.user.uuid:
        return True
    options = call.tx.world.offerings[row.offering].plugin_options
    opened = bool(options.get("service_provider_can_create_offering_user"))
    return opened and visibility.as_provider(row.offering)


def _filters(call: Call) -> list[Filter[OfferingUser]]:
    world = call.tx.world
    state: list[Filter[OfferingUser]] = [by_choice("state", states.STATES, lambda row: row.state)]
    username: list[Filter[OfferingUser]] = [
        by_text("username", lambda row, text: row.username == text)
    ]

    def found(row: OfferingUser, text: str) -> bool:
        names = (
            f"{world.offerings[row.offering].name} {row.username} {world.users[row.user].full_name}"
        )
        return text.lower() in names.lower()

    by_offering = by_uuids if call.tx.generation.reached(7, 6, 5) else by_uuid
    return [
        by_offering("offering_uuid", lambda row: row.offering),
        by_uuid("user_uuid", lambda row: row.user),
        by_uuid("provider_uuid", lambda row: world.offerings[row.offering].customer),
        by_text(
            "user_username",
            lambda row, text: world.users[row.user].username.lower() == text.lower(),
        ),
        by_flag("is_restricted", lambda row: row.is_restricted),
        by_text("query", found),
        by_time("created", lambda row: row.created),
        by_time("modified", lambda row: row.modified),
        *(state if call.tx.generation.has_offering_user_states else []),
        *(username if call.tx.generation.reached(8) else []),
    ]


def _orderings(call: Call) -> Orderings[OfferingUser]:
    users = call.tx.world.users
    return {
        "created": lambda row: str(rendering.timestamp(row.created)),
        "modified": lambda row: str(rendering.timestamp(row.modified)),
        "username": lambda row: f"{row.username or ''}{scattered(call, row.uuid)}",
        "user_first_name": lambda row: users[row.user].full_name,
        "user_last_name": lambda row: users[row.user].full_name.rpartition(" ")[2],
    }


def _list(call: Call) -> Response:
    visibility = rules.visibility_of(call.tx, call.user)
    accounts = call.tx.world.offering_users.values()
    visible = [row for row in accounts if _visible(call, visibility, row)]
    rows = select(call, visible, _filters(call))
    rows = arrange(call, rows, _orderings(call), "username")
    return page_answer(call, rows, lambda row: rendering.offering_user(call.tx, row, call.api))


def _account(call: Call) -> OfferingUser:
    account = call.tx.world.offering_users.get(call.uuid())
    visibility = rules.visibility_of(call.tx, call.user)
    if account is None or not _visible(call, visibility, account):
        raise not_found()
    return account


def _authorized(call: Call) -> OfferingUser:
    account = _account(call)
    offering = call.tx.world.offerings[account.offering]
    newer = call.tx.generation.accepts_offering_scope
    scopes = rules.OFFERING_OR_CUSTOMER if newer else rules.CUSTOMER
    rules.require(call.tx, call.user, rules.UPDATE_USER, offering, scopes)
    return account


def _retrieve(call: Call) -> Response:
    whole = rendering.offering_user(call.tx, _account(call), call.api)
    return JsonResponse(choose_fields(call, whole))


def _partial_update(call: Call) -> Response:
    account = _authorized(call)
    if "username" in call.fields:
        given = call.fields["username"]
        username = None if given is None else str(given)
        if username is not None and len(username) > _LONGEST_USERNAME:
            message = f"Ensure this field has no more than {_LONGEST_USERNAME} characters."
            raise invalid({"username": [message]})
        account = states.set_username(call.tx, account, username)
    return JsonResponse(rendering.offering_user(call.tx, account, call.api))


def _move(transition: Transition, call: Call) -> Response:
    account = _authorized(call)
    comment = str(call.fields.get("comment", ""))
    url = str(call.fields.get("comment_url", ""))
    states.move(call.tx, account, transition, comment, url)
    return empty_response()


def _update_restricted(call: Call) -> Response:
    account = _authorized(call)
    restricted = states.required(call.fields, "is_restricted")
    if not isinstance(restricted, bool):
        raise invalid({"is_restricted": ["Must be a valid boolean."]})
    call.tx.world.put(replace(account, is_restricted=restricted, modified=call.tx.now))
    return empty_response()


def _transition(name: str, transition: Transition) -> Operation:
    return Operation(
        f"marketplace_offering_users_{name}",
        "POST",
        f"{_PATH}{{uuid}}/{name}/",
        partial(_move, transition),
        since=transition.since,
    )


def project_accounts(call: Call, kind: str, concerns: Callable[[Resource], bool]) -> Response:
    """List the accounts of projects that have a live resource of interest.

    Closed accounts are included, service accounts without a username are not.
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
    rows = arrange(call, rows, _ACCOUNT_ORDERINGS, "created") if _sorts(call, kind) else rows
    return page_answer(call, rows, lambda row: _print_account(call, row), offers_fields=False)


_ACCOUNT_ORDERINGS: Orderings[ProjectAccount] = {
    "created": lambda row: str(timestamp(row.created)),
    "modified": lambda row: str(timestamp(row.modified)),
    "username": lambda row: row.username or "",
    "email": lambda row: row.email,
    "state": lambda row: row.state,
}


def _sorts(call: Call, kind: str) -> bool:
    """Only the provider's list of course accounts can be sorted, on newer servers."""
    return kind == "course" and "provider" in call.path_params and call.tx.generation.reached(8)


def _print_account(call: Call, row: ProjectAccount) -> JsonObject:
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


OPERATIONS = (
    Operation("users_me_retrieve", "GET", "users/me/", _me),
    Operation("version_retrieve", "GET", "version/", _version),
    Operation("marketplace_offering_users_list", "GET", _PATH, _list),
    Operation("marketplace_offering_users_retrieve", "GET", f"{_PATH}{{uuid}}/", _retrieve),
    Operation(
        "marketplace_offering_users_partial_update", "PATCH", f"{_PATH}{{uuid}}/", _partial_update
    ),
    Operation(
        "marketplace_offering_users_update_restricted",
        "POST",
        f"{_PATH}{{uuid}}/update_restricted/",
        _update_restricted,
    ),
    *(_transition(name, transition) for name, transition in states.TRANSITIONS.items()),
)
