"""order_process: one pass over the open orders of an offering.

Gather, approve, plan, guard, apply, report the last usage, and complete. An order is marked erred
only after the reason was confirmed by a second, individual read; otherwise it is left open and the
next pass retries it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from waldur_site_agent.backends import BackendState, CreateResource, resource_of
from waldur_site_agent.cycles.approval import Decisions, approve_pending, decide, reject
from waldur_site_agent.cycles.budgets import forget_of_new_accounts, with_budgets_of_updates
from waldur_site_agent.cycles.changes import (
    apply_steps,
    note_write,
    send_write,
    subject_of,
    with_allowance,
)
from waldur_site_agent.cycles.claims import claims_on, confirmed_claims, defer_doubtful_names
from waldur_site_agent.cycles.conditions import cause_of
from waldur_site_agent.cycles.facts import facts_of_orders, tell_resources, with_candidates
from waldur_site_agent.cycles.last_usage import preview_last_usage, report_last_usage
from waldur_site_agent.cycles.order_inputs import (
    Foresight,
    OrderResult,
    OrdersReport,
    OrderStatus,
    Resources,
    foresee,
    names_concerned,
    open_orders,
    order_contexts,
    orders_in_scope,
    resources_of,
    with_executing,
)
from waldur_site_agent.cycles.ordered_limits import warn_of_missing_limits
from waldur_site_agent.cycles.pending_orders import (
    Answers,
    Errors,
    note_creations,
    note_references,
    progress_of_orders,
    without_those_in_progress,
)
from waldur_site_agent.cycles.renewals import note_renewals, warn_of_missing_end_dates
from waldur_site_agent.cycles.site import WHOLE_OFFERING, ScopeFilter, Site
from waldur_site_agent.model.backend import Scope
from waldur_site_agent.model.errors import (
    DefectError,
    InProgressError,
    PermanentError,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.model.events import WaldurSnapshot
from waldur_site_agent.model.marketplace import (
    Order,
    OrderState,
    OrderType,
    Resource,
    ResourceState,
)
from waldur_site_agent.planning.limits import LimitPrecision
from waldur_site_agent.planning.orders import (
    Claims,
    OrderContext,
    OrderPlan,
    backend_plan,
    complete_write,
    fail_write,
    lost_name_write,
    order_writes,
    plan_orders,
)
from waldur_site_agent.planning.plan import Guarded, Step, Write, backend_id_write, guard, ok_write
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    concurrently,
)

_JOB = "orders"


def process_orders(
    site: Site, *, scopes: Collection[Scope] = WHOLE_OFFERING, dry_run: bool = False
) -> OrdersReport:
    """Process every order that is pending or executing, or those in scope.

    Raises:
        TemporaryError: Waldur or the backend could not be read; no order was changed.
    """
    if not dry_run:
        _check_after_updates(site)
    scope_filter = ScopeFilter.of(scopes)
    found, states = orders_in_scope(site, scope_filter)
    report = OrdersReport(offering=site.offering.name, snapshot=WaldurSnapshot(orders=states))
    if not found:
        return _without_orders(site, report, scope_filter, dry_run=dry_run)
    tell_resources(site)
    decisions = decide(site, found)
    if dry_run:
        return _preview(site, decisions, report)
    rejected = reject(site, decisions)
    report = replace(report, results=(*decisions.left, *rejected))
    if decisions.accepted:
        report = _processed(site, decisions.accepted, report, scope_filter)
    _log(site, report)
    return report


def _without_orders(
    site: Site, report: OrdersReport, scope_filter: ScopeFilter, *, dry_run: bool
) -> OrdersReport:
    if dry_run:
        return replace(report, writes=_preview_repairs(site))
    if scope_filter.everything:
        site.allowances.settle(site.offering.name, _JOB)
    return report


def _processed(
    site: Site, found: Sequence[Order], report: OrdersReport, scope_filter: ScopeFilter
) -> OrdersReport:
    """Approve, plan, guard, apply and complete; ``report`` has the results of other orders."""
    keeps_usage = site.backend.capabilities.keeps_usage
    found, in_progress = without_those_in_progress(site, found)
    report = replace(report, results=(*in_progress, *report.results))
    if not found:
        return report
    foresight = foresee(site, found)
    with site.backend.session():
        state = site.backend.observe(foresight.names)
        foresight = with_executing(site, found, foresight)
        orders, refused = approve_pending(site, found, foresight.resources)
        approved = frozenset(o.uuid for o in found if o.state == OrderState.PENDING_PROVIDER)
        plans, waiting, state = _decide(site, orders, approved, state, foresight)
        allowed = with_allowance(site, backend_plan(plans), _guarded(site, plans, state), _JOB)
        if scope_filter.everything:
            site.allowances.settle(site.offering.name, _JOB, allowed.digest)
        if not keeps_usage:
            report_last_usage(site, plans, state, {})
        errors = _carry_out(site, plans, allowed)
    if keeps_usage:
        errors |= report_last_usage(site, plans, state, errors)
    closed = _close_all(site, plans, errors)
    return replace(
        report,
        results=(*closed, *waiting, *refused, *report.results),
        plans=plans,
        refused=allowed.refused,
        refused_reason=allowed.reason,
        digest=allowed.digest,
    )


def _close_all(site: Site, plans: Sequence[OrderPlan], errors: Errors) -> list[OrderResult]:
    """Complete or fail the orders, and note what later passes must know of them."""
    note_renewals(site, plans, errors)
    errors |= _take_lost_names(site, plans)
    closed = close_orders(site, [_completion(plan, errors) for plan in plans])
    done = {result.order.uuid for result in closed if result.status is OrderStatus.DONE}
    completed = [plan for plan in plans if plan.order.uuid in done]
    warn_of_missing_end_dates(site, completed)
    warn_of_missing_limits(site, completed)
    _remember_updates(site, closed)
    return closed


def _preview(site: Site, decisions: Decisions, report: OrdersReport) -> OrdersReport:
    """What the pass would do; nothing is approved."""
    foresight = foresee(site, decisions.accepted)
    state = site.backend.observe(foresight.names)
    plans, waiting, state = _decide(site, decisions.accepted, frozenset(), state, foresight)
    usage = preview_last_usage(site, plans, state)
    plans = tuple(
        replace(plan, unfinished=plan.unfinished or usage.waiting.get(plan.order.uuid))
        for plan in plans
    )
    writes = [
        w for plan in plans for w in order_writes(plan, usage.writes.get(plan.order.uuid, ()))
    ]
    newcomers = frozenset[str]().union(*(plan.newcomers for plan in plans))
    return replace(
        report,
        plans=plans,
        results=(*_previewed_results(plans), *waiting, *decisions.left),
        waiting=site.backend.not_yet_usable(newcomers),
        last_usage=usage.writes,
        writes=(*decisions.rejections, *writes, *_preview_repairs(site)),
    )


def _decide(
    site: Site,
    orders: Sequence[Order],
    approved: frozenset[UUID],
    state: BackendState,
    foresight: Foresight,
) -> tuple[tuple[OrderPlan, ...], list[OrderResult], BackendState]:
    """The plans, results for the orders that cannot be planned yet, and what the plans rest on."""
    if not orders:
        return (), [], state
    resources = resources_of(site, orders, approved, foresight.resources)
    facts = facts_of_orders(site, orders, resources.own)
    progress = progress_of_orders(site, orders, resources.own)
    contexts = tuple(
        replace(
            context,
            facts=facts.get(context.order.uuid),
            progress=progress.get(context.order.uuid),
            is_prepaid=any(each.is_prepaid for each in site.offering.components.values()),
        )
        for context in order_contexts(site, orders, resources.own, approved, foresight.offering)
    )
    names = _names_to_observe(contexts)
    if foresight.names is not None and not (names is not None and names <= foresight.names):
        state = site.backend.observe(names)  # Waldur has other names now
    contexts = with_budgets_of_updates(site, contexts)
    state = with_candidates(site, state, _candidates(contexts))
    contexts = tuple(defer_doubtful_names(contexts, resources, state))
    known = [context for context in contexts if context.order.type in _KNOWN_TYPES]
    claims = claims_on(site, known, resources, state)
    plans = _planned(site, known, state, claims)
    plans = _confirmed(site, plans, resources)
    _log_defects(site, plans)
    decided = {context.order.uuid for context in known}
    return plans, [_undecided(order) for order in orders if order.uuid not in decided], state


def _planned(
    site: Site, contexts: Iterable[OrderContext], state: BackendState, claims: Claims
) -> tuple[OrderPlan, ...]:
    return plan_orders(
        contexts,
        state,
        claims,
        site.offering.components,
        LimitPrecision.of(site.backend),
        site.backend.capabilities,
    )


def _candidates(contexts: Iterable[OrderContext]) -> set[str]:
    """The names that orders may use, and those of their resources."""
    names: set[str] = set()
    for context in contexts:
        names |= {placement.id for placement in context.placements}
        names |= {context.resource.account} - {""}
    return names


def _names_to_observe(contexts: Iterable[OrderContext]) -> frozenset[str] | None:
    """The accounts that plans for these orders rest on; ``None``: all, as for terminations."""
    names: set[str] = set()
    for context in contexts:
        if context.order.type == OrderType.TERMINATE:
            return None
        names |= names_concerned(context)
    return frozenset(names)


_KNOWN_TYPES = (*OrderType.OPENING, OrderType.UPDATE, OrderType.TERMINATE)


def _undecided(order: Order) -> OrderResult:
    if order.type not in _KNOWN_TYPES:
        reason = (
            f'order {order.uuid} of type "{order.type}" is not known to this version of the '
            "agent and was left unchanged; upgrade the agent or complete the order by hand"
        )
    else:
        reason = (
            f"order {order.uuid}: Waldur does not show its resource "
            f"{order.marketplace_resource_uuid or ''} to this token; if this "
            "persists, check the resource in Waldur"
        )
    return OrderResult(order=order, status=OrderStatus.WAITING, reason=reason, is_trouble=True)


def _confirmed(
    site: Site, plans: tuple[OrderPlan, ...], resources: Resources
) -> tuple[OrderPlan, ...]:
    """The plans, after checking every permanent error a second time.

    The backend is read again, and resources that claim the same account are read individually. If
    the error is not confirmed, or cannot be checked, the order waits for the next pass.
    """
    failing = [plan.context for plan in plans if _is_final(plan)]
    if not failing:
        return plans
    try:
        state = site.backend.observe(_names_to_observe(failing))
        state = with_candidates(site, state, _candidates(failing))
        claims = confirmed_claims(site, failing, resources, state)
    except TemporaryError as error:
        return tuple(_waiting(plan, error) if _is_final(plan) else plan for plan in plans)
    again = _planned(site, failing, state, claims)
    outdated = {plan.order.uuid for plan in again if not _is_final(plan)}
    return tuple(
        replace(plan, problem=TemporaryError(f"{_OUTDATED}: {plan.problem}"))
        if plan.order.uuid in outdated
        else plan
        for plan in plans
    )


_OUTDATED = "not confirmed by a second read; retried in the next pass"


def _is_final(plan: OrderPlan) -> bool:
    return isinstance(plan.problem, PermanentError)


def _waiting(plan: OrderPlan, error: TemporaryError) -> OrderPlan:
    text = f"{plan.problem}; could not be confirmed by a second read: {error}"
    return replace(plan, problem=TemporaryError(text))


def _guarded(site: Site, plans: Iterable[OrderPlan], state: BackendState) -> Guarded:
    plans = tuple(plans)
    members = sum(len(resource.members) for resource in state.resources.values())
    terminations = sum(plan.order.type == OrderType.TERMINATE for plan in plans)
    subject = subject_of(site.offering, _JOB)
    return guard(backend_plan(plans), members, terminations, site.thresholds, subject=subject)


def _carry_out(site: Site, plans: Sequence[OrderPlan], allowed: Guarded) -> Errors:
    """Create new accounts, set their backend_id in Waldur, then apply everything else.

    Waldur must know the backend_id before anything else can fail: when the order of a resource
    without backend_id fails, Waldur drops the resource, and its account would be orphaned.
    """
    errors: Errors = {}
    for step in allowed.refused.steps:
        _record_error(errors, step, TemporaryError(f"refused: {allowed.reason}"))
    steps = allowed.allowed.steps
    answers = Answers()
    note_creations(site, plans, errors)
    _forget_budgets(site, plans, errors)
    creations = [s for s in steps if isinstance(s.action, CreateResource)]
    _apply(site, [s for s in creations if s.order not in errors], answers, errors)
    _name_resources(site, plans, answers, errors)
    note_references(site, [p for p in plans if p.order.uuid not in errors], answers, errors)
    rest = [answers.renamed(s) for s in steps if not isinstance(s.action, CreateResource)]
    _apply(site, [s for s in rest if s.order not in errors], answers, errors)
    note_references(site, [p for p in plans if p.order.uuid not in errors], answers, errors)
    return errors


def _forget_budgets(site: Site, plans: Iterable[OrderPlan], errors: Errors) -> None:
    """Drop the notes of budgets of accounts that are made again; without a creation note alone."""
    if not site.backend.capabilities.adopts_unfinished:
        return  # the note of the creation has replaced them
    making = [p for p in plans if p.creation is not None and p.order.uuid not in errors]
    failed = forget_of_new_accounts(site, [plan.context.resource for plan in making])
    for plan in making:
        if (reason := failed.get(plan.context.resource.uuid)) is not None:
            errors[plan.order.uuid] = TemporaryError(
                f"{plan.backend_id}: not created yet: {reason}"
            )


def _apply(site: Site, steps: Sequence[Step], answers: Answers, errors: Errors) -> None:
    applied = apply_steps(site, steps)
    answers.learn(applied)
    for step, outcome in applied:
        if outcome.error is not None:
            _record_error(errors, step, outcome.error)


def _record_error(errors: Errors, step: Step, error: SiteAgentError) -> None:
    if step.order is not None:
        errors.setdefault(step.order, error)


def _name_resources(
    site: Site, plans: Sequence[OrderPlan], answers: Answers, errors: Errors
) -> None:
    unnamed = [
        plan
        for plan in (replace(each, backend_id=answers.name_of(each)) for each in plans)
        if plan.order.type in OrderType.OPENING
        and plan.problem is None
        and plan.needs_backend_id
        and plan.order.uuid not in errors
    ]
    site.named.update(plan.context.resource.uuid for plan in unnamed)
    attempts = concurrently(
        lambda plan: send_write(site, backend_id_write(plan.context.resource, plan.backend_id)),
        unnamed,
    )
    for attempt in attempts:
        if attempt.error is not None:
            site.log.warning(
                "account created, but setting backend_id in Waldur failed",
                order=str(attempt.item.order.uuid),
                account=attempt.item.backend_id,
                reason=str(attempt.error),
            )
            errors[attempt.item.order.uuid] = TemporaryError(
                f'account "{attempt.item.backend_id}" created, but setting backend_id in Waldur '
                f"failed: {attempt.error}"
            )


Completion = tuple[Order, SiteAgentError | None]
"""An order, and the error that prevents its completion, if any."""


def _take_lost_names(site: Site, plans: Iterable[OrderPlan]) -> Errors:
    """Let no failed restoration keep the account of another resource; return what went wrong."""
    lost = [plan for plan in plans if plan.loses_name and _is_final(plan)]
    attempts = concurrently(
        lambda plan: send_write(site, lost_name_write(plan.context.resource)), lost
    )
    return {
        attempt.item.order.uuid: TemporaryError(
            f"{attempt.item.context.resource.account}: its name could not be taken from the "
            f"resource: {attempt.error}"
        )
        for attempt in attempts
        if attempt.error is not None
    }


def _completion(plan: OrderPlan, errors: Errors) -> Completion:
    kept = errors.get(plan.order.uuid) if plan.loses_name else None
    error = kept or plan.problem or errors.get(plan.order.uuid) or plan.unfinished
    return plan.order, error


_NOT_ABOUT_THE_ORDER = (AccessDeniedError, NotFoundError, AbsentOperationError)
"""Errors about the token or the server, which the order's owner cannot fix."""


