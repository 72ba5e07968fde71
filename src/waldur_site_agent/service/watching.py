"""Passes on what a cycle tells: to health, and to the metrics where the site has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waldur_site_agent.backends import Outcome
    from waldur_site_agent.cycles.report import CycleReport
    from waldur_site_agent.service.health import Health
    from waldur_site_agent.service.metrics import Metrics


class SiteWatch:
    """Watches the work on one offering in one mode."""

    def __init__(
        self, health: Health, metrics: Metrics | None, offering: str, mode: str, job: str = ""
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._work = (offering, mode)
        self._job = job

    def cycle_began(self) -> None:
        """See :class:`waldur_site_agent.cycles.watching.Watch`."""
        self._health.duty(*self._work).begin()

    def cycle_ended(self, report: CycleReport, seconds: float) -> None:
        """See :class:`waldur_site_agent.cycles.watching.Watch`."""
        duty = self._health.duty(*self._work)
        if report.trouble:
            duty.fail(report.trouble, self._job)
        else:
            duty.succeed(self._job, report.impairment)
        duty.end()
        if self._metrics is not None:
            self._metrics.cycle_ended(self._work, report, seconds)

    def action(self, outcome: Outcome) -> None:
        """See :class:`waldur_site_agent.cycles.watching.Watch`."""
        self._health.duty(*self._work).progress()
        if self._metrics is not None:
            self._metrics.action(self._work, outcome)

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """See :class:`waldur_site_agent.cycles.watching.Watch`."""
        self._health.duty(*self._work).progress()
        if self._metrics is not None:
            self._metrics.request(operation, status, seconds)

    def command(self, command: str, result: str, seconds: float) -> None:
        """See :class:`waldur_site_agent.cycles.watching.Watch`."""
        self._health.duty(*self._work).progress()
        if self._metrics is not None:
            self._metrics.command(command, result, seconds)
