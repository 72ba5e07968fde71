"""Carries out what was planned: actions in the backend, writes in Waldur; logs and records them."""

from __future__ import annotations

from collections import Counter
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
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.site import RefusedPlan, Site
from waldur_site_agent.model.errors import DefectError, SiteAgentError, TemporaryError
from waldur_site_agent.planning.plan import Call, Guarded, Plan, Step, Write, refused_changes
from waldur_site_agent.waldur import Waldur


def subject_of(offering: Offering, job: str) -> str:
    """What a plan is about, so that no other offering's plan has the same digest."""
    return f"{offering.waldur_api_url} {offering.waldur_offering_uuid} {job}"


def with_allowance(site: Site, plan: Plan, guarded: Guarded, job: str) -> Guarded:
    """The guarded plan, whole if somebody allowed exactly what was refused of it.

    The allowance is used up before anything is removed. What stays refused is recorded, so that it
    can be allowed.
    """
    if not guarded.refused or _why_nothing_may_be_written(site) is not None:
        return guarded
    allowance = site.allowances.take(guarded.digest)
    if allowance is None:
        site.allowances.record(
            RefusedPlan(
                digest=guarded.digest,
                offering=site.offering.name,
                job=job,
                reason=guarded.reason,
                changes=refused_changes(guarded.refused),
                at=site.now().timestamp(),
            )
        )
        return guarded
    site.log.warning(
        "removals allowed by digest",
        digest=guarded.digest,
        by=allowance.by,
        changes=refused_changes(guarded.refused),
    )
    site.journal.record_allowance(allowance)
    return Guarded(allowed=plan, refused=Plan())


Applied = tuple[Step, Outcome]


def apply_steps(site: Site, steps: Sequence[Step]) -> list[Applied]:
    """Apply the steps in order and return each with its outcome.

    If the agent was asked to stop, nothing is applied; the next start finds the same work.
    """
    if not steps:
        return []
    if (obstacle := _why_nothing_may_be_written(site)) is not None:
        outcomes = [Outcome(step.action, Result.FAILED, obstacle) for step in steps]
    else:
        outcomes = list(site.backend.apply([step.action for step in steps]))
    applied = list(zip(steps, outcomes, strict=True))
    shared = Counter(id(outcome.error) for outcome in outcomes)
    for step, outcome in applied:
        _log(site, step, outcome, is_shared=shared[id(outcome.error)] > 1)
        site.journal.record(step, outcome)
        site.observer.action(outcome)
    return applied


def _why_nothing_may_be_written(site: Site) -> TemporaryError | None:
    if site.stopping():
        return TemporaryError("the agent is stopping; the next start continues")
    try:
        if site.may_write is not None:
            site.may_write()
    except TemporaryError as error:
        return error
    return None


def _log(site: Site, step: Step, outcome: Outcome, *, is_shared: bool) -> None:
    """Log successes one by one, and failures as conditions, since they may last for days.

    An error that several actions share is one cause, also for the one that it names.
    """
    action, resource = type(outcome.action).__name__, resource_of(outcome.action)
    fields: dict[str, Any] = {"action": action, "resource": resource}
    if step.order:
        fields["order"] = str(step.order)
    if outcome.result is Result.FAILED:
        error = str(outcome.error)
        if step.order:  # the order's own line has the reason
            site.log.debug("action failed", **fields, reason=step.reason, error=error)
            return
        site.conditions.note(
            "action failed",
            f"{resource}: {step.reason}" if resource else step.reason,
            cause=f"{action} {cause_of(error) if is_shared else cause_of(error, resource)}",
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
        site.journal.record_write(write, error)
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
    site.journal.record_write(write, None)


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
        Call.REJECT_ORDER: waldur.reject_order,
        Call.FAIL_ORDER: waldur.fail_order,
        Call.SET_BACKEND_ID: waldur.set_backend_id,
        Call.SET_ORDER_BACKEND_ID: waldur.set_order_backend_id,
        Call.SET_BACKEND_METADATA: waldur.set_backend_metadata,
        Call.SET_LIMITS: waldur.set_limits,
        Call.SET_AS_ERRED: waldur.set_as_erred,
        Call.REPORT_POLICY_RESULT: waldur.report_policy_result,
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
