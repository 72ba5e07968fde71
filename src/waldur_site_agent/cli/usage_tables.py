"""Figures of usage in columns, for people, spreadsheets and machines."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from waldur_site_agent.cli.plan_text import amount_text, on_one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from waldur_site_agent.cycles.usage_report import MonthOutcome
    from waldur_site_agent.model.offerings import Component
    from waldur_site_agent.planning.usage import ComponentReport, MonthPlan

_TEXT_COLUMNS = 4
_LOWER = "lower than in Waldur"
_HEADING = (
    "offering",
    "month",
    "account",
    "resource",
    "uuid",
    "component",
    "unit",
    "used",
    "in_waldur",
    "difference",
    "anomaly",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was used of one offering's resources next to what Waldur has."""

    offering: str
    plans: Sequence[MonthPlan]
    components: Mapping[str, Component]


def comparison_table(plans: Iterable[MonthPlan], components: Mapping[str, Component]) -> str:
    """What was used next to what Waldur has, a line per component of each resource."""
    head = ("MONTH", "ACCOUNT", "RESOURCE", "COMPONENT", "USED", "IN WALDUR", "DIFFERENCE", "")
    rows = [
        (
            str(plan.month),
            resource.account,
            resource.resource.name,
            f"{component.type} ({components[component.type].measured_unit})",
            amount_text(component.bill.total),
            amount_text(component.before),
            _signed(_difference(component)),
            _LOWER if component.is_anomaly else "",
        )
        for plan in plans
        for resource in plan.resources
        for component in resource.components
    ]
    return _table(head, rows) if rows else "No resources."


def loaded_table(outcomes: Iterable[MonthOutcome], *, dry_run: bool) -> str:
    """What was sent, or would be, a line per component that changed."""
    head = ("MONTH", "ACCOUNT", "RESOURCE", "COMPONENT", "BEFORE", "AFTER", "")
    rows = [
        (
            str(outcome.plan.month),
            resource.account,
            resource.resource.name,
            component.type,
            amount_text(component.before),
            amount_text(component.bill.total),
            _fate(
                component, dry_run=dry_run, sent=outcome.has_sent(resource.account, component.type)
            ),
        )
        for outcome in outcomes
        for resource in outcome.plan.resources
        for component in resource.components
        if component.is_news or component.is_anomaly
    ]
    return _table(head, rows) if rows else "Waldur has it all."


def as_json(comparisons: Iterable[Comparison]) -> str:
    """An entry per component of each resource, with the words of the CSV and who used how much."""
    entries = [
        {**dict(zip(_HEADING, values, strict=True)), "users": _users(component)}
        for values, component in _rows(comparisons)
    ]
    return json.dumps(entries, indent=2, ensure_ascii=False)


def as_csv(comparisons: Iterable[Comparison]) -> str:
    """A line per component of each resource of each offering, with a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADING)
    for values, _ in _rows(comparisons):
        *names, used, in_waldur, difference, anomaly = values
        amounts = (used, in_waldur or "", difference, anomaly)
        writer.writerow([*(_no_formula(name or "") for name in names), *amounts])
    return text.getvalue()


def _rows(
    comparisons: Iterable[Comparison],
) -> Iterator[tuple[tuple[str | None, ...], ComponentReport]]:
    """The values below the heading; amounts are text, because they are exact."""
    for comparison in comparisons:
        for plan in comparison.plans:
            for resource in plan.resources:
                for component in resource.components:
                    yield (
                        (
                            comparison.offering,
                            str(plan.month),
                            resource.account,
                            resource.resource.name,
                            str(resource.resource.uuid),
                            component.type,
                            comparison.components[component.type].measured_unit,
                            amount_text(component.bill.total),
                            None if component.before is None else amount_text(component.before),
                            amount_text(_difference(component)),
                            _LOWER if component.is_anomaly else "",
                        ),
                        component,
                    )


def _users(component: ComponentReport) -> dict[str, str]:
    return {name: amount_text(part) for name, part in component.bill.parts.items()}


def _no_formula(text: str) -> str:
    """Text that a spreadsheet does not take for a formula, whoever chose the name."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _difference(component: ComponentReport) -> Decimal:
    return component.bill.total - (component.before or 0)


def _signed(amount: Decimal) -> str:
    return f"{amount:+.2f}" if amount else "-"


def _fate(component: ComponentReport, *, dry_run: bool, sent: bool) -> str:
    if component.is_anomaly:
        return f"not sent: {_LOWER}"
    if dry_run:
        return "would be sent"
    return "sent" if sent else "not sent"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Names to the left, amounts to the right, the last column as it comes."""
    cells = [[on_one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        columns = [
            cell.ljust(width) if number < _TEXT_COLUMNS else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row[:-1], widths, strict=False))
        ]
        lines.append("  ".join([*columns, row[-1]]).rstrip())
    return "\n".join(lines)
