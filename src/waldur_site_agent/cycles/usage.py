"""report: one pass over the usage of an offering's resources.

Reports the current month, and the previous month until everything that Waldur accepts for it was
reported. Erred resources whose account exists are set OK first, because Waldur rejects usage of
erred ones; limits and missing accounts are reported afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from functools import partial

from waldur_site_agent.backends import BackendState
from waldur_site_agent.cycles.budget_notices import check_budgets
from waldur_site_agent.cycles.changes import send_write
from waldur_site_agent.cycles.claims import accounts_elsewhere, named
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.facts import tell_resources
from waldur_site_agent.cycles.feedback import mark_missing, preview_marks
from waldur_site_agent.cycles.limits import by_account, report_limits
from waldur_site_agent.cycles.offering import check_emptied_list, read_offering
from waldur_site_agent.cycles.partial_answers import (
    is_absent,
    is_unavailable,
    readable,
    stand_ins,
    write_optional,
)
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.cycles.usage_by_day import usage_by_day
from waldur_site_agent.cycles.usage_sending import (
    MonthOutcome,
    NotReported,
    UsageCycleReport,
    check_clocks,
    is_never_accepted,
    preview_month,
    send_month,
    waldurs_time,
)
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import Component, Resource, ResourceState
from waldur_site_agent.model.usage import BillingMonth, ComponentUsage
from waldur_site_agent.planning.plan import Write, ok_write
from waldur_site_agent.planning.remembered import without_closed
from waldur_site_agent.planning.usage import (
    ComponentReport,
    MonthPlan,
    RecordedUsage,
    ResourceReport,
    counted_from,
    plan_month,
    recorded_usage,
    reportable,
)
from waldur_site_agent.waldur import Listing, concurrently


def report_usage(site: Site, *, dry_run: bool = False) -> UsageCycleReport:
    """Report the usage of the current month, and of the previous one until it is closed.

    The month is determined once: a pass that runs past midnight stays in it.

    Raises:
        TemporaryError: Waldur or the backend could not be read; nothing, or not everything, was
            sent.
        PermanentError: the backend cannot report usage, or the token may not read it.
    """
    month = BillingMonth.of(site.now(), site.zone)
    components = reported_components(site)
    reportable = gather_reportable(site)
    months = _months(site, month, reportable.resources.values())
    is_previous_over = is_over(site, month.previous)
    plans = plan_months(site, months, reportable.resources, components)
    report = UsageCycleReport(offering=site.offering.name, skipped=reportable.skipped)
    if dry_run:
        return _preview(site, report, reportable, plans)
    still_erred = restore_erred(site, reportable.resources)
    *earlier, current = [_without(plan, still_erred) for plan in plans]
    sent = _send_current(site, current)
    may_end = is_previous_over and reportable.is_whole and not still_erred
    closed = tuple(close_month(site, plan, may_end=may_end and plan.is_settled) for plan in earlier)
    outcomes = (*closed, sent)
    if all(plan.is_settled for plan in earlier):
        _verify(site, month.previous, reportable.resources.values())
    _, unreported = report_limits(site, reportable.resources.values(), reportable.state)
    others = [
        *(f"{account}: {reason}" for account, reason in still_erred.items()),
        *unreported,
        *mark_missing(site, reportable.missing, reportable.accounts),
    ]
    budgets, untold = check_budgets(site, reportable.resources)
    failures = [
        *reportable.troubles,
        *(f"{f.account}: {f.error}" for outcome in outcomes for f in outcome.failures),
        *others,
        *untold,
    ]
    _log(site, reportable)
    site.conditions.note_failures("not reported", [*others, *untold])
    days = usage_by_day(site, current)
    return replace(report, months=outcomes, failures=tuple(failures), days=days, budgets=budgets)


def _months(
    site: Site, month: BillingMonth, resources: Iterable[Resource]
) -> tuple[BillingMonth, ...]:
    """The current month, preceded by the previous one until that is closed."""
    return (month.previous, month) if is_to_close(site, month.previous, resources) else (month,)


def _without(plan: MonthPlan, accounts: Mapping[str, str]) -> MonthPlan:
    return replace(plan, resources=tuple(r for r in plan.resources if r.account not in accounts))


def _send_current(site: Site, plan: MonthPlan) -> MonthOutcome:
    memory = site.memory.month(plan.month)
    compare = not plan and _user_usages_may_differ(site, plan)
    outcome = send_month(site, plan, compare_user_usages=compare)
    if outcome.is_unfinished:
        memory.counted_resources, memory.compared_on = 0, None
    else:
        memory.counted_resources = len(plan.resources)
        if plan or compare:  # changed totals imply a comparison, too
            memory.compared_on = site.now().date()
    if outcome.deferred_reason:
        site.log.debug("usage not sent yet", month=str(plan.month), reason=outcome.deferred_reason)
    if outcome.rejected_reason and not memory.staff_only_logged:
        memory.staff_only_logged = True
        site.log.warning(
            "the billing month has closed in Waldur; "
            "reporting the remainder requires a staff token",
            month=str(plan.month),
            not_billed=outcome.not_billed,
            reason=outcome.rejected_reason,
        )
    return outcome


def _user_usages_may_differ(site: Site, plan: MonthPlan) -> bool:
    """Whether per-user usage must be compared although the totals agree.

    An earlier process may have died between totals and per-user usage. So a new process counts
    Waldur's records, and again when the number of resources changes. From its second cycle on it
    compares all of them once a day, because zero records can mask missing ones in the count.
    """
    memory = site.memory.month(plan.month)
    if memory.counted_resources != len(plan.resources):
        return not _user_usages_are_complete(site, plan)
    return memory.compared_on != site.now().date()


def _user_usages_are_complete(site: Site, plan: MonthPlan) -> bool:
    """Whether Waldur has the expected number of per-user records."""
    if not plan.resources:
        return True
    uuid = site.offering.waldur_offering_uuid
    return site.waldur.count_component_user_usages(uuid, plan.month) == plan.expected_user_usages


def _verify(site: Site, month: BillingMonth, resources: Iterable[Resource]) -> None:
    """Once per process, compare the previous month with the backend's second source, if any."""
    memory = site.memory.month(month)
    if memory.verified or not existed_in(site, month, resources):
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
    memory.verified = True


