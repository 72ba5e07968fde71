"""The journal: every change on either side as a line of JSON, for audits.

The file is opened at start and reopened on SIGHUP, so that logrotate can move it away. Every line
is flushed before the agent goes on.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import structlog

from waldur_site_agent.backends import Outcome
from waldur_site_agent.backends.permissions import everybody_can_write
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
            self._stream = os.fdopen(_open(path), "a", encoding="utf-8")

    def close(self) -> None:
        """Close the file; later entries are dropped."""
        with self._lock:
            if self._stream is not None:
                with suppress(OSError):  # a failed write was logged when it happened
                    self._stream.close()
                self._stream = None

    def begins_cycle(self, offering: str, mode: str) -> Callable[[], None]:
        """A function that tells that a cycle begins, so that its entries have a mark in common."""

        def begin() -> None:
            self._cycles[offering, mode] = secrets.token_hex(4)

        return begin

    def recorder(self, offering: str, mode: str) -> Callable[[Step, Outcome], None]:
        """A function that records the actions of one offering in one mode."""

        def record(step: Step, outcome: Outcome) -> None:
            self._write({"offering": offering, "mode": mode, **_entry(step, outcome)})

        return record

    def recorder_of_writes(
        self, offering: str, mode: str
    ) -> Callable[[Write, SiteAgentError | None], None]:
        """A function that records the changes in Waldur of one offering in one mode."""

        def record(write: Write, error: SiteAgentError | None) -> None:
            self._write({"offering": offering, "mode": mode, **_entry_of_write(write, error)})

        return record

    def recorder_of_allowances(self, offering: str, mode: str) -> Callable[[Allowance], None]:
        """A function that records the use of an allowance."""

        def record(allowance: Allowance) -> None:
            entry = {"offering": offering, "mode": mode, "action": "use_allowance"}
            self.note(
                {
                    **entry,
                    "digest": allowance.digest,
                    "by": allowance.by,
                    "allowed": datetime.fromtimestamp(allowance.at, UTC).isoformat(
                        timespec="seconds"
                    ),
                }
            )

        return record

    def note(self, entry: Mapping[str, Any]) -> None:
        """Record what the agent itself was told or decided, on neither side."""
        self._write({"side": "agent", **plain(dict(entry))})

    def _write(self, entry: dict[str, Any]) -> None:
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


def _open(path: Path) -> int:
    """Open for appending, for owner and group; where everybody can write, nothing but a file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    is_public = everybody_can_write(path.parent)
    descriptor = os.open(path, flags | (os.O_NOFOLLOW if is_public else 0), _OWNER_AND_GROUP)
    found = os.fstat(descriptor)
    if is_public and (not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file with one name", str(path))
    os.set_blocking(descriptor, True)  # only the opening must not wait for the reader of a pipe
    return descriptor


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