def close_orders(site: Site, completions: Sequence[Completion]) -> list[OrderResult]:
    """Complete or fail every order; those with a temporary error stay open."""
    attempts = concurrently(lambda completion: _close(site, *completion), completions)
    return [
        attempt.value or _left_open(attempt.item[0], attempt.error or TemporaryError("unknown"))
        for attempt in attempts
    ]


def _close(site: Site, order: Order, error: SiteAgentError | None) -> OrderResult:
    if error is None:
        return _complete(site, order)
    if isinstance(error, PermanentError) and not isinstance(error, _NOT_ABOUT_THE_ORDER):
        return _fail(site, order, error)
    return _left_open(order, error)


def _complete(site: Site, order: Order) -> OrderResult:
    write = complete_write(order)
    try:
        send_write(site, write)
    except (TemporaryError, ConflictError) as error:
        state = site.waldur.order(order.uuid).state
        if state == OrderState.EXECUTING and isinstance(error, TemporaryError):
            send_write(site, write)
        elif state == OrderState.DONE:
            note_write(site, write)  # the response was lost, or somebody else completed it
        else:
            reason = f"order {order.uuid} is {state} in Waldur and was not completed: {error}"
            return OrderResult(
                order=order, status=OrderStatus.WAITING, reason=reason, is_trouble=True
            )
    return OrderResult(order=order, status=OrderStatus.DONE)


