"""Health of the process: tells a stuck cycle from a long one, and both from idling.

Every response from Waldur, every finished command and every action counts as progress. Each has a
timeout of its own, so a cycle that makes no progress for longer than the allowance is stuck. A
failing cycle is not stuck: it is retried, and a restart would not help.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import structlog

from waldur_site_agent.backends.locking import default_lock_file
from waldur_site_agent.backends.output_files import remove_file, replace_file
from waldur_site_agent.config import Configuration
from waldur_site_agent.config.version_1 import HEARTBEAT_VARIABLE
from waldur_site_agent.model.errors import TemporaryError

STUCK_AFTER_SECONDS = 1800.0
"""The default allowance."""


class HealthStatus(Enum):
    """The health of the process or of one worker, from best to worst."""

    OK = "ok"
    FAILING = "failing"
    """It runs, but could not start, or could not complete its last cycle: see the reason."""
    STUCK = "stuck"
    DEAD = "dead"
    """Its thread has ended unexpectedly."""

    @property
    def alive(self) -> bool:
        """Whether no restart is needed."""
        return self in (HealthStatus.OK, HealthStatus.FAILING)


@dataclass(slots=True)
class WorkerHealth:
    """The health of the worker of one offering in one mode. Thread-safe."""

    offering: str
    mode: str
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    thread: threading.Thread | None = None
    """The worker's thread; ``None`` before the start."""
    working: bool = False
    resting_until: float = 0.0
    last_progress: float = 0.0
    last_success: datetime | None = None
    troubles: dict[str, str] = field(default_factory=dict)
    """By job, why its last pass was incomplete; under ``""`` why the worker could not start."""
    cycles: int = 0
    served: bool = False
    """Whether a start succeeded: the token is valid and the backend could be opened."""
    waiting: dict[str, list[str]] = field(default_factory=dict)
    """By job, what its last pass left for later."""
    budgets: list[dict[str, Any]] = field(default_factory=list)
    """Budgets of which most is used, by the last report of usage."""
    retired: bool = False
    """Whether the worker was asked to end, so that its end is expected."""
    standby: str = ""
    """Why another agent does the work at the moment; empty if this one does."""

    def __post_init__(self) -> None:
        self.last_progress = self.monotonic()
        self.resting_until = self.last_progress

    @property
    def trouble(self) -> str:
        """Why the last start or cycle was incomplete; empty if it was not."""
        return "; ".join(dict.fromkeys(filter(None, self.troubles.values())))

    def begin(self) -> None:
        """A start or a cycle begins."""
        self.working = True
        self.progress()

    def progress(self) -> None:
        """Note progress."""
        self.last_progress = self.monotonic()

    def stand_by(self, reason: str) -> None:
        """Another agent does the work, so nothing of it is wrong here."""
        self.standby, self.troubles = reason, {}
        self.working = False

    def take_up(self) -> None:
        """This agent does the work from now on."""
        self.standby = ""

    def start(self) -> None:
        """The start succeeded; cycles can begin."""
        self.served, self.troubles = True, {}

    def succeed(self, job: str = "", impairment: str = "") -> None:
        """A cycle of a job was completed, possibly with an impairment."""
        self.troubles = {**self.troubles, job: impairment}
        self.last_success = self.wall()

    def fail(self, trouble: str, job: str = "") -> None:
        """A start, or a cycle of a job, failed; it will be retried."""
        self.standby = ""
        self.troubles = {**self.troubles, job: trouble}

    def end(self) -> None:
        """A cycle has ended, successfully or not."""
        self.cycles += 1
        self.working = False
        self.resting_until = self.monotonic()
        self.progress()

    def rest(self, seconds: float) -> None:
        """The worker pauses for some seconds."""
        self.working = False
        self.resting_until = self.monotonic() + seconds

    def silent_seconds(self) -> float:
        """The time since the last progress, without planned pauses."""
        since = self.last_progress if self.working else max(self.resting_until, self.last_progress)
        return max(0.0, self.monotonic() - since)

    def status(self, allowance: float) -> HealthStatus:
        """The status, given that the worker may be silent for ``allowance`` seconds."""
        if self.thread is not None and self.thread.ident and not self.thread.is_alive():
            return HealthStatus.OK if self.retired else HealthStatus.DEAD
        if self.silent_seconds() > allowance:
            return HealthStatus.STUCK
        return HealthStatus.FAILING if self.trouble else HealthStatus.OK

    def describe(self, allowance: float) -> dict[str, Any]:
        """The same as JSON values."""
        success = self.last_success
        return {
            "offering": self.offering,
            "mode": self.mode,
            "status": self.status(allowance).value,
            "doing": self.standby or ("working" if self.working else "resting"),
            "cycles": self.cycles,
            "silent_seconds": round(self.silent_seconds(), 1),
            "last_success": success.isoformat(timespec="seconds") if success else None,
            "trouble": self.trouble,
            "waiting": [line for lines in self.waiting.values() for line in lines],
            "budgets": self.budgets,
        }


