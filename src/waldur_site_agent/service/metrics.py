"""Prometheus metrics; imported only if ``metrics_listen`` is set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from waldur_site_agent import __version__
from waldur_site_agent.backends import Outcome, Result
from waldur_site_agent.cycles.membership import MembershipReport
from waldur_site_agent.cycles.site import CycleReport
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent.service.health import Health, HealthStatus

PREFIX = "waldur_site_agent"
_WORK = ("offering", "mode")
_SECONDS_OF_A_CYCLE = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)
_SECONDS_OF_A_CALL = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The metrics, in a registry of their own. Thread-safe."""

    def __init__(self, health: Health) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_OfHealth(health))
        build = self._gauge("build_info", "Always 1; the labels have the versions.", ("version",))
        build.labels(__version__).set(1)
        self._of_cycles()
        self._of_calls()
        self._budgets: dict[str, frozenset[tuple[str, str, str]]] = {}

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def cycle_ended(self, work: tuple[str, str], report: CycleReport, seconds: float) -> None:
        """Count a cycle of ``work`` (offering, mode)."""
        result = "cut_short" if report.trouble else "partial" if report.failed else "success"
        self.cycles.labels(*work, result).inc()
        self.cycle_seconds.labels(*work).observe(seconds)
        if report.refused_reason:
            self.refused_plans.labels(*work).inc()
        if isinstance(report, MembershipReport):
            self.removals_suspended.labels(*work).set(bool(report.removals_suspended))
        if isinstance(report, UsageCycleReport) and not report.trouble:
            self._budgets_of(report)
        if not report.trouble:
            self.last_success.labels(*work).set_to_current_time()

    def _budgets_of(self, report: UsageCycleReport) -> None:
        """Replace the shares of an offering's budgets: what has ended must not stay."""
        offering = report.offering
        now = {(offering, b.account, b.component): float(b.share) for b in report.budgets}
        for labels in self._budgets.get(offering, frozenset()) - now.keys():
            self.budget_used.remove(*labels)
        for labels, share in now.items():
            self.budget_used.labels(*labels).set(share)
        self._budgets[offering] = frozenset(now)

    def action(self, work: tuple[str, str], outcome: Outcome) -> None:
        """Count an action of ``work`` (offering, mode)."""
        kind, result = type(outcome.action).__name__, outcome.result
        self.actions.labels(*work, kind, result.value).inc()
        if result is not Result.FAILED and outcome.skipped:
            self.skipped.labels(*work).inc(len(outcome.skipped))

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """Count a request to Waldur."""
        self.requests.labels(operation, str(status)).inc()
        self.request_seconds.labels(operation).observe(seconds)

    def command(self, command: str, result: str, seconds: float) -> None:
        """Count a command of a backend."""
        self.commands.labels(command, result).inc()
        self.command_seconds.labels(command).observe(seconds)

    def _of_cycles(self) -> None:
        self.cycles = self._counter(
            "cycles",
            "Cycles by result: success; partial (some objects failed or wait); cut_short.",
            (*_WORK, "result"),
        )
        self.cycle_seconds = self._histogram(
            "cycle_duration_seconds", "Duration of cycles.", _WORK, _SECONDS_OF_A_CYCLE
        )
        self.last_success = self._gauge(
            "last_success_timestamp_seconds",
            "Time of the last cycle that was not cut short.",
            _WORK,
        )
        self.refused_plans = self._counter(
            "refused_plans", "Plans whose removals were refused because there were too many.", _WORK
        )
        self.removals_suspended = self._gauge(
            "removals_suspended",
            "1: no member was removed in the last cycle because a list could not be read.",
            _WORK,
        )
        self.budget_used = self._gauge(
            "budget_used_ratio",
            "The used part of a limit, where budgets are configured.",
            ("offering", "account", "component"),
        )
        self.actions = self._counter(
            "actions",
            "Changes to the backend, by kind and by result: done, unchanged, failed.",
            (*_WORK, "action", "result"),
        )
        self.skipped = self._counter(
            "left_out_members",
            "Members that were skipped by an action that succeeded otherwise.",
            _WORK,
        )
        self.defects = self._counter(
            "defects", "Exceptions caused by bugs in the agent or a plugin.", ()
        )

    def _of_calls(self) -> None:
        self.requests = self._counter(
            "waldur_requests",
            "Requests to Waldur by operation and HTTP status; error: no response.",
            ("operation", "status"),
        )
        self.request_seconds = self._histogram(
            "waldur_request_duration_seconds",
            "Response time of Waldur.",
            ("operation",),
            _SECONDS_OF_A_CALL,
        )
        self.commands = self._counter(
            "backend_commands",
            "Commands of backends by name and result: success, failure.",
            ("command", "result"),
        )
        self.command_seconds = self._histogram(
            "backend_command_duration_seconds",
            "Duration of backend commands.",
            ("command",),
            _SECONDS_OF_A_CALL,
        )

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str]) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)


