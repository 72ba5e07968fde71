"""Carries out the steps of a plan; every action leaves one line in the log and the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import Outcome, Result
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
    log = site.log.bind(
        action=type(outcome.action).__name__,
        resource=getattr(outcome.action, "resource", ""),
        reason=step.reason,
    )
    if step.order:
        log = log.bind(order=str(step.order))
    if outcome.result is Result.FAILED:
        log.warning("action failed", error=str(outcome.error))
        return
    for left_out in outcome.left_out:
        log.warning("left out", member=left_out.name, error=str(left_out.error))
    served = members_served(outcome)
    details = {"members": served} if served else {}
    log.info("action applied", result=outcome.result.value, **details)


def members_served(outcome: Outcome) -> list[str]:
    """The members of an action that were not left out."""
    left_out = {left.name for left in outcome.left_out}
    action = outcome.action
    named: tuple[str, ...] = getattr(action, "members", ()) or getattr(action, "users", ())
    return [member for member in named if member not in left_out]
