"""Orders of backends that name resources themselves, or finish an order after the pass.

What must survive a kill is noted in Waldur first: the name that is about to be created, where the
backend could not tell afterwards whose it is; and the backend's reference of an order that it
finishes later. It is asked for in each pass until it is done, or has failed for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from waldur_site_agent.backends import (
    Action,
    AddMembers,
    CreateResource,
    DeleteResource,
    Progress,
    Result,
    SetLimits,
)
from waldur_site_agent.cycles.changes import Applied, send_write
from waldur_site_agent.cycles.order_inputs import OrderResult, OrderStatus
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import (
    InProgressError,
    PermanentError,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.model.marketplace import Order, OrderState, Resource, aware
from waldur_site_agent.planning.orders import (
    STILL_WORKING,
    OrderPlan,
    creation_note,
    noted_reference,
    reference_note,
    reference_write,
)
from waldur_site_agent.planning.plan import Step
from waldur_site_agent.waldur import AbsentOperationError, concurrently

Errors = dict[UUID, SiteAgentError]
"""The first error of each order."""


@dataclass(slots=True)
class Answers:
    """What the backend said about the orders of one pass, besides their outcomes."""

    assigned: dict[UUID, str] = field(default_factory=dict)
    """By order, the id that the backend gave its resource."""
    references: dict[UUID, str] = field(default_factory=dict)
    """By order, the reference of what it finishes later."""

    def learn(self, applied: Iterable[Applied]) -> None:
        """Take up what these outcomes say."""
        for step, outcome in applied:
            if step.order is None:
                continue
            if outcome.assigned_id:
                self.assigned[step.order] = outcome.assigned_id
            if outcome.result is Result.PENDING:
                self.references[step.order] = outcome.reference

    def name_of(self, plan: OrderPlan) -> str:
        """The id of a plan's resource: the backend's own, or the one that was planned."""
        return self.assigned.get(plan.order.uuid, plan.backend_id)

    def renamed(self, step: Step) -> Step:
        """A step for the resource as the backend named it."""
        name = self.assigned.get(step.order) if step.order is not None else None
        if name is None or isinstance(step.action, CreateResource):
            return step
        return replace(step, action=_for(step.action, name.strip().lower()))


def _for(action: Action, name: str) -> Action:
    match action:
        case SetLimits() | AddMembers() | DeleteResource():
            return replace(action, resource=name)
        case _:
            return action


def note_creations(site: Site, plans: Iterable[OrderPlan], errors: Errors) -> None:
    """Note the names that are about to be created, where the backend needs it.

    An order whose name could not be noted waits: after a kill, nobody could tell whose the
    resource is.
    """
    if site.backend.capabilities.adopts_unfinished:
        return
    unnoted = [plan for plan in plans if plan.needs_note and plan.order.uuid not in errors]
    for attempt in concurrently(lambda plan: send_write(site, creation_note(plan)), unnoted):
        if attempt.error is not None:
            errors[attempt.item.order.uuid] = TemporaryError(
                f"{attempt.item.backend_id}: not created yet: its name could not be noted in the "
                f"backend_metadata of the resource: {attempt.error}"
            )


def note_references(
    site: Site, plans: Sequence[OrderPlan], answers: Answers, errors: Errors
) -> None:
    """Note the references of orders that the backend finishes later."""
    pending = [plan for plan in plans if plan.order.uuid in answers.references]
    for attempt in concurrently(lambda plan: _note_reference(site, plan, answers), pending):
        reference = answers.references[attempt.item.order.uuid]
        waiting: TemporaryError = InProgressError(
            f"{answers.name_of(attempt.item)}: the backend finishes it later "
            f'(reference "{reference}")'
        )
        if attempt.error is not None:
            waiting = TemporaryError(
                f"{waiting}; the reference could not be noted in Waldur: {attempt.error}"
            )
        errors[attempt.item.order.uuid] = waiting


def _note_reference(site: Site, plan: OrderPlan, answers: Answers) -> None:
    reference = answers.references[plan.order.uuid]
    if plan.order.backend_id == reference:
        return
    try:
        send_write(site, reference_write(plan.order, reference))
    except AbsentOperationError:
        resource = site.waldur.resource(plan.context.resource.uuid)  # it may have a note by now
        if noted_reference(resource.backend_metadata, plan.order.uuid) != reference:
            send_write(site, reference_note(resource, plan.order, reference))


def without_those_in_progress(
    site: Site, orders: Sequence[Order]
) -> tuple[tuple[Order, ...], tuple[OrderResult, ...]]:
    """The orders without those on which the backend still works, and the results of these.

    The list of orders has the backend's reference, so nothing else is read about them in Waldur.
    """
    if not site.backend.capabilities.finishes_later:
        return tuple(orders), ()
    in_progress = {
        order.uuid
        for order in orders
        if order.state == OrderState.EXECUTING
        and order.backend_id
        and _progress(site, order, order.backend_id).result is Result.PENDING
    }
    return tuple(order for order in orders if order.uuid not in in_progress), tuple(
        OrderResult(order=order, status=OrderStatus.WAITING, reason=str(STILL_WORKING))
        for order in orders
        if order.uuid in in_progress
    )


def progress_of_orders(
    site: Site, orders: Iterable[Order], resources: Mapping[UUID, Resource]
) -> dict[UUID, Progress]:
    """How the backend's own work on orders stands, by order; only of those that it took on."""
    if not site.backend.capabilities.finishes_later:
        return {}
    found = {}
    for order in orders:
        resource = order.resource_in(resources)
        metadata = resource.backend_metadata if resource is not None else {}
        reference = order.backend_id or noted_reference(metadata, order.uuid)
        if reference:
            found[order.uuid] = _progress(site, order, reference)
    return found


def _progress(site: Site, order: Order, reference: str) -> Progress:
    try:
        progress = site.backend.progress(reference)
    except SiteAgentError as error:
        return Progress(Result.FAILED, error)
    hours = site.offering.pending_order_timeout_hours
    if progress.result is not Result.PENDING or hours is None or order.created is None:
        return progress
    if site.now() - aware(order.created) <= timedelta(hours=hours):
        return progress
    overdue = PermanentError(
        f"{order.resource_name}: the backend has not finished the order (reference "
        f'"{reference}") within {hours:g} hours',
        remedy="ask the site what became of it, and order again",
    )
    return Progress(Result.FAILED, overdue)
