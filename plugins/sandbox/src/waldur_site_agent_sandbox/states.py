"""State changes of orders, resources, accounts and agents."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from http import HTTPStatus

from pydantic import JsonValue

from waldur_site_agent_sandbox.http import RefusedError, invalid, server_bug, wrong_state
from waldur_site_agent_sandbox.records import (
    AgentProcessor,
    AgentService,
    JsonObject,
    OfferingUser,
    Order,
    Project,
    Resource,
    Task,
)
from waldur_site_agent_sandbox.store import Transaction

ORDER_STATES = (
    "pending-consumer",
    "pending-provider",
    "pending-project",
    "pending-start-date",
    "executing",
    "done",
    "erred",
    "canceled",
    "rejected",
)
ORDER_TYPES = ("Create", "Update", "Terminate", "Restore")
RESOURCE_STATES = ("Creating", "OK", "Erred", "Updating", "Terminating", "Terminated")

IN_WORK = {
    "Create": "Creating",
    "Update": "Updating",
    "Terminate": "Terminating",
    "Restore": "Creating",
}
"""The state of a resource while an order of this type is carried out."""


def approve(tx: Transaction, order: Order, attributes: JsonObject) -> str:
    """Approve an order for the provider: it becomes executing or waits for its start date.

    Returns:
        The server's message.

    Raises:
        RefusedError: 409 where it is not pending-provider, 400 where the buyer may not buy.
    """
    _require_state(order, "pending-provider")
    project = tx.world.projects[order.project]
    require_live_project(tx, project)
    if tx.world.customers[project.customer].blocked:
        raise invalid(["Blocked organization is not available."])
    waits = order.start_date is not None and order.start_date > tx.now.date()
    if waits and tx.generation.waits_for_start_date:
        set_order(tx, order, state="pending-start-date")
        return "Order is pending start date."
    if order.fails_at_approval:
        set_order(tx, order, state="erred", error_message=order.fails_at_approval)
    else:
        start(tx, replace(order, attributes={**order.attributes, **attributes}))
    return "Order has been approved and is being processed."


def require_live_project(tx: Transaction, project: Project) -> None:
    """Refuse what a project cannot have once its end date has come.

    Raises:
        RefusedError: 400 from that day on, in UTC.
    """
    if project.end_date is not None and project.end_date <= tx.now.date():
        raise invalid([f"Project '{project.name}' is expired."])


def start(tx: Transaction, order: Order) -> None:
    """Start executing an order; part of the work is done by a background task."""
    order = set_order(tx, order, state="executing")
    if order.extends_when == "approved":
        _extend(tx, order)
    if not tx.generation.marks_resource_when_ordered:
        enqueue(tx, "process_order", order.uuid)
    if order.type == "Create" and tx.generation.names_members_when_ordered:
        enqueue(tx, "name_members", order.resource)


def reject(tx: Transaction, order: Order, comment: str) -> None:
    """Reject an order: a resource to be created is terminated, any other one becomes OK again.

    Raises:
        RefusedError: 409 where it is not pending-provider.
    """
    _require_state(order, "pending-provider")
    set_order(tx, order, state="rejected", provider_rejection_comment=comment)
    resource = tx.world.resources[order.resource]
    if order.type in {"Create", "Restore"}:
        set_resource(tx, resource, state="Terminated")
    elif resource.state == IN_WORK.get(order.type):
        set_resource(tx, resource, state="OK")


def set_executing(tx: Transaction, order: Order) -> None:
    """Set an order to executing, again or without a review.

    Raises:
        RefusedError: 409 in any other state.
    """
    _require_state(order, "pending-consumer", "pending-provider", "erred")
    set_order(tx, order, state="executing")


def retry(tx: Transaction, order: Order) -> None:
    """Retry an erred order, and set its resource to the matching state.

    Raises:
        RefusedError: 409 where it is not erred.
    """
    _require_state(order, "erred")
    set_order(tx, order, state="executing", error_message="", error_traceback="")
    resource = tx.world.resources[order.resource]
    set_resource(tx, resource, state=IN_WORK.get(order.type, resource.state))


def set_done(tx: Transaction, order: Order) -> None:
    """Complete an order and apply it to its resource.

    Raises:
        RefusedError: 409 where it is not executing; 500 where an update meets a limit of a
            component without limits, for which Waldur's message to the customer has no name, or
            one of a component for which the plan has no price.
    """
    _require_state(order, "executing")
    resource = tx.world.resources[order.resource]
    if order.type == "Update":
        offering = tx.world.offerings[order.offering]
        limited = {*resource.limits, *order.limits}
        if limited - offering.limit_types or limited & offering.unpriced_limit_types:
            raise server_bug()
        options = order.attributes.get("new_options")
        set_resource(
            tx,
            resource,
            state="OK",
            limits=order.limits or resource.limits,
            plan=order.plan or resource.plan,
            options={**resource.options, **(options if isinstance(options, dict) else {})},
        )
        if order.extends_when == "done":
            _extend(tx, order)
    elif order.type == "Terminate":
        set_resource(tx, resource, state="Terminated")
    else:
        set_resource(tx, resource, state="OK")
        enqueue(tx, "name_members", resource.uuid)
    set_order(tx, order, state="done", completed_at=tx.now)


def _extend(tx: Transaction, order: Order) -> None:
    """Set the new end date of a renewed resource."""
    day = order.attributes.get("new_end_date")
    if order.attributes.get("action") == "renew" and isinstance(day, str):
        end = date.fromisoformat(day)
        set_resource(tx, tx.world.resources[order.resource], end_date=end)


def set_erred(tx: Transaction, order: Order, message: str, traceback: str) -> None:
    """Set an order to erred, whatever its state.

    Raises:
        RefusedError: 500 if the resource of a termination is already terminated.
    """
    resource = tx.world.resources[order.resource]
    falls = tx.generation.errs_orders_in_any_state or order.state == "executing"
    state = "erred" if falls else order.state
    set_order(tx, order, state=state, error_message=message, error_traceback=traceback)
    never_made = (
        tx.generation.errs_orders_in_any_state
        and order.type == "Create"
        and resource.state == "Creating"
        and not resource.backend_id
    )
    if never_made:
        set_resource(tx, resource, state="Terminated")
    elif order.type == "Terminate":
        set_resource_ok(tx, resource)
    else:
        set_resource(tx, resource, state="Erred")


def set_resource_ok(tx: Transaction, resource: Resource) -> None:
    """Set a resource to OK and clear its error.

    Raises:
        RefusedError: 500 where it is terminated.
    """
    if resource.state == "Terminated":
        raise server_bug()
    if resource.state != "OK":
        set_resource(tx, resource, state="OK", error_message="", error_traceback="")


def limits_under_policy(tx: Transaction, resource: Resource, wanted: JsonObject) -> JsonObject:
    """Return the limits that take effect: those owned by a policy silently stay as they are."""
    offering = tx.world.offerings[resource.offering]
    if not (tx.generation.drops_limits_under_policy and tx.world.policies_of(offering.uuid)):
        return wanted
    owned = {name: each for name, each in resource.limits.items() if name in offering.limit_types}
    free = {name: each for name, each in wanted.items() if name not in offering.limit_types}
    return {**owned, **free}


def process(tx: Transaction, order: Order) -> None:
    """Do what an old server does some time after an approval, without checking the order."""
    resource = tx.world.resources[order.resource]
    target = IN_WORK.get(order.type)
    if target is None or order.type == "Create":
        return
    if resource.state == "Terminated":
        message = f"Can't switch from state 'Terminated' to '{target}'"
        set_order(tx, order, state="erred", error_message=message)
    else:
        set_resource(tx, resource, state=target)


def enqueue(tx: Transaction, kind: str, subject: str) -> None:
    """Queue a background task."""
    tx.world.put(Task(uuid=tx.new_uuid(), created=tx.now, kind=kind, subject=subject))


def set_order(tx: Transaction, order: Order, **changes: object) -> Order:
    """Store a changed order."""
    changed = replace(order, modified=tx.now, **changes)  # type: ignore[arg-type]  # field names
    tx.world.put(changed)
    return changed


def set_resource(tx: Transaction, resource: Resource, **changes: object) -> Resource:
    """Store a changed resource."""
    changed = replace(resource, modified=tx.now, **changes)  # type: ignore[arg-type]  # field names
    tx.world.put(changed)
    return changed


def require_text(fields: JsonObject, name: str) -> str:
    """Return a text that the server assumes to be present.

    Raises:
        RefusedError: 500 where it is missing.
    """
    if name not in fields:
        raise server_bug()
    return str(fields[name])


def required(fields: JsonObject, name: str) -> JsonValue:
    """Return a required value.

    Raises:
        RefusedError: 400 with its name.
    """
    if name not in fields:
        raise invalid({name: ["This field is required."]})
    if fields[name] is None:
        raise invalid({name: ["This field may not be null."]})
    return fields[name]


def _require_state(order: Order, *valid: str) -> None:
    if order.state not in valid:
        raise wrong_state(*valid)


def pending_order_exists() -> RefusedError:
    """400: one order at a time."""
    return RefusedError(HTTPStatus.BAD_REQUEST, ["Pending order for resource already exists."])


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
    """A call that changes the state of an account."""

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
    """Set the username of an account; on new servers that makes it OK."""
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
    """Create accounts for the members of a resource's project, and reactivate those that return."""
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


