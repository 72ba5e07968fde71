"""A backend whose work tests write down, a sandbox, and agents that report between them."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx
import structlog

from waldur_site_agent.backends import (
    Backend,
    BackendResource,
    BackendSettings,
    BackendState,
    Check,
    TemporaryError,
)
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.site import Memory, Sibling, Site, UnreportedUsage
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.usage import Period, ResourceUsage, UsageReport
from waldur_site_agent.planning.plan import Thresholds
from waldur_site_agent.waldur import Waldur
from waldur_site_agent_sandbox import Project, Resource, Sandbox
from waldur_site_agent_sandbox.server import ADDRESS
from waldur_site_agent_sandbox.store import Request

_COMPONENTS = {
    "cpu": {
        "label": "CPU",
        "measured_unit": "Hours",
        "unit_factor": 60,
        "accounting_type": "usage",
    },
    "mem": {"label": "RAM", "measured_unit": "h", "unit_factor": 60, "accounting_type": "limit"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """So much of a component, all the time from ``start`` to ``end``."""

    account: str
    user: str
    start: datetime
    end: datetime | None
    component: str = "cpu"
    rate: int = 1

    def minutes(self, start: datetime, end: datetime) -> Fraction:
        """What it used between two moments, in backend units."""
        begin = max(self.start, start)
        stop = end if self.end is None else min(self.end, end)
        return Fraction(max(0, round((stop - begin).total_seconds())), 60) * self.rate


@dataclass
class Ledger:
    """What a cluster did."""

    now: Callable[[], datetime]
    accounts: set[str] = field(default_factory=set)
    work: list[Work] = field(default_factory=list)
    limits: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    """What a second source says of the month before."""
    trouble: list[Exception] = field(default_factory=list)
    """Raised one after the other instead of usage."""
    reads: list[list[Period]] = field(default_factory=list)
    verified: list[Period] = field(default_factory=list)
    meanwhile: Callable[[], object] | None = None
    """Happens once, while usage is read."""
    settled: bool = True
    """Whether reports of the past are final."""
    unfinished: set[str] = field(default_factory=set)
    """Accounts with work whose end is not known yet."""
    unverifiable: int = 0
    """How often the second source is not ready."""

    def run(
        self,
        account: str,
        user: str,
        start: datetime,
        hours: float | None = 1,
        component: str = "cpu",
        rate: int = 1,
    ) -> None:
        """Let somebody work, for so many hours or on and on."""
        end = None if hours is None else start + timedelta(hours=hours)
        self.work.append(
            Work(account=account, user=user, start=start, end=end, component=component, rate=rate)
        )


class LedgerBackend(Backend):
    """Reports what is in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(BackendSettings(), {})
        self._ledger = ledger

    def diagnose(self) -> Iterable[Check]:
        return ()

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        raise NotImplementedError

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:  # noqa: ARG002 - one read has all
        limits = self._ledger.limits
        return BackendState(
            resources={
                name: BackendResource(id=name, limits=limits.get(name, {}))
                for name in self._ledger.accounts
            }
        )

    def usages(
        self, since: Mapping[str, datetime], periods: Sequence[Period]
    ) -> tuple[UsageReport, ...]:
        self._ledger.reads.append(list(periods))
        meanwhile, self._ledger.meanwhile = self._ledger.meanwhile, None
        if meanwhile:
            meanwhile()
        if self._ledger.trouble:
            raise self._ledger.trouble.pop(0)
        return tuple(self._report(since, period) for period in periods)

    def _report(self, since: Mapping[str, datetime], period: Period) -> UsageReport:
        used: dict[str, dict[str, dict[str, Fraction]]] = {
            name: defaultdict(lambda: defaultdict(Fraction)) for name in since
        }
        for work in self._ledger.work:
            if work.account in since:
                minutes = work.minutes(
                    max(period.start, since[work.account]), min(period.end, self._ledger.now())
                )
                if minutes:
                    used[work.account][work.user][work.component] += minutes
        resources = {name: ResourceUsage(by_user=by_user) for name, by_user in used.items()}
        return UsageReport(
            period=period,
            resources=resources,
            is_settled=self._ledger.settled and not self._ledger.unfinished,
            unfinished=frozenset(self._ledger.unfinished & since.keys()),
        )

    def verify_usage(self, period: Period) -> Iterable[str]:
        self._ledger.verified.append(period)
        if self._ledger.unverifiable:
            self._ledger.unverifiable -= 1
            raise TemporaryError("the second source is not ready")
        return self._ledger.differences

    def commands_run(self) -> Mapping[str, int]:
        return {"read": len(self._ledger.reads)}


