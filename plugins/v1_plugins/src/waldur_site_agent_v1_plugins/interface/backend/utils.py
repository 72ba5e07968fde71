"""Stands for ``waldur_site_agent.backend.utils``: months, and sums and texts of limits."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo


def month_start(day: date) -> datetime:
    """The first moment of a day's month."""
    return datetime.combine(day.replace(day=1), time.min)


def month_end(day: date) -> date:
    """The last day of a day's month."""
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def get_current_time_in_timezone(timezone_str: str = "") -> datetime:
    """Now in a zone; in the machine's own if there is none of that name."""
    now = datetime.now(UTC)
    if not timezone_str:
        return now.astimezone()
    try:
        return now.astimezone(ZoneInfo(timezone_str))
    except (OSError, ValueError, KeyError):
        return now.astimezone()


def format_month_period(year: int, month: int) -> tuple[str, str]:
    """A month from its first to its last second."""
    last = calendar.monthrange(year, month)[1]
    return f"{year:04d}-{month:02d}-01T00:00:00", f"{year:04d}-{month:02d}-{last:02d}T23:59:59"


def format_current_month(timezone_str: str = "") -> tuple[str, str]:
    """The current month of a zone from its first to its last second."""
    now = get_current_time_in_timezone(timezone_str)
    return format_month_period(now.year, now.month)


def generate_monthly_periods(
    start_year: int, start_month: int, end_year: int, end_month: int
) -> list[tuple[int, int, str, str]]:
    """All months from one to another, each with its first and last second."""
    months = range(start_year * 12 + start_month - 1, end_year * 12 + end_month)
    pairs = [(number // 12, number % 12 + 1) for number in months]
    return [(year, month, *format_month_period(year, month)) for year, month in pairs]


def get_usage_based_limits(backend_components: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The caps of components that are paid by use, in backend units."""
    return {
        name: component["limit"] * component.get("unit_factor", 1)
        for name, component in backend_components.items()
        if component.get("accounting_type") == "usage" and component.get("limit") is not None
    }


def prettify_limits(
    limits: Mapping[str, Any], backend_components: Mapping[str, Mapping[str, Any]]
) -> str:
    """Limits as lines for people."""
    rows = [(backend_components.get(name, {}), name, value) for name, value in limits.items()]
    lines = [
        f"{row.get('label', name)}: {value} {row.get('measured_unit', '')}".rstrip()
        for row, name, value in rows
    ]
    return "\n".join(lines)


def sum_dicts(dict_list: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of each key."""
    total: dict[str, Any] = {}
    for one in dict_list:
        for key, value in one.items():
            total[key] = total.get(key, 0) + value
    return total