def _fail(site: Site, order: Order, error: PermanentError) -> OrderResult:
    state = site.waldur.order(order.uuid).state
    write = fail_write(order, str(error))
    if state == OrderState.EXECUTING:
        try:
            send_write(site, write)
        except TemporaryError:
            state = site.waldur.order(order.uuid).state
            if state == OrderState.EXECUTING:
                send_write(site, write)
    elif state != OrderState.ERRED:
        reason = f"order {order.uuid} is {state} in Waldur, so it was not marked erred: {error}"
        return OrderResult(order=order, status=OrderStatus.WAITING, reason=reason, is_trouble=True)
    return OrderResult(order=order, status=OrderStatus.ERRED, reason=str(error), is_trouble=True)


def _left_open(order: Order, error: SiteAgentError) -> OrderResult:
    is_trouble = not isinstance(error, InProgressError)
    return OrderResult(
        order=order, status=OrderStatus.WAITING, reason=str(error), is_trouble=is_trouble
    )


def _previewed_results(plans: Iterable[OrderPlan]) -> tuple[OrderResult, ...]:
    return tuple(
        OrderResult(
            order=plan.order,
            status=OrderStatus.PLANNED,
            reason=str(plan.problem or plan.unfinished or plan.note or ""),
            is_trouble=plan.problem is not None,
        )
        for plan in plans
    )