@dataclass
class Meter:
    """Both sides, and what tests ask of them. The agent's clock is the sandbox's, unless set."""

    sandbox: Sandbox
    ledger: Ledger
    zone: tzinfo = UTC
    token: str = ""
    allow_decrease: bool = False
    now: Callable[[], datetime] | None = None
    stopping: Callable[[], bool] = bool
    transport: Callable[[httpx.BaseTransport], httpx.BaseTransport] = lambda inner: inner
    components: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(_COMPONENTS))
    memory: Memory = field(default_factory=Memory)
    sleeps: list[float] = field(default_factory=list)
    siblings: tuple[Sibling, ...] = ()
    unreported_usage: UnreportedUsage = UnreportedUsage.WAIT

    def travel_on(self, hours: float) -> datetime:
        """Let some hours pass."""
        self.sandbox.clock.advance(hours * 3600)
        return self.sandbox.clock.now()

    def travel(self, moment: str) -> datetime:
        """Let time pass until a moment in UTC."""
        there = datetime.fromisoformat(moment).replace(tzinfo=UTC)
        seconds = (there - self.sandbox.clock.now()).total_seconds()
        assert seconds > 0, "nobody travels back"
        self.sandbox.clock.advance(seconds)
        return there

    def resource(self, slug: str = "ocean", state: str = "OK", **changes: Any) -> Resource:
        """A resource, with its account, written straight into both sides."""
        side = self.sandbox.customer
        if "uni" not in {customer.slug for customer in side.world.customers.values()}:
            side.add_customer("Uni", "uni")
        known = [p for p in side.world.projects.values() if p.slug == "climate"]
        project: Project = known[0] if known else side.add_project("Climate", "uni", "climate")
        now = self.sandbox.clock.now()
        values: dict[str, Any] = {
            "uuid": uuid.uuid4().hex,
            "created": now,
            "modified": now,
            "name": slug.title(),
            "slug": slug,
            "offering": self.sandbox.offering.uuid,
            "project": project.uuid,
            "state": state,
            "backend_id": f"a_{slug}",
        }
        made = Resource(**(values | changes))
        side.world.put(made)
        self.ledger.accounts.add(made.backend_id)
        return made

    def change(self, resource: Resource, **changes: Any) -> None:
        """Change a resource as only the database can."""
        side = self.sandbox.customer
        side.world.put(replace(side.current(resource), **changes))

    def offering(self) -> Offering:
        """The configuration of the sandbox's offering."""
        return Offering.model_validate(
            {
                "name": "Test cluster",
                "waldur_api_url": ADDRESS,
                "waldur_api_token": self.token or self.sandbox.token,
                "waldur_offering_uuid": self.sandbox.offering.uuid,
                "reporting_backend": "ledger",
                "backend_components": self.components,
                "allow_decrease": self.allow_decrease,
            }
        )

    @contextmanager
    def agent(self, memory: Memory | None = None) -> Iterator[Site]:
        """A new agent; it remembers nothing, unless it is given a memory."""
        offering = self.offering()
        with Waldur(
            ADDRESS,
            offering.token,
            mode="test",
            verify=False,
            transport=self.transport(self.sandbox.transport()),
            sleep=self.sleeps.append,
            now=self.sandbox.clock.now,
        ) as waldur:
            site = Site(
                offering=offering,
                waldur=waldur,
                backend=LedgerBackend(self.ledger),
                thresholds=Thresholds(max_removals_percent=Decimal(30), max_removals=10),
                log=structlog.get_logger(),
                now=self.now or self.sandbox.clock.now,
                stopping=self.stopping,
                memory=Memory() if memory is None else memory,
                zone=self.zone,
                siblings=self.siblings,
                unreported_usage=self.unreported_usage,
            )
            yield site
            site.conditions.settle(site.log, site.now(), complete=True)

    def report(self, *, dry_run: bool = False) -> UsageCycleReport:
        """One pass by a new agent."""
        with self.agent() as site:
            return report_usage(site, dry_run=dry_run)

    def report_again(self) -> UsageCycleReport:
        """One more pass by the agent that goes on, and so remembers."""
        with self.agent(self.memory) as site:
            return report_usage(site)

    def total(self, resource: Resource, month: str | None = None) -> dict[str, Decimal]:
        """What Waldur bills."""
        return self.sandbox.customer.usages(resource, month)

    def parts(self, resource: Resource, month: str | None = None) -> dict[str, dict[str, Decimal]]:
        """What Waldur has of each user: component, then username."""
        by_component: dict[str, dict[str, Decimal]] = defaultdict(dict)
        for user, amounts in self.sandbox.customer.user_usages(resource, month).items():
            for component, amount in amounts.items():
                by_component[component][user] = amount
        return dict(by_component)

    def reports(self) -> list[Request]:
        """The reports of totals that were sent; the question whether dates are read is none."""
        sent = self.sandbox.requests.of("marketplace_component_usages_set_usage")
        return [r for r in sent if isinstance(r.body, dict) and "usages" in r.body]

    def writes(self) -> list[Request]:
        """The requests that may have changed something in Waldur."""
        unread = self.sandbox.requests.writes()
        return [r for r in unread if not (isinstance(r.body, dict) and set(r.body) == {"date"})]

    def with_(self, **changes: Any) -> Meter:
        """The same meter, read by agents that differ in something."""
        return replace(self, **changes)


@contextmanager
def a_meter(version: str = "8.1.3") -> Iterator[Meter]:
    """A sandbox that counts cpu by use and mem by limit, in the middle of a month."""
    sandbox = Sandbox(version)
    side = sandbox.customer
    offering = sandbox.offering
    components = tuple(
        replace(each, billing_type="usage" if each.type == "cpu" else "limit")
        for each in offering.components
    )
    side.world.put(replace(offering, components=components))
    meter = Meter(sandbox, Ledger(sandbox.clock.now))
    meter.travel("2027-03-10T12:00")
    yield meter
