"""The file that the agent writes, and how it looks on a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

FORMAT = 1
"""The newest version of the file's format that is understood."""
_WIDTH = 20
_OLD_SECONDS = 24 * 3600
_LARGEST_SHARE = 1e6


class UnreadableFileError(Exception):
    """A file of budgets cannot be read; the text names it and says why."""


@dataclass(frozen=True)
class Budget:
    """What an account has used of the limit of one component."""

    account: str
    title: str
    project: str
    ends_on: str
    label: str
    unit: str
    limit: float
    used: float


@dataclass(frozen=True)
class Budgets:
    """One file: the budgets of one offering."""

    offering: str
    written: datetime
    budgets: tuple[Budget, ...]


def read_budgets(path: Path) -> Budgets:
    """Read a file of budgets.

    Raises:
        UnreadableFileError: it cannot be read or understood.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] > FORMAT:
            raise UnreadableFileError(f"{path}: made by a newer agent; update waldur-budget")
        written = datetime.fromisoformat(found["written"]).astimezone(timezone.utc)
        budgets = tuple(_budget(entry) for entry in found["budgets"])
        return Budgets(str(found["offering"]), written, budgets)
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UnreadableFileError(f"{path}: not a file of budgets") from error


def _budget(entry: dict[str, Any]) -> Budget:
    return Budget(
        account=str(entry["account"]),
        title=str(entry["resource"]["name"]),
        project=str(entry["project"]),
        ends_on=str(entry["ends_on"] or ""),
        label=str(entry["label"]),
        unit=str(entry["unit"]),
        limit=_amount(entry["limit"]),
        used=_amount(entry["used"]),
    )


def _amount(value: Any) -> float:
    amount = float(value)
    if not math.isfinite(amount):
        raise ValueError("not a number")
    return amount


def lines_of(budgets: Iterable[Budget]) -> Iterator[str]:
    """The budgets as text, account by account."""
    ordered = sorted(budgets, key=lambda each: each.account)
    for account, group in groupby(ordered, key=lambda each: each.account):
        found = list(group)
        ends = f", until {found[0].ends_on}" if found[0].ends_on else ""
        yield printable(f"{account}  {found[0].title} (project {found[0].project}){ends}")
        width = max(len(each.label) for each in found)
        for each in found:
            yield printable(f"  {each.label:<{width}}  {_bar(each)}")
        yield printable(f"  sbatch -A {account}")
        yield ""


def _bar(budget: Budget) -> str:
    share = min(budget.used / budget.limit, _LARGEST_SHARE) if budget.limit else 1.0
    full = min(max(int(share * _WIDTH), 0), _WIDTH)
    left = max(budget.limit - budget.used, 0.0)
    return (
        f"[{'#' * full}{'-' * (_WIDTH - full)}] {share:4.0%}   "
        f"{budget.used:g} of {budget.limit:g} {budget.unit} used, {left:g} left"
    )


def age_of(written: datetime, now: datetime | None = None) -> str:
    """How old the figures are; old ones are pointed out."""
    moment = now or datetime.now(timezone.utc)
    seconds = (moment - written).total_seconds()
    if seconds >= _OLD_SECONDS:
        return f"{seconds / 86400:.0f} days old: tell the site's administrators"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.0f} hours old"
    return f"{max(seconds, 0) / 60:.0f} minutes old"


def printable(text: str) -> str:
    """The text without anything that a terminal would obey: names come from customers."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
