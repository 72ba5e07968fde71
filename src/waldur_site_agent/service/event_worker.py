"""Serves one offering by events: listens, and makes passes over what may have changed."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from waldur_site_agent.config import ConfigurationError
from waldur_site_agent.cycles.report import CycleReport
from waldur_site_agent.events.agenda import Agenda
from waldur_site_agent.events.listening import Listener
from waldur_site_agent.events.messages import OFFERING_RESOURCES_SYNC
from waldur_site_agent.events.presence import Presence
from waldur_site_agent.events.status import EventStatus
from waldur_site_agent.events.subscribing import Registration, object_types_of
from waldur_site_agent.events.waiting import Kind
from waldur_site_agent.events.watchdog import Watchdog
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.scopes import Everything
from waldur_site_agent.service.event_passes import Passes, Workplace
from waldur_site_agent.service.event_transport import open_transport
from waldur_site_agent.service.sessions import only_copy

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from waldur_site_agent.config import Offering
    from waldur_site_agent.service.health import Duty
    from waldur_site_agent.service.modes import EventMode
    from waldur_site_agent.service.sessions import Situation
    from waldur_site_agent.service.stopping import Stop

SECONDS_FOR_THE_FIRST_CONNECTION = 5.0
"""How long the first full pass waits for a subscription, so that no event falls in between."""
_IDLE_SECONDS = 0.5
_JITTER = 0.1
_LONGEST_PAUSE = 60.0


@dataclass(slots=True)
class _Reception:
    """What listens while a worker works: the agenda, the connection, and who watches both."""

    agenda: Agenda
    listener: Listener
    watchdog: Watchdog
    presence: Presence

    def start(self) -> None:
        self.listener.start()
        self.watchdog.start()
        self.presence.start()

    def stop(self) -> None:
        """Watch no more first: a thread that ends on purpose is not to be started again."""
        self.watchdog.stop()
        self.presence.stop()
        self.listener.stop()

    def status(self) -> EventStatus:
        waited = self.agenda.waited_seconds()
        return EventStatus(
            connection=self.listener.status,
            scopes_waiting=len(waited),
            oldest_waiting_seconds=max(waited, default=0.0),
            counts=self.agenda.counts,
            hangs=self.watchdog.hung,
        )


@dataclass(slots=True)
class EventWorker:
    """Serves one offering until it is told to stop; trouble never ends it."""

    situation: Situation
    offering: Offering
    mode: EventMode
    stop: Stop
    patience: float = 35.0
    """How long to wait for another process that serves the offering, in seconds."""
    _reception: _Reception | None = None
    _working: bool = False
    _log: FilteringBoundLogger = field(init=False)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)

    @property
    def status(self) -> EventStatus:
        """How the events stand now; any thread may ask."""
        reception = self._reception
        return EventStatus() if reception is None else reception.status()

    def _describe(self) -> dict[str, Any]:
        return self.status.describe()

    def run(self) -> None:
        """The body of the worker's thread."""
        log, failures = self._log, 0
        while not self.stop.requested():
            began = time.monotonic()
            try:
                self._work()
            except (SiteAgentError, ConfigurationError) as error:
                if not self.stop.requested():
                    self._duty().fail(str(error))
                    log.error("not started; tried again", reason=str(error))
            except Exception as error:
                self._duty().fail(f"a defect: {type(error).__name__}: {error}")
                log.exception(
                    "worker failed because of a defect in the agent or a plugin; tried again"
                )
            failures = 1 if time.monotonic() - began > _LONGEST_PAUSE else failures + 1
            self._pause(failures)
        log.info("stopped")

    def _pause(self, failures: int) -> None:
        longest = min(_LONGEST_PAUSE, 2.0 ** min(failures, 10))
        seconds = random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing
        self._duty().rest(seconds)
        self.stop.wait(seconds)

    def _work(self) -> None:
        """Everything from the locks to the last pass.

        The locks are those of the modes whose jobs are done here: no polling copy of them may
        serve the offering at the same time, whatever configuration it has read.
        """
        with ExitStack() as stack:
            for part in self.mode.parts_of(self.offering):
                stack.enter_context(
                    only_copy(self.offering, part, self.patience, self.stop.requested)
                )
            workplace = Workplace.open(stack, self.situation, self.offering, self.mode, self.stop)
            self._duty().begin()
            workplace.start()
            self._duty().start()
            reception = self._reception = self._receive(workplace)
            health = self.situation.monitoring.health
            health.watch_events(self.offering.name, self._describe, self.mode.name)
            stack.callback(reception.stop)
            reception.start()
            self._serve(Passes(workplace, reception.agenda), reception.agenda)

    def _receive(self, workplace: Workplace) -> _Reception:
        types = (*object_types_of(self.offering), OFFERING_RESOURCES_SYNC)
        agenda = Agenda(self.offering.waldur_offering_uuid, types, self._log)
        registration = Registration(workplace.site.waldur, self.offering, self._log)
        listener = Listener(open_transport(self.offering), registration, agenda, self._log)
        watchdog = Watchdog(
            listener, lambda: workplace.progress() if self._working else None, self._log
        )
        presence = Presence(registration.ping, self.mode.ping_seconds, self._log)
        return _Reception(agenda, listener, watchdog, presence)

    def _serve(self, passes: Passes, agenda: Agenda) -> None:
        """Make passes until the agent is asked to stop; the one in hand is finished."""
        agenda.want(Everything(), seconds=SECONDS_FOR_THE_FIRST_CONNECTION)
        next_full_pass = self._next_full_pass()
        while not self.stop.requested():
            self._duty().rest(2 * _IDLE_SECONDS)
            if time.monotonic() >= next_full_pass:
                agenda.want(Everything())
            batch = agenda.take(_IDLE_SECONDS)
            if batch is None:
                continue
            if batch.kind is Kind.EVERYTHING:
                next_full_pass = self._next_full_pass()
            self._working = True
            try:
                passes.carry_out(batch)
            finally:
                self._working = False

    def _next_full_pass(self) -> float:
        """When the next full pass is due; a little uneven, so that agents do not march in step."""
        jitter = random.uniform(-_JITTER, _JITTER)  # noqa: S311 - spreads load, guards nothing
        minutes = self.situation.configuration.events.full_pass_minutes
        return time.monotonic() + minutes * 60 * (1 + jitter)

    def _duty(self) -> Duty:
        return self.situation.monitoring.health.duty(self.offering.name, self.mode.name)


def full_pass_once(
    situation: Situation, offering: Offering, mode: EventMode, *, dry_run: bool, stop: Stop
) -> list[CycleReport]:
    """One full pass without listening to events, for ``--once`` and dry runs."""
    log = structlog.get_logger().bind(offering=offering.name, mode=mode.name)
    try:
        with ExitStack() as stack:
            if not dry_run:
                for part in mode.parts_of(offering):
                    stack.enter_context(only_copy(offering, part, 0))
            workplace = Workplace.open(stack, situation, offering, mode, stop)
            workplace.start(dry_run=dry_run)
            return workplace.full_pass(dry_run=dry_run)
    except (SiteAgentError, ConfigurationError) as error:
        if not dry_run:  # a dry run prints the reason in place of the plan
            log.error("not started", reason=str(error))
        return [CycleReport(offering=offering.name, trouble=str(error))]
    except Exception as error:  # a bug, often a plugin's: the other offerings have their turn
        log.exception("not started because of a defect in the agent or a plugin")
        trouble = f"a defect: {type(error).__name__}: {error}"
        return [CycleReport(offering=offering.name, trouble=trouble)]
