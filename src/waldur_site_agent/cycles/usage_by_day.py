"""The usage of each day of the current month, for plots; nothing of it is sent to Waldur."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal

from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.usage import BillingMonth, Period
from waldur_site_agent.planning.usage import MonthPlan, billed, counted_from

READ_EVERY = timedelta(hours=1)

Days = Mapping[str, tuple[tuple[str, Mapping[str, Decimal]], ...]]
"""By account: each day (ISO 8601) with its usage by component, in measured units."""


def usage_by_day(site: Site, plan: MonthPlan) -> Days | None:
    """Read it, at most once an hour, in one read for all days; ``None`` where it is not due."""
    now, read = site.now(), site.memory.days_read
    if not site.wants_days or not plan.resources:
        return None
    if read is not None and timedelta() <= now - read < READ_EVERY:
        return None
    site.memory.days_read = now
    days = days_of(plan.month, now, site.zone)
    whole = plan.month.period(site.zone)
    since = {each.account: counted_from(each.resource, whole) for each in plan.resources}
    components = {
        name: component
        for name, component in site.offering.components.items()
        if any(name == each.type for r in plan.resources for each in r.components)
    }
    try:
        reports = site.backend.usages(since, [period for _, period in days])
    except SiteAgentError as error:  # the month was reported; plots can wait
        site.log.debug("usage by day not read", reason=str(error))
        return None
    return {
        account: tuple(
            (
                day.isoformat(),
                {n: b.total for n, b in billed(report.resources[account], components).items()},
            )
            for (day, _), report in zip(days, reports, strict=True)
            if account in report.resources
        )
        for account in since
    }


def days_of(month: BillingMonth, now: datetime, zone: tzinfo) -> list[tuple[date, Period]]:
    """The days of a month so far, from midnight to midnight of the zone."""
    period = month.period(zone)
    today = min(now.astimezone(zone).date(), (period.end - timedelta(days=1)).date())
    found = []
    day = period.start.date()
    while day <= today:
        following = day + timedelta(days=1)
        found.append((day, Period(start=_midnight(day, zone), end=_midnight(following, zone))))
        day = following
    return found


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)
