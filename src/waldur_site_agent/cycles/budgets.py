"""Sets the budgets of a periodic policy in Waldur, period by period.

A part of membership sync, for backends that support ``SetBudget``; while a policy exists, limits
are not compared otherwise. When a period opens, the usage of the one before and of this one so far
is read once, and what the backend counts. The count is reset if it has usage of earlier periods;
then what was found is noted in Waldur, and only then is the budget set. Killed anywhere, the next
pass finds by the same comparison what is left to do: nothing is reset twice, and nothing that was
used is given away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from uuid import UUID

from waldur_site_agent.backends import (
    BackendResource,
    BackendState,
    ResetUsage,
    SetBudget,
    resource_of,
)
from waldur_site_agent.cycles.changes import Applied, send_write
from waldur_site_agent.cycles.limits import (
    limited_components,
    open_order_resources,
    policies_of,
)
from waldur_site_agent.cycles.offering import read_offering
from waldur_site_agent.cycles.partial_answers import write_optional
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.cycles.usage_sending import check_clocks
from waldur_site_agent.model.budgets import PeriodicPolicy
from waldur_site_agent.model.errors import (
    InProgressError,
    PermanentError,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.model.marketplace import (
    AccountingType,
    Component,
    OrderType,
    Resource,
    ResourceState,
)
from waldur_site_agent.model.usage import Period, UsageReport
from waldur_site_agent.planning.budgets import (
    NEW_ACCOUNT,
    BudgetNote,
    BudgetPeriod,
    BudgetPlan,
    Opening,
    Terms,
    budget_of,
    has_note,
    kind_of_period,
    needs_opening,
    plan_budget,
    plan_end,
    result_write,
    with_problem,
    without_note,
)
from waldur_site_agent.planning.limits import LimitPrecision
from waldur_site_agent.planning.membership import AccountPlan, MembershipPlan
from waldur_site_agent.planning.orders import OrderContext
from waldur_site_agent.planning.plan import Write
from waldur_site_agent.planning.usage import MARGIN, billed
from waldur_site_agent.waldur import concurrently

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CENT = Decimal("0.01")
_LISTS_DIFFER = "two lists of periodic policies differ; read again next time"

Plans = dict[str, BudgetPlan]
"""By account, of those whose limits a policy sets, or has set."""


def sets_budgets(site: Site) -> bool:
    """Whether the backend sets budgets, by its settings."""
    return SetBudget in site.backend.supports


def terms_of(site: Site) -> Terms | None:
    """The policy of the offering and its current period; ``None`` if there is no policy.

    Raises:
        SiteAgentError: it could not be read.
        PermanentError: it cannot be applied.
    """
    policies = policies_of(site)
    if not policies:
        return None
    return _terms(site, policies)


def _terms(site: Site, policies: Sequence[PeriodicPolicy]) -> Terms:
    policy = policies[0]
    if len(policies) > 1:
        raise PermanentError(
            f"the offering has {len(policies)} periodic policies in Waldur; keep one of them"
        )
    if not policy.limit_type:
        policy = replace(policy, limit_type=site.backend.budget_limit_type)
    kind = kind_of_period(policy, read_offering(site).components)
    components = _limited(site)
    period = BudgetPeriod.at(kind, site.now(), site.zone)
    terms = Terms(policy=policy, period=period, components=components)
    if problem := terms.problem():
        raise PermanentError(problem)
    return terms


def _limited(site: Site) -> dict[str, Component]:
    """The components that a policy limits; those that are paid in advance are not among them."""
    return {
        name: component
        for name, component in limited_components(site).items()
        if component.accounting_type == AccountingType.LIMIT
    }


def plan_budgets(
    site: Site,
    groups: Mapping[str, Sequence[Resource]],
    state: BackendState,
    *,
    uncertain: Collection[str],
) -> Plans:
    """Plan the budgets of accounts.

    Args:
        site: the offering at work.
        groups: the resources of each account in scope.
        state: the backend.
        uncertain: accounts with a resource that could not be decoded.
    """
    if not sets_budgets(site):
        return {}
    chosen = {
        name: (resources[0], found)
        for name, resources in sorted(groups.items())
        if (found := state.resources.get(name)) is not None
        and name not in uncertain
        and _is_idle(resources, found)
    }
    policies: Sequence[PeriodicPolicy] = ()
    try:
        policies = policies_of(site)
        terms = _terms(site, policies) if policies else None
    except SiteAgentError as error:
        # without a policy or a note, an account has no budget to speak of
        told = policies[0].uuid if policies else None
        return {
            name: with_problem(resource, error, told)
            for name, (resource, _) in chosen.items()
            if has_note(resource) or policies
        }
    if terms is None:
        return _confirmed(site, _ended(site, chosen))
    return _confirmed(site, _planned(site, chosen, terms))


def _is_idle(resources: Sequence[Resource], found: BackendResource) -> bool:
    return (
        len(resources) == 1
        and resources[0].state in ResourceState.WITHOUT_ORDER
        and found.is_complete
        and found.limits_are_known
    )


def _ended(site: Site, chosen: Mapping[str, tuple[Resource, BackendResource]]) -> Plans:
    """The accounts that had a budget; a second list has to confirm that the policy is gone."""
    noted = {name: pair for name, pair in chosen.items() if has_note(pair[0])}
    if not noted:
        return {}
    try:
        if policies_of(site):
            raise TemporaryError(_LISTS_DIFFER)
    except SiteAgentError as error:
        return {name: with_problem(resource, error) for name, (resource, _) in noted.items()}
    components, precision = _limited(site), LimitPrecision.of(site.backend)
    return {
        name: plan_end(resource, found, components, precision)
        for name, (resource, found) in noted.items()
    }


def _planned(
    site: Site, chosen: Mapping[str, tuple[Resource, BackendResource]], terms: Terms
) -> Plans:
    terms = _with_time_of_counts(site, terms)
    waiting: dict[str, SiteAgentError] = _prepaid(site, chosen, terms)
    opening = {
        name: resource
        for name, (resource, _) in chosen.items()
        if name not in waiting and needs_opening(resource, terms)
    }
    opened, more = _openings(site, opening, terms)
    waiting |= more
    precision = LimitPrecision.of(site.backend)
    plans: Plans = {}
    for name, (resource, found) in chosen.items():
        if name in waiting:
            plans[name] = with_problem(resource, waiting[name], terms.policy.uuid)
            continue
        plans[name] = plan_budget(resource, found, terms, opened.get(name), precision)
    return plans


def _with_time_of_counts(site: Site, terms: Terms) -> Terms:
    if not terms.resets:
        return terms
    try:
        return replace(terms, counts_loaded_at=site.backend.counts_loaded_at())
    except SiteAgentError as error:
        # asked again in the next pass; until then what was noted holds
        site.conditions.note(
            "cannot tell since when usage is counted", site.offering.name, reason=str(error)
        )
        return terms


def _prepaid(
    site: Site, chosen: Mapping[str, tuple[Resource, BackendResource]], terms: Terms
) -> dict[str, SiteAgentError]:
    """Why usage of accounts with prepaid limits is not reset: these would be given once more."""
    prepaid = [name for name, each in limited_components(site).items() if each.is_prepaid]
    problems: dict[str, SiteAgentError] = {}
    for account, (resource, _) in chosen.items() if terms.resets else ():
        names = ", ".join(name for name in prepaid if resource.limits.get(name))
        if names:
            problems[account] = PermanentError(
                f"the reset of its usage would give what was prepaid ({names}) once more; sell it "
                "in an offering of its own, or turn raw_usage_reset off in the policy"
            )
    return problems


@dataclass
class _Openings:
    """What was found out about accounts whose period opens."""

    found: dict[str, Opening] = field(default_factory=dict)
    waiting: dict[str, SiteAgentError] = field(default_factory=dict)


def _openings(
    site: Site, resources: Mapping[str, Resource], terms: Terms
) -> tuple[Mapping[str, Opening], Mapping[str, SiteAgentError]]:
    """What was read of the accounts whose period opens, and why others have to wait."""
    if not resources:
        return {}, {}
    try:
        check_clocks(site, f"{terms.period.label} not begun")
        if not terms.period.ends:
            return {name: Opening(used_before={}) for name in resources}, {}
        openings = _read_openings(site, resources, terms)
    except SiteAgentError as error:
        return {}, dict.fromkeys(resources, error)
    return openings.found, openings.waiting


def _read_openings(site: Site, resources: Mapping[str, Resource], terms: Terms) -> _Openings:
    """Read the usage of both periods, and what is counted.

    Raises:
        SiteAgentError: something could not be read.
    """
    now, span = site.now(), terms.period.span(site.zone)
    if now - span.start < MARGIN:
        raise InProgressError(
            f"{terms.period.label} has just begun; its budgets are set from "
            f"{span.start + MARGIN:%H:%M} on, when the last jobs of the period before are recorded"
        )
    previous = terms.period.previous
    before = previous.span(site.zone) if previous is not None else None
    so_far = Period(start=span.start, end=now)
    periods = [so_far] if before is None else [before, so_far]
    since = {name: resource.created or _EPOCH for name, resource in resources.items()}
    reports = site.backend.usages(since, periods)
    told = _told(site, previous, terms)
    counted = site.backend.counted_usage(resources) if terms.resets else {}
    openings = _Openings()
    for name, resource in resources.items():
        problem = _unusable(name, reports, before is not None)
        if problem is None and terms.resets and name not in counted:
            problem = TemporaryError(
                "the backend does not list what it counts of its usage; in Slurm, PrivateData may "
                "hide it from the agent (adminlevel=operator shows it), or slurmctld does not know "
                "the account yet (scontrol reconfigure)"
            )
        if problem is not None:
            openings.waiting[name] = problem
            continue
        used_before = _used_before(resource, reports[0] if before else None, told, terms)
        openings.found[name] = _opening(name, used_before, reports[-1], counted, terms)
    return openings


def _unusable(
    name: str, reports: Sequence[UsageReport], has_previous: bool
) -> SiteAgentError | None:
    for report in reports:
        if name in report.unknown:
            return TemporaryError(f"its usage could not be read: {report.unknown[name]}")
    if has_previous and name in reports[0].unfinished:
        return TemporaryError(
            "a job that was suspended across the end of the period before still runs; the budget "
            "is set when its usage is known"
        )
    return None


def _told(
    site: Site, previous: BudgetPeriod | None, terms: Terms
) -> Mapping[UUID, Mapping[str, Decimal]]:
    """The usage that Waldur has of the period before, by resource and component."""
    told: dict[UUID, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    uuid = site.offering.waldur_offering_uuid
    for month in previous.months if previous is not None else ():
        listing = site.waldur.component_usages(uuid, month)
        for row in listing.require_complete(f"usage of {month}"):
            if row.resource_uuid is not None and row.type in terms.components:
                told[row.resource_uuid][row.type] += row.usage
    return told


def _used_before(
    resource: Resource,
    report: UsageReport | None,
    told: Mapping[UUID, Mapping[str, Decimal]],
    terms: Terms,
) -> dict[str, Decimal]:
    """The greater of both figures, so that unreported usage is never carried over."""
    used = dict(told.get(resource.uuid, {}))
    if report is not None and resource.account in report.resources:
        for name, bill in billed(report.resources[resource.account], terms.components).items():
            used[name] = max(used.get(name, Decimal(0)), bill.total)
    return used


def _opening(
    name: str,
    used_before: Mapping[str, Decimal],
    report: UsageReport,
    counted: Mapping[str, Mapping[str, Decimal]],
    terms: Terms,
) -> Opening:
    total = report.resources[name].total if name in report.resources else {}
    types = [part.type for each in terms.components.values() for part in each.parts]
    used = {each: Decimal(0) for each in types}
    for each, amount in total.items():
        if each in used:
            used[each] = Decimal(amount.numerator * 100 // amount.denominator) * _CENT
    has = {each: amount for each, amount in counted.get(name, {}).items() if each in used}
    return Opening(used_before=used_before, used=used, counted=has)


def _confirmed(site: Site, plans: Plans) -> Plans:
    """The plans, after reading again what is about to be changed."""
    changing = {name: plan for name, plan in plans.items() if plan.changes_something}
    if not changing:
        return plans
    try:
        busy = open_order_resources(site)
    except SiteAgentError as error:
        problem = TemporaryError(f"open orders could not be read: {error}")
        return {**plans, **{n: with_problem(p.resource, problem) for n, p in changing.items()}}
    confirmed = dict(plans)
    for attempt in concurrently(lambda item: _rechecked(site, item[1], busy), changing.items()):
        name, plan = attempt.item
        if attempt.error is not None:
            confirmed[name] = with_problem(plan.resource, attempt.error)
        elif attempt.value is False:
            del confirmed[name]
    return confirmed


def _rechecked(site: Site, plan: BudgetPlan, busy: Collection[UUID]) -> bool:
    """Whether the resource, read individually, is as it was when the budget was planned.

    Raises:
        SiteAgentError: the resource could not be read.
    """
    listed, resource = plan.resource, site.waldur.resource(plan.resource.uuid)
    return (
        resource.order_in_progress is None
        and resource.uuid not in busy
        and resource.state in ResourceState.WITHOUT_ORDER
        and resource.account == listed.account
        and dict(resource.limits) == dict(listed.limits)
        and dict(resource.backend_metadata) == dict(listed.backend_metadata)
    )


def with_budgets(membership: MembershipPlan, plans: Plans) -> MembershipPlan:
    """The plan with budgets, and without other decisions about the limits of these accounts."""
    accounts = tuple(
        replace(account, budget=budget, steps=(*account.steps, *budget.steps))
        if (budget := plans.get(account.wanted.id)) is not None
        else account
        for account in membership.accounts
    )
    return replace(membership, accounts=accounts)


def note_budgets(
    site: Site, membership: MembershipPlan, applied: Sequence[Applied]
) -> tuple[MembershipPlan, dict[str, str]]:
    """Note the budgets of periods in Waldur before they are set.

    Args:
        site: the offering at work.
        membership: the plan.
        applied: the resets, and what became of them.

    Returns:
        The plan with the metadata as noted; and by account why nothing could be noted, or ``""``
        where its usage could not be reset. Budgets of these are not set in this pass.
    """
    unset = {resource_of(step.action): "" for step, done in applied if done.error is not None}
    due = [account for account in membership.accounts if _note_of(account) is not None]
    noting = [account for account in due if account.wanted.id not in unset]
    saved: dict[str, AccountPlan] = {}
    for attempt in concurrently(partial(_note, site), noting):
        name = attempt.item.wanted.id
        if attempt.value is not None:
            saved[name] = attempt.value
        else:
            unset[name] = (
                f"{name}: budget not set: could not note it in backend_metadata: {attempt.error}"
            )
    accounts = tuple(saved.get(each.wanted.id, each) for each in membership.accounts)
    return replace(membership, accounts=accounts), unset


def _current(account: AccountPlan) -> BudgetPlan | None:
    """The budget, with the metadata that the resource has by now."""
    if account.budget is None or account.budget.problem is not None:
        return None
    return replace(account.budget, resource=account.wanted.resources[0])


def _note_of(account: AccountPlan) -> Write | None:
    budget = _current(account)
    return budget.note_write if budget is not None and not budget.has_ended else None


def _note(site: Site, account: AccountPlan) -> AccountPlan:
    write = _note_of(account)
    if write is not None:
        send_write(site, write)
    return _with_noted(account)


def _with_noted(account: AccountPlan) -> AccountPlan:
    budget = _current(account)
    if budget is None:
        return account
    return replace(account, wanted=replace(account.wanted, resources=(budget.noted,)))


def preview_notes(membership: MembershipPlan) -> tuple[list[Write], MembershipPlan]:
    """The notes that would be written, and the plan with them."""
    writes = [write for account in membership.accounts if (write := _note_of(account)) is not None]
    accounts = tuple(
        _with_noted(account) if _note_of(account) is not None else account
        for account in membership.accounts
    )
    return writes, replace(membership, accounts=accounts)


def forget_ended(
    site: Site, membership: MembershipPlan, broken: Collection[str]
) -> tuple[MembershipPlan, list[str]]:
    """Drop the notes of policies that have ended, once the sold limits are set; and the errors."""
    failures: list[str] = []
    accounts = []
    for account in membership.accounts:
        kept = account
        if (write := _end_of(account)) is not None and account.wanted.id not in broken:
            try:
                send_write(site, write)
                kept = _with_noted(account)
            except SiteAgentError as error:
                failures.append(f"{account.wanted.id}: the note of its budget stays: {error}")
        accounts.append(kept)
    return replace(membership, accounts=tuple(accounts)), failures


def _end_of(account: AccountPlan) -> Write | None:
    budget = _current(account)
    return budget.note_write if budget is not None and budget.has_ended else None


def preview_ended(membership: MembershipPlan) -> tuple[list[Write], MembershipPlan]:
    """The notes that would be dropped, and the plan without them."""
    ended = {a.wanted.id: write for a in membership.accounts if (write := _end_of(a)) is not None}
    accounts = tuple(_with_noted(a) if a.wanted.id in ended else a for a in membership.accounts)
    return list(ended.values()), replace(membership, accounts=accounts)


def report_results(
    site: Site, membership: MembershipPlan, applied: Sequence[Applied], unset: Mapping[str, str]
) -> None:
    """Report to Waldur what became of budgets, if it accepts that from this token.

    A failure is reported when it is new.
    """
    errors = {
        resource_of(step.action): str(outcome.error)
        for step, outcome in applied
        if isinstance(step.action, SetBudget | ResetUsage) and outcome.error is not None
    }
    errors = {**errors, **{name: text for name, text in unset.items() if text}}
    for account in membership.accounts:
        budget = account.budget
        if budget is None or not (budget.steps or budget.problem):
            continue
        if isinstance(budget.problem, InProgressError):
            continue
        name, problem = account.wanted.id, str(budget.problem or "")
        error = problem or errors.get(name, "")
        known = site.memory.reported_budgets
        if error and known.get(budget.resource.uuid) == error:
            continue
        write = result_write(budget, name, error)
        if write is not None:
            _report(site, write)
            known[budget.resource.uuid] = error


def _report(site: Site, write: Write) -> None:
    try:
        write_optional(site, write.call.value, partial(send_write, site, write), write.about)
    except SiteAgentError as error:
        # the next change is reported again; nothing depends on it
        site.conditions.note(
            "result of the periodic policy not reported", write.about, reason=str(error)
        )


def preview_results(membership: MembershipPlan) -> list[Write]:
    """The results that would be reported if everything succeeds."""
    writes = [
        result_write(account.budget, account.wanted.id, "")
        for account in membership.accounts
        if account.budget is not None and account.budget.steps
    ]
    return [write for write in writes if write is not None]


def budget_problems(accounts: Iterable[AccountPlan]) -> dict[str, str]:
    """By account, why its budget is not set; without those that only wait for a moment."""
    return {
        account.wanted.id: str(account.budget.problem)
        for account in accounts
        if account.budget is not None
        and account.budget.problem is not None
        and not isinstance(account.budget.problem, InProgressError)
    }


def with_budgets_of_updates(
    site: Site, contexts: Sequence[OrderContext]
) -> tuple[OrderContext, ...]:
    """The orders, with the budgets that updates of resources under a policy lead to.

    The bare limit would be less than the budget: Slurm would end the jobs of an account that has
    used more. The period is the one that was noted; membership sync opens the next one.
    """
    if not sets_budgets(site) or not any(map(_is_governed, contexts)):
        return tuple(contexts)
    try:
        terms = terms_of(site)
        if terms is None and policies_of(site):
            raise TemporaryError(_LISTS_DIFFER)
    except SiteAgentError as error:
        problem = TemporaryError(f"the periodic policy of its limits cannot be applied: {error}")
        return tuple(
            replace(context, problem=context.problem or problem)
            if _is_governed(context)
            else context
            for context in contexts
        )
    if terms is None:
        return tuple(contexts)
    return tuple(
        _with_budget(context, terms) if _is_governed(context) else context for context in contexts
    )


def _is_governed(context: OrderContext) -> bool:
    note = BudgetNote.read(context.resource.backend_metadata)
    return context.order.type == OrderType.UPDATE and note is not None and not note.per_job


def _with_budget(context: OrderContext, terms: Terms) -> OrderContext:
    note = BudgetNote.read(context.resource.backend_metadata)
    if note is None or terms.is_per_job:
        return context
    terms = replace(terms, period=BudgetPeriod.parse(note.period))
    try:
        limits = {**context.resource.limits, **context.order.limits}
        return replace(context, budget=budget_of(limits, terms, note).limits)
    except PermanentError as error:
        return replace(context, problem=context.problem or error)


def forget_of_new_accounts(site: Site, resources: Iterable[Resource]) -> dict[UUID, str]:
    """Drop the notes of resources whose accounts are about to be made again.

    A new account is counted from zero, so what was noted of the old one does not hold; the next
    membership pass opens the period again.

    Returns:
        Why a note could not be dropped; these accounts are not to be made in this pass.
    """
    noted = [resource for resource in resources if has_note(resource)]
    attempts = concurrently(lambda each: send_write(site, without_note(each, NEW_ACCOUNT)), noted)
    return {
        attempt.item.uuid: f"the note of its last budget could not be dropped: {attempt.error}"
        for attempt in attempts
        if attempt.error is not None
    }
