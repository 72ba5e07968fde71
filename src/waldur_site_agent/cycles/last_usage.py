"""Reports what a resource used since the last report, before its termination is completed.

Waldur rejects usage of terminated resources, so jobs that ran after the last periodic report would
never be billed. The order stays executing until its usage was reported, also if this token may not
report it (another one could) or if usage cannot be read (which can be fixed). Usage that nobody
can report does not delay the order, nor does usage that the site gives up
(``safety.unreported_usage``).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from waldur_site_agent.backends import BackendState, DeleteResource
from waldur_site_agent.config import Job
from waldur_site_agent.cycles.claims import accounts_elsewhere
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.site import Site, UnreportedUsage
from waldur_site_agent.cycles.usage import (
    plan_months,
    reported_components,
    shared_account,
)
from waldur_site_agent.cycles.usage_sending import (
    MonthOutcome,
    NotReported,
    preview_month,
    previewed_writes,
    send_month,
    waldurs_time,
)
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import OrderType, Resource, ResourceState
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.planning.orders import OrderPlan
from waldur_site_agent.planning.plan import Write
from waldur_site_agent.planning.usage import MonthPlan, is_past_in_waldur
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    BodyRefusedError,
    ConflictError,
    NotFoundError,
    PastMonthRefusedError,
)

_TAKES_USAGE = (ResourceState.OK, ResourceState.UPDATING, ResourceState.TERMINATING)


def report_last_usage(
    site: Site, plans: Iterable[OrderPlan], state: BackendState, failed: Collection[UUID]
) -> dict[UUID, SiteAgentError]:
    """Report the usage of resources whose termination is about to be completed.

    Only if the backend that processes orders also reports usage; otherwise usage is left to the
    ``report`` mode.

    Args:
        site: the offering at work.
        plans: the plans of the orders, already applied.
        state: the backend before they were applied.
        failed: orders that failed and will not be completed.

    Returns:
        By order, why it has to wait.
    """
    if not _reports(site):
        return {}
    ending = _ending(site, [p for p in plans if p.order.uuid not in failed], state)
    if not ending:
        return {}
    try:
        failures = _report(site, {name: plan.context.resource for name, plan in ending.items()})
    except TemporaryError as error:
        return {plan.order.uuid: _not_reported_yet(name, error) for name, plan in ending.items()}
    except PermanentError as error:
        return _unread(site, ending, error)
    waiting: dict[UUID, SiteAgentError] = {}
    for failure in failures:
        plan = ending[failure.account]
        if _is_to_wait(site, failure.error):
            waiting.setdefault(plan.order.uuid, _not_reported_yet(failure.account, failure.error))
        _log_error(site, plan, failure.error)
    return waiting


@dataclass(frozen=True, slots=True)
class LastUsage:
    """The usage that would be reported before terminations are completed, by order."""

    writes: Mapping[UUID, tuple[Write, ...]] = field(default_factory=dict)
    waiting: Mapping[UUID, SiteAgentError] = field(default_factory=dict)
    """Why an order would stay open."""


def preview_last_usage(site: Site, plans: Iterable[OrderPlan], state: BackendState) -> LastUsage:
    """What :func:`report_last_usage` would report now; nothing is sent."""
    ending = _ending(site, plans, state) if _reports(site) else {}
    if not ending:
        return LastUsage()
    orders = {name: plan.order.uuid for name, plan in ending.items()}
    try:
        resources = _unshared(site, {name: plan.context.resource for name, plan in ending.items()})
        months = plan_months(site, _months(site), resources, reported_components(site))
        outcomes = [preview_month(site, plan) for plan in months]
    except SiteAgentError as error:
        if isinstance(error, PermanentError) and site.unreported_usage is UnreportedUsage.COMPLETE:
            return LastUsage()
        text = f"its last usage cannot be read: {error}"
        return LastUsage(waiting={order: TemporaryError(text) for order in orders.values()})
    writes: dict[UUID, list[Write]] = defaultdict(list)
    waiting: dict[UUID, SiteAgentError] = {}
    for outcome in outcomes:
        for write in previewed_writes(outcome, site.offering.components):
            writes[orders[write.about]].append(write)
        for failure in (*outcome.failures, *_unfinished(site, outcome.plan)):
            waiting.setdefault(
                orders[failure.account], _not_reported_yet(failure.account, failure.error)
            )
    return LastUsage({order: tuple(each) for order, each in writes.items()}, waiting)


def _unfinished(site: Site, plan: MonthPlan) -> list[NotReported]:
    """Resources for which a later read may show more usage, unless the site gives that up."""
    if site.unreported_usage is UnreportedUsage.COMPLETE:
        return []
    lower = dict.fromkeys((account for account, _ in plan.anomalies), _LOWER)
    reasons = lower | dict.fromkeys(plan.unfinished, _UNFINISHED)
    return [
        NotReported(account=account, error=TemporaryError(f"{plan.month}: {reason}"))
        for account, reason in sorted(reasons.items())
    ]


def _reports(site: Site) -> bool:
    """Whether the backend that processes orders also reports usage."""
    reporting = site.offering.backend_for(Job.REPORT)
    return bool(reporting) and reporting == site.offering.backend_for(Job.ORDERS)


def _months(site: Site) -> tuple[BillingMonth, BillingMonth]:
    month = BillingMonth.of(site.now(), site.zone)
    return month.previous, month


def _unread(
    site: Site, ending: Mapping[str, OrderPlan], error: PermanentError
) -> dict[UUID, SiteAgentError]:
    """Let orders wait if usage cannot be read, which somebody can fix, unless it is given up."""
    if site.unreported_usage is UnreportedUsage.COMPLETE:
        for plan in ending.values():
            _log_error(site, plan, error)
        return {}
    for plan in ending.values():
        _note_waiting(site, plan, error)
    return {plan.order.uuid: _not_reported_yet(name, error) for name, plan in ending.items()}


_ANOTHER_TOKEN_COULD = (AccessDeniedError, NotFoundError, AbsentOperationError)
_NOT_ABOUT_THE_USAGE = (*_ANOTHER_TOKEN_COULD, BodyRefusedError, ConflictError)
"""Errors about the token, the URL, the request or the object's state, not the usage."""


