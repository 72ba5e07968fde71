"""Opens what one offering needs to be served: Waldur client, backends, locks, broker transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import tzinfo
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from tzlocal import get_localzone

from waldur_site_agent.backends import BackendSettings, NoUsernames, UsernameBackend
from waldur_site_agent.backends.locking import default_lock_file, exclusive_lock
from waldur_site_agent.backends.plugins import PluginError, Registry, UsernameRegistry
from waldur_site_agent.config import Configuration, ConfigurationError, Job, Offering, Source
from waldur_site_agent.config.settings import Safety
from waldur_site_agent.cycles.site import Sibling, Site, UnreportedUsage, Watch
from waldur_site_agent.events.broker import Address, Transport
from waldur_site_agent.planning.plan import Thresholds
from waldur_site_agent.service.journal import Journal
from waldur_site_agent.service.modes import Mode
from waldur_site_agent.service.monitoring import Monitoring
from waldur_site_agent.waldur import Waldur


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The state that all sessions of a process share."""

    configuration: Configuration
    source: Source
    registry: Registry
    removals_allowed: bool = False
    usernames: UsernameRegistry = field(default_factory=UsernameRegistry)
    journal: Journal = field(default_factory=Journal)
    monitoring: Monitoring = field(default_factory=Monitoring)
    server_calls: dict[str, dict[str, int]] = field(default_factory=dict)
    """By API URL, which optional calls the server supports."""
    named: dict[str, set[UUID]] = field(default_factory=dict)
    """By offering, the resources that this process gave a backend_id, in any mode."""


def connect(
    offering: Offering, mode: str, *, sleep: Callable[[float], None] = time.sleep
) -> Waldur:
    """A client for the offering's Waldur; it does not send a request yet.

    ``sleep`` waits before a request is repeated; it may raise to end the wait.

    Raises:
        PermanentError: the URL, the token or ``ca_file`` cannot be used.
    """
    return Waldur(
        offering.waldur_api_url,
        offering.token,
        mode=mode,
        verify=offering.verify_ssl,
        authorities=offering.ca_file,
        sleep=sleep,
    )


@contextmanager
def open_site(
    runtime: Runtime,
    offering: Offering,
    mode: Mode,
    stopping: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Site]:
    """Everything that the cycles of one offering need; closed on exit.

    Args:
        runtime: shared by all sessions of the process.
        offering: the offering to serve.
        mode: the mode whose backend is opened.
        stopping: whether a stop was requested.
        sleep: waits before a request is repeated; may raise a ``TemporaryError``.

    Raises:
        ConfigurationError: the backend does not accept its settings.
        SiteAgentError: the backend or the connection to Waldur cannot be opened.
    """
    name = offering.backend_for(mode.job)
    settings = _settings(runtime, offering, name)
    safety = runtime.configuration.safety_of(offering)
    watch = runtime.monitoring.watch(offering.name, mode.name, mode.job.value)
    with ExitStack() as stack:
        backend = runtime.registry.open(name, settings, offering)
        stack.callback(backend.close)
        backend.watch_commands(watch.command)
        waldur = _connected(stack, offering, mode, watch, sleep)
        siblings = [
            Sibling(offering=other, waldur=_connected(stack, other, mode, watch, sleep))
            for other in _siblings(runtime, offering, mode)
        ]
        site = Site(
            offering=offering,
            waldur=waldur,
            backend=backend,
            thresholds=_thresholds(runtime, safety),
            log=structlog.get_logger().bind(offering=offering.name, mode=mode.name),
            stopping=stopping,
            record=runtime.journal.recorder(offering.name, mode.name),
            record_write=runtime.journal.recorder_of_writes(offering.name, mode.name),
            watch=watch,
            conditions=runtime.monitoring.conditions(offering.name, mode.name, mode.job.value),
            server_calls=runtime.server_calls.setdefault(waldur.base_url, {}),
            named=runtime.named.setdefault(offering.name, set()),
            usernames=_usernames(runtime, offering, mode),
            unreported_usage=UnreportedUsage(safety.unreported_usage),
            remove_unknown_users=safety.unknown_users == "remove",
            siblings=tuple(siblings),
            zone=billing_zone(runtime.configuration),
        )
        stack.callback(_settle, site)
        yield site


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
    offering: Offering,
    mode: Mode,
    watch: Watch,
    sleep: Callable[[float], None],
) -> Waldur:
    waldur = connect(offering, mode.name, sleep=sleep)
    stack.callback(waldur.close)
    waldur.watch_requests(watch.request)
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
        if offering.components.keys().isdisjoint(other.components):
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
        removals_allowed=safety.allow_removals or runtime.removals_allowed,
    )


def billing_zone(configuration: Configuration) -> tzinfo:
    """The time zone of billing months: the configured one, or the machine's."""
    name = configuration.timezone
    return ZoneInfo(name) if name else get_localzone()


@contextmanager
def only_copy(
    offering: Offering, mode: Mode, wait_seconds: float, stopping: Callable[[], bool] = bool
) -> Iterator[None]:
    """Lock an offering in a mode, so that no second process serves it at the same time.

    Raises:
        LockHeldError: another process holds the lock; the message names it.
        TemporaryError: the lock file cannot be used.
    """
    name = f"waldur-site-agent-{offering.waldur_offering_uuid.hex}-{mode.name}.lock"
    purpose = (
        f'offering "{offering.name}" is already served in mode {mode.name}: '
        "stop one of the two agents"
    )
    with exclusive_lock(default_lock_file(name), wait_seconds, purpose, stopping):
        yield


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
