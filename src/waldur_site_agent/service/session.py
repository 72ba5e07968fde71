"""The modes, and opening what one offering needs: Waldur client, backends, locks, broker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import TypeAlias
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from tzlocal import get_localzone

from waldur_site_agent.backends import Backend, BackendSettings, NoUsernames, UsernameBackend
from waldur_site_agent.backends.leases import Lease, Leases, Unit
from waldur_site_agent.backends.locking import default_lock_file, exclusive_lock, shared_lock
from waldur_site_agent.backends.plugins import PluginError, Registry, UsernameRegistry
from waldur_site_agent.config import Configuration, ConfigurationError, Job, Offering, Source
from waldur_site_agent.config.settings import Safety
from waldur_site_agent.cycles.importing import sync_membership_and_imports
from waldur_site_agent.cycles.orders import process_orders, repair_stuck_updates
from waldur_site_agent.cycles.site import (
    AllowanceStore,
    BudgetChannels,
    CycleReport,
    NoAllowances,
    Observer,
    Sibling,
    Site,
    UnreportedUsage,
)
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.events.broker import Address, Transport
from waldur_site_agent.model.marketplace import backend_components
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.planning.plan import Thresholds
from waldur_site_agent.service.journal import Journal
from waldur_site_agent.service.logs import redact_latest
from waldur_site_agent.service.monitoring import Monitoring
from waldur_site_agent.waldur import AccessTokens, Client, RetryPolicy, Timeouts, Waldur

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

    def period_seconds(self) -> float:
        """The period of the mode.

        Raises:
            ValueError: the variable is not set to a positive number.
        """
        text = os.environ.get(self.period_variable, "").strip()
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

    def period_seconds(self) -> float:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The state that all sessions of a process share."""

    configuration: Configuration
    source: Source
    registry: Registry
    removals_allowed: bool = False
    recreate: bool = False
    """Whether accounts that a backend has lost are made again."""
    usernames: UsernameRegistry = field(default_factory=UsernameRegistry)
    journal: Journal = field(default_factory=Journal)
    monitoring: Monitoring = field(default_factory=Monitoring)
    leases: Leases | None = None
    """What several agents share the work by; ``None`` where file locks keep others out."""
    allowances: AllowanceStore = field(default_factory=NoAllowances)
    server_calls: dict[str, dict[str, int]] = field(default_factory=dict)
    """By API URL, which optional calls the server supports."""
    named: dict[str, set[UUID]] = field(default_factory=dict)
    """By offering, the resources that this process gave a backend_id, in any mode."""


def connect(
    offering: Offering,
    mode: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
    timeouts: Timeouts | None = None,
    retry: RetryPolicy | None = None,
) -> Waldur:
    """A client for the offering's Waldur; it does not send a request yet.

    Args:
        offering: where and how to log in.
        mode: for the ``User-Agent``.
        sleep: waits before a request is repeated; it may raise to end the wait.
        timeouts: seconds for each request, also to an identity provider.
        retry: how often a failed request is sent again.

    Raises:
        PermanentError: the URL, the token, ``ca_file`` or the proxy cannot be used.
    """
    return Waldur(
        offering.waldur_api_url,
        access_tokens(offering, timeouts) if offering.uses_oidc else offering.token,
        mode=mode,
        verify=offering.verify_ssl,
        authorities=offering.ca_file,
        proxy=offering.proxy,
        timeouts=timeouts,
        retry=retry,
        sleep=sleep,
    )


_access_tokens: dict[tuple[str | bool, ...], AccessTokens] = {}
"""One for all offerings and modes of this process that have the same client."""


def access_tokens(offering: Offering, timeouts: Timeouts | None = None) -> AccessTokens:
    """The access tokens of an offering that logs in as a client of an identity provider.

    ``timeouts`` are those of the first call for a client, for all that follow.

    Raises:
        PermanentError: ``ca_file`` or the proxy cannot be used.
    """
    client = Client(
        token_url=offering.oidc_token_url,
        id=offering.oidc_client_id,
        secret=offering.oidc_client_secret.get_secret_value(),
    )
    key = (client.token_url, client.id, client.secret, offering.verify_ssl, offering.ca_file)
    found = _access_tokens.get((*key, offering.proxy))
    return found or _access_tokens.setdefault(
        (*key, offering.proxy),
        AccessTokens(
            client,
            verify=offering.verify_ssl,
            authorities=offering.ca_file,
            proxy=offering.proxy,
            timeouts=timeouts,
            on_token=partial(redact_latest, f"{client.id} at {client.token_url}"),
        ),
    )