def _log_defects(site: Site, plans: Iterable[OrderPlan]) -> None:
    for plan in plans:
        if isinstance(plan.problem, DefectError):
            site.log.error("defect", order=str(plan.order.uuid), exc_info=plan.problem.__cause__)


def _log(site: Site, report: OrdersReport) -> None:
    for result in report.results:
        log = site.log.bind(
            order=str(result.order.uuid),
            type=result.order.type,
            resource=result.order.resource_name,
        )
        match result.status:
            case OrderStatus.DONE:
                log.info("order done")
            case OrderStatus.REJECTED:
                pass  # logged when it was
            case OrderStatus.ERRED:
                log.error("order erred", reason=result.reason)
            case _:
                _note_waiting(site, result)
    if report.refused_reason:
        accounts = [resource_of(step.action) for step in report.refused.steps]
        site.log.error(
            "removals refused",
            accounts=accounts,
            reason=report.refused_reason,
            digest=report.digest,
        )


def _note_waiting(site: Site, result: OrderResult) -> None:
    order = result.order
    site.conditions.note(
        "order deferred to the next pass",
        f"{order.resource_name} ({order.uuid})",
        cause=f"{order.type} {cause_of(result.reason, order.resource_name)}",
        order=str(order.uuid),
        type=order.type,
        resource=order.resource_name,
        reason=result.reason,
    )


