"""report: one pass over the usage of an offering's resources, and the limits found."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.conditions import cause_of, note_failures
from waldur_site_agent.cycles.missing_accounts import foresee_marks, mark_missing
from waldur_site_agent.cycles.offering_access import read_offering
from waldur_site_agent.cycles.resource_limits import report_limits
from waldur_site_agent.cycles.unreadable import readable
from waldur_site_agent.cycles.usage_clock import check_clocks
from waldur_site_agent.cycles.usage_closing import (
    close_month,
    existed_in,
    foresee_closing,
    is_over,
    is_to_close,
)
from waldur_site_agent.cycles.usage_report import UsageCycleReport
from waldur_site_agent.cycles.usage_sending import foresee_month, send_month
from waldur_site_agent.cycles.usage_subjects import (
    foresee_revival,
    gather_subjects,
    revive,
)
from waldur_site_agent.model.errors import SiteAgentError, TemporaryError
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.planning.billing import reportable
from waldur_site_agent.planning.usage import MonthPlan, counted_from, figures, plan_month

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.cycles.usage_report import MonthOutcome
    from waldur_site_agent.cycles.usage_subjects import Subjects
    from waldur_site_agent.model.offerings import Component
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.model.usage import ComponentUsage
    from waldur_site_agent.planning.usage import ComponentReport, ResourceReport, WaldurFigure
    from waldur_site_agent.planning.writes import Write
    from waldur_site_agent.waldur import Listing


def report_usage(site: Site, *, dry_run: bool = False) -> UsageCycleReport:
    """Tell Waldur what was used in this month, and the rest of the month before until it is closed.

    The month is decided here, once: a pass that lasts beyond midnight stays in it.

    Raises:
        TemporaryError: one side could not be read; nothing, or not everything, was sent.
        PermanentError: the backend cannot report usage, or the token may not read it.
    """
    month = BillingMonth.of(site.now(), site.zone)
    components = reported_components(site)
    subjects = gather_subjects(site)
    months = _months(site, month, subjects.resources.values())
    is_previous_over = is_over(site, month.previous)
    plans = plan_months(site, months, subjects.resources, components)
    report = UsageCycleReport(offering=site.offering.name, skipped=subjects.skipped)
    if dry_run:
        return _foresee(site, report, subjects, plans)
    still_erred = revive(site, subjects.resources)
    *earlier, current = [_without(plan, still_erred) for plan in plans]
    sent = _send_current(site, current)
    may_end = is_previous_over and subjects.is_whole and not still_erred
    closed = tuple(close_month(site, plan, may_end=may_end and plan.is_settled) for plan in earlier)
    outcomes = (*closed, sent)
    if all(plan.is_settled for plan in earlier):
        _verify(site, month.previous, subjects.resources.values())
    _, untold = report_limits(site, subjects.resources.values(), subjects.state)
    others = [
        *(f"{account}: {reason}" for account, reason in still_erred.items()),
        *untold,
        *mark_missing(site, subjects.missing, subjects.accounts),
    ]
    failures = [
        *subjects.troubles,
        *(f"{f.account}: {f.error}" for outcome in outcomes for f in outcome.failures),
        *others,
    ]
    _log(site, subjects)
    note_failures(site, "not reported", others)
    return replace(report, months=outcomes, failures=tuple(failures))


def _foresee(
    site: Site, report: UsageCycleReport, subjects: Subjects, plans: Sequence[MonthPlan]
) -> UsageCycleReport:
    """What the pass would report; of a month before this one, a list may be lacking."""
    *earlier, current = plans
    outcomes = (*(foresee_closing(site, plan) for plan in earlier), foresee_month(site, current))
    failures = [f"{f.account}: {f.error}" for outcome in outcomes for f in outcome.failures]
    return replace(
        report,
        months=outcomes,
        failures=(*subjects.troubles, *failures),
        writes=_foreseen(site, subjects),
    )


def _foreseen(site: Site, subjects: Subjects) -> tuple[Write, ...]:
    """What a pass changes in Waldur besides usage."""
    limits, _ = report_limits(site, subjects.resources.values(), subjects.state, dry_run=True)
    return (
        *foresee_revival(subjects.resources),
        *limits,
        *foresee_marks(subjects.missing, subjects.accounts),
    )


def reported_components(site: Site) -> dict[str, Component]:
    """The configured components that Waldur counts; the others are named once per process.

    Raises:
        TemporaryError: the offering could not be read.
    """
    offering = read_offering(site)
    counted = {n: c for n, c in site.offering.components.items() if site.backend.counts(n)}
    components = reportable(counted, offering.components)
    others = sorted(counted.keys() - components.keys())
    if others and not site.memory.get("components that are not reported were named"):
        site.memory["components that are not reported were named"] = 1
        site.log.warning(
            "Waldur does not count these components; their usage is not reported",
            components=others,
            remedy="waldur-site-agent components load",
        )
    return components


def plan_months(
    site: Site,
    months: Sequence[BillingMonth],
    resources: Mapping[str, Resource],
    components: Mapping[str, Component],
) -> list[MonthPlan]:
    """Compare months: Waldur is read first, so that what the backend has then is not older.

    In a past month, a resource that used nothing and of which Waldur has nothing is no news.

    Raises:
        TemporaryError: one side could not be read, or one clock is wrong.
        PermanentError: the backend cannot report usage, or the token may not read it.
    """
    if not resources or not months or not components:
        return [MonthPlan(month=month) for month in months]
    uuid = site.offering.waldur_offering_uuid
    listings = [site.waldur.component_usages(uuid, m) for m in months]
    found = [
        figures(readable(site, listing, "component usages"), m)
        for m, listing in zip(months, listings, strict=True)
    ]
    unknown = [_unknown_figures(listing, resources) for listing in listings]
    check_clocks(site)
    periods = [month.period(site.zone) for month in months]
    since = {name: counted_from(each, periods[-1]) for name, each in resources.items()}
    _warn_of_unknown_age(site, resources)
    plans = []
    current = BillingMonth.of(site.now(), site.zone)
    reports = site.backend.usages(since, periods)
    for month, figure, report, lacking in zip(months, found, reports, unknown, strict=True):
        _note_remarks(site, month, report.remarks)
        existed = {n: each for n, each in resources.items() if since[n] < report.period.end}
        plan = plan_month(
            month,
            {name: each for name, each in existed.items() if name not in lacking},
            report,
            components,
            figure,
            allow_decrease=site.offering.allow_decrease,
            zero_is_news=month == current,
        )
        if lacking:
            plan = replace(plan, left_out=lacking, is_settled=False)
        _warn(site, plan)
        plans.append(plan)
    return plans


def _unknown_figures(
    listing: Listing[ComponentUsage], resources: Mapping[str, Resource]
) -> dict[str, str]:
    """The accounts whose figure in Waldur was not understood: without it nothing can be compared.

    Raises:
        TemporaryError: a row does not even tell of which resource it is.
    """
    rows = {row.uuid("resource_uuid"): row for row in listing.unreadable}
    if None in rows:
        raise rows[None].error
    return {
        name: f"what Waldur has of its usage is not understood: {rows[each.uuid]}"
        for name, each in resources.items()
        if each.uuid in rows
    }


def _note_remarks(site: Site, month: BillingMonth, remarks: Iterable[str]) -> None:
    """Note what the backend says of a month's figures."""
    for remark in remarks:
        subject = f"{month}: {remark}"
        site.conditions.note("usage", subject, cause=subject, month=str(month), remark=remark)