class _OfHealth(Collector):
    """Gauges that are computed at each scrape."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def describe(self) -> Iterable[Metric]:
        """Describe the metrics, even while there are no samples."""
        return [*self._of_workers(), *self._of_events(), *self._of_coordination()]

    def collect(self) -> Iterable[Metric]:
        """Ask health."""
        return self.describe()

    def _of_workers(self) -> Iterable[Metric]:
        alive = GaugeMetricFamily(
            f"{PREFIX}_worker_alive",
            "0: a worker is stuck or dead, and only a restart helps.",
            labels=_WORK,
        )
        failing = GaugeMetricFamily(
            f"{PREFIX}_worker_failing",
            "1: the last start or cycle did not complete all of its work; /health has the reason.",
            labels=_WORK,
        )
        silent = GaugeMetricFamily(
            f"{PREFIX}_worker_silent_seconds",
            "Time since the last progress of a worker, without planned pauses.",
            labels=_WORK,
        )
        for worker_health in self._health.all_workers():
            work = (worker_health.offering, worker_health.mode)
            verdict = worker_health.status(self._health.stuck_after_seconds)
            alive.add_metric(work, float(verdict in (HealthStatus.OK, HealthStatus.FAILING)))
            failing.add_metric(work, float(bool(worker_health.trouble)))
            silent.add_metric(work, worker_health.silent_seconds())
        return alive, failing, silent

    def _of_coordination(self) -> Iterable[Metric]:
        """Only where several agents share the work."""
        status = self._health.coordination()
        if status is None:
            return ()
        values = (
            ("up", "1: this agent has a session of the coordinating database.", "connected"),
            ("agents", "Agents that share the work with this one, itself included.", "agents"),
        )
        gauges = [
            GaugeMetricFamily(f"{PREFIX}_coordination_{name}", text, value=float(status[key]))
            for name, text, key in values
        ]
        leases = GaugeMetricFamily(
            f"{PREFIX}_lease_held", "1: this agent does the work; 0: it stands by.", labels=_WORK
        )
        for worker in self._health.all_workers():
            work = (worker.offering, worker.mode)
            leases.add_metric(work, float(f"{work[1]} of {work[0]}" in status["held"]))
        return [*gauges, leases]

    def _of_events(self) -> Iterable[Metric]:
        connected, waiting, oldest = (
            GaugeMetricFamily(f"{PREFIX}_event_{name}", text, labels=("offering",))
            for name, text in (
                ("connection_up", "1: connected and subscribed at the message broker."),
                ("scopes_waiting", "Scopes announced by messages that no pass has covered yet."),
                ("oldest_waiting_seconds", "How long the oldest of these has been waiting."),
            )
        )
        connections = CounterMetricFamily(
            f"{PREFIX}_event_connections",
            "Connections to the message broker since the start.",
            labels=("offering",),
        )
        messages = CounterMetricFamily(
            f"{PREFIX}_event_messages",
            "Messages from the broker, by object type and what became of them.",
            labels=("offering", "type", "outcome"),
        )
        for offering, status in self._health.events().items():
            connected.add_metric((offering,), float(bool(status.get("connected"))))
            waiting.add_metric((offering,), _number(status.get("waiting")))
            oldest.add_metric((offering,), _number(status.get("oldest_waiting_seconds")))
            connections.add_metric((offering,), _number(status.get("connections")))
            for key, count in (status.get("messages") or {}).items():
                kind, _, outcome = key.partition(" ")
                messages.add_metric((offering, kind, outcome), count)
        return connected, waiting, oldest, connections, messages


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