class Health:
    """The health of all workers, and of the connections for events. Thread-safe."""

    def __init__(self, stuck_after_seconds: float = STUCK_AFTER_SECONDS) -> None:
        self.stuck_after_seconds = stuck_after_seconds
        self._lock = threading.Lock()
        self._workers: dict[tuple[str, str], WorkerHealth] = {}
        self._events: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {}
        self._began = datetime.now(UTC)
        self._coordination: Callable[[], dict[str, Any]] | None = None

    def watch_coordination(self, status: Callable[[], dict[str, Any]] | None) -> None:
        """Ask ``status`` who of several agents holds what; its answer goes into the report.

        ``connected`` (bool), ``agents`` (int) and ``held`` (list) become metrics.
        """
        self._coordination = status

    def coordination(self) -> dict[str, Any] | None:
        """Who of several agents holds what; ``None`` where there is one agent."""
        return None if self._coordination is None else self._coordination()

    def worker_health(self, offering: str, mode: str) -> WorkerHealth:
        """The health of an offering in a mode; the same object at each call."""
        with self._lock:
            return self._workers.setdefault((offering, mode), WorkerHealth(offering, mode))

    def take_over(self, offering: str, mode: str, thread: threading.Thread) -> WorkerHealth:
        """Start afresh for a new worker; only the time of the last success is kept."""
        old = self.worker_health(offering, mode)
        new = WorkerHealth(offering, mode, thread=thread, last_success=old.last_success)
        with self._lock:
            self._workers[offering, mode] = new
        return new

    def cannot_serve(self, offering: str, mode: str, reason: str) -> None:
        """Mark an offering as failing until the configuration is reloaded."""
        worker_health = WorkerHealth(offering, mode)
        worker_health.fail(reason)
        worker_health.rest(math.inf)
        with self._lock:
            self._workers[offering, mode] = worker_health

    def retire(self) -> None:
        """Mark all workers as asked to end."""
        with self._lock:
            for worker_health in self._workers.values():
                worker_health.retired = True

    def forget_retired(self) -> None:
        """Drop the workers that no new worker replaced."""
        with self._lock:
            self._workers = {key: d for key, d in self._workers.items() if not d.retired}
            self._events = {key: ask for key, ask in self._events.items() if key in self._workers}

    def watch_events(
        self, offering: str, status: Callable[[], dict[str, Any]], mode: str = "event_process"
    ) -> None:
        """Ask ``status`` for the state of the offering's connection for events.

        Its answer goes into the report unchanged; ``connected`` (bool) becomes a metric. It is
        dropped with the worker of that mode: an offering that is polled has no connection.
        """
        with self._lock:
            self._events[offering, mode] = status

    def all_workers(self) -> list[WorkerHealth]:
        """All workers, in the order in which they first appeared."""
        with self._lock:
            return list(self._workers.values())

    def events(self) -> dict[str, dict[str, Any]]:
        """The state of the connections for events, by offering."""
        with self._lock:
            watched = dict(self._events)
        return {offering: status() for (offering, _), status in watched.items()}

    def status(self) -> HealthStatus:
        """The worst status of all workers."""
        order = list(HealthStatus)
        found = [
            worker_health.status(self.stuck_after_seconds) for worker_health in self.all_workers()
        ]
        return max(found, key=order.index, default=HealthStatus.OK)

    def has_served(self) -> bool:
        """Whether the start of any worker succeeded, or another agent does the work."""
        return any(worker.served or worker.standby for worker in self.all_workers())

    def report(self) -> dict[str, Any]:
        """The full report, as JSON values."""
        return {
            "status": self.status().value,
            "since": self._began.isoformat(timespec="seconds"),
            "stuck_after_seconds": self.stuck_after_seconds,
            "workers": [
                worker_health.describe(self.stuck_after_seconds)
                for worker_health in self.all_workers()
            ],
            "events": self.events(),
            "coordination": self.coordination(),
        }