def _months(
    site: Site, month: BillingMonth, resources: Iterable[Resource]
) -> tuple[BillingMonth, ...]:
    """This month, and before it the month before as long as something may come of it."""
    return (month.previous, month) if is_to_close(site, month.previous, resources) else (month,)


def _send_current(site: Site, plan: MonthPlan) -> MonthOutcome:
    named = f"what staff alone may report of {plan.month} was named"
    compare = not plan and _parts_may_differ(site, plan)
    outcome = send_month(site, plan, compare_parts=compare)
    if outcome.is_unfinished:
        site.memory[_counted(plan.month)] = site.memory[_compared(plan.month)] = 0
    else:
        site.memory[_counted(plan.month)] = len(plan.resources)
        if plan or compare:  # where there is news, all parts are looked at
            site.memory[_compared(plan.month)] = site.now().toordinal()
    if outcome.waits:
        site.log.debug("usage not sent yet", month=str(plan.month), reason=outcome.waits)
    if outcome.refusal and not site.memory.get(named):
        site.memory[named] = 1
        site.log.warning(
            "Waldur is in the next month already; the rest of this one needs a token of staff",
            month=str(plan.month),
            not_billed=outcome.not_billed,
            reason=outcome.refusal,
        )
    return outcome


def _parts_may_differ(site: Site, plan: MonthPlan) -> bool:
    """Whether parts are to be compared although the totals agree.

    An agent before this one may have died between the totals and the parts. A new process counts
    Waldur's parts, and again when there are other resources than before; from its second cycle on
    it compares them all once a day, for parts of zero make up for lost ones in the count.
    """
    if site.memory.get(_counted(plan.month), 0) != len(plan.resources):
        return not _parts_are_all_there(site, plan)
    return site.memory.get(_compared(plan.month)) != site.now().toordinal()


