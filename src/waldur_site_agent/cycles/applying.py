"""Carries out the steps of a plan; every action leaves one line in the log and the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from waldur_site_agent.backends import Outcome, Result
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.model.errors import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.planning.plan import Step

    Applied = tuple[Step, Outcome]


def apply_steps(site: Site, steps: Sequence[Step]) -> list[Applied]:
    """Carry out the steps in their order; each comes back with its outcome.

    An agent that was asked to stop begins nothing new: the next start finds the same work.
    """
    if not steps:
        return []
    if site.stopping():
        stopped = TemporaryError("the agent is stopping; the next start goes on")
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
    """What was done is a line each time; what fails may fail for many, and for days."""
    action, resource = type(outcome.action).__name__, getattr(outcome.action, "resource", "")
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
    for left_out in outcome.left_out:
        error = str(left_out.error)
        site.conditions.note(
            "left out",
            f"{left_out.name} ({resource})" if resource else left_out.name,
            cause=f"{action} {cause_of(error, resource, left_out.name)}",
            **fields,
            member=left_out.name,
            error=error,
        )
    served = members_served(outcome)
    details = {"members": served} if served else {}
    site.log.info(
        "action applied", **fields, reason=step.reason, result=outcome.result.value, **details
    )


def members_served(outcome: Outcome) -> list[str]:
    """The members of an action that were not left out."""
    left_out = {left.name for left in outcome.left_out}
    action = outcome.action
    named: tuple[str, ...] = getattr(action, "members", ()) or getattr(action, "users", ())
    return [member for member in named if member not in left_out]
