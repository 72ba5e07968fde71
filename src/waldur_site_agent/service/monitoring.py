"""How a process reports its state: to systemd, in a health file, over HTTP, and to Sentry.

Monitoring lives as long as the process and outlives worker pools. A failure to report is logged and
never stops the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waldur_site_agent.backends import Outcome
    from waldur_site_agent.cycles.site import CycleReport
    from waldur_site_agent.service.health import Health
    from waldur_site_agent.service.metrics import Metrics
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from waldur_site_agent.cycles.conditions import Conditions
from waldur_site_agent.service.allowances import Allowances, default_directory
from waldur_site_agent.service.health import (
    STUCK_AFTER_SECONDS,
    WRITE_EVERY_SECONDS,
    Health,
    HealthFile,
    default_health_file,
)
from waldur_site_agent.service.logs import watch_defects
from waldur_site_agent.service.overview import Overview, large_budgets, waiting_in
from waldur_site_agent.service.process import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from waldur_site_agent.config import Configuration, Offering
    from waldur_site_agent.service.endpoint import Endpoint
    from waldur_site_agent.service.error_reports import ErrorReports
    from waldur_site_agent.service.log_shipping import LogShipper
    from waldur_site_agent.service.metrics import Metrics
    from waldur_site_agent.service.pages import Pages
    from waldur_site_agent.waldur import Waldur


class SiteObserver:
    """Records the progress of one offering in one mode."""

    def __init__(
        self,
        health: Health,
        metrics: Metrics | None,
        offering: str,
        mode: str,
        job: str,
        overview: Overview | None = None,
    ) -> None:
        self._health = health
        self._overview = overview
        self._metrics = metrics
        self._work = (offering, mode)
        self._job = job

    def cycle_began(self) -> None:
        """See :class:`waldur_site_agent.cycles.site.Watch`."""
        self._health.worker_health(*self._work).begin()

    def cycle_ended(self, report: CycleReport, seconds: float) -> None:
        """See :class:`waldur_site_agent.cycles.site.Watch`."""
        worker_health = self._health.worker_health(*self._work)
        if report.trouble:
            worker_health.fail(report.trouble, self._job)
        else:
            worker_health.succeed(self._job, report.impairment)
        worker_health.waiting = {**worker_health.waiting, self._job: waiting_in(report)}
        budgets = large_budgets(report)
        worker_health.budgets = worker_health.budgets if budgets is None else budgets
        worker_health.end()
        if self._overview is not None:
            self._overview.take(report)
        if self._metrics is not None:
            self._metrics.cycle_ended(self._work, report, seconds)

    def action(self, outcome: Outcome) -> None:
        """See :class:`waldur_site_agent.cycles.site.Watch`."""
        self._health.worker_health(*self._work).progress()
        if self._metrics is not None:
            self._metrics.action(self._work, outcome)

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """See :class:`waldur_site_agent.cycles.site.Watch`."""
        self._health.worker_health(*self._work).progress()
        if self._metrics is not None:
            self._metrics.request(operation, status, seconds)

    def command(self, command: str, result: str, seconds: float) -> None:
        """See :class:`waldur_site_agent.cycles.site.Watch`."""
        self._health.worker_health(*self._work).progress()
        if self._metrics is not None:
            self._metrics.command(command, result, seconds)


LISTEN_VARIABLE = "WALDUR_SITE_AGENT_METRICS_LISTEN"
"""Overrides ``metrics_listen``: services that share a file need an address each."""
READY_WITHIN_SECONDS = 60.0
"""How long to wait for Waldur before reporting readiness to systemd anyway."""
_BEAT_SECONDS = 5.0
_MORE_TIME_SECONDS = 30.0


@dataclass(slots=True)
class Monitoring:
    """Collects the state of the process; :meth:`beat` publishes it."""

    mode: str = ""
    health: Health = field(default_factory=Health)
    notifier: Notifier = field(default_factory=lambda: Notifier({}))
    metrics: Metrics | None = None
    overview: Overview = field(default_factory=Overview)
    monotonic: Callable[[], float] = time.monotonic
    connect: Callable[[Offering], Waldur] | None = None
    """Opens the way to an offering's Waldur that log lines are sent by."""
    _conditions: dict[tuple[str, str, str], Conditions] = field(default_factory=dict)
    _reports: ErrorReports | None = None
    _endpoint: Endpoint | None = None
    _shipper: LogShipper | None = None
    _file: HealthFile | None = None
    _ready: bool = False
    _began: float = 0.0
    _next_beat: float = 0.0
    _next_file: float = 0.0
    _written: str = ""

    def adopt(self, configuration: Configuration, environ: Mapping[str, str] | None = None) -> None:
        """Apply a configuration, at start and after each reload."""
        environ = os.environ if environ is None else environ
        minutes = configuration.stuck_after_minutes
        self.health.stuck_after_seconds = minutes * 60 if minutes else STUCK_AFTER_SECONDS
        path = default_health_file(configuration, environ)
        if self._file is not None and (
            not path or self._file.path != HealthFile(path, self.mode).path
        ):
            self._file.remove()
        self._file = HealthFile(path, self.mode) if path else None
        self.report_errors(configuration, environ)
        self._ship_logs(configuration)
        address = environ.get(LISTEN_VARIABLE, "") or configuration.metrics_listen
        self._listen(address, configuration)

    def observe(self, offering: str, mode: str, job: str = "") -> SiteObserver:
        """The observer of one job of an offering in one mode."""
        overview = self.overview if self.metrics is not None else None  # nobody looks otherwise
        return SiteObserver(self.health, self.metrics, offering, mode, job, overview)

    def conditions(self, offering: str, mode: str, job: str) -> Conditions:
        """The conditions logged for that job; they survive a reload."""
        return self._conditions.setdefault((offering, mode, job), Conditions())

    def beat(self) -> None:
        """Publish what is due; the main thread calls this several times a second."""
        now = self.monotonic()
        self._began = self._began or now
        if now < self._next_beat:
            return
        pause = self.notifier.watchdog_seconds / 3 or _BEAT_SECONDS
        self._next_beat = now + min(pause, _BEAT_SECONDS)
        self._tell_systemd(now)
        if self._file is not None:
            self._write(self._file, now)

    def stopping(self) -> None:
        """Shutdown has begun; from now on systemd's stop timeout applies, not its watchdog."""
        self.notifier.stopping()

    def close(self) -> None:
        """Remove the health file, close the endpoint, and flush error reports."""
        watch_defects()
        if self._shipper is not None:
            self._shipper.close()
        if self._reports is not None:
            self._reports.flush()
        if self._file is not None:
            self._file.remove()
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _write(self, file: HealthFile, now: float) -> None:
        """Write the file when it is due, and immediately when the state changes."""
        report = self.health.report()
        if now >= self._next_file or report["status"] != self._written:
            self._next_file, self._written = now + WRITE_EVERY_SECONDS, report["status"]
            file.write(report)

    def _tell_systemd(self, now: float) -> None:
        if not self.notifier.listened_to:
            return
        if self.health.status().alive:
            self.notifier.alive()
        if not self._ready:
            if self.health.has_served() or now - self._began >= READY_WITHIN_SECONDS:
                self._ready = True
                self.notifier.ready()
            else:
                self.notifier.still_starting(_MORE_TIME_SECONDS)
        self.notifier.status(self._status())

    def _status(self) -> str:
        all_workers = self.health.all_workers()
        for worker_health in all_workers:
            verdict = worker_health.status(self.health.stuck_after_seconds)
            if not verdict.alive:
                return f"{worker_health.mode} of {worker_health.offering} is {verdict.value}"
            if worker_health.trouble:
                return f"{worker_health.mode} of {worker_health.offering}: {worker_health.trouble}"
        if not self.health.has_served():
            return "starting"
        served = sum(not worker_health.standby for worker_health in all_workers)
        text = f"{served} offering(s) and mode(s) served"
        others = len(all_workers) - served
        return f"{text}, {others} by other agents" if others else text

    def report_errors(
        self, configuration: Configuration, environ: Mapping[str, str] | None = None
    ) -> None:
        """Count bugs and report them as configured."""
        dsn = configuration.sentry_dsn.get_secret_value() if configuration.sentry_dsn else ""
        if dsn or self._reports is not None:
            from waldur_site_agent.service.error_reports import ErrorReports  # noqa: PLC0415 - slow

            send_names = configuration.sentry_send_names
            self._reports = ErrorReports(dsn, send_names=send_names, environ=environ)
        watch_defects(self._defect)

    def _ship_logs(self, configuration: Configuration) -> None:
        if self._shipper is not None:
            self._shipper.close()
            self._shipper = None
        if configuration.log_shipping.enabled and self.connect is not None:
            # imported on demand: few sites enable it
            from waldur_site_agent.service.log_shipping import LogShipper  # noqa: PLC0415

            self._shipper = LogShipper(
                configuration.log_shipping,
                configuration.offerings,
                self.connect,
            )
            self._shipper.start()

    def _defect(self, error: BaseException, event: Mapping[str, Any]) -> None:
        if self.metrics is not None:
            self.metrics.defects.inc()
        if self._reports is not None:
            self._reports.defect(error, event)

    @property
    def shows_pages(self) -> bool:
        """Whether somebody can look at pages."""
        return self._endpoint is not None

    def _pages(self, address: str, configuration: Configuration) -> Pages:
        from waldur_site_agent.service.pages import Pages, PageSettings  # noqa: PLC0415 - as below

        token = configuration.status_page_token
        settings = PageSettings(
            address=address,
            token=token.get_secret_value() if token else "",
            names_people=configuration.status_page_names,
            units={
                offering.name: {n: c.measured_unit for n, c in offering.components.items()}
                for offering in configuration.offerings
            },
            journal=Path(configuration.journal) if configuration.journal else None,
        )
        return Pages(
            settings=settings,
            health=self.health,
            overview=self.overview,
            allowances=Allowances(default_directory()),
        )

    def _listen(self, address: str, configuration: Configuration) -> None:
        if self._endpoint is not None:
            if self._endpoint.address == address:
                self._endpoint.pages = self._pages(address, configuration)
                return
            self._endpoint.close()
            self._endpoint = None
        if not address:
            return
        # imported on demand: the import takes most of the start-up time, and few sites enable it
        from waldur_site_agent.service.endpoint import Endpoint  # noqa: PLC0415
        from waldur_site_agent.service.metrics import Metrics  # noqa: PLC0415

        self.metrics = self.metrics or Metrics(self.health)
        log = structlog.get_logger()
        try:
            self._endpoint = Endpoint(
                address, self.health, self.metrics.exposition, self._pages(address, configuration)
            )
        except (OSError, OverflowError, ValueError) as error:
            log.error(
                "metrics disabled: cannot bind the listen address",
                metrics_listen=address,
                reason=str(error),
                remedy=f"set a separate address for each service in {LISTEN_VARIABLE}",
            )
        else:
            log.info("metrics", metrics_listen=address)
