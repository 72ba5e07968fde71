"""The end of a month: what is still to be told of it, and when nothing more can come."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.usage_clock import is_never_taken, waldurs_time
from waldur_site_agent.cycles.usage_report import MonthOutcome, NotReported
from waldur_site_agent.cycles.usage_sending import foresee_month, send_month
from waldur_site_agent.model.errors import SiteAgentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.model.usage import BillingMonth
    from waldur_site_agent.planning.usage import MonthPlan

SETTLING = timedelta(hours=2)
"""How long after its end a month is compared again in every cycle.

What ended in the last minutes reaches the accounting database a while later, and clocks differ.
"""
_ONCE, _FOR_THE_LAST_TIME = 1, 2


def is_to_close(site: Site, month: BillingMonth, resources: Iterable[Resource]) -> bool:
    """Whether there may be something to tell of a month before this one, which Waldur takes."""
    if site.memory.get(_closed(month)) or not existed_in(site, month, resources):
        return False
    return not is_never_taken(site, month)


def existed_in(site: Site, month: BillingMonth, resources: Iterable[Resource]) -> bool:
    """Whether some resource was there before the month ended."""
    end = month.period(site.zone).end
    return any(resource.created is not None and resource.created < end for resource in resources)


def is_over(site: Site, month: BillingMonth) -> bool:
    """Whether a month has ended long enough ago, everywhere; to be asked before usage is read."""
    end = max(month.period(site.zone).end, month.period(UTC).end, key=lambda e: e.timestamp())
    return waldurs_time(site) >= end + SETTLING


def close_month(site: Site, plan: MonthPlan, *, may_end: bool) -> MonthOutcome:
    """Send the last of a month that has ended; Waldur may not take it, and nobody is to blame.

    It is remembered as closed when nothing more can come of it. Until then each cycle compares it;
    the users' parts at the first time, and at the last.

    Args:
        site: the offering at work.
        plan: the month.
        may_end: whether everything that is to be told of it can be told in this cycle.
    """
    compared = f"parts of {plan.month} are compared before it is closed"
    stage = _FOR_THE_LAST_TIME if may_end else _ONCE
    try:
        outcome = send_month(site, plan, compare_parts=site.memory.get(compared, 0) < stage)
    except SiteAgentError as error:
        month = str(plan.month)
        site.conditions.note("month not closed yet", month, month=month, reason=str(error))
        return _unread(plan, error)
    if outcome.refusal and not site.memory.get(_refused(plan.month)):
        site.memory[_refused(plan.month)] = 1
        site.log.info(
            "the rest of a month was not billed: Waldur takes it from a token of staff alone",
            month=str(plan.month),
            not_billed=outcome.not_billed,
            reason=outcome.refusal,
        )
    if not outcome.waits and not outcome.failures:
        site.memory[compared] = stage
        if may_end:
            site.memory[_closed(plan.month)] = 1
    return outcome


def foresee_closing(site: Site, plan: MonthPlan) -> MonthOutcome:
    """What :func:`close_month` would send."""
    try:
        return foresee_month(site, plan)
    except SiteAgentError as error:
        return _unread(plan, error)


def _unread(plan: MonthPlan, error: SiteAgentError) -> MonthOutcome:
    failure = NotReported(account=str(plan.month), error=error)
    return MonthOutcome(plan=plan, failures=(failure,))


def _closed(month: BillingMonth) -> str:
    return f"usage of {month} is closed"


def _refused(month: BillingMonth) -> str:
    return f"what staff alone may report of {month} was named"
