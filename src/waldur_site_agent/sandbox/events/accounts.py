"""What agents are told of the accounts of people and of projects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.sandbox import offering_user_states
from waldur_site_agent.sandbox.events.occurrences import Occurrence
from waldur_site_agent.sandbox.events.resources import offerings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from waldur_site_agent.sandbox.records import JsonObject, OfferingUser, ProjectAccount
    from waldur_site_agent.sandbox.store import Transaction

_WATCHED = (
    "username",
    "state",
    "is_restricted",
    "service_provider_comment",
    "service_provider_comment_url",
)


def of_offering_user(
    tx: Transaction, old: OfferingUser | None, new: OfferingUser | None
) -> Iterator[Occurrence]:
    """Tell of an account that came, changed or went, and once more of a username that was set."""
    row = new or old
    if row is None:
        return
    if new is None:
        yield _of_account(row, {"action": "delete"})
        return
    if old is None:
        attributes: JsonObject = {"email": tx.world.users[row.user].email}
        yield _of_account(row, {**_state(tx, row), "action": "create", "attributes": attributes})
    else:
        changed: list[JsonValue] = [
            name for name in _WATCHED if getattr(old, name) != getattr(new, name)
        ]
        if not changed:
            return
        yield _of_account(row, {**_state(tx, row), "action": "update", "changed_fields": changed})
    if new.username and (old is None or old.username != new.username):
        yield _of_account(row, _username_set(tx, new))


def _of_account(row: OfferingUser, payload: JsonObject) -> Occurrence:
    identity: JsonObject = {
        "offering_user_uuid": row.uuid,
        "user_uuid": row.user,
        "username": row.username,
    }
    return Occurrence(
        object_type="offering_user", offering=row.offering, payload={**identity, **payload}
    )


def _state(tx: Transaction, row: OfferingUser) -> JsonObject:
    state: JsonObject = {"state": row.state}
    return state | ({"runtime_state": "Active"} if tx.generation.reached(8) else {})


def _username_set(tx: Transaction, row: OfferingUser) -> JsonObject:
    """Give the state as the number that the database has for it."""
    known = row.state in offering_user_states.STATES
    number = offering_user_states.STATES.index(row.state) + 1 if known else 0
    payload: JsonObject = {"action": "username_set", "state": number}
    if tx.generation.reached(8, 1):
        projects = {
            role.scope
            for role in tx.world.active_roles(tx.now)
            if role.user == row.user and role.scope_type == "project"
        }
        payload["resource_backend_ids"] = [
            resource.backend_id
            for resource in tx.world.resources.values()
            if resource.offering == row.offering
            and resource.project in projects
            and resource.backend_id
        ]
    return payload


def of_project_account(
    tx: Transaction, old: ProjectAccount | None, new: ProjectAccount | None
) -> Iterator[Occurrence]:
    """Tell of an account of a project that got its username, or that was closed."""
    if new is None:
        return
    named = bool(new.username) and (old is None or old.username != new.username)
    closed = new.state == "Closed" and (old is None or old.state != "Closed")
    if not (named or closed):
        return
    project = tx.world.projects[new.project]
    for offering in offerings_of(tx, project.uuid):
        yield Occurrence(
            object_type=f"{new.kind}_account",
            offering=offering,
            payload={
                "account_uuid": new.uuid,
                "account_username": new.username,
                "scope_type": "project",
                "project_uuid": project.uuid,
                "project_name": project.name,
                "action": "delete" if closed else "create",
            },
        )