_EVERYBODY_READS = 0o644
FRESH_SECONDS = 60.0
"""The age at which a health file counts as abandoned."""
WRITE_EVERY_SECONDS = 10.0
MODE_IN_PATH = "{mode}"
"""Placeholder in ``health_file`` for the mode of the process."""


class HealthFile:
    """The health file, replaced atomically every few seconds."""

    def __init__(self, path: str, mode: str) -> None:
        self.path = Path(path.replace(MODE_IN_PATH, mode))
        self._complained = False

    def write(self, report: dict[str, Any]) -> None:
        """Replace the file atomically, so that readers never see half of it."""
        text = json.dumps({**report, "pid": os.getpid(), "written": time.time()}, default=str)
        try:
            replace_file(self.path, f"{text}\n".encode(), _EVERYBODY_READS)
        except OSError as error:
            if not self._complained:
                structlog.get_logger().error(
                    "cannot write the health file", path=str(self.path), reason=str(error)
                )
            self._complained = True
        else:
            self._complained = False

    def remove(self) -> None:
        """Remove the file: the process ends normally."""
        with suppress(OSError):  # it could not be written either
            remove_file(self.path)


@dataclass(frozen=True, slots=True)
class Finding:
    """The content of a health file, or why it cannot be used."""

    path: Path
    status: str
    alive: bool
    detail: str
    report: dict[str, Any]


def default_health_file(configuration: Configuration, environ: Mapping[str, str]) -> str:
    """The health file of agents with this configuration; empty if there is none.

    Without ``health_file`` in the file it is that of the environment, as in version 1, and
    otherwise one in the directory for the agents' locks, where other users cannot write.
    """
    chosen = configuration.health_file or environ.get(HEARTBEAT_VARIABLE, "")
    if chosen:
        return chosen
    name = f"waldur-site-agent-health-{_mark_of(configuration)}-{MODE_IN_PATH}.json"
    try:
        return str(default_lock_file(name))
    except TemporaryError:  # no directory that others cannot write to
        return ""


def _mark_of(configuration: Configuration) -> str:
    offerings = sorted(
        f"{offering.waldur_api_url} {offering.waldur_offering_uuid}"
        for offering in configuration.offerings
    )
    return hashlib.sha256("\n".join(offerings).encode()).hexdigest()[:8]


def read_health(path: Path, fresh_seconds: float = FRESH_SECONDS) -> Finding:
    """Read a health file; a missing, old or unreadable one means that the process is dead."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        age = time.time() - float(report["written"])
        verdict = HealthStatus(report["status"])
        workers: list[dict[str, Any]] = report["workers"]
    except FileNotFoundError:
        return _missing(path, "no such file: the agent is not running, or has just started")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _missing(path, f"cannot be read: {type(error).__name__}: {error}")
    if age > fresh_seconds:
        said = f"written {age:.0f} s ago, but should be rewritten every {WRITE_EVERY_SECONDS:g} s"
        return _missing(path, said)
    return Finding(path, verdict.value, verdict.alive, "; ".join(_words(workers)), report)


def files_of(path: str, mode: str | None) -> list[Path]:
    """The files that ``health_file`` refers to: one, or one per mode found."""
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
