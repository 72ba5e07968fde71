"""Plans orders: the backend changes that all open orders need, decided together.

An order only says where to look. Its wanted state is compared with the backend, so an order that
an interrupted run left half done is simply finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.backends import (
    AddMembers,
    BackendResource,
    BackendState,
    Capabilities,
    CreateProjectDirectory,
    CreateResource,
    DeleteResource,
    Grant,
    Progress,
    Result,
    SetLimits,
)
from waldur_site_agent.model.backend import Placement, ResourceFacts
from waldur_site_agent.model.errors import (
    DefectError,
    InProgressError,
    PermanentError,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.model.marketplace import (
    RENEWAL_NOTE,
    Component,
    Order,
    OrderState,
    OrderType,
    Resource,
    ResourceState,
)
from waldur_site_agent.planning.budgets import BUDGET, NEW_ACCOUNT, has_note, without_note
from waldur_site_agent.planning.limits import (
    EXACT,
    Amounts,
    LimitPrecision,
    entitlements,
    initial_limits,
    limit_changes,
    of_resource,
    ordered_limits,
)
from waldur_site_agent.planning.plan import (
    CREATION_NOTE,
    Call,
    Change,
    Plan,
    Step,
    Write,
    backend_id_write,
    metadata_write,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderContext:
    """An order with everything that planning it needs."""

    order: Order
    resource: Resource
    placements: tuple[Placement, ...] = ()
    """For create orders the possible placements, preferred ones first; else the expected ones."""
    members: frozenset[str] = frozenset()
    """The usernames of the project's team."""
    grant: Grant = field(default_factory=Grant)
    """What new members get."""
    problem: SiteAgentError | None = None
    """Why the order cannot be planned; it then has no steps."""
    team_problem: SiteAgentError | None = None
    """Why the team is not known; the account is created and the order completed later."""
    facts: ResourceFacts | None = None
    """What Waldur says about the resource, for the backend."""
    is_prepaid: bool = False
    """Whether the offering sells components that are paid in advance."""
    budget: Amounts | None = None
    """Of an update: the limits that a periodic policy makes of those ordered, exactly, in backend
    units; ``None`` where no policy sets the limits."""
    missing_limits: tuple[str, ...] = ()
    """The components sold by limit that the order leaves out."""
    progress: Progress | None = None
    """How the backend's work on the order stands, if it finishes it later."""

    @property
    def noted_name(self) -> str:
        """The name that was noted in Waldur before an earlier attempt to create the resource."""
        return noted_creation(self.resource.backend_metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPlan:
    """The steps of one order; without steps, it only needs to be completed."""

    context: OrderContext
    backend_id: str = ""
    """The account's name, now or after the plan; empty if there is none."""
    steps: tuple[Step, ...] = ()
    problem: SiteAgentError | None = None
    unfinished: SiteAgentError | None = None
    """Why the order must not be completed even if every step succeeds."""
    note: str = ""
    loses_name: bool = False
    """Whether a restoration fails because another resource has the name by now."""
    keeps_spelling: bool = False
    """Whether the id is the backend's own, so that its capitals in Waldur are left alone."""

    @property
    def order(self) -> Order:
        """The order itself."""
        return self.context.order

    @property
    def newcomers(self) -> frozenset[str]:
        """The users whom the plan adds to the account."""
        actions = (step.action for step in self.steps)
        return frozenset(
            member
            for action in actions
            if isinstance(action, AddMembers)
            for member in action.members
        )

    @property
    def needs_backend_id(self) -> bool:
        """Whether backend_id must be set in Waldur before anything else happens."""
        resource = self.context.resource
        if self.keeps_spelling and resource.account == self.backend_id.lower():
            return False
        return bool(self.backend_id) and resource.backend_id != self.backend_id

    @property
    def creation(self) -> CreateResource | None:
        """The creation that is part of the plan, if any."""
        actions = (step.action for step in self.steps)
        return next((action for action in actions if isinstance(action, CreateResource)), None)

    @property
    def missing_limits_text(self) -> str:
        """What it means that the order leaves out limits; empty if it does not, or fails."""
        if self.problem is not None or not self.context.missing_limits:
            return ""
        names = ", ".join(self.context.missing_limits)
        if self.order.type == OrderType.UPDATE:
            return f"limit kept, but not billed any more: the order names none for {names}"
        return f"no limit: the order names none for {names}"

    @property
    def needs_note(self) -> bool:
        """Whether the name must be noted in Waldur before the resource is created."""
        creation = self.creation
        return creation is not None and self.context.noted_name != creation.resource


def noted_creation(metadata: Mapping[str, object]) -> str:
    """The name noted before a creation; empty if there is none."""
    name = metadata.get(CREATION_NOTE)
    return name if isinstance(name, str) else ""


def creation_note(plan: OrderPlan) -> Write:
    """Note the name that is about to be created in the resource's backend_metadata."""
    resource, creation = plan.context.resource, plan.creation
    name = creation.resource if creation is not None else ""
    kept = {key: value for key, value in resource.backend_metadata.items() if key != BUDGET}
    noted = {**kept, CREATION_NOTE: name}
    return metadata_write(resource, noted, "to recognise it if its creation is interrupted")


def reference_write(order: Order, reference: str) -> Write:
    """Set the backend's reference of an order that it finishes later."""
    return Write(
        call=Call.SET_ORDER_BACKEND_ID,
        uuid=order.uuid,
        about=order.resource_name or str(order.uuid),
        changes=(Change("backend_id of the order", order.backend_id or None, reference),),
        reason="the backend finishes it later",
        value=reference,
    )


def lost_name_write(resource: Resource) -> Write:
    """Take the name from a resource that cannot be restored, or its team got into the account."""
    write = backend_id_write(resource, "")
    return replace(write, about=resource.account, reason="another resource has the name by now")


def renewal_note(plan: OrderPlan) -> Write | None:
    """Note until when a resource was renewed, if Waldur does not show it yet."""
    resource, until = plan.context.resource, plan.order.renewed_until
    known = resource.term.end
    has_it = known is not None and until is not None and known >= until
    if until is None or has_it or not plan.context.is_prepaid:
        return None
    shown = "" if resource.end_date is None else resource.end_date.isoformat()
    note = {"until": until.isoformat(), "shown": shown}
    noted = {**resource.backend_metadata, RENEWAL_NOTE: note}
    return metadata_write(resource, noted, "paid until then; Waldur may show it later")


REFERENCES = "pending_orders"
"""The key of ``backend_metadata`` with references, for servers that hold none at the order."""


def noted_reference(metadata: Mapping[str, object], order: UUID) -> str:
    """The reference of an order that is noted at its resource; empty if there is none."""
    references = metadata.get(REFERENCES)
    name = references.get(order.hex) if isinstance(references, Mapping) else None
    return name if isinstance(name, str) else ""


def reference_note(resource: Resource, order: Order, reference: str) -> Write:
    """Note the reference of an order at its resource."""
    noted = {**resource.backend_metadata, REFERENCES: {order.uuid.hex: reference}}
    return metadata_write(resource, noted, "the backend finishes the order later")


@dataclass(frozen=True, slots=True)
class Claims:
    """The live resources of any offering, by backend_id."""

    resources: Mapping[str, frozenset[UUID]]
    """By backend_id in lower case."""
    opening: frozenset[UUID] = frozenset()
    """Those that are being created or restored: they do not keep a live one from its orders."""

    def others(self, name: str, resource: UUID) -> frozenset[UUID]:
        """The resources other than ``resource`` with this backend_id."""
        return self.resources.get(name.lower(), frozenset()) - {resource}


def claims_of(resources: Iterable[Resource]) -> Claims:
    """Collect the resources by backend_id."""
    names: dict[str, frozenset[UUID]] = {}
    opening = set()
    for resource in resources:
        if name := resource.account:
            names[name] = names.get(name, frozenset()) | {resource.uuid}
            if resource.state == ResourceState.CREATING:
                opening.add(resource.uuid)
    return Claims(names, frozenset(opening))


_ALL = Capabilities()


def plan_orders(
    contexts: Iterable[OrderContext],
    state: BackendState,
    claims: Claims,
    components: Mapping[str, Component],
    precision: LimitPrecision = EXACT,
    capabilities: Capabilities = _ALL,
) -> tuple[OrderPlan, ...]:
    """Plan every order; one that cannot be planned does not block the others."""
    planning = _PlanningContext(state, claims, components, precision, capabilities)
    plans = (_decide(context, planning) for context in contexts)
    return tuple(replace(plan, keeps_spelling=capabilities.assigns_ids) for plan in plans)


@dataclass(frozen=True, slots=True)
class _PlanningContext:
    state: BackendState
    claims: Claims
    components: Mapping[str, Component]
    precision: LimitPrecision
    capabilities: Capabilities
    given: set[str] = field(default_factory=set)
    """Account names chosen by earlier orders of this pass."""
    served: set[UUID] = field(default_factory=set)
    """Resources of earlier orders of this pass."""

    def is_taken(self, name: str, resource: UUID) -> bool:
        return name in self.given or bool(self.claims.others(name, resource))


def _decide(context: OrderContext, planning: _PlanningContext) -> OrderPlan:
    if context.problem is not None:
        return OrderPlan(context=context, problem=context.problem)
    try:
        if context.resource.uuid in planning.served:
            text = f"{context.resource.name}: another order of it comes first"
            return OrderPlan(context=context, problem=TemporaryError(text, remedy=_LATER))
        planning.served.add(context.resource.uuid)
        if context.progress is not None:
            return _plan_pending(context, context.progress, planning)
        return _plan_order(context, planning)
    except (PermanentError, TemporaryError) as error:
        is_lost = isinstance(error, PermanentError) and _is_lost(context, planning.claims)
        return OrderPlan(context=context, problem=error, loses_name=is_lost)
    except Exception as error:  # noqa: BLE001 - a bug must not stop the other orders
        defect = DefectError(f"order {context.order.uuid}: {type(error).__name__}: {error}")
        defect.__cause__ = error
        return OrderPlan(context=context, problem=defect)


def _is_lost(context: OrderContext, claims: Claims) -> bool:
    name, uuid = context.resource.account, context.resource.uuid
    return context.order.type == OrderType.RESTORE and bool(name and claims.others(name, uuid))


_LATER = "it is carried out in the next cycle"


def backend_plan(plans: Iterable[OrderPlan]) -> Plan:
    """The steps of all orders as one plan."""
    return Plan(tuple(step for plan in plans for step in plan.steps))


def _plan_order(context: OrderContext, planning: _PlanningContext) -> OrderPlan:
    match context.order.type:
        case OrderType.CREATE | OrderType.RESTORE:
            return _plan_create(context, planning)
        case OrderType.UPDATE:
            return _plan_update(context, planning)
        case OrderType.TERMINATE:
            return _plan_terminate(context, planning)
        case other:
            raise PermanentError(
                f'order {context.order.uuid}: orders of type "{other}" are not known to this '
                "version of the agent; upgrade it or complete the order by hand"
            )


STILL_WORKING = InProgressError("the backend is still working on it")


def _plan_pending(
    context: OrderContext, progress: Progress, planning: _PlanningContext
) -> OrderPlan:
    """An order on which the backend works by itself: nothing is repeated, and done is read back."""
    name = progress.assigned_id or context.resource.backend_id.strip()
    if not name and context.placements:
        name = context.placements[0].id
    plan = OrderPlan(context=context, backend_id=name)
    if progress.error is not None:
        return replace(plan, problem=progress.error)
    if progress.result is Result.PENDING:
        return replace(plan, unfinished=STILL_WORKING)
    found = planning.state.resources.get(name.lower())
    match context.order.type:
        case OrderType.CREATE | OrderType.RESTORE if found is None:
            text = f'{name}: reported as created, but the backend has no "{name}"'
            return replace(plan, unfinished=TemporaryError(text, remedy="read again next time"))
        case OrderType.CREATE | OrderType.RESTORE:
            steps = _joining(context, name.lower(), found)
            return replace(plan, steps=steps, unfinished=context.team_problem)
        case OrderType.TERMINATE if found is not None:
            text = f'{name}: reported as deleted, but the backend still has "{name}"'
            return replace(plan, unfinished=TemporaryError(text, remedy="read again next time"))
        case _:
            return plan


def _joining(context: OrderContext, name: str, found: BackendResource | None) -> tuple[Step, ...]:
    present = found.members if found is not None else frozenset()
    missing = tuple(sorted(context.members - present))
    reason = f"in the team of project {context.order.project_slug}"
    addition = AddMembers(name, missing, context.grant)
    return (Step(addition, reason, context.order.uuid),) if missing else ()


def _plan_create(context: OrderContext, planning: _PlanningContext) -> OrderPlan:
    placement, adopted = _choose_placement(context, planning)
    planning.given.update(name for _, name in placement.names())
    components = of_resource(planning.components, context.resource, context.order)
    limits = initial_limits(context.order.limits, components)
    reasons = entitlements(context.order.limits, components)
    found = planning.state.resources.get(placement.id)
    steps: list[Step] = []
    if found is None or not found.is_complete:
        creation = CreateResource(
            placement,
            planning.precision.limits(limits),
            facts=context.facts,
            order=context.order.uuid,
            may_exist=context.noted_name == placement.id,
        )
        steps.append(Step(creation, _why(context), context.order.uuid, reasons=reasons))
    elif changes := limit_changes(limits, found.limits, planning.precision):
        is_back = context.order.type == OrderType.RESTORE
        reason = "restored" if is_back else "ordered; not yet set on the account"
        action = SetLimits(placement.id, changes, context.order.uuid)
        steps.append(Step(action, reason, context.order.uuid, found.limits, reasons))
    if planning.capabilities.makes_project_directories:
        directory = CreateProjectDirectory(placement.id)
        steps.append(Step(directory, "goes with the account", context.order.uuid))
    steps += _joining(context, placement.id, found)
    note = "adopts the account that an interrupted run created" if adopted else ""
    return OrderPlan(
        context=context,
        backend_id=placement.id,
        steps=tuple(steps),
        unfinished=context.team_problem,
        note=note,
    )


def limits_to_set(
    order: Order,
    resource: Resource,
    components: Mapping[str, Component],
    plan: Mapping[str, Decimal | None],
) -> dict[str, Decimal | None]:
    """The limits that an order asks for, by component, in measured units.

    What the order leaves out: an account that is made gets what the resource has, and prepaid
    components count anew with each order, because a renewal changes the months alone. ``plan`` is
    what the plan includes, and counts where neither order nor resource has a limit.
    """
    known = {name: limit for name, limit in resource.limits.items() if limit is not None}
    if order.type == OrderType.UPDATE:
        known = {n: v for n, v in known.items() if n in components and components[n].is_prepaid}
    if order.type != OrderType.UPDATE and order.limits:
        known = {}
    if has_no_limits(order, resource, components):
        known |= {name: limit for name, limit in plan.items() if limit}
    return {**known, **order.limits}


def has_no_limits(order: Order, resource: Resource, components: Mapping[str, Component]) -> bool:
    """Whether limits can be ordered, and neither the order nor its resource has any."""
    names = {name for name, component in components.items() if component.rules.is_limited}
    known = [limits.get(name) for limits in (order.limits, resource.limits) for name in names]
    return bool(names) and all(limit is None for limit in known)


def _why(context: OrderContext) -> str:
    verb = "restored" if context.order.type == OrderType.RESTORE else "ordered"
    return f'{verb} as "{context.order.resource_name or context.resource.name}"'


def _choose_placement(context: OrderContext, planning: _PlanningContext) -> tuple[Placement, bool]:
    """The placement to use, and whether it adopts an existing account."""
    known_as = context.resource.account
    if known_as:
        return _known_placement(context, known_as, planning), False
    for placement in context.placements:
        if planning.is_taken(placement.id, context.resource.uuid):
            continue
        found = planning.state.resources.get(placement.id)
        if found is None:
            return placement, False
        if planning.capabilities.adopts_unfinished:
            if _is_unfinished(found, placement):
                return placement, True
        elif context.noted_name == placement.id:
            return placement, True
    raise PermanentError(_name_taken(context.placements, context, planning))


def _known_placement(context: OrderContext, known_as: str, planning: _PlanningContext) -> Placement:
    """The placement of a resource that already has a backend_id."""
    placement = next(
        (p for p in context.placements if p.id == known_as),
        replace(context.placements[0], id=known_as),
    )
    found = planning.state.resources.get(known_as)
    is_elsewhere = found is not None and not _is_at(found, placement)
    if found is not None and is_elsewhere:
        _wait_if_project_moves(found, planning.state, placement)
    if planning.is_taken(known_as, context.resource.uuid) or is_elsewhere:
        raise PermanentError(_name_taken((placement,), context, planning))
    return placement


def _is_at(found: BackendResource, placement: Placement) -> bool:
    return (found.parent, found.organization) == (placement.parent, placement.organization)


def _wait_if_project_moves(
    found: BackendResource, state: BackendState, *placements: Placement
) -> None:
    """Wait for an account that a move of its project has left below that of a customer."""
    above = state.resources.get(found.parent or "")
    if above is None or above.organization != above.id:
        return
    for place in placements:
        if found.organization == place.organization == place.project_container:
            raise TemporaryError(
                f'{found.id}: its account is under "{above.id}", not under "{place.parent}"',
                remedy="if a move of its project was interrupted, membership_sync finishes that; "
                "otherwise put it there by hand",
            )


def _is_unfinished(found: BackendResource, placement: Placement) -> bool:
    """Whether an account was left behind by an interrupted run.

    The backend_id is set in Waldur before members are added. So an account with members that
    belongs to no resource was not left by an interrupted run.
    """
    return _is_at(found, placement) and not found.members


def _name_taken(
    placements: Sequence[Placement], context: OrderContext, planning: _PlanningContext
) -> str:
    first = placements[0]
    subject = f'{first.id}: cannot create: account "{first.id}"'
    tried = len(placements)
    more = f" (the {tried - 1} other names tried are not available either)" if tried > 1 else ""
    remedy = "choose another name" if tried == 1 else _MORE_NAMES
    if planning.is_taken(first.id, context.resource.uuid):
        return f"{subject} belongs to another resource in Waldur{more}; {remedy}"
    found = planning.state.resources[first.id]
    if found.parent != first.parent:
        place = f'exists under "{found.parent}", not under "{first.parent}"'
    elif found.organization != first.organization:
        place = f'exists with organization "{found.organization}", not "{first.organization}"'
    else:
        place = f"exists, belongs to no resource in Waldur, and has {len(found.members)} members"
    return f"{subject} {place}{more}; rename it or set another allocation_prefix"


_MORE_NAMES = "terminate resources of the project, or raise backend_id_max_retries"


def _plan_update(context: OrderContext, planning: _PlanningContext) -> OrderPlan:
    name = context.resource.account
    components = of_resource(planning.components, context.resource, context.order)
    wanted = ordered_limits(context.order.limits, components)
    if not wanted:
        return OrderPlan(context=context, backend_id=name, note="changes no limits")
    if context.budget is not None:
        wanted |= context.budget
    if not name:
        raise PermanentError(
            f"{context.resource.name}: cannot update: the resource has no backend_id; "
            "set the name of its account in Waldur, or terminate it"
        )
    found = planning.state.resources.get(name)
    if found is None:
        raise PermanentError(
            f'{name}: cannot update: the backend has no account "{name}"; '
            "restore it (membership_sync --recreate), correct the backend_id in Waldur, "
            "or terminate the resource"
        )
    _refuse_if_shared("update", name, context, planning)
    steps: tuple[Step, ...] = ()
    if changes := limit_changes(wanted, found.limits, planning.precision):
        action = SetLimits(name, changes, context.order.uuid)
        reasons = entitlements(context.order.limits, components)
        steps = (Step(action, "ordered", context.order.uuid, found.limits, reasons),)
    return OrderPlan(context=context, backend_id=name, steps=steps)


def _plan_terminate(context: OrderContext, planning: _PlanningContext) -> OrderPlan:
    name = context.resource.account
    if not name:
        return _plan_terminate_unnamed(context, planning)
    _refuse_if_shared("terminate", name, context, planning)
    containers = {p.project_container for p in context.placements} - {None}
    found = planning.state.resources.get(name)
    if found is not None:
        _refuse_if_foreign(found, context, planning.state)
        container = found.parent if found.parent in containers else None
        action = DeleteResource(name, container, context.order.uuid)
        step = Step(action, "terminated in Waldur", context.order.uuid)
        return OrderPlan(context=context, backend_id=name, steps=(step,))
    note = f'account "{name}" is already deleted'
    left_over = [p for p in containers if p and _is_empty_container(p, planning.state)]
    steps = tuple(
        Step(DeleteResource(name, parent), f'"{parent}" was left empty', context.order.uuid)
        for parent in left_over
    )
    return OrderPlan(context=context, backend_id=name, steps=steps, note=note)


def _plan_terminate_unnamed(context: OrderContext, planning: _PlanningContext) -> OrderPlan:
    """A resource without backend_id was never created, or its creation was interrupted."""
    for placement in context.placements:
        found = planning.state.resources.get(placement.id)
        if found is None or planning.is_taken(placement.id, context.resource.uuid):
            continue
        known = planning.capabilities.adopts_unfinished
        if _is_unfinished(found, placement) if known else context.noted_name == placement.id:
            action = DeleteResource(placement.id, placement.project_container, context.order.uuid)
            step = Step(action, "left by an interrupted creation", context.order.uuid)
            return OrderPlan(context=context, steps=(step,))
    if context.noted_name and planning.capabilities.assigns_ids:
        raise PermanentError(
            f'{context.resource.name}: cannot terminate: its creation as "{context.noted_name}" '
            "was interrupted, so the backend may have it under an id that Waldur does not know; "
            "look for it there, then set the backend_id in Waldur and terminate again"
        )
    return OrderPlan(context=context, note="was never created; nothing to delete")


def _refuse_if_shared(
    verb: str, name: str, context: OrderContext, planning: _PlanningContext
) -> None:
    others = planning.claims.others(name, context.resource.uuid) - planning.claims.opening
    if others:
        raise PermanentError(
            f'{name}: cannot {verb}: account "{name}" is also the backend_id of resource '
            f"{min(others)}; correct one of the two in Waldur"
        )


def _refuse_if_foreign(found: BackendResource, context: OrderContext, state: BackendState) -> None:
    """Refuse to delete accounts not created for a resource: their organization differs."""
    ours = found.organization and found.organization == found.parent
    if ours or any(_is_at(found, placement) for placement in context.placements):
        return
    _wait_if_project_moves(found, state, *context.placements)
    raise PermanentError(
        f'{found.id}: cannot terminate: account "{found.id}" is under "{found.parent}" with '
        f'organization "{found.organization}", so it was not created for a resource; delete it by '
        "hand and terminate again, or correct the backend_id in Waldur"
    )


def _is_empty_container(name: str, state: BackendState) -> bool:
    """Whether an interrupted termination left the account of a project empty."""
    found = state.resources.get(name)
    if found is None or found.members or found.organization not in (name, found.parent):
        return False
    others = (r for r in state.resources.values() if r.organization == name and r.id != name)
    return not state.children(name) and not any(others)


def order_writes(plan: OrderPlan, last_usage: Iterable[Write]) -> tuple[Write, ...]:
    """The writes for an order if every step of its plan succeeds, in order.

    ``last_usage`` are the usage reports of a terminated resource.
    """
    writes = []
    if plan.order.state == OrderState.PENDING_PROVIDER:
        writes.append(approve_write(plan.order))
    is_opened = plan.order.type in OrderType.OPENING
    if is_opened and plan.problem is None and plan.needs_backend_id:
        writes.append(backend_id_write(plan.context.resource, plan.backend_id))
    if plan.creation is not None and plan.problem is None and has_note(plan.context.resource):
        writes.append(without_note(plan.context.resource, NEW_ACCOUNT))
    writes += last_usage
    problem = plan.problem or plan.unfinished
    if plan.loses_name:
        writes.append(lost_name_write(plan.context.resource))
    note = renewal_note(plan) if problem is None else None
    if note is not None and note.changes:
        writes.append(note)
    if problem is None:
        writes.append(complete_write(plan.order))
    elif isinstance(problem, PermanentError):
        writes.append(fail_write(plan.order, str(problem)))
    return tuple(writes)


def approve_write(order: Order) -> Write:
    """Approve an order."""
    return _state(order, Call.APPROVE_ORDER, order.state, OrderState.EXECUTING)


def reject_write(order: Order, reason: str) -> Write:
    """Reject an order that is pending on the provider, with the reason."""
    return _state(order, Call.REJECT_ORDER, order.state, OrderState.REJECTED, reason)


def complete_write(order: Order) -> Write:
    """Mark an order as done."""
    return _state(order, Call.COMPLETE_ORDER, OrderState.EXECUTING, OrderState.DONE)


def fail_write(order: Order, message: str) -> Write:
    """Mark an order as erred, with the reason."""
    return _state(order, Call.FAIL_ORDER, OrderState.EXECUTING, OrderState.ERRED, message)


def _state(order: Order, call: Call, old: str, new: str, reason: str = "") -> Write:
    return Write(
        call=call,
        uuid=order.uuid,
        about=order.resource_name or str(order.uuid),
        changes=(Change("order", old, new),),
        reason=reason or f"{order.type} order {order.uuid}",
        value=reason or None,
    )