@contextmanager
def open_site(
    runtime: Runtime,
    offering: Offering,
    mode: Mode,
    stopping: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
    may_write: Callable[[], None] | None = None,
) -> Iterator[Site]:
    """Everything that the cycles of one offering need; closed on exit.

    Args:
        runtime: shared by all sessions of the process.
        offering: the offering to serve.
        mode: the mode whose backend is opened.
        stopping: whether a stop was requested.
        sleep: waits before a request is repeated; may raise a ``TemporaryError``.
        may_write: asked before each write; raises a ``TemporaryError`` once the lease is lost.

    Raises:
        ConfigurationError: the backend does not accept its settings.
        SiteAgentError: the backend or the connection to Waldur cannot be opened.
    """
    safety = runtime.configuration.safety_of(offering)
    observer = runtime.monitoring.observe(offering.name, mode.name, mode.job.value)
    with ExitStack() as stack:
        backend = _opened(stack, runtime, offering, mode)
        backend.watch_commands(observer.command)
        connected = partial(_connected, stack, mode, observer, sleep)
        waldur = connected(offering)
        _coordinate(runtime, backend, waldur, may_write)
        site = Site(
            offering=offering,
            waldur=waldur,
            backend=backend,
            thresholds=_thresholds(runtime, safety),
            log=structlog.get_logger().bind(offering=offering.name, mode=mode.name),
            stopping=stopping,
            may_write=may_write,
            journal=runtime.journal.of(offering.name, mode.name),
            allowances=runtime.allowances,
            observer=observer,
            conditions=runtime.monitoring.conditions(offering.name, mode.name, mode.job.value),
            server_calls=runtime.server_calls.setdefault(waldur.base_url, {}),
            named=runtime.named.setdefault(offering.name, set()),
            usernames=_usernames(runtime, offering, mode),
            unreported_usage=UnreportedUsage(safety.unreported_usage),
            refuses_missing_limits=safety.missing_limits == "refuse",
            remove_unknown_users=safety.unknown_users == "remove",
            recreate=runtime.recreate,
            wants_days=runtime.monitoring.shows_pages,
            budgets=_budget_channels(offering, mode),
            siblings=tuple(
                Sibling(offering=other, waldur=connected(other))
                for other in _siblings(runtime, offering, mode)
            ),
            zone=billing_zone(runtime.configuration),
        )
        stack.callback(_settle, site)
        yield site


def _opened(stack: ExitStack, runtime: Runtime, offering: Offering, mode: Mode) -> Backend:
    name = offering.backend_for(mode.job)
    backend = runtime.registry.open(name, _settings(runtime, offering, name), offering)
    stack.callback(backend.close)
    return backend


def _coordinate(
    runtime: Runtime, backend: Backend, waldur: Waldur, may_write: Callable[[], None] | None
) -> None:
    """Let both sides ask before they write, where several agents share the work."""
    backend.coordinate(runtime.leases, may_write)
    if may_write is not None:
        waldur.ask_before_writing(may_write)


def _budget_channels(offering: Offering, mode: Mode) -> BudgetChannels | None:
    """Where budgets are told; they are looked at when usage is reported."""
    if offering.budgets is None or mode.job != Job.REPORT:
        return None
    # imported on demand: few offerings have budgets configured
    from waldur_site_agent.service.budget_channels import Channels  # noqa: PLC0415

    return Channels(offering.name, offering.budgets, proxy=offering.proxy)


def _settle(site: Site) -> None:
    """Log conditions noted outside a cycle, by a command or before a failed start."""
    site.conditions.settle(site.log, site.now(), complete=False)


def _usernames(runtime: Runtime, offering: Offering, mode: Mode) -> UsernameBackend:
    """The offering's username backend in membership mode; in other modes a stub.

    So a broken username backend stops neither orders nor reports.
    """
    if mode.job != Job.MEMBERSHIP:
        return NoUsernames(BackendSettings())
    number = runtime.source.offering_number(offering.name)
    return runtime.usernames.open(offering, runtime.source, number)


def _connected(
    stack: ExitStack,
    mode: Mode,
    observer: Observer,
    sleep: Callable[[float], None],
    offering: Offering,
) -> Waldur:
    waldur = connect(offering, mode.name, sleep=sleep)
    stack.callback(waldur.close)
    waldur.watch_requests(observer.request)
    return waldur


def _siblings(runtime: Runtime, offering: Offering, mode: Mode) -> Iterator[Offering]:
    """Offerings that would bill the same usage twice if they shared an account with this one.

    These are the offerings of the file that report the same components of the same cluster; none
    in modes that do not report usage.
    """
    name = offering.backend_for(Job.REPORT)
    if mode.job == Job.MEMBERSHIP or offering.backend_for(mode.job) != name:
        return
    own = _settings(runtime, offering, name)
    for other in runtime.configuration.offerings:
        if other is offering or other.backend_for(Job.REPORT) != name:
            continue
        if (
            backend_components(offering.components)
            .keys()
            .isdisjoint(backend_components(other.components))
        ):
            continue
        try:
            same = own.is_same_place_as(_settings(runtime, other, name))
        except (ConfigurationError, PluginError) as error:
            structlog.get_logger().warning(
                "cannot check whether accounts are shared with another offering",
                offering=offering.name,
                mode=mode.name,
                other=other.name,
                reason=str(error),
            )
            continue
        if same:
            yield other