_PASSES_AFTER_AN_UPDATE = 2


def _remember_updates(site: Site, results: Iterable[OrderResult]) -> None:
    """Check for resources stuck in Updating in the two passes after an update."""
    if any(f.order.type == OrderType.UPDATE and f.status is OrderStatus.DONE for f in results):
        site.memory.stuck_update_checks = _PASSES_AFTER_AN_UPDATE


def _check_after_updates(site: Site) -> None:
    if site.memory.stuck_update_checks:
        site.memory.stuck_update_checks -= 1
        repair_stuck_updates(site)


_LEFT_UPDATING = "stuck in Updating with no order in progress"


def repair_stuck_updates(site: Site) -> int:
    """Set resources OK that are stuck in Updating with no order in progress; return how many.

    On some servers the task that marks a resource as Updating may run after the order was
    completed; the resource would then stay in Updating forever and reject every further order.
    A failed repair is logged and retried later; it does not hold up orders.
    """
    try:
        stuck = _stuck_in_updating(site)
    except SiteAgentError as error:
        site.log.warning("could not check for resources stuck in Updating", reason=str(error))
        return 0
    repaired = 0
    for attempt in concurrently(lambda resource: _repair(site, resource), stuck):
        log = site.log.bind(resource=attempt.item.name)
        if attempt.error is not None:
            log.warning(
                "could not set resource OK that is stuck in Updating", reason=str(attempt.error)
            )
        elif attempt.value:
            repaired += 1
            log.info("resource was stuck in Updating; set OK")
    return repaired


def _repair(site: Site, resource: Resource) -> bool:
    """Set a resource OK if an individual read confirms that it is stuck in Updating."""
    current = site.waldur.resource(resource.uuid)
    if current.state != ResourceState.UPDATING or current.order_in_progress is not None:
        return False
    send_write(site, ok_write(current, _LEFT_UPDATING))
    return True


def _stuck_in_updating(site: Site) -> list[Resource]:
    uuid = site.offering.waldur_offering_uuid
    states = (ResourceState.UPDATING,)
    listing = site.waldur.resources(uuid, states, with_order_in_progress=True)
    idle = [resource for resource in listing.items if resource.order_in_progress is None]
    if not idle:
        return []
    busy = {order.marketplace_resource_uuid for order in open_orders(site)}
    return [resource for resource in idle if resource.uuid not in busy]


def _preview_repairs(site: Site) -> tuple[Write, ...]:
    try:
        return tuple(ok_write(each, _LEFT_UPDATING) for each in _stuck_in_updating(site))
    except SiteAgentError:  # the preview is useful without them
        return ()
