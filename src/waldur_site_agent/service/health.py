"""Whether the process does its work: tells a stuck cycle from a long one, and both from idleness.

Every answer from Waldur, every command that ended and every action is progress. Each of them has
a timeout of its own, so a cycle without any of it for longer than its allowance waits for
something that will not come. A failing cycle is not a stuck one: it is tried again, and no
restart would help it.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import structlog

STUCK_AFTER_SECONDS = 1800.0
"""The allowance where the configuration gives none."""


class HealthStatus(Enum):
    """How the process, or one worker of it, stands; from best to worst."""

    OK = "ok"
    FAILING = "failing"
    """It works, but could not start, or could not do all of its last cycle: see the reason."""
    STUCK = "stuck"
    DEAD = "dead"
    """Its thread has ended although nobody asked for it."""

    @property
    def alive(self) -> bool:
        """Whether a restart would not help."""
        return self in (HealthStatus.OK, HealthStatus.FAILING)


@dataclass(slots=True)
class WorkerHealth:
    """One offering in one mode, as its worker lives through it. Threads may share it."""

    offering: str
    mode: str
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    thread: threading.Thread | None = None
    """Who works; ``None`` where nobody has begun."""
    working: bool = False
    resting_until: float = 0.0
    last_progress: float = 0.0
    last_success: datetime | None = None
    troubles: dict[str, str] = field(default_factory=dict)
    """By job, why its last pass did not do all of its work; under ``""`` why nothing started."""
    cycles: int = 0
    served: bool = False
    """Whether a start went through: Waldur knows the token and the backend could be opened."""
    relieved: bool = False
    """Whether the worker was asked to end: then its end is none to worry about."""

    def __post_init__(self) -> None:
        self.last_progress = self.monotonic()
        self.resting_until = self.last_progress

    @property
    def trouble(self) -> str:
        """Why the last start or cycle did not do all of its work; empty when it did."""
        return "; ".join(dict.fromkeys(filter(None, self.troubles.values())))

    def begin(self) -> None:
        """Work begins: a start or a cycle."""
        self.working = True
        self.progress()

    def progress(self) -> None:
        """Something came back."""
        self.last_progress = self.monotonic()

    def start(self) -> None:
        """The start went through; cycles can begin."""
        self.served, self.troubles = True, {}

    def succeed(self, job: str = "", impairment: str = "") -> None:
        """A cycle of a job went through, with or without something that it could not do."""
        self.troubles = {**self.troubles, job: impairment}
        self.last_success = self.wall()

    def fail(self, trouble: str, job: str = "") -> None:
        """A start, or a cycle of a job, did not go through; it will be tried again."""
        self.troubles = {**self.troubles, job: trouble}

    def end(self) -> None:
        """The work in hand has ended, well or not."""
        self.cycles += 1
        self.working = False
        self.resting_until = self.monotonic()
        self.progress()

    def rest(self, seconds: float) -> None:
        """Nothing to do for so long."""
        self.working = False
        self.resting_until = self.monotonic() + seconds

    def silent_seconds(self) -> float:
        """For how long nothing came back, not counting planned rest."""
        since = self.last_progress if self.working else max(self.resting_until, self.last_progress)
        return max(0.0, self.monotonic() - since)

    def verdict(self, allowance: float) -> HealthStatus:
        """How it stands, where it may be silent for ``allowance`` seconds."""
        if self.thread is not None and self.thread.ident and not self.thread.is_alive():
            return HealthStatus.OK if self.relieved else HealthStatus.DEAD
        if self.silent_seconds() > allowance:
            return HealthStatus.STUCK
        return HealthStatus.FAILING if self.trouble else HealthStatus.OK

    def describe(self, allowance: float) -> dict[str, Any]:
        """The same as values that JSON knows."""
        success = self.last_success
        return {
            "offering": self.offering,
            "mode": self.mode,
            "status": self.verdict(allowance).value,
            "doing": "working" if self.working else "resting",
            "cycles": self.cycles,
            "silent_seconds": round(self.silent_seconds(), 1),
            "last_success": success.isoformat(timespec="seconds") if success else None,
            "trouble": self.trouble,
        }


class Health:
    """All duties of the process, and the connections for events. Threads may share it."""

    def __init__(self, stuck_after_seconds: float = STUCK_AFTER_SECONDS) -> None:
        self.stuck_after_seconds = stuck_after_seconds
        self._lock = threading.Lock()
        self._duties: dict[tuple[str, str], WorkerHealth] = {}
        self._events: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {}
        self._began = datetime.now(UTC)

    def worker_health(self, offering: str, mode: str) -> WorkerHealth:
        """The worker of an offering in a mode; the same one each time it is asked for."""
        with self._lock:
            return self._duties.setdefault((offering, mode), WorkerHealth(offering, mode))

    def take_over(self, offering: str, mode: str, thread: threading.Thread) -> WorkerHealth:
        """A new worker takes over: what its predecessor left unfinished is forgotten."""
        old = self.worker_health(offering, mode)
        new = WorkerHealth(offering, mode, thread=thread, last_success=old.last_success)
        with self._lock:
            self._duties[offering, mode] = new
        return new

    def cannot_serve(self, offering: str, mode: str, reason: str) -> None:
        """Nobody works on this one until the configuration is read again; it counts as failing."""
        worker_health = WorkerHealth(offering, mode)
        worker_health.fail(reason)
        worker_health.rest(math.inf)
        with self._lock:
            self._duties[offering, mode] = worker_health

    def retire(self) -> None:
        """Everybody was asked to end; successors take over what they serve."""
        with self._lock:
            for worker_health in self._duties.values():
                worker_health.relieved = True

    def forget_relieved(self) -> None:
        """Drop the duties that nobody took over."""
        with self._lock:
            self._duties = {key: d for key, d in self._duties.items() if not d.relieved}
            self._events = {key: ask for key, ask in self._events.items() if key in self._duties}

    def watch_events(
        self, offering: str, status: Callable[[], dict[str, Any]], mode: str = "event_process"
    ) -> None:
        """Let ``status`` say how the offering's connection for events stands.

        Its answer goes into the report as it is; ``connected`` (bool) becomes a metric. It is
        forgotten with the worker of that mode: an offering that is polled again has no connection.
        """
        with self._lock:
            self._events[offering, mode] = status

    def all_workers(self) -> list[WorkerHealth]:
        """All duties, in the order of their first day."""
        with self._lock:
            return list(self._duties.values())

    def events(self) -> dict[str, dict[str, Any]]:
        """How the connections for events stand, by offering."""
        with self._lock:
            watched = dict(self._events)
        return {offering: status() for (offering, _), status in watched.items()}

    def verdict(self) -> HealthStatus:
        """The worst of all duties."""
        order = list(HealthStatus)
        found = [
            worker_health.verdict(self.stuck_after_seconds) for worker_health in self.all_workers()
        ]
        return max(found, key=order.index, default=HealthStatus.OK)

    def has_served(self) -> bool:
        """Whether any worker has seen a start that went through."""
        return any(worker_health.served for worker_health in self.all_workers())

    def report(self) -> dict[str, Any]:
        """Everything, as values that JSON knows."""
        return {
            "status": self.verdict().value,
            "since": self._began.isoformat(timespec="seconds"),
            "stuck_after_seconds": self.stuck_after_seconds,
            "workers": [
                worker_health.describe(self.stuck_after_seconds)
                for worker_health in self.all_workers()
            ],
            "events": self.events(),
        }


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
        verdict = HealthStatus(report["status"])
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
