"""The process: one worker per offering, a schedule, and an orderly end."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from waldur_site_agent.backends.locking import LockHeldError
from waldur_site_agent.cycles.order_report import OrdersReport
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.sessions import only_copy, open_site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from waldur_site_agent.config import Offering
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.service.modes import Mode
    from waldur_site_agent.service.sessions import Situation

_JITTER = 0.1
_SECONDS_FOR_A_PREDECESSOR_TO_STOP = 35.0
_SILENT_TOKEN_SHARE = 0.5


def run_once(
    situation: Situation, offerings: Sequence[Offering], mode: Mode, *, dry_run: bool = False
) -> list[OrdersReport]:
    """One cycle for each offering, one after the other; trouble with one stops no other."""
    reports = []
    for offering in offerings:
        with open_site(situation, offering, mode, lambda: False) as site:
            if dry_run:
                reports.append(run_cycle(site, mode, dry_run=True))
                continue
            try:
                with only_copy(offering, mode, 0):
                    reports.append(_first_cycle(site, mode))
            except LockHeldError as error:
                site.log.error("not started", reason=str(error))
                reports.append(OrdersReport(offering=offering.name, trouble=str(error)))
    return reports


def _first_cycle(site: Site, mode: Mode) -> OrdersReport:
    try:
        greet(site, mode)
        mode.start(site)
    except SiteAgentError as error:
        site.log.error("not started", reason=str(error))
        return OrdersReport(offering=site.offering.name, trouble=str(error))
    return run_cycle(site, mode)


def greet(site: Site, mode: Mode) -> None:
    """Learn who the agent is in Waldur, and warn of a token that will die of silence."""
    user = site.waldur.whoami()
    site.log.info("connected", waldur=site.waldur.base_url, user=user.username)
    if user.token_lifetime and mode.period_seconds() > user.token_lifetime * _SILENT_TOKEN_SHARE:
        site.log.warning(
            "the token expires when it is not used for a while",
            token_lifetime_seconds=user.token_lifetime,
            remedy="set the token lifetime of this user to none in Waldur",
        )


def run_cycle(site: Site, mode: Mode, *, dry_run: bool = False) -> OrdersReport:
    """One pass that never raises: what went wrong is in the report and in the log."""
    began, requests, commands = time.monotonic(), site.waldur.requests_made, _commands(site)
    try:
        report = mode.cycle(site, dry_run=dry_run)
    except SiteAgentError as error:
        site.log.warning("cycle cut short; tried again next time", reason=str(error))
        report = OrdersReport(offering=site.offering.name, trouble=str(error))
    except Exception as error:  # a bug: it must not end a service that runs for months
        site.log.exception("cycle failed because of a defect in the agent or a plugin")
        text = f"a defect: {type(error).__name__}: {error}"
        report = OrdersReport(offering=site.offering.name, trouble=text)
    report = replace(
        report,
        requests=site.waldur.requests_made - requests,
        commands=_commands(site) - commands,
    )
    site.log.debug(
        "cycle ended",
        seconds=round(time.monotonic() - began, 2),
        requests=report.requests,
        commands=report.commands,
    )
    return report


def _commands(site: Site) -> int:
    return sum(site.backend.commands_run().values())


@dataclass(slots=True)
class Worker:
    """Serves one offering in one mode until it is told to stop."""

    situation: Situation
    offering: Offering
    mode: Mode
    stop: threading.Event
    refused: bool = False
    """Another process serves the offering; this worker did nothing."""

    def run(self) -> None:
        """The body of the worker's thread."""
        log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)
        try:
            with (
                only_copy(
                    self.offering,
                    self.mode,
                    _SECONDS_FOR_A_PREDECESSOR_TO_STOP,
                    self.stop.is_set,
                ),
                open_site(self.situation, self.offering, self.mode, self.stop.is_set) as site,
            ):
                self._serve(site)
        except LockHeldError as error:
            self.refused = True
            log.error("not started", reason=str(error))
        except Exception:
            self.refused = True
            log.exception("worker ended because of a defect in the agent or a plugin")

    def _serve(self, site: Site) -> None:
        started = False
        while not self.stop.is_set():
            began = time.monotonic()
            if not started:
                started = _started(site, self.mode)
            if started:
                run_cycle(site, self.mode)
            self.stop.wait(self._pause(time.monotonic() - began))
        site.log.info("stopped")

    def _pause(self, spent: float) -> float:
        """Seconds until the next cycle; a little uneven, so that agents do not march in step."""
        period = self.mode.period_seconds()
        jitter = random.uniform(-_JITTER, _JITTER)  # noqa: S311 - spreads load, guards nothing
        return max(0.0, period * (1 + jitter) - spent)


def _started(site: Site, mode: Mode) -> bool:
    try:
        greet(site, mode)
        mode.start(site)
    except SiteAgentError as error:
        site.log.warning("not started yet; tried again next time", reason=str(error))
        return False
    except Exception:
        site.log.exception("start failed because of a defect in the agent or a plugin")
        return False
    return True


class Crew:
    """All workers of the process; replaced as a whole when the configuration is read again."""

    def __init__(self, situation: Situation, work: Sequence[tuple[Offering, Mode]]) -> None:
        self.stop = threading.Event()
        self.workers = [Worker(situation, offering, mode, self.stop) for offering, mode in work]
        self._threads = [
            threading.Thread(
                target=worker.run, name=f"{worker.mode.name}:{worker.offering.name}", daemon=True
            )
            for worker in self.workers
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether any worker is at work."""
        return any(thread.is_alive() for thread in self._threads)

    def finish(self, patience_seconds: float, *, hurry: Callable[[], bool] = bool) -> bool:
        """Ask all workers to stop, wait for them; return whether all of them did."""
        self.stop.set()
        deadline = time.monotonic() + patience_seconds
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < deadline and not hurry():
                thread.join(0.2)
        return not self.is_alive