def _counted(month: BillingMonth) -> str:
    return f"resources whose parts of {month} are counted"


def _compared(month: BillingMonth) -> str:
    return f"day on which all parts of {month} were compared"


def _parts_are_all_there(site: Site, plan: MonthPlan) -> bool:
    """Whether Waldur has as many parts as it should: an agent before this one may have died."""
    if not plan.resources:
        return True
    uuid = site.offering.waldur_offering_uuid
    return site.waldur.count_component_user_usages(uuid, plan.month) == plan.expected_parts


def _without(plan: MonthPlan, accounts: Mapping[str, str]) -> MonthPlan:
    return replace(plan, resources=tuple(r for r in plan.resources if r.account not in accounts))


def _verify(site: Site, month: BillingMonth, resources: Iterable[Resource]) -> None:
    """Once per process, have the month before compared with a second source, where there is one."""
    verified = f"usage of {month} is verified"
    if site.memory.get(verified) or not existed_in(site, month, resources):
        return
    log = site.log.bind(month=str(month))
    try:
        for line in site.backend.verify_usage(month.period(site.zone)):
            log.warning("usage differs from the second source", difference=line)
    except TemporaryError as error:
        log.info("usage not verified yet", reason=str(error))
        return
    except SiteAgentError as error:
        log.warning("usage not verified", reason=str(error))
    site.memory[verified] = 1


def _log(site: Site, subjects: Subjects) -> None:
    for trouble in subjects.troubles:
        name = trouble.partition(":")[0]
        site.conditions.note(
            "usage not reported", name, cause=trouble, level=logging.ERROR, reason=trouble
        )
    for reason in subjects.skipped:
        name = reason.partition(":")[0]
        cause = cause_of(reason, name)
        site.conditions.note(
            "usage not reported", name, cause=cause, level=logging.INFO, reason=reason
        )


def _warn_of_unknown_age(site: Site, resources: Mapping[str, Resource]) -> None:
    for name, resource in resources.items():
        if resource.created is None:
            site.conditions.note(
                "Waldur does not tell when this resource was made; "
                "its account's usage counts from the beginning of the month",
                name,
                resource=name,
            )


def _warn(site: Site, plan: MonthPlan) -> None:
    for resource in plan.resources:
        for component in resource.components:
            if component.is_anomaly:
                _note_lower(site, plan, resource, component)
            if component.found and component.found.older:
                _warn_of_several_plans(site, plan, resource, component, component.found)


def _note_lower(
    site: Site, plan: MonthPlan, resource: ResourceReport, component: ComponentReport
) -> None:
    used, in_waldur = str(component.bill.total), str(component.before)
    site.conditions.note(
        "usage is lower than what Waldur has; not sent",
        f"{resource.account}: {component.type} in {plan.month}",
        resource=resource.account,
        month=str(plan.month),
        component=component.type,
        used=used,
        in_waldur=in_waldur,
        remedy="correct it in Waldur, or set allow_decrease: true where it is normal",
    )


def _warn_of_several_plans(
    site: Site,
    plan: MonthPlan,
    resource: ResourceReport,
    component: ComponentReport,
    found: WaldurFigure,
) -> None:
    log = site.log.bind(resource=resource.account, month=str(plan.month))
    if found.counts_twice(component.bill.total):
        log.warning(
            "usage was counted under two plans, as the first report after a change of plan is; "
            "the newer figure is lowered",
            component=component.type,
            used=str(component.bill.total),
            in_waldur=str(found.amount),
        )
    known = f"row {found.row} is one of several"
    if not site.memory.get(known):
        site.memory[known] = 1
        log.warning(
            "Waldur has several figures for one month, probably because the plan was changed; "
            "their sum is kept at what was used",
            component=component.type,
            rows=len(found.older) + 1,
        )
