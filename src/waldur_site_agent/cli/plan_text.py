"""A plan as people like to read it: a block per resource, a line per change, a footer."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    AddMembers,
    CreateResource,
    DeleteResource,
    RemoveMembers,
    SetLimits,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from decimal import Decimal

    from waldur_site_agent.cycles.order_report import OrdersReport
    from waldur_site_agent.planning.orders import OrderPlan
    from waldur_site_agent.planning.plan import Step

_COLUMN = 14

Change = tuple[str, str, str]
"""Sign, subject and explanation."""


def orders_text(report: OrdersReport) -> str:
    """The plan of one offering's orders."""
    lines: list[str] = []
    signs: Counter[str] = Counter()
    for plan in report.plans:
        lines += [_heading(plan), *_explanations(plan)]
        for sign, subject, explanation in _changes(plan):
            signs[sign] += 1
            lines.append(f"  {sign} {subject:<{_COLUMN}} {explanation}".rstrip())
    if report.trouble:
        lines.append(f"! {report.trouble}")
    return "\n".join([*lines, _footer(signs, report)])


def _heading(plan: OrderPlan) -> str:
    order = plan.order
    name = plan.backend_id or "(no account)"
    project = f" (project {order.project_slug})" if order.project_slug else ""
    return f"{name}  {order.resource_name}{project}: {order.type} order {order.uuid}"


def _explanations(plan: OrderPlan) -> Iterator[str]:
    if plan.problem is not None:
        yield f"  ! {plan.problem}"
    elif plan.unfinished is not None:
        yield f"  ! {plan.unfinished}"
    if plan.note:
        yield f"    {plan.note}"
    if plan.problem is None and not plan.steps and not plan.note:
        yield "    everything is there; only to be marked done"


def _changes(plan: OrderPlan) -> Iterator[Change]:
    for step in plan.steps:
        yield from step_changes(step)


def step_changes(step: Step) -> Iterator[Change]:
    """The lines of one step of a plan."""
    match step.action:
        case CreateResource(placement=placement, limits=limits):
            above = " > ".join(name for _, name in placement.names())
            yield "+", "account", f"{above}  {step.reason}"
            yield from _limit_changes(limits, {}, "with the account")
        case DeleteResource():
            yield "-", "account", step.reason
        case SetLimits(limits=limits):
            yield from _limit_changes(limits, step.before, step.reason)
        case AddMembers(members=members):
            yield from (("+", member, step.reason) for member in members)
        case RemoveMembers(members=members):
            yield from (("-", member, step.reason) for member in members)
        case action:
            yield "~", type(action).__name__, step.reason


def _limit_changes(
    limits: Mapping[str, Decimal | None], before: Mapping[str, Decimal], reason: str
) -> Iterator[Change]:
    for component, amount in sorted(limits.items()):
        old = before.get(component)
        change = f"{'none' if old is None else f'{old:f}'} -> "
        change += "none" if amount is None else f"{amount:f}"
        yield "~", "limit", f"{component} {change}  {reason}"


def _footer(signs: Counter[str], report: OrdersReport) -> str:
    if not signs:
        return "No changes." if not report.plans else "Plan: no changes in the backend."
    return (
        f"Plan: {signs['+']} to add, {signs['-']} to remove, {signs['~']} to change; "
        f"{len(report.plans)} orders."
    )
