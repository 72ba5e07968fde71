"""A plan: changes in the backend and in Waldur as values, each with its reason; and the guard.

The guard refuses the removals of a plan that exceed the site's thresholds. A dry run prints the
changes in Waldur. Otherwise each is sent, and then logged and recorded in the journal, with the
same old and new values as in the plan.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from waldur_site_agent.backends import Action, DeleteResource, MoveContainer, RemoveMembers
from waldur_site_agent.model.marketplace import (
    Component,
    OfferingUser,
    OfferingUserState,
    Resource,
    ResourceState,
)
from waldur_site_agent.planning.usage import UserUsageChange

CREATION_NOTE = "creating"
"""The key of ``backend_metadata`` with the name of a resource that is about to be created."""


@dataclass(frozen=True, slots=True)
class Step:
    """One planned action; ``order`` is the order it belongs to, if any."""

    action: Action
    reason: str
    order: UUID | None = None
    before: Mapping[str, Decimal] = field(default_factory=dict)
    """For limits: the current values, in backend units."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """For several members or components: the individual reasons."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one pass wants to change in the backend."""

    steps: tuple[Step, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions, in order."""
        return tuple(step.action for step in self.steps)

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How much one plan may remove or rearrange in an offering without confirmation."""

    max_removals_percent: Decimal
    max_removals: int
    max_moves_percent: Decimal = Decimal(20)
    max_moves: int = 3
    removals_allowed: bool = False
    """Whether everything above is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A plan split into the allowed and the refused part."""

    allowed: Plan
    refused: Plan
    reason: str = ""
    digest: str = ""
    """Of the refused part; see :func:`digest_of`."""


def guard(
    plan: Plan,
    members_found: int,
    terminations: int,
    thresholds: Thresholds,
    *,
    removed_before: int = 0,
    projects_found: int = 0,
    moved_before: int = 0,
    subject: str = "",
) -> Guarded:
    """Split a plan into an allowed and a refused part.

    Args:
        plan: what the pass wants to change.
        members_found: the current number of memberships of the offering.
        terminations: the number of resources with terminate orders.
        thresholds: the site's thresholds.
        removed_before: memberships removed by partial passes since the last full pass, so that
            many small plans count as one large one.
        projects_found: the number of projects of the offering that have an account.
        moved_before: the same as ``removed_before``, of accounts of projects that were moved.
        subject: what the plan is about (the offering and the job), for the digest.
    """
    reasons = {
        _takes_away: _removals_problem(
            plan, members_found, terminations, thresholds, removed_before
        ),
        _moves: _moves_problem(plan, projects_found, thresholds, moved_before),
    }
    refuses = [kind for kind, reason in reasons.items() if reason]
    if not refuses or thresholds.removals_allowed:
        return Guarded(allowed=plan, refused=Plan())
    no = [any(kind(step) for kind in refuses) for step in plan.steps]
    refused = Plan(tuple(s for s, is_no in zip(plan.steps, no, strict=True) if is_no))
    digest = digest_of(refused, subject)
    reason = "; ".join(filter(None, reasons.values()))
    return Guarded(
        allowed=Plan(tuple(s for s, is_no in zip(plan.steps, no, strict=True) if not is_no)),
        refused=refused,
        reason=f"{reason}; allow exactly this with: waldur-site-agent allow "
        f"{digest[:SHOWN_DIGEST]}, or whatever comes with --allow-removals or "
        "safety.allow_removals",
        digest=digest,
    )


def _removals_problem(
    plan: Plan, members_found: int, terminations: int, thresholds: Thresholds, removed_before: int
) -> str:
    """Why the removals of a plan are refused; empty if they are not."""
    now = removals_in(plan)
    removed, members_found = now + removed_before, members_found + removed_before
    deleted = sum(isinstance(step.action, DeleteResource) for step in plan.steps)
    share = removed * 100 > thresholds.max_removals_percent * members_found
    if now and removed > thresholds.max_removals and share:
        return (
            f"the plan would remove {removed} of {members_found} members, more than "
            f"{thresholds.max_removals} and more than {thresholds.max_removals_percent} %"
        )
    if deleted > terminations:
        return (
            f"the plan would delete {deleted} accounts, but only {terminations} resources are "
            "being terminated"
        )
    return ""


def _moves_problem(
    plan: Plan, projects_found: int, thresholds: Thresholds, moved_before: int
) -> str:
    """Why the moves of a plan are refused; empty if they are not."""
    now = moves_in(plan)
    moved = now + moved_before
    share = moved * 100 > thresholds.max_moves_percent * projects_found
    if not (now and moved > thresholds.max_moves and share):
        return ""
    return (
        f"the plan would move the accounts of {moved} of {projects_found} projects, more than "
        f"{thresholds.max_moves} and more than {thresholds.max_moves_percent} %"
    )


SHOWN_DIGEST = 16
"""How much of a digest people are shown; the whole is compared."""


def digest_of(refused: Plan, subject: str) -> str:
    """What names exactly these changes of this subject, whatever their order and reasons."""
    changes = sorted(_essence(step) for step in refused.steps)
    text = json.dumps([subject, changes], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _essence(step: Step) -> list[Any]:
    match step.action:
        case RemoveMembers(resource=resource, members=members):
            return ["RemoveMembers", resource, sorted(members)]
        case DeleteResource(resource=resource, project_container=container, order=order):
            return ["DeleteResource", resource, [container or "", str(order or step.order or "")]]
        case MoveContainer() as move:
            path = [container.id for container in move.containers]
            return ["MoveContainer", move.resource, [move.previous, *path, *sorted(move.astray)]]
        case other:
            return [type(other).__name__, repr(other), []]


def refused_changes(plan: Plan) -> dict[str, list[str]]:
    """By account, who would be removed; or, in brackets, what would become of the account."""
    found: dict[str, list[str]] = {}
    for step in plan.steps:
        match step.action:
            case RemoveMembers(resource=resource, members=members):
                found.setdefault(resource, []).extend(sorted(members))
            case DeleteResource(resource=resource):
                found.setdefault(resource, []).append("(to be deleted)")
            case MoveContainer() as move:
                below = " > ".join(container.id for container in move.containers[:-1])
                found.setdefault(move.resource, []).append(f"(to be moved below {below})")
            case _:
                pass
    return dict(sorted(found.items()))


def removals_in(plan: Plan) -> int:
    """The number of memberships that a plan removes."""
    return sum(len(s.action.members) for s in plan.steps if isinstance(s.action, RemoveMembers))


def moves_in(plan: Plan) -> int:
    """The number of accounts of projects that a plan moves."""
    return sum(map(_moves, plan.steps))


def refusal_of(refused: Plan) -> str:
    """What was refused, as the event of a log line."""
    kinds = {"removals": _takes_away, "moves": _moves}
    found = [name for name, kind in kinds.items() if any(map(kind, refused.steps))]
    return f"{' and '.join(found)} refused"


def _takes_away(step: Step) -> bool:
    return isinstance(step.action, RemoveMembers | DeleteResource)


def _moves(step: Step) -> bool:
    return isinstance(step.action, MoveContainer)


class Call(enum.StrEnum):
    """The API calls that change something in Waldur."""

    APPROVE_ORDER = "approve_order"
    REJECT_ORDER = "reject_order"
    COMPLETE_ORDER = "complete_order"
    FAIL_ORDER = "fail_order"
    SET_BACKEND_ID = "set_backend_id"
    SET_ORDER_BACKEND_ID = "set_order_backend_id"
    SET_BACKEND_METADATA = "set_backend_metadata"
    SET_LIMITS = "set_limits"
    SET_AS_OK = "set_as_ok"
    SET_AS_ERRED = "set_as_erred"
    REFRESH_LAST_SYNC = "refresh_last_sync"
    SET_DELETING = "set_deleting"
    SET_DELETED = "set_deleted"
    CHANGE_OFFERING_USER = "change_offering_user"
    SET_USAGE = "set_usage"
    SET_USER_USAGES = "set_user_usages"
    START_IMPORT = "start_import"
    CREATE_BACKEND_RESOURCE = "create_backend_resource"
    CLOSE_IMPORT = "close_import"
    REPORT_POLICY_RESULT = "report_policy_result"


@dataclass(frozen=True, slots=True)
class Change:
    """One field with its old and new value, as text; ``None`` if there is no value."""

    field: str
    old: str | None
    new: str | None
    unit: str = ""
    note: str = ""
    """Additional information, such as the account's value."""

    def __str__(self) -> str:
        text = f"{self.field} {_shown(self.old)} -> {_shown(self.new)}"
        text += f" {self.unit}" if self.unit else ""
        return f"{text} ({self.note})" if self.note else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One call that changes something in Waldur."""

    call: Call
    uuid: UUID | None
    """The object that is changed; ``None`` if it is created."""
    about: str
    """A readable name of the object: an account, a username, an order."""
    changes: tuple[Change, ...] = ()
    reason: str = ""
    value: object = None
    """The value that is sent, if the call takes one."""

    def __str__(self) -> str:
        return "; ".join(map(str, self.changes)) or self.call.value


def limits_write(
    resource: Resource,
    limits: Mapping[str, Decimal],
    components: Mapping[str, Component],
    reason: str,
    notes: Mapping[str, str],
) -> Write:
    """Replace all limits of a resource; only the differing ones appear as changes."""
    changes = tuple(
        Change(
            f"limit {name}",
            amount_text(resource.limits.get(name)),
            amount_text(value),
            components[name].measured_unit if name in components else "",
            notes.get(name, ""),
        )
        for name, value in sorted(limits.items())
        if resource.limits.get(name) != value
    )
    return Write(
        call=Call.SET_LIMITS,
        uuid=resource.uuid,
        about=resource.account,
        changes=changes,
        reason=reason,
        value=dict(limits),
    )


def metadata_write(resource: Resource, metadata: Mapping[str, object], reason: str) -> Write:
    """Replace the backend_metadata of a resource; differing keys appear as changes."""
    before = dict(resource.backend_metadata)
    return Write(
        call=Call.SET_BACKEND_METADATA,
        uuid=resource.uuid,
        about=resource.account,
        changes=tuple(_metadata_changes(before, metadata)),
        reason=reason,
        value=dict(metadata),
    )


def _metadata_changes(
    before: Mapping[str, object], after: Mapping[str, object]
) -> Iterable[Change]:
    for key in sorted(before.keys() | after.keys()):
        if key not in before or key not in after or before[key] != after[key]:
            old = _value_text(before[key]) if key in before else None
            new = _value_text(after[key]) if key in after else None
            yield Change(f"metadata {key}", old, new)


def backend_id_write(resource: Resource, backend_id: str) -> Write:
    """Set a resource's backend_id, the name of its account."""
    return Write(
        call=Call.SET_BACKEND_ID,
        uuid=resource.uuid,
        about=backend_id,
        changes=(Change("backend_id", resource.backend_id or None, backend_id),),
        reason="name of the account",
        value=backend_id,
    )


def ok_write(resource: Resource, reason: str) -> Write:
    """Set a resource OK."""
    return Write(
        call=Call.SET_AS_OK,
        uuid=resource.uuid,
        about=resource.account or resource.name,
        changes=(Change("state", resource.state, ResourceState.OK),),
        reason=reason,
    )


def erred_write(resource: Resource, message: str) -> Write:
    """Set a resource Erred, with a message for its owner."""
    return Write(
        call=Call.SET_AS_ERRED,
        uuid=resource.uuid,
        about=resource.account or resource.name,
        changes=(Change("state", resource.state, ResourceState.ERRED),),
        reason=message,
        value=message,
    )


def sync_write(resource: Resource) -> Write:
    """Update the time of a resource's last sync."""
    old = resource.last_sync.isoformat(timespec="seconds") if resource.last_sync else None
    return Write(
        call=Call.REFRESH_LAST_SYNC,
        uuid=resource.uuid,
        about=resource.account,
        changes=(Change("last sync", old, "now"),),
        reason="compared with the backend",
    )


def deleting_write(user: OfferingUser) -> Write:
    """Mark an offering user as Deleting."""
    return _user_state(user, Call.SET_DELETING, OfferingUserState.DELETING)


def deleted_write(user: OfferingUser) -> Write:
    """Mark an offering user as Deleted."""
    return _user_state(user, Call.SET_DELETED, OfferingUserState.DELETED)


def user_write(before: OfferingUser, after: OfferingUser) -> Write:
    """The difference between two versions of an offering user, possibly empty."""
    fields = (
        ("username", before.username, after.username),
        ("state", before.state, after.state),
        ("comment", before.service_provider_comment, after.service_provider_comment),
    )
    return Write(
        call=Call.CHANGE_OFFERING_USER,
        uuid=before.uuid,
        about=before.user_username or str(before.uuid),
        changes=tuple(
            Change(name, old or None, new or None) for name, old, new in fields if old != new
        ),
        reason="a username of the site",
    )


def usage_write(
    resource: Resource,
    month: str,
    figures: Mapping[str, tuple[Decimal | None, Decimal]],
    components: Mapping[str, Component],
) -> Write:
    """Report the usage of a month: by component, the usage in Waldur and the new one."""
    return Write(
        call=Call.SET_USAGE,
        uuid=resource.uuid,
        about=resource.account,
        changes=tuple(
            Change(
                f"usage {name}",
                None if old is None else f"{old:.2f}",
                f"{new:.2f}",
                components[name].measured_unit if name in components else "",
            )
            for name, (old, new) in figures.items()
        ),
        reason=f"used in {month}",
    )


def user_usages_write(
    change: UserUsageChange,
    month: str,
    components: Mapping[str, Component],
    users: Collection[str] | None = None,
) -> Write:
    """Report the per-user usage of one component in a month, optionally of some users only."""
    name = change.component
    unit = components[name].measured_unit if name in components else ""
    return Write(
        call=Call.SET_USER_USAGES,
        uuid=change.resource.uuid,
        about=change.account,
        changes=tuple(
            Change(
                f"usage {name} of {user}", None if old is None else f"{old:.2f}", f"{new:.2f}", unit
            )
            for user, (old, new) in change.users.items()
            if users is None or user in users
        ),
        reason=f"used in {month}",
        value=change,
    )


def _user_state(user: OfferingUser, call: Call, state: str) -> Write:
    return Write(
        call=call,
        uuid=user.uuid,
        about=user.username or user.user_username or str(user.uuid),
        changes=(Change("state", user.state, state),),
        reason="deletion was requested in Waldur",
    )


_MOST_DIGITS = 60


def amount_text(amount: Decimal | None) -> str | None:
    """An amount without trailing zeros or exponent: ``15``, not ``1.5E+1`` or ``15.00``."""
    if amount is None:
        return None
    is_usual = not amount.is_finite() or abs(amount.adjusted()) <= _MOST_DIGITS
    text = f"{amount:f}" if is_usual else f"{amount:.10g}"  # else a million digits of a hostile one
    return text.rstrip("0").rstrip(".") if "." in text else text


def _value_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _shown(value: str | None) -> str:
    if value is None:
        return "none"
    return value or '""'
