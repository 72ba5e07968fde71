"""The workers of a service: one for each offering, each with its own schedule."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from waldur_site_agent.config import ConfigurationError
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.agent import greet, run_cycle
from waldur_site_agent.service.event_worker import EventWorker
from waldur_site_agent.service.modes import EventMode
from waldur_site_agent.service.sessions import only_copy, open_site
from waldur_site_agent.service.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent.config import Offering
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.service.health import Duty
    from waldur_site_agent.service.modes import AnyMode, Mode
    from waldur_site_agent.service.sessions import Situation

SECONDS_FOR_A_PREDECESSOR_TO_STOP = 35.0
"""How long a worker waits for another process that serves its offering, before it says so."""
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Worker:
    """Serves one offering in one mode until it is told to stop; trouble never ends it."""

    situation: Situation
    offering: Offering
    mode: Mode
    stop: Stop

    def run(self) -> None:
        """The body of the worker's thread."""
        log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)
        while not self.stop.requested():
            began = time.monotonic()
            try:
                self._work()
            except (SiteAgentError, ConfigurationError) as error:
                if not self.stop.requested():
                    self._duty().fail(str(error))
                    log.error("not started; tried again next time", reason=str(error))
            except Exception as error:
                self._duty().fail(f"a defect: {type(error).__name__}: {error}")
                log.exception(
                    "worker failed because of a defect in the agent or a plugin; tried again "
                    "next time"
                )
            self._rest(began)
        log.info("stopped")

    def _work(self) -> None:
        patience, stopping = SECONDS_FOR_A_PREDECESSOR_TO_STOP, self.stop.requested
        with (
            only_copy(self.offering, self.mode, patience, stopping),
            open_site(self.situation, self.offering, self.mode, stopping, self.stop.pause) as site,
        ):
            self._serve(site)

    def _serve(self, site: Site) -> None:
        started = False
        while not self.stop.requested():
            began = time.monotonic()
            if not started:
                started = self._start(site)
            if started:
                run_cycle(site, self.mode)
            self._rest(began)

    def _start(self, site: Site) -> bool:
        duty = self._duty()
        duty.begin()
        try:
            greet(site, self.mode)
            self.mode.start(site)
        except SiteAgentError as error:
            duty.fail(str(error))
            if not self.stop.requested():
                site.log.warning("not started yet; tried again next time", reason=str(error))
            return False
        except Exception as error:
            duty.fail(f"a defect: {type(error).__name__}: {error}")
            site.log.exception("start failed because of a defect in the agent or a plugin")
            return False
        duty.start()
        return True

    def _rest(self, began: float) -> None:
        """Wait for the next turn; a little uneven, so that agents do not march in step."""
        jitter = random.uniform(-_JITTER, _JITTER)  # noqa: S311 - spreads load, guards nothing
        turn = began + self.mode.period_seconds() * (1 + jitter)
        until_then = max(0.0, turn - time.monotonic())
        seconds = self.mode.seconds_to_rest(until_then, datetime.now(UTC))
        self._duty().rest(seconds)
        self.stop.wait(seconds)

    def _duty(self) -> Duty:
        return self.situation.monitoring.health.duty(self.offering.name, self.mode.name)


def _worker(
    situation: Situation, offering: Offering, mode: AnyMode, stop: Stop
) -> Worker | EventWorker:
    if isinstance(mode, EventMode):
        return EventWorker(situation, offering, mode, stop, SECONDS_FOR_A_PREDECESSOR_TO_STOP)
    return Worker(situation, offering, mode, stop)


@dataclass(frozen=True, slots=True)
class Unserved:
    """An offering in a mode whose configuration cannot be used."""

    offering: str
    mode: str
    reason: str

    def log(self) -> None:
        """Say so, with every problem of the file."""
        structlog.get_logger().error(
            "offering not served: its configuration cannot be used",
            offering=self.offering,
            mode=self.mode,
            reason=self.reason,
            remedy="correct the file, then reload (SIGHUP) or restart the agent",
        )


class Crew:
    """All workers of the process; replaced as a whole when the configuration is read again."""

    def __init__(
        self,
        situation: Situation,
        work: Sequence[tuple[Offering, AnyMode]],
        unserved: Sequence[Unserved] = (),
    ) -> None:
        """``unserved`` are those that health and metrics show as failing, beside the workers."""
        self.stop = Stop()
        self._unserved = unserved
        self._situation = situation
        self.workers = [_worker(situation, offering, mode, self.stop) for offering, mode in work]
        self._threads = [
            threading.Thread(
                target=worker.run, name=f"{worker.mode.name}:{worker.offering.name}", daemon=True
            )
            for worker in self.workers
        ]

    def start(self) -> None:
        """Begin to work."""
        health = self._situation.monitoring.health
        for worker, thread in zip(self.workers, self._threads, strict=True):
            health.take_over(worker.offering.name, worker.mode.name, thread)
            thread.start()
        for unserved in self._unserved:
            health.cannot_serve(unserved.offering, unserved.mode, unserved.reason)
            unserved.log()
        health.forget_relieved()

    def dismiss(self) -> None:
        """Ask all workers to finish what they have in hand and to begin nothing new."""
        self._situation.monitoring.health.relieve()
        self.stop.request()

    def close(self) -> None:
        """Give back what the workers shared; only when none is at work any more."""
        self._situation.journal.close()

    def at_work(self) -> bool:
        """Whether any worker has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)
