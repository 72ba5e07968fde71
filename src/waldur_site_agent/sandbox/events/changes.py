"""What a change of the world makes a server tell its agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from waldur_site_agent.sandbox.events import accounts, resources
from waldur_site_agent.sandbox.events.occurrences import Occurrence
from waldur_site_agent.sandbox.events.resources import offerings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from waldur_site_agent.sandbox.records import Role
    from waldur_site_agent.sandbox.store import Transaction
    from waldur_site_agent.sandbox.world import World

T = TypeVar("T")


def occurrences(before: World, tx: Transaction) -> Iterator[Occurrence]:
    """Give what agents are told of, now that the world of ``before`` is that of ``tx``."""
    after = tx.world
    for old_order, order in _differences(before.orders, after.orders):
        yield from resources.of_order(tx, old_order, order)
    for old_resource, resource in _differences(before.resources, after.resources):
        yield from resources.of_flags(tx, old_resource, resource)
    for old_role, role in _differences(before.roles, after.roles):
        yield from _of_role(tx, old_role, role)
    for old_account, account in _differences(before.offering_users, after.offering_users):
        yield from accounts.of_offering_user(tx, old_account, account)
    for old_own, own in _differences(before.project_accounts, after.project_accounts):
        yield from accounts.of_project_account(tx, old_own, own)
    tables = (before.backend_resource_requests, after.backend_resource_requests)
    for old_request, request in _differences(*tables):
        if old_request is None and request is not None:
            yield Occurrence(
                object_type="importable_resources",
                offering=request.offering,
                payload={"backend_resource_request_uuid": request.uuid},
            )


def _differences(
    before: Mapping[str, T], after: Mapping[str, T]
) -> Iterator[tuple[T | None, T | None]]:
    """Give rows that came, went or changed; the records are frozen, so identity tells."""
    for uuid, row in after.items():
        old = before.get(uuid)
        if old is not row:
            yield old, row
    for uuid, row in before.items():
        if uuid not in after:
            yield row, None


def _of_role(tx: Transaction, old: Role | None, new: Role | None) -> Iterator[Occurrence]:
    role = new or old
    if role is None or role.scope_type != "project" or (old is not None and new is not None):
        return
    person = tx.world.users[role.user]
    project = tx.world.projects[role.scope]
    for offering in offerings_of(tx, project.uuid):
        yield Occurrence(
            object_type="user_role",
            offering=offering,
            payload={
                "user_uuid": person.uuid,
                "user_username": person.username,
                "project_uuid": project.uuid,
                "project_name": project.name,
                "role_name": role.name,
                "granted": new is not None,
            },
            more={"user_email": person.email, "user_full_name": person.full_name},
        )