def _preview(
    site: Site,
    report: UsageCycleReport,
    reportable: ReportableResources,
    plans: Sequence[MonthPlan],
) -> UsageCycleReport:
    """What the pass would report; past months are skipped if a list cannot be read."""
    *earlier, current = plans
    outcomes = (*(preview_closing(site, plan) for plan in earlier), preview_month(site, current))
    failures = [f"{f.account}: {f.error}" for outcome in outcomes for f in outcome.failures]
    return replace(
        report,
        months=outcomes,
        failures=(*reportable.troubles, *failures),
        writes=_preview_writes(site, reportable),
    )


def _preview_writes(site: Site, reportable: ReportableResources) -> tuple[Write, ...]:
    """What a pass would change in Waldur besides usage."""
    limits, _ = report_limits(site, reportable.resources.values(), reportable.state, dry_run=True)
    return (
        *preview_restored(reportable.resources),
        *limits,
        *preview_marks(reportable.missing, reportable.accounts),
    )


def _log(site: Site, reportable: ReportableResources) -> None:
    for trouble in reportable.troubles:
        name = trouble.partition(":")[0]
        site.conditions.note(
            "usage not reported", name, cause=trouble, level=logging.ERROR, reason=trouble
        )
    for reason in reportable.skipped:
        name = reason.partition(":")[0]
        cause = cause_of(reason, name)
        site.conditions.note(
            "usage not reported", name, cause=cause, level=logging.INFO, reason=reason
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportableResources:
    """The resources of the offering, sorted by whether their usage can be reported."""

    resources: Mapping[str, Resource] = field(default_factory=dict)
    """Reportable resources, by account."""
    missing: Mapping[str, tuple[Resource, ...]] = field(default_factory=dict)
    """Resources whose account is missing in the backend."""
    skipped: tuple[str, ...] = ()
    """Other resources, with the reason why nothing is reported."""
    troubles: tuple[str, ...] = ()
    """Accounts shared by several resources, and resources that could not be decoded."""
    is_whole: bool = True
    """Whether every resource could be decoded."""
    state: BackendState = field(default_factory=lambda: BackendState(resources={}))

    @property
    def accounts(self) -> int:
        """The number of accounts that were looked for."""
        return len(self.resources) + len(self.missing)


def gather_reportable(site: Site) -> ReportableResources:
    """Read the resources, those of sibling offerings, and the backend.

    Raises:
        TemporaryError: one of them could not be read.
    """
    uuid = site.offering.waldur_offering_uuid
    listing = site.waldur.resources(uuid, ResourceState.SERVED)
    listed = readable(site, listing, "resources")
    troubles = tuple(
        f"no usage reported for a resource that cannot be decoded: {row}"
        for row in listing.unreadable
    )
    check_emptied_list(site, "resources", listed)
    groups = by_account(listed)
    if not groups:
        return ReportableResources(troubles=troubles, is_whole=not troubles)
    tell_resources(site)
    elsewhere = accounts_elsewhere(site)
    for each in stand_ins(listing.unreadable):
        elsewhere.setdefault(each.account, []).append(named(each))
    erred = (ResourceState.ERRED,)
    state = without_closed(site.backend.observe(), groups, site.backend.capabilities, erred)
    found = _sort_out(groups, elsewhere, state)
    return replace(found, troubles=(*found.troubles, *troubles), is_whole=not troubles)


def _sort_out(
    groups: Mapping[str, Sequence[Resource]],
    elsewhere: Mapping[str, Sequence[str]],
    state: BackendState,
) -> ReportableResources:
    resources: dict[str, Resource] = {}
    missing: dict[str, tuple[Resource, ...]] = {}
    skipped: list[str] = []
    troubles: list[str] = []
    for account, group in sorted(groups.items()):
        if len(group) > 1 or account in elsewhere:
            names = [*map(named, group), *elsewhere.get(account, ())]
            troubles.append(shared_account(account, names))
        elif account in state.resources:
            resources[account] = group[0]
        elif group[0].state in ResourceState.WITHOUT_ORDER:
            missing[account] = tuple(group)
        else:
            skipped.append(f"{account}: {group[0].state}, and not found in the backend")
    return ReportableResources(
        resources=resources,
        missing=missing,
        skipped=tuple(skipped),
        troubles=tuple(troubles),
        state=state,
    )


def shared_account(account: str, names: Iterable[str]) -> str:
    """Why nothing is reported for an account that several resources share."""
    return (
        f"{account}: usage not reported: several resources share this account, so its usage cannot "
        f"be attributed: {', '.join(names)}; correct the backend_id of all but one in Waldur"
    )


def restore_erred(site: Site, resources: Mapping[str, Resource]) -> dict[str, str]:
    """Set Erred resources OK whose account exists: Waldur rejects usage of Erred resources.

    Returns:
        By account, why a resource is still Erred.
    """
    erred = {a: r for a, r in resources.items() if r.state == ResourceState.ERRED}
    still: dict[str, str] = {}
    for attempt in concurrently(lambda item: _set_ok(site, *item), erred.items()):
        account = attempt.item[0]
        if attempt.error is not None:
            still[account] = f"is Erred in Waldur and could not be set OK: {attempt.error}"
        elif not attempt.value:
            who = (
                "this Waldur has no call to"
                if is_absent(site, _SET_AS_OK)
                else "this token may not"
            )
            still[account] = f"is Erred in Waldur, which {who} change; set it OK there"
    return still


def preview_restored(resources: Mapping[str, Resource]) -> list[Write]:
    """What :func:`restore_erred` would write."""
    return [_ok(r) for r in resources.values() if r.state == ResourceState.ERRED]


def _ok(resource: Resource) -> Write:
    return ok_write(resource, "its account exists")


_SET_AS_OK = "set_as_ok"


def _set_ok(site: Site, account: str, resource: Resource) -> bool:
    """Set a resource OK if an individual read confirms that it is Erred; whether it is OK now.

    Raises:
        PermanentError: the resource has a different account by now, or is terminated.
    """
    if is_unavailable(site, _SET_AS_OK):
        return False
    current = site.waldur.resource(resource.uuid)
    if current.state == ResourceState.TERMINATED or current.account != account:
        raise PermanentError(f'it is {current.state} with account "{current.account}" by now')
    if current.state != ResourceState.ERRED:
        return True
    return write_optional(site, _SET_AS_OK, partial(send_write, site, _ok(current)), account)


def reported_components(site: Site) -> dict[str, Component]:
    """The configured components that Waldur counts; the others are logged once per process.

    Raises:
        TemporaryError: the offering could not be read.
    """
    offering = read_offering(site)
    counted = {
        name: component
        for name, component in site.offering.components.items()
        if name not in site.memory.uncounted_components
        and all(site.backend.counts(part.type) for part in component.parts)
    }
    components = reportable(counted, offering.components)
    others = sorted(counted.keys() - components.keys())
    if others and not site.memory.unreported_components_logged:
        site.memory.unreported_components_logged = True
        site.log.warning(
            "usage of these components is not reported: Waldur does not count them",
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
    """Compare months; Waldur is read first, so that the backend's usage is never older.

    In past months, zero usage is not reported if Waldur has no record.

    Raises:
        TemporaryError: Waldur or the backend could not be read, or a clock is wrong.
        PermanentError: the backend cannot report usage, or the token may not read it.
    """
    if not resources or not months or not components:
        return [MonthPlan(month=month) for month in months]
    uuid = site.offering.waldur_offering_uuid
    listings = [site.waldur.component_usages(uuid, m) for m in months]
    found = [
        recorded_usage(readable(site, listing, "component usages"), m)
        for m, listing in zip(months, listings, strict=True)
    ]
    unknown = [_unreadable_records(listing, resources) for listing in listings]
    check_clocks(site)
    periods = [month.period(site.zone) for month in months]
    since = {name: counted_from(each, periods[-1]) for name, each in resources.items()}
    _note_unknown_creation(site, resources)
    plans = []
    current = BillingMonth.of(site.now(), site.zone)
    reports = site.backend.usages(since, periods)
    for month, figure, report, lacking in zip(months, found, reports, unknown, strict=True):
        _note_remarks(site, month, report.remarks)
        lacking = {**report.unknown, **lacking}  # noqa: PLW2901 - those of both sides
        told = {n: each for n, each in resources.items() if n not in report.untold}
        existed = {n: each for n, each in told.items() if since[n] < report.period.end}
        plan = plan_month(
            month,
            {name: each for name, each in existed.items() if name not in lacking},
            report,
            components,
            figure,
            allow_decrease=site.offering.allow_decrease
            or site.backend.capabilities.usage_may_decrease,
            report_zero=month == current,
        )
        if lacking:
            plan = replace(plan, skipped=lacking, is_settled=False)
        _warn(site, plan)
        plans.append(plan)
    return plans


def _unreadable_records(
    listing: Listing[ComponentUsage], resources: Mapping[str, Resource]
) -> dict[str, str]:
    """The accounts with a usage record that cannot be decoded, so that nothing can be compared.

    Raises:
        TemporaryError: a record does not name its resource.
    """
    rows = {row.uuid("resource_uuid"): row for row in listing.unreadable}
    if None in rows:
        raise rows[None].error
    return {
        name: f"its usage in Waldur cannot be decoded: {rows[each.uuid]}"
        for name, each in resources.items()
        if each.uuid in rows
    }


def _note_remarks(site: Site, month: BillingMonth, remarks: Iterable[str]) -> None:
    """Note the backend's remarks about the usage of a month."""
    for remark in remarks:
        subject = f"{month}: {remark}"
        site.conditions.note("usage", subject, cause=subject, month=str(month), remark=remark)


def _note_unknown_creation(site: Site, resources: Mapping[str, Resource]) -> None:
    for name, resource in resources.items():
        if resource.created is None:
            site.conditions.note(
                "Waldur shows no creation time for this resource; "
                "usage is counted from the beginning of the month",
                name,
                resource=name,
            )


def _warn(site: Site, plan: MonthPlan) -> None:
    for resource in plan.resources:
        for component in resource.components:
            if component.is_anomaly:
                _note_decrease(site, plan, resource, component)
            if component.found and component.found.older:
                _warn_of_plan_change(site, plan, resource, component, component.found)


def _note_decrease(
    site: Site, plan: MonthPlan, resource: ResourceReport, component: ComponentReport
) -> None:
    used, in_waldur = str(component.bill.total), str(component.before)
    site.conditions.note(
        "usage is lower than in Waldur; not sent",
        f"{resource.account}: {component.type} in {plan.month}",
        resource=resource.account,
        month=str(plan.month),
        component=component.type,
        used=used,
        in_waldur=in_waldur,
        remedy="correct it in Waldur, or set allow_decrease: true if decreases are normal",
    )


def _warn_of_plan_change(
    site: Site,
    plan: MonthPlan,
    resource: ResourceReport,
    component: ComponentReport,
    found: RecordedUsage,
) -> None:
    log = site.log.bind(resource=resource.account, month=str(plan.month))
    if found.counts_twice(component.bill.total):
        log.warning(
            "usage was double-counted after a plan change; lowering the newer record",
            component=component.type,
            used=str(component.bill.total),
            in_waldur=str(found.amount),
        )
    if found.row not in site.memory.logged_plan_changes:
        site.memory.logged_plan_changes.add(found.row)
        log.warning(
            "Waldur has several records for one month, probably after a plan change; "
            "their sum is kept equal to the usage",
            component=component.type,
            rows=len(found.older) + 1,
        )


SETTLING = timedelta(hours=2)
"""How long after its end a month is still compared in every cycle.

Jobs that ended in its last minutes reach the accounting database later, and clocks differ.
"""

_ONCE, _FOR_THE_LAST_TIME = 1, 2


def is_to_close(site: Site, month: BillingMonth, resources: Iterable[Resource]) -> bool:
    """Whether something may remain to be reported for a past month that Waldur still accepts."""
    if site.memory.month(month).closed or not existed_in(site, month, resources):
        return False
    return not is_never_accepted(site, month)


def existed_in(site: Site, month: BillingMonth, resources: Iterable[Resource]) -> bool:
    """Whether some resource existed before the month ended."""
    end = month.period(site.zone).end
    return any(resource.created is not None and resource.created < end for resource in resources)


def is_over(site: Site, month: BillingMonth) -> bool:
    """Whether a month ended long enough ago in both zones; call this before reading usage."""
    end = max(month.period(site.zone).end, month.period(UTC).end, key=lambda e: e.timestamp())
    return waldurs_time(site) >= end + SETTLING


def close_month(site: Site, plan: MonthPlan, *, may_end: bool) -> MonthOutcome:
    """Report the remainder of a past month, which Waldur may not accept any more.

    The month is closed once nothing more can be reported. Until then every cycle compares its
    totals; per-user usage is compared the first and the last time.

    Args:
        site: the offering at work.
        plan: the month.
        may_end: whether everything that remains can be reported in this cycle.
    """
    memory = site.memory.month(plan.month)
    stage = _FOR_THE_LAST_TIME if may_end else _ONCE
    try:
        outcome = send_month(site, plan, compare_user_usages=memory.closing_comparisons < stage)
    except SiteAgentError as error:
        month = str(plan.month)
        site.conditions.note("month not closed yet", month, month=month, reason=str(error))
        return _unread(plan, error)
    if outcome.rejected_reason and not memory.staff_only_logged:
        memory.staff_only_logged = True
        site.log.info(
            "remainder of a past month not billed: reporting it requires a staff token",
            month=str(plan.month),
            not_billed=outcome.not_billed,
            reason=outcome.rejected_reason,
        )
    if not outcome.deferred_reason and not outcome.failures:
        memory.closing_comparisons = stage
        if may_end:
            memory.closed = True
    return outcome


def preview_closing(site: Site, plan: MonthPlan) -> MonthOutcome:
    """What :func:`close_month` would send; nothing is sent."""
    try:
        return preview_month(site, plan)
    except SiteAgentError as error:
        return _unread(plan, error)


def _unread(plan: MonthPlan, error: SiteAgentError) -> MonthOutcome:
    failure = NotReported(account=str(plan.month), error=error)
    return MonthOutcome(plan=plan, failures=(failure,))