def _is_to_wait(site: Site, error: SiteAgentError) -> bool:
    if isinstance(error, TemporaryError):
        return True
    if site.unreported_usage is UnreportedUsage.COMPLETE:
        return False
    if isinstance(error, PastMonthRefusedError):
        return site.unreported_usage is UnreportedUsage.WAIT_FOR_PAST_MONTHS
    return isinstance(error, _NOT_ABOUT_THE_USAGE)


def _log_error(site: Site, plan: OrderPlan, error: SiteAgentError) -> None:
    """Log the consequence of a permanent error; temporary ones appear in the order's result."""
    if not isinstance(error, PermanentError):
        return
    if _is_to_wait(site, error):
        _note_waiting(site, plan, error)
        return
    site.log.error(
        "resource terminated; its last usage is not billed",
        order=str(plan.order.uuid),
        resource=plan.context.resource.account,
        reason=str(error),
    )


def _note_waiting(site: Site, plan: OrderPlan, error: PermanentError) -> None:
    account = plan.context.resource.account
    why = "its last usage cannot be read or reported"
    remedy = "fix the cause given in the reason"
    if isinstance(error, (*_ANOTHER_TOKEN_COULD, PastMonthRefusedError)):
        why = "this token may not report its last usage"
        remedy = "give the agent's user CUSTOMER.OWNER of the provider (past months require a "
        remedy += "staff token)"
    site.conditions.note(
        f"termination waiting: {why}",
        account,
        cause=cause_of(str(error), account),
        level=logging.ERROR,
        order=str(plan.order.uuid),
        resource=account,
        reason=str(error),
        remedy=f"{remedy}, or give up the usage with safety.unreported_usage: complete",
    )


