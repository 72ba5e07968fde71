"""The modes: what each does in a cycle, for which offerings, and how often."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from waldur_site_agent.config import Job
from waldur_site_agent.cycles.membership import sync_membership
from waldur_site_agent.cycles.orders import process_orders, repair_stuck_updates
from waldur_site_agent.cycles.reporting import report_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from waldur_site_agent.config import Offering
    from waldur_site_agent.cycles.report import CycleReport
    from waldur_site_agent.cycles.site import Site

MODE_NAMES = ("order_process", "report", "membership_sync", "event_process", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One job that the agent does again and again."""

    name: str
    job: Job
    period_variable: str
    default_minutes: float
    start: Callable[[Site], None]
    """Done once per process and offering, before the first cycle."""
    cycle: Callable[..., CycleReport]
    beside_events: bool = False
    """Whether it serves offerings, too, whose orders and members follow events."""

    def serves(self, offering: Offering) -> bool:
        """Whether the offering takes part in this mode."""
        takes_part = self.beside_events or not offering.by_events
        return takes_part and bool(offering.backend_for(self.job))

    def period_seconds(self, environ: Mapping[str, str] | None = None) -> float:
        """How often a cycle begins.

        Raises:
            ValueError: the variable is set to something that is not a positive number.
        """
        text = (os.environ if environ is None else environ).get(self.period_variable, "").strip()
        minutes = _positive(self.period_variable, text) if text else self.default_minutes
        return minutes * 60


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
    cycle=sync_membership,
)

REPORT = Mode(
    name="report",
    job=Job.REPORT,
    period_variable="WALDUR_SITE_AGENT_REPORT_PERIOD_MINUTES",
    default_minutes=30,
    start=_begin_nothing,
    cycle=report_usage,
    beside_events=True,
)

AVAILABLE: Mapping[str, Mode] = {
    mode.name: mode for mode in (ORDER_PROCESS, MEMBERSHIP_SYNC, REPORT)
}
"""The modes that this version has; the others of MODE_NAMES are still to come."""
