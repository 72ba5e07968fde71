"""Which budgets there are, and which of them have crossed a threshold since the last notice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from waldur_site_agent.model.budget_notices import Budget, BudgetNotice, Consumption
from waldur_site_agent.model.marketplace import Component, Resource

NOTED = "agent_budget_notices"
"""The key of ``backend_metadata``: by component, the last threshold told of, and its limit."""
_REARM = Decimal("0.05")
"""A share must fall this far below a threshold before its crossing is told again."""
_LARGEST, _LONGEST = 1000, 30
"""The largest percentage, and the most digits of a limit, that is believed to be noted."""


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """What is new with the budgets of one resource."""

    resource: Resource
    notices: tuple[BudgetNotice, ...]
    noted: Mapping[str, Any]
    """What ``backend_metadata`` has to say from now on, so that nothing is told twice."""

    def metadata(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The ``backend_metadata`` as it was just read, with what is noted from now on."""
        return with_noted(found, self.noted)


def with_noted(found: Mapping[str, Any], noted: object) -> dict[str, Any]:
    """Metadata with another note of budgets, or without any if that is empty."""
    rest = {key: value for key, value in found.items() if key != NOTED}
    return {**rest, NOTED: noted} if noted else rest


def budgets_of(
    resources: Mapping[str, Resource],
    components: Iterable[Component],
    consumption: Mapping[str, Mapping[str, Consumption]],
) -> tuple[Budget, ...]:
    """The budgets of all resources, by account and component.

    A component that is several things in the backend is used up as soon as one of them is, so that
    one counts of which most is used.

    Args:
        resources: by account.
        components: those of the offering.
        consumption: by account and the backend's own types, what is used of limits.
    """
    sold = tuple(components)
    return tuple(
        budget
        for account, resource in sorted(resources.items())
        for component in sold
        if (budget := _budget(account, resource, component, consumption.get(account, {})))
    )


def _budget(
    account: str, resource: Resource, component: Component, used: Mapping[str, Consumption]
) -> Budget | None:
    parts = [(part, used[part.type]) for part in component.parts if part.type in used]
    if not parts:
        return None
    part, deciding = max(parts, key=lambda pair: pair[1].share)
    return Budget(
        resource=resource.uuid,
        account=account,
        title=resource.name,
        project=resource.project_slug,
        ends_on=resource.ends_on,
        component=component.type,
        label=component.label,
        unit=component.measured_unit,
        limit=deciding.limit / part.unit_factor,
        used=deciding.used / part.unit_factor,
    )


def budget_changes(
    resources: Mapping[str, Resource], budgets: Iterable[Budget], thresholds: Sequence[int]
) -> tuple[BudgetChange, ...]:
    """What to tell, and what to note, so that no crossing is told twice.

    A notice is due when a budget reaches a threshold above the last one told of. Where the limit
    was changed or usage fell well below that threshold, what was told of is forgotten.

    Args:
        resources: by account, with the ``backend_metadata`` that an earlier pass noted.
        budgets: as they are now.
        thresholds: in percent.
    """
    by_account: dict[str, list[Budget]] = {}
    for budget in budgets:
        if budget.limit > 0:
            by_account.setdefault(budget.account, []).append(budget)
    changes = (
        _change(resources[account], found, sorted(thresholds))
        for account, found in by_account.items()
    )
    return tuple(change for change in changes if change is not None)


def _change(
    resource: Resource, budgets: Iterable[Budget], thresholds: Sequence[int]
) -> BudgetChange | None:
    before = _noted(resource)
    notices: list[BudgetNotice] = []
    after = dict(before)
    for budget in budgets:
        told, limit = before.get(budget.component, (0, budget.limit))
        reached = max((each for each in thresholds if budget.share * 100 >= each), default=0)
        is_new_limit = limit != budget.limit
        if reached > told:
            notices.append(BudgetNotice(budget, reached))
        elif is_new_limit or budget.share + _REARM < Decimal(told) / 100:
            pass  # a higher limit, or a new period: begin again from what is reached now
        else:
            continue
        after[budget.component] = (reached, budget.limit)
    if after == before:
        return None
    noted = {
        name: {"percent": percent, "limit": f"{limit.normalize():f}"}
        for name, (percent, limit) in sorted(after.items())
        if percent
    }
    return BudgetChange(resource, tuple(notices), noted)


def _noted(resource: Resource) -> dict[str, tuple[int, Decimal]]:
    """What was told of already; whatever cannot be read was not."""
    found = resource.backend_metadata.get(NOTED)
    if not isinstance(found, Mapping):
        return {}
    return {str(name): value for name, value in _entries(found)}


def _entries(found: Mapping[Any, Any]) -> Iterator[tuple[Any, tuple[int, Decimal]]]:
    for name, entry in found.items():
        try:
            percent, limit = int(entry["percent"]), Decimal(str(entry["limit"]))
        except (KeyError, TypeError, ValueError, OverflowError, InvalidOperation):
            continue
        # what is no number cannot be compared, and one of a million digits not be written
        if abs(percent) <= _LARGEST and limit.is_finite() and abs(limit.adjusted()) <= _LONGEST:
            yield name, (percent, limit)
