"""The journal: every change on either side as a line of JSON, for audits.

The file is opened at start and reopened on SIGHUP, so that logrotate can move it away. Every line
is flushed before the agent goes on.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import structlog

from waldur_site_agent.backends import Outcome
from waldur_site_agent.backends.output_files import open_to_append
from waldur_site_agent.cycles.site import Allowance
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.planning.plan import Step, Write

_OWNER_AND_GROUP = 0o640


class Journal:
    """Appends to a file, or does nothing if the site keeps no journal."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be opened for appending.
        """
        self._lock = threading.Lock()
        self._stream: TextIO | None = None
        self._cycles: dict[tuple[str, str], str] = {}
        if path is not None:
            self._stream = os.fdopen(open_to_append(path, _OWNER_AND_GROUP), "a", encoding="utf-8")

    def close(self) -> None:
        """Close the file; later entries are dropped."""
        with self._lock:
            if self._stream is not None:
                with suppress(OSError):  # a failed write was logged when it happened
                    self._stream.close()
                self._stream = None

    def of(self, offering: str, mode: str) -> SiteJournal:
        """The journal of one offering in one mode."""
        return SiteJournal(self, offering, mode)

    def begin_cycle(self, offering: str, mode: str) -> None:
        """Mark the entries of an offering in a mode that follow as those of one cycle."""
        self._cycles[offering, mode] = secrets.token_hex(4)

    def note(self, entry: Mapping[str, Any]) -> None:
        """Record what the agent itself was told or decided, on neither side."""
        self.append({"side": "agent", **plain(dict(entry))})

    def append(self, entry: dict[str, Any]) -> None:
        """Append an entry, with the time and the mark of its cycle."""
        with self._lock:
            if self._stream is None:
                return
            work = (str(entry.get("offering", "")), str(entry.get("mode", "")))
            if cycle := self._cycles.get(work):
                entry = {**entry, "cycle": cycle}
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            try:
                self._stream.write(json.dumps({"time": now, **entry}) + "\n")
                self._stream.flush()
            except OSError as error:  # a full disk must not stop the work
                structlog.get_logger().error("cannot write the journal", reason=str(error))


@dataclass(frozen=True, slots=True)
class SiteJournal:
    """Records what is done for one offering in one mode."""

    journal: Journal
    offering: str
    mode: str

    def begin_cycle(self) -> None:
        """See :class:`CycleJournal`."""
        self.journal.begin_cycle(self.offering, self.mode)

    def record(self, step: Step, outcome: Outcome) -> None:
        """See :class:`CycleJournal`."""
        self.journal.append({**self._work, **_entry(step, outcome)})

    def record_write(self, write: Write, error: SiteAgentError | None) -> None:
        """See :class:`CycleJournal`."""
        self.journal.append({**self._work, **_entry_of_write(write, error)})

    def record_allowance(self, allowance: Allowance) -> None:
        """See :class:`CycleJournal`."""
        allowed = datetime.fromtimestamp(allowance.at, UTC).isoformat(timespec="seconds")
        how = {"digest": allowance.digest, "by": allowance.by, "allowed": allowed}
        self.journal.note({**self._work, "action": "use_allowance", **how})

    @property
    def _work(self) -> dict[str, str]:
        return {"offering": self.offering, "mode": self.mode}


def _entry(step: Step, outcome: Outcome) -> dict[str, Any]:
    return {
        "side": "backend",
        "action": type(step.action).__name__,
        **plain(step.action),
        "before": plain(dict(step.before)),
        "reason": step.reason,
        "reasons": dict(step.reasons),
        "order": str(step.order) if step.order else None,
        "result": outcome.result.value,
        "error": str(outcome.error) if outcome.error else None,
        "left_out": {left.name: str(left.error) for left in outcome.skipped},
    }


def _entry_of_write(write: Write, error: SiteAgentError | None) -> dict[str, Any]:
    return {
        **plain_write(write),
        "result": "failed" if error else "done",
        "error": str(error) if error else None,
    }


def plain_write(write: Write) -> dict[str, Any]:
    """A change in Waldur, as JSON values."""
    return {
        "side": "waldur",
        "action": write.call.value,
        "about": write.about,
        "uuid": str(write.uuid) if write.uuid else None,
        "changes": [plain(change) for change in write.changes],
        "reason": write.reason,
    }


def plain(value: Any) -> Any:
    """An action, or a part of it, as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | frozenset | set):
        return [plain(inner) for inner in value]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    # a UUID, a date, whatever comes: a record never fails for its values
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
