"""Usage on demand, for the ``usage`` commands: compare, load and plot past months."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from operator import attrgetter

from waldur_site_agent.cycles.facts import tell_resources
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.cycles.usage import (
    gather_reportable,
    plan_months,
    reported_components,
    restore_erred,
)
from waldur_site_agent.cycles.usage_sending import MonthOutcome, send_month
from waldur_site_agent.model.marketplace import Component, Resource, largest_share
from waldur_site_agent.model.usage import BillingMonth, Period
from waldur_site_agent.planning.usage import MonthPlan, counted_from


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSelection:
    """The resources and components that a command works on."""

    resources: Mapping[str, Resource]
    components: Mapping[str, Component]
    troubles: tuple[str, ...] = ()
    """Resources without usage, with the reason."""

    def only(self, wanted: Iterable[str]) -> UsageSelection:
        """Narrow the selection to resources by account, name or UUID; no names select all."""
        names = {name.strip().lower() for name in wanted}
        if not names:
            return self
        chosen = {a: r for a, r in self.resources.items() if names & _names(a, r)}
        return replace(self, resources=chosen)

    def names(self) -> set[str]:
        """All names by which resources can be selected, in lower case."""
        return {name for a, r in self.resources.items() for name in _names(a, r)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The usage of one component of one resource per period, in measured units, not rounded."""

    account: str
    component: str
    amounts: tuple[Fraction, ...]


def gather_usage_selection(site: Site) -> UsageSelection:
    """Read the resources and components with usage.

    Raises:
        TemporaryError: Waldur or the backend could not be read.
    """
    components = reported_components(site)
    reportable = gather_reportable(site)
    missing = (f"{name}: not found in the backend" for name in sorted(reportable.missing))
    return UsageSelection(
        resources=reportable.resources,
        components=components,
        troubles=(*reportable.troubles, *reportable.skipped, *missing),
    )


def compare_months(
    site: Site, selection: UsageSelection, months: Sequence[BillingMonth]
) -> list[MonthPlan]:
    """Compare usage with Waldur's records, in one read of the backend.

    Raises:
        TemporaryError: Waldur or the backend could not be read.
        PermanentError: the backend cannot report usage.
    """
    return plan_months(site, months, selection.resources, selection.components)


def load_months(
    site: Site, selection: UsageSelection, months: Iterable[BillingMonth]
) -> Iterator[MonthOutcome]:
    """Report months one after another; what Waldur already has is not sent again.

    Stops at the first month for which Waldur accepts nothing.

    Raises:
        TemporaryError: Waldur or the backend could not be read; earlier months were reported.
        PermanentError: the backend cannot report usage.
    """
    still_erred = restore_erred(site, selection.resources)
    resources = {a: r for a, r in selection.resources.items() if a not in still_erred}
    tell_resources(site)
    for month in months:
        (plan,) = plan_months(site, [month], resources, selection.components)
        outcome = send_month(site, plan, compare_user_usages=True)
        yield outcome
        if outcome.deferred_reason or (outcome.rejected_reason and not outcome.reported):
            return


def usage_series(site: Site, selection: UsageSelection, periods: Sequence[Period]) -> list[Series]:
    """The usage of each resource per period, in one read of the backend.

    Raises:
        TemporaryError: the backend could not be read.
        PermanentError: the backend cannot report usage.
    """
    if not periods or not selection.resources:
        return []
    since = {name: counted_from(r, periods[0]) for name, r in selection.resources.items()}
    tell_resources(site)
    reports = site.backend.usages(since, periods)
    totals = [{name: report.resources[name].total for name in since} for report in reports]
    return [
        Series(
            account=name,
            component=each.type,
            amounts=tuple(largest_share(total[name], each.usage_factors) for total in totals),
        )
        for name in sorted(since)
        for each in sorted(selection.components.values(), key=attrgetter("type"))
    ]


def days_of(month: BillingMonth, site: Site) -> list[Period]:
    """The days of a month in the site's time zone, up to now; daylight saving is respected."""
    days = []
    day = month.period(site.zone).start
    while day < min(month.period(site.zone).end, site.now()):
        noon = day.replace(tzinfo=None) + timedelta(hours=36)
        following = datetime(noon.year, noon.month, noon.day, tzinfo=site.zone)
        days.append(Period(start=day, end=following))
        day = following
    return days


def _names(account: str, resource: Resource) -> set[str]:
    return {account, resource.name.lower(), str(resource.uuid), resource.uuid.hex}
