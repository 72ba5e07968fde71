"""Conditions that last for many cycles; logged when they begin, change and end, not each time.

What several objects have for the same cause is one line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from structlog.typing import FilteringBoundLogger

REPEAT_AFTER = timedelta(days=1)
_MOST_NAMED = 10
_UUID = re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", re.IGNORECASE)


def cause_of(reason: str, *names: str) -> str:
    """A reason without the name of its object, to group objects that share it.

    Args:
        reason: the text about one object.
        names: the names of the object.
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
    """The lasting conditions of one offering in one mode. Not thread-safe."""

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
            event: the log event.
            subject: the object concerned: an order, an account, a user.
            cause: subjects with the same cause share one log line.
            level: the log level.
            fields: further fields of the log line, such as ``reason``.
        """
        self._noted.setdefault((event, cause), {}).setdefault(subject, _Noted(fields, level))

    def note_failures(self, event: str, failures: Iterable[str]) -> None:
        """Note failures that are not logged elsewhere; each text begins with the object's name."""
        for failure in failures:
            name = failure.partition(":")[0]
            self.note(event, name, cause=cause_of(failure, name), resource=name, reason=failure)

    def settle(self, log: FilteringBoundLogger, now: datetime, *, complete: bool) -> None:
        """Log conditions that are new, have changed, have ended, or were last logged a day ago.

        Args:
            log: the log to write to.
            now: the current time.
            complete: whether the cycle covered the whole offering and completed, so that
                conditions it did not note have ended.
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
    """The fields of a line about several subjects: what they have in common, and their names."""
    first = found[order[0]].fields
    if count == 1:
        return dict(first)
    others = [found[name].fields for name in order]
    common = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
    for words in ("reason", "error"):  # they share one cause, so one text represents all
        if words in first:
            common[words] = first[words]
    return {**common, "count": count, "affected": order[:_MOST_NAMED]}


def _log_end(log: FilteringBoundLogger, event: str, ended: _Logged) -> None:
    if ended.level < logging.WARNING:
        return
    since = ended.since.isoformat(timespec="seconds")
    affected: Iterable[str] = sorted(ended.subjects)[:_MOST_NAMED]
    log.info("resolved", condition=event, count=len(ended.subjects), affected=affected, since=since)
