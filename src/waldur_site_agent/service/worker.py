"""Passes over an offering, and the workers that run them by the clock or by events.

A worker serves one offering in one mode and survives errors.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from waldur_site_agent.backends.database_session import DatabaseError
from waldur_site_agent.backends.leases import LeaseLostError
from waldur_site_agent.backends.locking import LockHeldError
from waldur_site_agent.config import ConfigurationError, Job, Offering
from waldur_site_agent.cycles.importing import answer_imports
from waldur_site_agent.cycles.membership import MembershipReport, sync_membership
from waldur_site_agent.cycles.offering import check_offering_access
from waldur_site_agent.cycles.order_inputs import OrdersReport, OrderStatus
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import CycleReport, Site
from waldur_site_agent.events.listener import EventStatus, Listener, Presence, Watchdog
from waldur_site_agent.events.messages import OFFERING_RESOURCES_SYNC
from waldur_site_agent.events.pending import (
    FIRST_DELAY,
    LONGEST_DELAY,
    Batch,
    EventQueue,
    Kind,
    PendingScope,
    kind_of,
)
from waldur_site_agent.events.registration import Registration, object_types_of
from waldur_site_agent.model.backend import Everything, OrderScope, ResourceScope, Scope
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.events import WaldurSnapshot
from waldur_site_agent.model.marketplace import OrderType
from waldur_site_agent.service.health import WorkerHealth
from waldur_site_agent.service.process import Stop
from waldur_site_agent.service.session import (
    AnyMode,
    EventMode,
    Mode,
    Runtime,
    Tenancy,
    lease_names,
    only_copy,
    open_site,
    open_transport,
)

_SILENT_TOKEN_SHARE = 0.5


def check_token(site: Site, mode: Mode) -> None:
    """Check that the token gives access to the offering; warn if it may expire between cycles.

    Raises:
        TemporaryError: it does not, or Waldur could not be reached.
    """
    user = check_offering_access(site)
    site.log.info("connected", waldur=site.waldur.base_url, user=user.username)
    if site.offering.uses_oidc:
        return  # access tokens have a lifetime of their own
    if user.token_lifetime and mode.period_seconds() > user.token_lifetime * _SILENT_TOKEN_SHARE:
        site.log.warning(
            "the token may expire between two cycles",
            token_lifetime_seconds=user.token_lifetime,
            remedy="set the token lifetime of this user to none in Waldur",
        )


def run_cycle(
    site: Site, mode: Mode, *, dry_run: bool = False, complete: bool = True
) -> CycleReport:
    """Run one pass; it never raises: errors are in the report and the log.

    ``complete``: whether the pass covers the whole offering instead of some scopes.
    """
    began, requests, commands = time.monotonic(), site.waldur.requests_made, _commands(site)
    site.observer.cycle_began()
    site.journal.begin_cycle()
    try:
        report = mode.cycle(site, dry_run=dry_run)
    except SiteAgentError as error:
        if not dry_run:  # a dry run prints the reason instead of the plan
            site.log.warning("cycle cut short; will retry", reason=str(error))
        report = CycleReport(offering=site.offering.name, trouble=str(error))
    except Exception as error:  # a bug must not end the service
        site.log.exception("cycle failed because of a bug in the agent or a plugin")
        report = CycleReport(offering=site.offering.name, trouble=bug_text(error))
    report = replace(
        report,
        requests=site.waldur.requests_made - requests,
        commands=_commands(site) - commands,
    )
    is_whole = complete and not report.trouble
    site.conditions.settle(site.log, site.now(), complete=is_whole)
    site.observer.cycle_ended(report, time.monotonic() - began)
    site.log.debug(
        "cycle ended",
        seconds=round(time.monotonic() - began, 2),
        requests=report.requests,
        commands=report.commands,
    )
    return report


def _commands(site: Site) -> int:
    return sum(site.backend.commands_run().values())


def bug_text(error: Exception) -> str:
    """An unexpected exception, as health and reports show it."""
    return f"bug in the agent or a plugin: {type(error).__name__}: {error}"


Report = TypeVar("Report", bound="CycleReport")


@dataclass(frozen=True, slots=True)
class Session:
    """An offering being served: an open site and a mode for each of its jobs."""

    sites: Mapping[Job, Site]
    modes: Mapping[Job, Mode]
    tenancy: Tenancy = field(default_factory=Tenancy)
    """Why no other process serves the offering meanwhile."""

    @classmethod
    def open(
        cls,
        stack: ExitStack,
        runtime: Runtime,
        offering: Offering,
        mode: AnyMode,
        stop: Stop,
        *,
        lock_wait: float | None = None,
    ) -> Session:
        """Open a site for each job of the offering; ``stack`` closes them.

        Args:
            stack: closes the sites, then releases the locks.
            runtime: shared by all sessions of the process.
            offering: the offering to serve.
            mode: the mode whose jobs are done.
            stop: ends every wait.
            lock_wait: seconds to wait for another process that serves the offering in the same
                mode; ``None`` takes no lock. In event mode the locks are those of the polling
                modes whose jobs it does, so that no polling agent serves the offering meanwhile.

        Raises:
            ConfigurationError: a backend does not accept its settings.
            SiteAgentError: another process serves the offering, or a backend or the connection to
                Waldur cannot be opened.
        """
        parts = mode.parts_of(offering)
        tenancy = Tenancy()
        if lock_wait is not None:
            locks = only_copy(runtime.leases, offering, parts, lock_wait, stop.requested)
            tenancy = stack.enter_context(locks)
        modes = {part.job: mode.renamed(part) for part in parts}
        may_write = tenancy.may_write if tenancy.held else None

        def stopping() -> bool:
            return stop.requested() or tenancy.is_lost

        opened = (
            (job, open_site(runtime, offering, part, stopping, stop.pause, may_write))
            for job, part in modes.items()
        )
        sites = {job: stack.enter_context(site) for job, site in opened}
        return cls(sites, modes, tenancy)

    @property
    def site(self) -> Site:
        """Any of the sites: they share offering, log and Waldur."""
        return next(iter(self.sites.values()))

    def start(self, *, dry_run: bool = False) -> None:
        """Do what the modes do once per process, before their first cycle.

        Raises:
            SiteAgentError: Waldur cannot be reached, or the token gives no access to the offering.
        """
        if not dry_run:  # whoever waits for a plan wants to see what is wrong now
            for site in self.sites.values():
                site.backend.pause_with(site.sleep)
        for number, (job, site) in enumerate(self.sites.items()):
            if number == 0:
                check_token(site, self.modes[job])
            if not dry_run:
                self.modes[job].start(site)

    def progress(self) -> int:
        """A counter of responses from Waldur and finished commands."""
        return sum(
            site.waldur.requests_made + sum(site.backend.commands_run().values())
            for site in self.sites.values()
        )

    def full_pass(self, *, dry_run: bool = False) -> list[CycleReport]:
        """Orders first, because users wait for them; then members, usernames and imports."""
        return [
            run_cycle(site, self.modes[job], dry_run=dry_run) for job, site in self.sites.items()
        ]

    def run(self, job: Job, cycle: Callable[..., CycleReport], batch: Batch) -> CycleReport:
        """Run one pass over the scopes of a batch; errors are in the report."""

        def scoped(site: Site, *, dry_run: bool) -> CycleReport:  # noqa: ARG001 - a mode's cycle
            return cycle(site, scopes=batch.scopes)

        return run_cycle(self.sites[job], replace(self.modes[job], cycle=scoped), complete=False)


class Passes:
    """Runs the pass for each batch of events and reports the result to the event queue."""

    def __init__(self, session: Session, event_queue: EventQueue) -> None:
        self._session = session
        self._event_queue = event_queue

    def carry_out(self, batch: Batch) -> bool:
        """Run the pass that covers a batch; return whether it failed as a whole."""
        match batch.kind:
            case Kind.EVERYTHING:
                reports = self._session.full_pass()
                self._everything(reports, batch)
                return all(report.trouble for report in reports)
            case Kind.ORDERS:
                report = self._session.run(Job.ORDERS, process_orders, batch)
                self._orders_done(report, batch.entries)
            case Kind.MEMBERS:
                report = self._session.run(Job.MEMBERSHIP, sync_membership, batch)
                self._members_done(report, batch.entries)
            case Kind.IMPORT:
                report = self._session.run(Job.MEMBERSHIP, answer_imports, batch)
                self._settle(batch.entries, WaldurSnapshot(), failed=bool(report.trouble))
        return bool(report.trouble)

    def _everything(self, reports: list[CycleReport], batch: Batch) -> None:
        orders, members = _first(reports, OrdersReport), _first(reports, MembershipReport)
        trouble = any(report.trouble for report in reports)
        incomplete = members is not None and bool(members.failures or members.refused_reason)
        by_kind: dict[Kind, list[PendingScope]] = {kind: [] for kind in Kind}
        for entry in batch.entries:
            by_kind[kind_of(entry.scope)].append(entry)
        self._settle(by_kind[Kind.EVERYTHING], WaldurSnapshot(), failed=trouble or incomplete)
        if orders is not None:
            self._settle(by_kind[Kind.ORDERS], orders.snapshot)
            self._follow_orders(orders)
        else:
            self._event_queue.cut_short(Kind.ORDERS, by_kind[Kind.ORDERS])
        if members is not None:
            self._settle([*by_kind[Kind.MEMBERS], *by_kind[Kind.IMPORT]], members.snapshot)
            self._follow_members(members)
        else:
            self._event_queue.cut_short(Kind.MEMBERS, by_kind[Kind.MEMBERS])
            self._event_queue.failed(by_kind[Kind.IMPORT])

    def _orders_done(self, report: CycleReport, entries: tuple[PendingScope, ...]) -> None:
        if not isinstance(report, OrdersReport):
            self._event_queue.cut_short(Kind.ORDERS, entries)
            return
        unfinished = {f.order.uuid for f in report.results if f.status is OrderStatus.WAITING}
        failed = [e for e in entries if _order_of(e.scope) in unfinished]
        self._event_queue.failed(failed)
        self._event_queue.passed([e for e in entries if e not in failed], report.snapshot)
        self._follow_orders(report, known=frozenset(e.scope for e in entries))

    def _members_done(self, report: CycleReport, entries: tuple[PendingScope, ...]) -> None:
        if not isinstance(report, MembershipReport):
            self._event_queue.cut_short(Kind.MEMBERS, entries)
        elif report.failures or report.refused_reason:
            self._event_queue.spoiled(entries)
        else:
            self._event_queue.passed(entries, report.snapshot)
        if isinstance(report, MembershipReport):
            self._follow_members(report)

    def _settle(
        self,
        entries: list[PendingScope] | tuple[PendingScope, ...],
        snapshot: WaldurSnapshot,
        *,
        failed: bool = False,
    ) -> None:
        if failed:
            self._event_queue.failed(entries)
        else:
            self._event_queue.passed(entries, snapshot)

    def _follow_orders(
        self, report: OrdersReport, *, known: frozenset[Scope] = frozenset()
    ) -> None:
        """Schedule follow-up passes, as the next cycle of a polling mode would do the work.

        A membership pass adds service accounts to a new account, and the members whom the
        operating system did not know yet when the order was done.
        """
        for result in report.results:
            scope = OrderScope(result.order.uuid)
            if result.status is OrderStatus.WAITING and scope not in known:
                self._event_queue.want(scope, seconds=FIRST_DELAY)
            resource = result.order.marketplace_resource_uuid
            followed = (
                (*OrderType.OPENING, OrderType.UPDATE)
                if self._sets_budgets()
                else (OrderType.OPENING)
            )
            created = result.status is OrderStatus.DONE and result.order.type in followed
            if created and resource is not None and Job.MEMBERSHIP in self._session.sites:
                self._event_queue.want(ResourceScope(resource), seconds=LONGEST_DELAY)

    def _sets_budgets(self) -> bool:
        """Whether an update changes more than the limits that it sets itself."""
        return self._session.site.offering.sets_periodic_limits

    def _follow_members(self, report: MembershipReport) -> None:
        """Schedule another pass for members whom the backend does not know yet.

        After refused removals a full pass checks them all together, as the next cycle of a polling
        mode would.
        """
        if report.refused_reason:
            self._event_queue.want(Everything(), seconds=LONGEST_DELAY)
        for account in report.membership.accounts:
            if account.waiting:
                scope = ResourceScope(account.wanted.resources[0].uuid)
                self._event_queue.want(scope, seconds=LONGEST_DELAY)


def _first(reports: list[CycleReport], kind: type[Report]) -> Report | None:
    return next((report for report in reports if isinstance(report, kind)), None)


def _order_of(scope: Scope) -> object:
    return scope.uuid if isinstance(scope, OrderScope) else None


SECONDS_FOR_A_PREDECESSOR_TO_STOP = 35.0
"""How long a worker waits for another process to release its offering, before it reports it."""
PASSES_BEFORE_OTHERS_TRY = 3
"""After how many failed passes in a row an agent leaves an offering to other agents."""
SECONDS_FOR_THE_FIRST_CONNECTION = 5.0
"""How long the first full pass waits for the subscription, so that no event is missed."""
_IDLE_SECONDS = 0.5
_LOOK_SECONDS = 0.5
"""How often a worker that rests or stands by looks at its leases; the database is not asked."""
_LONGEST_PAUSE = 60.0
_JITTER = 0.1


def once(
    runtime: Runtime,
    offering: Offering,
    mode: AnyMode,
    *,
    dry_run: bool = False,
    stop: Stop | None = None,
) -> list[CycleReport]:
    """Run one cycle of each job of the mode; an error never affects the next offering."""
    stop = stop or Stop()
    log = structlog.get_logger().bind(offering=offering.name, mode=mode.name)
    if stop.requested():
        reason = "the agent was asked to stop before it reached this offering"
        log.warning("could not start", reason=reason)
        return [CycleReport(offering=offering.name, trouble=reason)]
    try:
        with ExitStack() as stack:
            lock_wait = None if dry_run else 0.0
            session = Session.open(stack, runtime, offering, mode, stop, lock_wait=lock_wait)
            session.start(dry_run=dry_run)
            return session.full_pass(dry_run=dry_run)
    except (SiteAgentError, ConfigurationError) as error:
        if not dry_run:  # a dry run prints the reason instead of the plan
            log.error("could not start", reason=str(error))
        return [CycleReport(offering=offering.name, trouble=str(error))]
    except Exception as error:  # a bug, often a plugin's: go on with the other offerings
        log.exception("could not start because of a bug in the agent or a plugin")
        return [CycleReport(offering=offering.name, trouble=bug_text(error))]


class Schedule(Protocol):
    """Decides when a worker runs its cycles."""

    def serve(self, session: Session) -> None:
        """Run cycles until the worker is asked to stop, or its lease is lost or handed over.

        A cycle in progress is finished.
        """

    def seconds_to_retry(self, began: float) -> float:
        """How long to wait after a failed start that ``began`` then, by the monotonic clock."""


@dataclass(slots=True)
class Worker:
    """Serves one offering in one mode until it is asked to stop; no error ends it."""

    runtime: Runtime
    offering: Offering
    mode: AnyMode
    stop: Stop
    schedule: Schedule
    _log: FilteringBoundLogger = field(init=False)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)

    def run(self) -> None:
        """The body of the worker's thread."""
        log = self._log
        while self._stand_by():
            began = time.monotonic()
            try:
                if self._open_and_serve():
                    continue  # to stand by
            except (SiteAgentError, ConfigurationError) as error:
                if self._was_faster(error):
                    self.stop.wait(_LOOK_SECONDS)
                    continue
                if not self.stop.requested():
                    self._health().fail(str(error))
                    log.error("could not start; will retry", reason=str(error))
                self._leave_it_to_others()
            except Exception as error:
                self._health().fail(bug_text(error))
                log.exception("worker failed because of a bug in the agent or a plugin; will retry")
                self._leave_it_to_others()
            self._wait_to_retry(began)
        log.info("stopped")

    def _stand_by(self) -> bool:
        """Wait until this agent may try to serve the offering; ``False`` if it is to stop."""
        leases = self.runtime.leases
        if leases is None:
            return not self.stop.requested()
        unit, told = lease_names(self.offering, self.mode), ""
        while not self.stop.requested():
            reason = leases.why_not(unit)
            if not reason:
                return True
            if trouble := leases.trouble:  # logged once, for all workers
                self._health().fail(trouble)
            else:
                if reason != told:
                    self._log.info("standing by", reason=reason)
                self._health().stand_by(reason)
            told = reason
            self._health().rest(2 * _LOOK_SECONDS)
            self.stop.wait(_LOOK_SECONDS)
        return False

    def _was_faster(self, error: Exception) -> bool:
        """Whether another agent took the lease, or the session was lost: both are waited out."""
        is_about_leases = isinstance(error, LockHeldError | LeaseLostError | DatabaseError)
        return self.runtime.leases is not None and is_about_leases

    def _leave_it_to_others(self) -> None:
        """An agent that cannot start its work gives others the chance."""
        if self.runtime.leases is not None:
            self.runtime.leases.withdraw()

    def _open_and_serve(self) -> bool:
        """Serve the offering; return whether it was, until the lease was lost or handed over."""
        with ExitStack() as stack:
            # among several agents nobody waits: whoever is free takes over
            is_alone = self.runtime.leases is None
            session = Session.open(
                stack,
                self.runtime,
                self.offering,
                self.mode,
                self.stop,
                lock_wait=SECONDS_FOR_A_PREDECESSOR_TO_STOP if is_alone else 0.0,
            )
            self._health().take_up()
            while not self.stop.requested():
                began = time.monotonic()
                if self._start(session):
                    self.schedule.serve(session)
                    if session.tenancy.held:
                        self._log_end(session)
                        return True
                elif is_alone:
                    self._wait_to_retry(began)
                else:
                    self._leave_it_to_others()
                    return False
            return False

    def _log_end(self, session: Session) -> None:
        if self.stop.requested():
            return
        if session.tenancy.is_lost:
            self._log.error("lost the offering's lease; whoever takes it finishes the work")
        else:
            self._log.info("handing the offering over: others have less work, or passes fail here")

    def _start(self, session: Session) -> bool:
        """Whether the session could be started; the locks are kept until the next attempt."""
        health, log = self._health(), self._log
        health.begin()
        try:
            session.start()
        except SiteAgentError as error:
            health.fail(str(error))
            if not self.stop.requested():
                log.warning("could not start; will retry", reason=str(error))
            return False
        except Exception as error:
            health.fail(bug_text(error))
            log.exception("could not start because of a bug in the agent or a plugin; will retry")
            return False
        health.start()
        return True

    def _wait_to_retry(self, began: float) -> None:
        seconds = self.schedule.seconds_to_retry(began)
        self._health().rest(seconds)
        self.stop.wait(seconds)

    def _health(self) -> WorkerHealth:
        return _health_of(self.runtime, self.offering, self.mode)


