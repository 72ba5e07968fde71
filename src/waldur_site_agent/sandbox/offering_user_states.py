"""The life of offering users: how accounts come, which calls move them, how they go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from waldur_site_agent.sandbox.answers import invalid
from waldur_site_agent.sandbox.records import OfferingUser

if TYPE_CHECKING:
    from waldur_site_agent.sandbox.records import Resource
    from waldur_site_agent.sandbox.store import Transaction

STATES = (
    "Requested",
    "Creating",
    "Pending account linking",
    "Pending additional validation",
    "OK",
    "Requested deletion",
    "Deleting",
    "Deleted",
    "Error creating",
    "Error deleting",
)
"""In the order of the numbers that the server uses for them, from 1."""

_LINKING = "Pending account linking"
_VALIDATION = "Pending additional validation"


@dataclass(frozen=True, slots=True)
class Transition:
    """A call that moves an account from one of some states to another."""

    target: str
    sources: tuple[str, ...]
    since: tuple[int, ...] = (7, 7, 5)
    """The first release that has the call."""
    takes_comment: bool = False
    clears_comment: bool = False


TRANSITIONS = {
    "begin_creating": Transition("Creating", ("Requested", "Error creating"), since=(7, 7, 4)),
    "set_ok": Transition(
        "OK",
        ("Requested", "Creating", _LINKING, _VALIDATION, "Error creating", "Error deleting"),
        since=(7, 7, 4),
    ),
    "set_pending_account_linking": Transition(
        _LINKING,
        ("Creating", "Error creating", _VALIDATION),
        since=(7, 7, 3),
        takes_comment=True,
    ),
    "set_pending_additional_validation": Transition(
        _VALIDATION,
        ("Creating", "Error creating", _LINKING),
        since=(7, 7, 3),
        takes_comment=True,
    ),
    "set_validation_complete": Transition(
        "OK", (_LINKING, _VALIDATION), since=(7, 7, 3), clears_comment=True
    ),
    "set_error_creating": Transition(
        "Error creating", ("Requested", "Creating", _LINKING, _VALIDATION)
    ),
    "request_deletion": Transition("Requested deletion", ("OK",)),
    "set_deleting": Transition("Deleting", ("Requested deletion", "Error deleting")),
    "set_deleted": Transition("Deleted", ("Deleting",)),
    "set_error_deleting": Transition("Error deleting", ("Requested deletion", "Deleting")),
}

_COMPLETED_BY_USERNAME = ("Requested", "Creating", _LINKING, _VALIDATION, "Error creating")


def move(
    tx: Transaction, account: OfferingUser, transition: Transition, comment: str, url: str
) -> None:
    """Carry out a transition.

    Raises:
        RefusedError: 400 that gives the number of the state it is in.
    """
    if account.state not in transition.sources:
        number = STATES.index(account.state) + 1 if account.state in STATES else 0
        valid = ", ".join(transition.sources)
        detail = (
            f"Cannot transition to {transition.target} from current state: {number}. "
            f"Valid states: {valid}"
        )
        raise invalid({"detail": detail})
    keep = not (transition.takes_comment or transition.clears_comment)
    tx.world.put(
        replace(
            account,
            state=transition.target,
            modified=tx.now,
            service_provider_comment=account.service_provider_comment if keep else comment,
            service_provider_comment_url=account.service_provider_comment_url if keep else url,
        )
    )


def set_username(tx: Transaction, account: OfferingUser, username: str | None) -> OfferingUser:
    """Give an account a name; on new servers that makes it OK."""
    is_new = bool(username) and username != account.username
    completes = (
        tx.generation.username_completes_account
        and is_new
        and account.state in _COMPLETED_BY_USERNAME
    )
    changed = replace(
        account,
        username=username,
        state="OK" if completes else account.state,
        modified=tx.now,
    )
    tx.world.put(changed)
    return changed


def name_members(tx: Transaction, resource: Resource) -> None:
    """Make accounts for the members of a resource's project, and bring back those that return."""
    offering = tx.world.offerings[resource.offering]
    if not offering.plugin_options.get("service_provider_can_create_offering_user"):
        return
    for user in {role.user: None for role in tx.world.team(resource.project, tx.now)}:
        account = tx.world.offering_user(offering.uuid, user)
        if account is None:
            tx.world.put(
                OfferingUser(
                    uuid=tx.new_uuid(),
                    created=tx.now,
                    modified=tx.now,
                    user=user,
                    offering=offering.uuid,
                )
            )
        elif account.state in {"Requested deletion", "Deleted"}:
            back = "OK" if account.state == "Requested deletion" else "Requested"
            tx.world.put(replace(account, state=back, modified=tx.now))


def let_go(tx: Transaction, user: str) -> None:
    """Ask for the deletion of accounts that no live resource of the person's projects needs."""
    needed = {
        resource.offering
        for role in tx.world.active_roles(tx.now)
        if role.user == user and role.scope_type == "project"
        for resource in tx.world.resources.values()
        if resource.project == role.scope and resource.state != "Terminated"
    }
    for account in list(tx.world.offering_users.values()):
        options = tx.world.offerings[account.offering].plugin_options
        if (
            account.user == user
            and account.offering not in needed
            and account.state == "OK"
            and options.get("offering_user_auto_deletion")
        ):
            tx.world.put(replace(account, state="Requested deletion", modified=tx.now))
