"""What the last passes of this process found, for ``status`` and the pages; kept in memory only.

A pass hands in its report; what people look at is taken out of it at once, so that no report is
kept. Names of people are kept apart from everything else, because pages leave them out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from waldur_site_agent.cycles.membership import MembershipReport
from waldur_site_agent.cycles.order_inputs import OrdersReport, OrderStatus
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent.model.marketplace import Resource
from waldur_site_agent.planning.membership import AccountPlan, wanted_access
from waldur_site_agent.planning.plan import amount_text
from waldur_site_agent.planning.usage import ResourceReport

MOST_LINES = 50
"""How many things that wait, and how many budgets, are told for each worker."""
LARGE_SHARE = Decimal("0.8")
_SMALLEST_LIMIT = Decimal("1e-9")
"""Of less, no share is computed: the result could be too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What was used of one component of a resource this month, in measured units."""

    component: str
    used: Decimal
    limit: Decimal | None = None
    by_user: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def share(self) -> Decimal | None:
        """The used part of the limit; ``None`` without a limit, or with next to none."""
        return self.used / self.limit if self.limit and self.limit >= _SMALLEST_LIMIT else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceView:
    """One resource, as the last passes saw it."""

    uuid: str
    account: str = ""
    name: str = ""
    project: str = ""
    state: str = ""
    access: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)
    members: tuple[str, ...] | None = None
    """``None`` where no pass has read them."""
    waiting: int = 0
    missing: bool = False
    month: str = ""
    budgets: tuple[Budget, ...] = ()
    days: tuple[tuple[str, Mapping[str, Decimal]], ...] = ()
    """Each day of the month so far, with what was used of each component."""


class Overview:
    """The resources of all offerings that this process serves. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resources: dict[str, dict[str, ResourceView]] = {}

    def take(self, report: CycleReport) -> None:
        """Take what a pass found."""
        found = dict(_views(report))
        if not found:
            return
        with self._lock:
            known = self._resources.setdefault(report.offering, {})
            for uuid, change in found.items():
                known[uuid] = _merged(known.get(uuid), change)
            if isinstance(report, MembershipReport) and not report.trouble:
                listed = {str(uuid) for uuid in report.snapshot.resources}
                self._resources[report.offering] = {
                    uuid: view for uuid, view in known.items() if uuid in listed or not listed
                }

    def offerings(self) -> dict[str, list[ResourceView]]:
        """The resources by offering, sorted by account."""
        with self._lock:
            copies = {name: [*views.values()] for name, views in self._resources.items()}
        return {n: sorted(v, key=lambda each: (each.account, each.uuid)) for n, v in copies.items()}

    def resource(self, uuid: str) -> tuple[str, ResourceView] | None:
        """One resource with its offering."""
        with self._lock:
            for offering, views in self._resources.items():
                if uuid in views:
                    return offering, views[uuid]
        return None


def _views(report: CycleReport) -> Iterator[tuple[str, ResourceView]]:
    match report:
        case MembershipReport():
            for plan in report.membership.accounts:
                for resource in plan.wanted.resources:
                    yield str(resource.uuid), _of_plan(resource, plan)
        case UsageCycleReport():
            for outcome in report.months[-1:]:
                for each in outcome.plan.resources:
                    view = _of_resource(each.resource)
                    month = str(outcome.plan.month)
                    yield (
                        str(each.resource.uuid),
                        replace(
                            view,
                            month=month,
                            budgets=tuple(_budgets(each)),
                            days=(report.days or {}).get(each.account, ()),
                        ),
                    )
        case _:
            return


def _of_plan(resource: Resource, plan: AccountPlan) -> ResourceView:
    members = plan.wanted.members
    return replace(
        _of_resource(resource),
        members=None if members is None else tuple(sorted(members)),
        waiting=len(plan.waiting) + len(plan.kept_out),
        missing=plan.is_missing,
    )


def _of_resource(resource: Resource) -> ResourceView:
    return ResourceView(
        uuid=str(resource.uuid),
        account=resource.account,
        name=resource.name,
        project=resource.project_slug or resource.project_name,
        state=resource.state,
        access=wanted_access(resource).value,
        limits={name: amount_text(v) or "none" for name, v in sorted(resource.limits.items())},
    )


def _budgets(report: ResourceReport) -> Iterator[Budget]:
    for component in report.components:
        yield Budget(
            component=component.type,
            used=component.bill.total,
            limit=report.resource.limits.get(component.type),
            by_user=component.bill.user_usages,
        )


def _merged(known: ResourceView | None, change: ResourceView) -> ResourceView:
    """What is new, with what only another kind of pass knows kept."""
    if known is None:
        return change
    if change.month:
        days = change.days or (known.days if known.month == change.month else ())
        return replace(
            change,
            members=known.members,
            waiting=known.waiting,
            missing=known.missing,
            days=days,
        )
    return replace(change, month=known.month, budgets=known.budgets, days=known.days)


def waiting_in(report: CycleReport) -> list[str]:
    """What a pass left for later, one line each."""
    lines: list[str] = []
    match report:
        case OrdersReport():
            for result in report.results:
                if result.status is OrderStatus.WAITING:
                    order = result.order
                    lines.append(f"{order.type} order of {order.resource_name}: {result.reason}")
        case MembershipReport():
            for plan in report.membership.accounts:
                if plan.waiting:
                    number = len(plan.waiting)
                    who = "1 member" if number == 1 else f"{number} members"
                    lines.append(f"{plan.wanted.id}: {who} until the operating system knows them")
                if plan.is_missing:
                    lines.append(f"{plan.wanted.id}: the backend does not have this account")
            lines += report.failures
        case UsageCycleReport():
            lines += [*report.skipped, *report.failures]
        case _:
            pass
    return lines[:MOST_LINES]


def large_budgets(report: CycleReport) -> list[dict[str, Any]] | None:
    """Budgets of which most is used, as JSON values; ``None`` if the pass does not tell.

    What the backend counts against a limit decides, where the pass has read it; otherwise the usage
    of this month is held against the limit in Waldur.
    """
    if not isinstance(report, UsageCycleReport) or report.trouble:
        return None
    counted = [
        _large(each.account, each.resource, each.component, each.used, each.limit)
        for each in report.budgets
    ]
    billed = [
        _large(each.account, each.resource.uuid, budget.component, budget.used, budget.limit)
        for outcome in report.months[-1:]
        for each in outcome.plan.resources
        for budget in _budgets(each)
    ]
    found = [each for each in counted or billed if each is not None]
    return sorted(found, key=lambda each: -float(each["percent"]))[:MOST_LINES]


def _large(
    account: str, resource: UUID, component: str, used: Decimal, limit: Decimal | None
) -> dict[str, Any] | None:
    if limit is None or limit < _SMALLEST_LIMIT:
        return None
    share = used / limit
    if share < LARGE_SHARE:
        return None
    return {
        "account": account,
        "resource": str(resource),
        "component": component,
        "used": f"{used:f}",
        "limit": f"{limit:f}",
        "percent": round(float(share * 100), 1),
    }


def age_text(moment: str | None, now: datetime | None = None) -> str:
    """How long ago a moment in ISO 8601 was, in words."""
    if not moment:
        return "never"
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return moment
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"
