"""Waldur's API: marketplace-offering-users, the accounts that people have at an offering."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from starlette.responses import Response

from waldur_site_agent_sandbox import permissions, rendering, states
from waldur_site_agent_sandbox.http import (
    Call,
    JsonResponse,
    Operation,
    empty_response,
    invalid,
    not_found,
)
from waldur_site_agent_sandbox.permissions import Visibility
from waldur_site_agent_sandbox.queries import (
    Filter,
    Orderings,
    arrange,
    by_choice,
    by_flag,
    by_text,
    by_time,
    by_uuid,
    by_uuids,
    choose_fields,
    page_answer,
    scattered,
    select,
)
from waldur_site_agent_sandbox.records import OfferingUser
from waldur_site_agent_sandbox.states import Transition

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
    visibility = permissions.sight_of(call.tx, call.user)
    accounts = call.tx.world.offering_users.values()
    visible = [row for row in accounts if _visible(call, visibility, row)]
    rows = select(call, visible, _filters(call))
    rows = arrange(call, rows, _orderings(call), "username")
    return page_answer(call, rows, lambda row: rendering.offering_user(call.tx, row, call.api))


def _account(call: Call) -> OfferingUser:
    account = call.tx.world.offering_users.get(call.uuid())
    visibility = permissions.sight_of(call.tx, call.user)
    if account is None or not _visible(call, visibility, account):
        raise not_found()
    return account


def _authorized(call: Call) -> OfferingUser:
    account = _account(call)
    offering = call.tx.world.offerings[account.offering]
    newer = call.tx.generation.accepts_offering_scope
    scopes = permissions.OFFERING_OR_CUSTOMER if newer else permissions.CUSTOMER
    permissions.require(call.tx, call.user, permissions.UPDATE_USER, offering, scopes)
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


OPERATIONS = (
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
