"""The modes: what each does in a cycle, for which offerings, and how often."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from waldur_site_agent.config import Job, Offering
from waldur_site_agent.cycles.importing import sync_membership_and_imports
from waldur_site_agent.cycles.orders import process_orders, repair_stuck_updates
from waldur_site_agent.cycles.site import CycleReport, Site
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.model.usage import BillingMonth

MODE_NAMES = ("order_process", "report", "membership_sync", "event_process", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A job that the agent repeats every period."""

    name: str
    job: Job
    period_variable: str
    default_minutes: float
    start: Callable[[Site], None]
    """Runs once per process and offering, before the first cycle."""
    cycle: Callable[..., CycleReport]
    beside_events: bool = False
    """Whether the mode also serves offerings whose orders and members follow events."""
    before_month_ends: timedelta | None = None
    """An extra cycle runs this long before the billing month of Waldur ends (in UTC)."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs whose backends the mode needs."""
        return (self.job,)

    def serves(self, offering: Offering) -> bool:
        """Whether the offering takes part in this mode."""
        takes_part = self.beside_events or not offering.by_events
        return takes_part and bool(offering.backend_for(self.job))

    def parts_of(self, _offering: Offering) -> tuple[Mode, ...]:
        """The mode itself; an event mode consists of others."""
        return (self,)

    def renamed(self, part: Mode) -> Mode:
        """The part as it appears in the log and in Waldur."""
        return part

    def period_seconds(self, environ: Mapping[str, str] | None = None) -> float:
        """The period of the mode.

        Raises:
            ValueError: the variable is not set to a positive number.
        """
        text = (os.environ if environ is None else environ).get(self.period_variable, "").strip()
        minutes = _positive(self.period_variable, text) if text else self.default_minutes
        return minutes * 60

    def seconds_to_rest(self, seconds: float, now: datetime) -> float:
        """How long to wait for the next cycle, given the seconds until the next period.

        Less shortly before the end of a month, if the mode has an extra cycle then.
        """
        if self.before_month_ends is None:
            return seconds
        end = BillingMonth.of(now, UTC).period(UTC).end
        early = (end - self.before_month_ends - now).total_seconds()
        return early if 0 < early < seconds else seconds


def _positive(variable: str, text: str) -> float:
    remedy = f'{variable} is "{text}"; give a positive number of minutes, such as 5 or 0.5'
    try:
        minutes = float(text)
    except ValueError:
        raise ValueError(remedy) from None
    if not 0 < minutes < float("inf"):
        raise ValueError(remedy)
    return minutes


def _begin_order_process(site: Site) -> None:
    repair_stuck_updates(site)


def _begin_nothing(_site: Site) -> None:
    return


ORDER_PROCESS = Mode(
    name="order_process",
    job=Job.ORDERS,
    period_variable="WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES",
    default_minutes=5,
    start=_begin_order_process,
    cycle=process_orders,
)

MEMBERSHIP_SYNC = Mode(
    name="membership_sync",
    job=Job.MEMBERSHIP,
    period_variable="WALDUR_SITE_AGENT_MEMBERSHIP_SYNC_PERIOD_MINUTES",
    default_minutes=5,
    start=_begin_nothing,
    cycle=sync_membership_and_imports,
)

REPORT = Mode(
    name="report",
    job=Job.REPORT,
    period_variable="WALDUR_SITE_AGENT_REPORT_PERIOD_MINUTES",
    default_minutes=30,
    start=_begin_nothing,
    cycle=report_usage,
    beside_events=True,
    before_month_ends=timedelta(minutes=12),  # servers without dates accept nothing in the last ten
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMode:
    """A mode that does the jobs of others when events ask for it."""

    name: str
    parts: tuple[Mode, ...]
    ping_seconds: float
    """The longest time between two health pings to Waldur."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs whose backends the mode needs."""
        return tuple(part.job for part in self.parts)

    def serves(self, offering: Offering) -> bool:
        """Whether the offering takes part in this mode."""
        return offering.by_events and any(offering.backend_for(job) for job in self.jobs)

    def parts_of(self, offering: Offering) -> tuple[Mode, ...]:
        """The modes whose jobs the offering has backends for."""
        return tuple(part for part in self.parts if offering.backend_for(part.job))

    def renamed(self, part: Mode) -> Mode:
        """The part as it appears in the log and in Waldur."""
        return replace(part, name=self.name)

    def period_seconds(self, environ: Mapping[str, str] | None = None) -> float:  # noqa: ARG002 - as modes have it
        """The longest time without a request to Waldur while idle."""
        return self.ping_seconds


EVENT_PROCESS = EventMode(
    name="event_process", parts=(ORDER_PROCESS, MEMBERSHIP_SYNC), ping_seconds=480
)

AnyMode: TypeAlias = Mode | EventMode

AVAILABLE: Mapping[str, AnyMode] = {
    mode.name: mode for mode in (ORDER_PROCESS, MEMBERSHIP_SYNC, REPORT, EVENT_PROCESS)
}
"""The modes, by name."""


def jobs_of(modes: Iterable[AnyMode]) -> list[Job]:
    """The jobs of several modes, each once."""
    return list(dict.fromkeys(job for mode in modes for job in mode.jobs))