@dataclass(slots=True)
class Backoff:
    """Delays that double with each failed start in a row, with jitter."""

    _failures: int = 0

    def seconds(self, began: float) -> float:
        """The delay after a start that began then, by the monotonic clock; at most a minute."""
        lasted = time.monotonic() - began
        self._failures = 1 if lasted > _LONGEST_PAUSE else self._failures + 1
        longest = min(_LONGEST_PAUSE, 2.0 ** min(self._failures, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing


def worker_for(runtime: Runtime, offering: Offering, mode: AnyMode, stop: Stop) -> Worker:
    """A worker with the schedule that the mode calls for."""
    schedule: Schedule
    if isinstance(mode, EventMode):
        schedule = OnEvents(runtime, offering, mode, stop)
    else:
        schedule = Polling(runtime, offering, mode, stop)
    return Worker(runtime, offering, mode, stop, schedule)


@dataclass(frozen=True, slots=True)
class Polling:
    """A cycle every period."""

    runtime: Runtime
    offering: Offering
    mode: Mode
    stop: Stop
    _backoff: Backoff = field(default_factory=Backoff)

    def serve(self, session: Session) -> None:
        """Run a cycle every period until the worker is asked to stop or loses its lease."""
        failed = 0
        while not self.stop.requested():
            began = time.monotonic()
            reports = session.full_pass()
            failed = failed + 1 if all(report.trouble for report in reports) else 0
            if failed >= PASSES_BEFORE_OTHERS_TRY and session.tenancy.leave():
                return
            seconds = self._seconds_to_the_next_cycle(began)
            _health_of(self.runtime, self.offering, self.mode).rest(seconds)
            if _rest(session, seconds, self.stop):
                return

    def seconds_to_retry(self, began: float) -> float:
        """Long periods do not delay the first cycle after an outage."""
        return min(self._seconds_to_the_next_cycle(began), self._backoff.seconds(began))

    def _seconds_to_the_next_cycle(self, began: float) -> float:
        """The time until the next period begins, with jitter so that agents do not synchronize."""
        turn = began + self.mode.period_seconds() * _jitter()
        until_then = max(0.0, turn - time.monotonic())
        return self.mode.seconds_to_rest(until_then, datetime.now(UTC))


@dataclass(slots=True)
class OnEvents:
    """A cycle when an event asks for it, and a full pass now and then."""

    runtime: Runtime
    offering: Offering
    mode: EventMode
    stop: Stop
    _backoff: Backoff = field(default_factory=Backoff)
    _reception: _Reception | None = None
    _working: bool = False
    _log: FilteringBoundLogger = field(init=False)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger().bind(offering=self.offering.name, mode=self.mode.name)

    @property
    def status(self) -> EventStatus:
        """The current state of connection and queue; any thread may ask."""
        reception = self._reception
        return EventStatus() if reception is None else reception.status()

    def serve(self, session: Session) -> None:
        """Listen, and run the passes that events ask for, until the worker is asked to stop."""
        reception = self._reception = self._receive(session)
        health = self.runtime.monitoring.health
        health.watch_events(self.offering.name, self._describe, self.mode.name)
        try:
            reception.start()
            self._serve(session, reception.event_queue)
        finally:
            reception.stop()

    def seconds_to_retry(self, began: float) -> float:
        """See :class:`Backoff`."""
        return self._backoff.seconds(began)

    def _describe(self) -> dict[str, Any]:
        return self.status.describe()

    def _receive(self, session: Session) -> _Reception:
        types = (*object_types_of(self.offering), OFFERING_RESOURCES_SYNC)
        event_queue = EventQueue(self.offering.waldur_offering_uuid, types, self._log)
        registration = Registration(session.site.waldur, self.offering, self._log)
        listener = Listener(open_transport(self.offering), registration, event_queue, self._log)
        watchdog = Watchdog(
            listener, lambda: session.progress() if self._working else None, self._log
        )
        presence = Presence(registration.ping, self.mode.ping_seconds, self._log)
        return _Reception(event_queue, listener, watchdog, presence)

    def _serve(self, session: Session, event_queue: EventQueue) -> None:
        passes = Passes(session, event_queue)
        event_queue.want(Everything(), seconds=SECONDS_FOR_THE_FIRST_CONNECTION)
        next_full_pass = self._next_full_pass()
        failed: Counter[Kind] = Counter()
        while not self.stop.requested() and not session.tenancy.is_over():
            _health_of(self.runtime, self.offering, self.mode).rest(2 * _IDLE_SECONDS)
            if time.monotonic() >= next_full_pass:
                event_queue.want(Everything())
            batch = event_queue.take(_IDLE_SECONDS)
            if batch is None:
                continue
            if batch.kind is Kind.EVERYTHING:
                next_full_pass = self._next_full_pass()
            self._working = True
            try:
                failed[batch.kind] = failed[batch.kind] + 1 if passes.carry_out(batch) else 0
            finally:
                self._working = False
            if failed[batch.kind] >= PASSES_BEFORE_OTHERS_TRY and session.tenancy.leave():
                return  # messages of what failed are not acknowledged: the next holder gets them

    def _next_full_pass(self) -> float:
        minutes = self.runtime.configuration.events.full_pass_minutes
        return time.monotonic() + minutes * 60 * _jitter()


@dataclass(slots=True)
class _Reception:
    """What receives events while a worker works, and what watches over the connection."""

    event_queue: EventQueue
    listener: Listener
    watchdog: Watchdog
    presence: Presence

    def start(self) -> None:
        self.listener.start()
        self.watchdog.start()
        self.presence.start()

    def stop(self) -> None:
        """Stop the watchdog first, or it would restart a listener that ends on purpose."""
        self.watchdog.stop()
        self.presence.stop()
        self.listener.stop()

    def status(self) -> EventStatus:
        waited = self.event_queue.waited_seconds()
        return EventStatus(
            connection=self.listener.status,
            scopes_waiting=len(waited),
            oldest_waiting_seconds=max(waited, default=0.0),
            counts=self.event_queue.counts,
            hangs=self.watchdog.hung,
        )


def _rest(session: Session, seconds: float, stop: Stop) -> bool:
    """Pause until the next cycle; return early, with ``True``, when there is none to come."""
    if not session.tenancy.held:
        return stop.wait(seconds)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if session.tenancy.is_over() or stop.wait(min(left, _LOOK_SECONDS)):
            return True
    return session.tenancy.is_over()


def _health_of(runtime: Runtime, offering: Offering, mode: AnyMode) -> WorkerHealth:
    return runtime.monitoring.health.worker_health(offering.name, mode.name)


def _jitter() -> float:
    """A factor near 1, so that agents do not synchronize."""
    return 1 + random.uniform(-_JITTER, _JITTER)  # noqa: S311 - spreads load, guards nothing