def _settings(runtime: Runtime, offering: Offering, backend: str) -> BackendSettings:
    number = runtime.source.offering_number(offering.name)
    return runtime.registry.settings(backend, offering, runtime.source, number)


def _thresholds(runtime: Runtime, safety: Safety) -> Thresholds:
    return Thresholds(
        max_removals_percent=safety.max_removals_percent,
        max_removals=safety.max_removals,
        max_moves_percent=safety.max_moves_percent,
        max_moves=safety.max_moves,
        removals_allowed=safety.allow_removals or runtime.removals_allowed,
    )


def billing_zone(configuration: Configuration) -> tzinfo:
    """The time zone of billing months: the configured one, or the machine's."""
    name = configuration.timezone
    return ZoneInfo(name) if name else get_localzone()


@dataclass(frozen=True, slots=True)
class Tenancy:
    """The right to serve an offering: file locks of this machine, or leases among all agents."""

    leases: Leases | None = None
    held: tuple[Lease, ...] = ()

    def may_write(self) -> None:
        """Ask whether it still holds.

        Raises:
            LeaseLostError: another agent may serve the offering now.
        """
        if self.held:
            self.held[0].ask()  # all are of one session

    def is_over(self) -> bool:
        """Whether the leases are lost, or wanted by others; asked between two cycles."""
        if self.leases is None or not self.held:
            return False
        return self.is_lost or self.leases.should_hand_over()

    def leave(self) -> bool:
        """Leave the work to other agents for a while; ``False`` where there are none."""
        if self.leases is None or not self.held:
            return False
        self.leases.withdraw()
        return True

    @property
    def is_lost(self) -> bool:
        """Whether the leases are known to be lost; does not ask."""
        return bool(self.held) and self.held[0].is_lost


def lease_names(offering: Offering, mode: AnyMode) -> Unit:
    """The leases of an offering in a mode: one for each job."""
    return tuple(_lock_name(offering, part) for part in mode.parts_of(offering))


def _lock_name(offering: Offering, part: Mode) -> str:
    return f"waldur-site-agent-{offering.waldur_offering_uuid.hex}-{part.name}"


@contextmanager
def only_copy(
    leases: Leases | None,
    offering: Offering,
    parts: Iterable[Mode],
    wait_seconds: float,
    stopping: Callable[[], bool],
) -> Iterator[Tenancy]:
    """Keep every other process from serving an offering in some modes while the body runs.

    Raises:
        LockHeldError: another process does; the message names it.
        TemporaryError: the lock file, or the database of the leases, cannot be used.
    """
    held: list[Lease] = []
    with ExitStack() as stack:
        for part in parts:
            name = _lock_name(offering, part)
            served = f'offering "{offering.name}" is already served in mode {part.name}'
            path = default_lock_file(f"{name}.lock")
            if leases is None:
                purpose = f"{served}: stop one of the two agents"
                stack.enter_context(exclusive_lock(path, wait_seconds, purpose, stopping))
                continue
            held.append(stack.enter_context(leases.hold(name, wait_seconds, f"{served}", stopping)))
            purpose = f"{served}: give that agent the same coordination, or stop it"
            stack.enter_context(shared_lock(path, wait_seconds, purpose))
        yield Tenancy(leases, tuple(held))


MESSAGES_IN_HAND = 500
"""How many messages the broker delivers before the first is acknowledged.

One for each pending scope: a pass only covers what was delivered before it began.
"""


def broker_address(offering: Offering) -> Address:
    """The address of the broker's WebSocket; by default on the API's host."""
    if offering.mqtt_enabled:
        host, port, path = offering.mqtt_ws_host, offering.mqtt_ws_port, offering.mqtt_ws_path
    else:
        host, port, path = offering.stomp_ws_host, offering.stomp_ws_port, offering.stomp_ws_path
    return Address(
        host=host or urlsplit(offering.waldur_api_url).hostname or "",
        port=port,
        path=path,
        tls=offering.websocket_use_tls,
        verify=offering.verify_ssl,
        ca_file=offering.ca_file,
        proxy=offering.proxy,
    )


def open_transport(offering: Offering) -> Transport:
    """The transport for the offering's broker; it does not connect yet."""
    address = broker_address(offering)
    # imported on demand: an offering needs one of the two, most need none
    if offering.mqtt_enabled:
        from waldur_site_agent.events.mqtt import MqttTransport  # noqa: PLC0415

        return MqttTransport(address)
    from waldur_site_agent.events.stomp import StompTransport  # noqa: PLC0415

    return StompTransport(address, prefetch=MESSAGES_IN_HAND)
