"""What the last passes of this process found, for ``status`` and the pages; kept in memory only.

A pass hands in its report; what people look at is taken out of it at once, so that no report is
kept. Names of people are kept apart from everything else, because pages leave them out.
"""

from __future__ import annotations

import threading
from collections import defaultdict
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
from waldur_site_agent.model.budget_notices import Consumption
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
class ComponentUsage:
    """What was used of one component of a resource, in measured units."""

    component: str
    used: Decimal | None = None
    """In this month, as reported; ``None`` if Waldur takes no usage of it."""
    by_user: Mapping[str, Decimal] = field(default_factory=dict)
    of_limit: Consumption | None = None
    """As the backend counts it, where a pass has read that; otherwise the usage of this month, of
    the limit in Waldur. ``None`` without a limit."""

    @property
    def share(self) -> Decimal | None:
        """The used part of the limit; ``None`` without a limit, or with next to none."""
        if self.of_limit is None or self.of_limit.limit < _SMALLEST_LIMIT:
            return None
        return self.of_limit.share


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
    usage: tuple[ComponentUsage, ...] = ()
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
            usage = _usage_by_resource(report)
            for outcome in report.months[-1:]:
                for each in outcome.plan.resources:
                    yield (
                        str(each.resource.uuid),
                        replace(
                            _of_resource(each.resource),
                            month=str(outcome.plan.month),
                            usage=usage[each.resource.uuid],
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


def _usage_by_resource(report: UsageCycleReport) -> dict[UUID, tuple[ComponentUsage, ...]]:
    """What was used of each resource, and of its limits."""
    counted: defaultdict[UUID, dict[str, Consumption]] = defaultdict(dict)
    for budget in report.budgets:
        counted[budget.resource][budget.component] = budget
    found = {
        each.resource.uuid: tuple(_usage(each, counted.pop(each.resource.uuid, {})))
        for outcome in report.months[-1:]
        for each in outcome.plan.resources
    }
    for uuid, limits in counted.items():
        found[uuid] = tuple(ComponentUsage(component=n, of_limit=c) for n, c in limits.items())
    return found


def _usage(report: ResourceReport, counted: dict[str, Consumption]) -> Iterator[ComponentUsage]:
    for component in report.components:
        used, limit = component.bill.total, report.resource.limits.get(component.type)
        billed = None if limit is None else Consumption(limit, used)
        yield ComponentUsage(
            component=component.type,
            used=used,
            by_user=component.bill.user_usages,
            of_limit=counted.pop(component.type, billed),
        )
    for name, consumption in counted.items():
        yield ComponentUsage(component=name, of_limit=consumption)


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
    return replace(change, month=known.month, usage=known.usage, days=known.days)


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
    of this month is compared with the limit in Waldur.
    """
    if not isinstance(report, UsageCycleReport) or report.trouble:
        return None
    accounts = {budget.resource: budget.account for budget in report.budgets}
    for outcome in report.months[-1:]:
        accounts |= {each.resource.uuid: each.account for each in outcome.plan.resources}
    found = [
        {
            "account": accounts[uuid],
            "resource": str(uuid),
            "component": each.component,
            "used": shown_amount(each.of_limit.used),
            "limit": shown_amount(each.of_limit.limit),
            "percent": round(float(each.share * 100), 1),
        }
        for uuid, usage in _usage_by_resource(report).items()
        for each in usage
        if each.of_limit is not None and each.share is not None and each.share >= LARGE_SHARE
    ]
    return sorted(found, key=lambda each: -float(str(each["percent"])))[:MOST_LINES]


def shown_amount(amount: Decimal | None) -> str:
    """An amount with two decimals at most: a count with decay has many more."""
    return "" if amount is None else amount_text(Decimal(f"{amount:.2f}")) or ""


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