def _ending(site: Site, plans: Iterable[OrderPlan], state: BackendState) -> dict[str, OrderPlan]:
    """By account, the terminations whose resource accepts usage until they are completed."""
    ending: dict[str, OrderPlan] = {}
    for plan in plans:
        if not _is_ending(plan, state):
            continue
        resource = plan.context.resource
        if resource.state in _TAKES_USAGE:
            ending[resource.account] = plan
        elif resource.state == ResourceState.ERRED:
            _warn_of_erred(site, resource)
    return ending


def _is_ending(plan: OrderPlan, state: BackendState) -> bool:
    """Whether the resource's own account is deleted or about to be."""
    resource = plan.context.resource
    if plan.order.type != OrderType.TERMINATE or plan.problem or plan.unfinished:
        return False
    if not resource.account:
        return False
    deleted = any(isinstance(step.action, DeleteResource) for step in plan.steps)
    return deleted or resource.account not in state.resources


def _warn_of_erred(site: Site, resource: Resource) -> None:
    site.log.warning(
        "Erred resource terminated; Waldur rejects its usage, so its last usage is not billed",
        resource=resource.account,
        name=resource.name,
        uuid=str(resource.uuid),
    )


def _report(site: Site, resources: Mapping[str, Resource]) -> list[NotReported]:
    """Report the current month, and the previous one as far as Waldur still accepts it.

    Raises:
        TemporaryError: Waldur or the backend could not be read.
        PermanentError: the backend cannot report usage, or the token may not read it.
    """
    components = reported_components(site)
    resources = _unshared(site, resources)
    failures: list[NotReported] = []
    for plan in plan_months(site, _months(site), resources, components):
        outcome = send_month(site, plan, compare_user_usages=True)
        failures += outcome.failures
        failures += _unfinished(site, plan)
        why = _not_taken(site, outcome)
        if why is not None:
            failures += [
                NotReported(account=resource.account, error=why)
                for resource in plan.resources
                if resource.is_changed and resource.account not in outcome.reported
            ]
    return failures


_LOWER = (
    "its usage is lower than in Waldur, so jobs may be missing; correct the usage in Waldur, "
    "set allow_decrease: true if decreases are normal, or give up the usage with "
    "safety.unreported_usage: complete"
)
_UNFINISHED = (
    "jobs of its account have no end time in the accounting database yet and count once they do; "
    "if this persists, end them there (Slurm: sacctmgr show runawayjobs), or give up the usage "
    "with safety.unreported_usage: complete"
)


def _not_taken(site: Site, outcome: MonthOutcome) -> SiteAgentError | None:
    """Why usage of a month was not accepted: for now, from this token, or at all."""
    month = outcome.plan.month
    if outcome.rejected_reason:
        lost = ", ".join(f"{amount} of {name}" for name, amount in outcome.not_billed.items())
        return PastMonthRefusedError(f"{month}, {lost}: {outcome.rejected_reason}")
    if not outcome.deferred_reason:
        return None
    if is_past_in_waldur(month, waldurs_time(site)):
        return PermanentError(f"{month}: {outcome.deferred_reason}")
    return TemporaryError(f"{month}: {outcome.deferred_reason}")


def _unshared(site: Site, resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """The resources whose account no sibling offering shares; shared usage is not billed.

    Raises:
        TemporaryError: a sibling's resources could not be read.
    """
    elsewhere = accounts_elsewhere(site)
    for account in sorted(resources.keys() & elsewhere.keys()):
        names = [resources[account].name, *elsewhere[account]]
        site.log.error("last usage not reported", reason=shared_account(account, names))
    return {a: resource for a, resource in resources.items() if a not in elsewhere}


def _not_reported_yet(account: str, error: SiteAgentError) -> TemporaryError:
    return TemporaryError(
        f"{account}: not terminated yet, its last usage was not reported: {error}"
    )
