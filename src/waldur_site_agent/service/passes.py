"""One pass over an offering, as a cycle of the service or on its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from waldur_site_agent.config import Job, Offering
from waldur_site_agent.cycles.importing import answer_imports
from waldur_site_agent.cycles.membership import MembershipReport, sync_membership
from waldur_site_agent.cycles.offering import check_offering_access
from waldur_site_agent.cycles.order_inputs import OrdersReport, OrderStatus
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import CycleReport, Site, WaldurSnapshot
from waldur_site_agent.events.pending import (
    FIRST_DELAY,
    LONGEST_DELAY,
    Batch,
    EventQueue,
    Kind,
    PendingScope,
    kind_of,
)
from waldur_site_agent.model.backend import Everything, OrderScope, ResourceScope, Scope
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import OrderType
from waldur_site_agent.service.modes import AnyMode, Mode
from waldur_site_agent.service.process import Stop
from waldur_site_agent.service.session import Runtime, only_copy, open_site

_SILENT_TOKEN_SHARE = 0.5


def check_token(site: Site, mode: Mode) -> None:
    """Check that the token gives access to the offering; warn if it may expire between cycles.

    Raises:
        TemporaryError: it does not, or Waldur could not be reached.
    """
    user = check_offering_access(site)
    site.log.info("connected", waldur=site.waldur.base_url, user=user.username)
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
    site.watch.cycle_began()
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
    site.watch.cycle_ended(report, time.monotonic() - began)
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
        for part in parts if lock_wait is not None else ():
            stack.enter_context(only_copy(offering, part, lock_wait or 0.0, stop.requested))
        modes = {part.job: mode.renamed(part) for part in parts}
        sites = {
            job: stack.enter_context(open_site(runtime, offering, part, stop.requested, stop.pause))
            for job, part in modes.items()
        }
        return cls(sites, modes)

    @property
    def site(self) -> Site:
        """Any of the sites: they share offering, log and Waldur."""
        return next(iter(self.sites.values()))

    def start(self, *, dry_run: bool = False) -> None:
        """Do what the modes do once per process, before their first cycle.

        Raises:
            SiteAgentError: Waldur cannot be reached, or the token gives no access to the offering.
        """
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

    def carry_out(self, batch: Batch) -> None:
        """Run the pass that covers a batch."""
        match batch.kind:
            case Kind.EVERYTHING:
                self._everything(batch)
            case Kind.ORDERS:
                report = self._session.run(Job.ORDERS, process_orders, batch)
                self._orders_done(report, batch.entries)
            case Kind.MEMBERS:
                report = self._session.run(Job.MEMBERSHIP, sync_membership, batch)
                self._members_done(report, batch.entries)
            case Kind.IMPORT:
                report = self._session.run(Job.MEMBERSHIP, answer_imports, batch)
                self._settle(batch.entries, WaldurSnapshot(), failed=bool(report.trouble))

    def _everything(self, batch: Batch) -> None:
        reports = self._session.full_pass()
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
            created = result.status is OrderStatus.DONE and result.order.type == OrderType.CREATE
            if created and resource is not None and Job.MEMBERSHIP in self._session.sites:
                self._event_queue.want(ResourceScope(resource), seconds=LONGEST_DELAY)

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