def request_unneeded_deletions(tx: Transaction, user: str) -> None:
    """Request deletion of a person's accounts that no live resource of their projects needs."""
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


_LONGEST = 8


def new_slug(name: str, taken: Iterable[str]) -> str:
    """Build a slug of eight characters and a counter: ``ocean-ru-1``, ``tokamak--1``, ``-1``.

    Anything but ASCII letters and digits is left out, so a slug may be the counter alone.
    """
    first = _ascii(name)[:_LONGEST]
    numbers = (re.fullmatch(re.escape(first) + r"-(\d+)", slug) for slug in taken)
    last = max((int(found[1]) for found in numbers if found), default=0)
    return f"{first}-{last + 1}"


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^\w\s-]", "", plain.lower())
    return re.sub(r"[-\s]+", "-", words).strip("-_")


SILENCE_UNTIL_IDLE = timedelta(minutes=10)

AGENT_TYPES = frozenset(
    {
        "Marketplace.Slurm",
        "Marketplace.SiteAgent",
        "Marketplace.Script",
        "Marketplace.Basic",
        "OpenStack.Tenant",
    }
)
"""Offering types that can have agents."""


def processors_of(tx: Transaction, service: AgentService) -> list[AgentProcessor]:
    """Return the processors of a service."""
    return [row for row in tx.world.agent_processors.values() if row.service == service.uuid]


def service_state(tx: Transaction, service: AgentService) -> str:
    """Return the current state of a service.

    Idle is one whose newest processor ran more than ten minutes ago, and it stays so until the
    service is registered again: another run alone does not wake it.
    """
    runs = [row.last_run for row in processors_of(tx, service)]
    silent = bool(runs) and tx.now - max(*runs, service.registered) > SILENCE_UNTIL_IDLE
    return "Idle" if silent and service.state == "Active" else service.state
