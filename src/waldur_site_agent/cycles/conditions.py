"""Conditions that last for many cycles: logged once, when they grow, and then once a day.

A cycle notes what it finds; at its end everything that has one cause becomes one line with a
count. What was logged is remembered as long as the process lives.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from structlog.typing import FilteringBoundLogger

    from waldur_site_agent.cycles.site import Site

REPEAT_AFTER = timedelta(days=1)
_MOST_NAMED = 10
_UUID = re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", re.IGNORECASE)


def cause_of(reason: str, *names: str) -> str:
    """What a reason has in common with the same reason about another object.

    Args:
        reason: the words about one object.
        names: the names of that object.
    """
    cause = _UUID.sub("…", reason)
    for name in sorted(filter(None, names), key=len, reverse=True):
        cause = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "…", cause)
    return cause


@dataclass(frozen=True, slots=True)
class _Noted:
    fields: Mapping[str, object]
    level: int


@dataclass(slots=True)
class _Logged:
    subjects: frozenset[str]
    since: datetime
    last: datetime
    level: int


_Key = tuple[str, str]
"""The event and its cause."""


@dataclass(slots=True)
class Conditions:
    """The conditions of one offering in one mode. Not to be shared by threads."""

    _noted: dict[_Key, dict[str, _Noted]] = field(default_factory=dict)
    _logged: dict[_Key, _Logged] = field(default_factory=dict)

    def note(
        self,
        event: str,
        subject: str,
        *,
        cause: str = "",
        level: int = logging.WARNING,
        **fields: object,
    ) -> None:
        """Note that a condition holds in this cycle.

        Args:
            event: the text of the log's line.
            subject: what it is about: an order, an account, a person.
            cause: what makes several subjects one line.
            level: of the log.
            fields: what the line says about the subject; ``reason`` is the field for a cause.
        """
        self._noted.setdefault((event, cause), {}).setdefault(subject, _Noted(fields, level))

    def settle(self, log: FilteringBoundLogger, now: datetime, *, complete: bool) -> None:
        """Log what has changed since the cycle before, and what a day has passed over.

        Args:
            log: where to.
            now: the time.
            complete: whether the cycle looked at everything and went through: what it did not
                note has then ended.
        """
        noted, self._noted = self._noted, {}
        for key, found in noted.items():
            self._log_one(log, now, key, found, complete=complete)
        if complete:
            for event, cause in self._logged.keys() - noted.keys():
                ended = self._logged.pop((event, cause))
                _log_end(log, event, ended)

    def _log_one(
        self,
        log: FilteringBoundLogger,
        now: datetime,
        key: _Key,
        found: Mapping[str, _Noted],
        *,
        complete: bool,
    ) -> None:
        logged = self._logged.get(key)
        before = logged.subjects if logged else frozenset[str]()
        new = found.keys() - before
        subjects = frozenset(found) if complete else before | found.keys()
        level = max(each.level for each in found.values())
        if logged is None:
            logged = self._logged[key] = _Logged(subjects, now, now, level)
        elif new or now - logged.last >= REPEAT_AFTER:
            log = log.bind(since=logged.since.isoformat(timespec="seconds"))
            logged.last = now
        else:
            logged.subjects = subjects
            return
        logged.subjects = subjects
        order = [*sorted(new), *sorted(found.keys() - new)]
        log.log(level, key[0], **_fields(found, order, len(subjects)))


def _fields(found: Mapping[str, _Noted], order: list[str], count: int) -> dict[str, object]:
    """What one line says about all subjects: what they have in common, and their names."""
    first = found[order[0]].fields
    if count == 1:
        return dict(first)
    others = [found[name].fields for name in order]
    common = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
    for words in ("reason", "error"):  # they have one cause: the words about one stand for it
        if words in first:
            common[words] = first[words]
    return {**common, "count": count, "affected": order[:_MOST_NAMED]}


def _log_end(log: FilteringBoundLogger, event: str, ended: _Logged) -> None:
    if ended.level < logging.WARNING:
        return
    since = ended.since.isoformat(timespec="seconds")
    affected: Iterable[str] = sorted(ended.subjects)[:_MOST_NAMED]
    log.info("resolved", condition=event, count=len(ended.subjects), affected=affected, since=since)


def note_failures(site: Site, event: str, failures: Iterable[str]) -> None:
    """Note what no line of the log names yet, in words that begin with the object's name."""
    for failure in failures:
        name = failure.partition(":")[0]
        cause = cause_of(failure, name)
        site.conditions.note(event, name, cause=cause, resource=name, reason=failure)
