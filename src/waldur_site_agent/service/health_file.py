"""The health report as a file, for probes that look from outside the process."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from waldur_site_agent.service.health import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

FRESH_SECONDS = 60.0
"""A file older than this is that of a process that writes no more."""
WRITE_EVERY_SECONDS = 10.0
MODE_IN_PATH = "{mode}"
"""Stands in ``health_file`` for the mode of the process."""


class HealthFile:
    """Written anew, as a whole, every few seconds."""

    def __init__(self, path: str, mode: str) -> None:
        self.path = Path(path.replace(MODE_IN_PATH, mode))
        self._complained = False

    def write(self, report: dict[str, Any]) -> None:
        """Put the report where readers find either it or its predecessor, never half of one."""
        text = json.dumps({**report, "pid": os.getpid(), "written": time.time()}, default=str)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            draft.write_text(text + "\n", encoding="utf-8")
            draft.replace(self.path)
        except OSError as error:
            if not self._complained:
                structlog.get_logger().error(
                    "health file not written", path=str(self.path), reason=str(error)
                )
            self._complained = True
        else:
            self._complained = False

    def remove(self) -> None:
        """Take it away: the process ends as it should."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a health file says, or why it says nothing."""

    path: Path
    status: str
    alive: bool
    detail: str
    report: dict[str, Any]


def read_health(path: Path) -> Finding:
    """Judge a health file; one that is missing, old or unreadable is that of a dead process."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        age = time.time() - float(report["written"])
        verdict = Verdict(report["status"])
        workers: list[dict[str, Any]] = report["workers"]
    except FileNotFoundError:
        return _missing(path, "there is no such file: the agent does not run, or has just begun")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _missing(path, f"it cannot be read: {type(error).__name__}: {error}")
    if age > FRESH_SECONDS:
        said = f"it was written {age:.0f} s ago, and should be every {WRITE_EVERY_SECONDS:g} s"
        return _missing(path, said)
    return Finding(path, verdict.value, verdict.alive, "; ".join(_words(workers)), report)


def files_of(path: str, mode: str | None) -> list[Path]:
    """The files that ``health_file`` stands for: one, or one for each mode found."""
    if MODE_IN_PATH not in path:
        return [Path(path)]
    if mode is not None:
        return [Path(path.replace(MODE_IN_PATH, mode))]
    pattern = Path(path.replace(MODE_IN_PATH, "*"))
    return sorted(pattern.parent.glob(pattern.name)) or [Path(path.replace(MODE_IN_PATH, "all"))]


def _words(workers: Iterable[dict[str, Any]]) -> Iterable[str]:
    for worker in workers:
        yield f"{worker['mode']} of {worker['offering']}: {worker['status']}, {worker['doing']}" + (
            f", {worker['trouble']}" if worker["trouble"] else ""
        )


def _missing(path: Path, detail: str) -> Finding:
    return Finding(path, "unknown", alive=False, detail=f"{path}: {detail}", report={})
