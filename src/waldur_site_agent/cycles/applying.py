"""Applies the steps of a plan to the backend, and sends changes to Waldur.

Every action and every write is logged and recorded in the journal once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from waldur_site_agent.backends import (
    CreateHomeDirectories,
    Outcome,
    Result,
    members_of,
    resource_of,
)
from waldur_site_agent.cycles.site import Site, cause_of
from waldur_site_agent.model.errors import DefectError, SiteAgentError, TemporaryError
from waldur_site_agent.planning.plan import Step
from waldur_site_agent.planning.writes import Call, Write
from waldur_site_agent.waldur import Waldur

Applied = tuple[Step, Outcome]


def apply_steps(site: Site, steps: Sequence[Step]) -> list[Applied]:
    """Apply the steps in order and return each with its outcome.

    If the agent was asked to stop, nothing is applied; the next start finds the same work.
    """
    if not steps:
        return []
    if site.stopping():
        stopped = TemporaryError("the agent is stopping; the next start continues")
        outcomes = [Outcome(step.action, Result.FAILED, stopped) for step in steps]
    else:
        outcomes = list(site.backend.apply([step.action for step in steps]))
    applied = list(zip(steps, outcomes, strict=True))
    for step, outcome in applied:
        _log(site, step, outcome)
        site.record(step, outcome)
        site.watch.action(outcome)
    return applied


def _log(site: Site, step: Step, outcome: Outcome) -> None:
    """Log successes one by one, and failures as conditions, since they may last for days."""
    action, resource = type(outcome.action).__name__, resource_of(outcome.action)
    fields: dict[str, Any] = {"action": action, "resource": resource}
    if step.order:
        fields["order"] = str(step.order)
    if outcome.result is Result.FAILED:
        error = str(outcome.error)
        site.conditions.note(
            "action failed",
            f"{resource}: {step.reason}" if resource else step.reason,
            cause=f"{action} {cause_of(error, resource)}",
            **fields,
            reason=step.reason,
            error=error,
        )
        return
    for skipped in outcome.skipped:
        error = str(skipped.error)
        site.conditions.note(
            "left out",
            f"{skipped.name} ({resource})" if resource else skipped.name,
            cause=f"{action} {cause_of(error, resource, skipped.name)}",
            **fields,
            member=skipped.name,
            error=error,
        )
    served = members_served(outcome)
    details = {"members": served} if served else {}
    site.log.info(
        "action applied", **fields, reason=step.reason, result=outcome.result.value, **details
    )


def members_served(outcome: Outcome) -> list[str]:
    """The users of an action, without those who were skipped."""
    skipped = {left.name for left in outcome.skipped}
    action = outcome.action
    named = action.users if isinstance(action, CreateHomeDirectories) else members_of(action)
    return [member for member in named if member not in skipped]


def send_write(site: Site, write: Write) -> None:
    """Send a change to Waldur, log it and record it.

    Raises:
        SiteAgentError: Waldur rejected it or did not respond.
    """
    try:
        _send(site.waldur, write)
    except SiteAgentError as error:
        site.record_write(write, error)
        raise
    note_write(site, write)


def note_write(site: Site, write: Write) -> None:
    """Log and record a change that Waldur accepted."""
    log = site.log.debug if write.call is Call.REFRESH_LAST_SYNC else site.log.info
    log(
        "told Waldur",
        call=write.call.value,
        resource=write.about,
        changes=[str(change) for change in write.changes],
        reason=write.reason,
    )
    site.record_write(write, None)


def _send(waldur: Waldur, write: Write) -> None:
    uuid, value = write.uuid, write.value
    bare: dict[Call, Callable[[UUID], object]] = {
        Call.APPROVE_ORDER: waldur.approve_order,
        Call.COMPLETE_ORDER: waldur.complete_order,
        Call.SET_AS_OK: waldur.set_as_ok,
        Call.REFRESH_LAST_SYNC: waldur.refresh_last_sync,
        Call.SET_DELETING: waldur.set_deleting,
        Call.SET_DELETED: waldur.set_deleted,
        Call.START_IMPORT: waldur.start_import,
    }
    with_value: dict[Call, Callable[[UUID, Any], object]] = {
        Call.FAIL_ORDER: waldur.fail_order,
        Call.SET_BACKEND_ID: waldur.set_backend_id,
        Call.SET_BACKEND_METADATA: waldur.set_backend_metadata,
        Call.SET_LIMITS: waldur.set_limits,
        Call.SET_AS_ERRED: waldur.set_as_erred,
    }
    if uuid is not None and write.call is Call.CLOSE_IMPORT:
        if value is None:
            waldur.import_done(uuid)
        else:
            waldur.import_erred(uuid, str(value))
    elif uuid is not None and write.call in bare:
        bare[write.call](uuid)
    elif uuid is not None and write.call in with_value:
        with_value[write.call](uuid, value)
    else:
        raise DefectError(f"{write.about}: {write.call.value} cannot be sent by send_write")
