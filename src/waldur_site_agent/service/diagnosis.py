"""Checks everything that an offering needs, without changing anything."""

from __future__ import annotations

import http.client
import os
import socket
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta, tzinfo
from pathlib import Path

import structlog

from waldur_site_agent.backends import Backend, Check, CheckStatus, failed_check
from waldur_site_agent.backends.database_session import DatabaseError, open_session
from waldur_site_agent.backends.locking import OWN_DIRECTORY, default_lock_file
from waldur_site_agent.backends.plugins import Registry
from waldur_site_agent.config import Configuration, ConfigurationError, Job, Offering, Source
from waldur_site_agent.config.database_url import VERIFIED, DatabaseUrl
from waldur_site_agent.config.describing import passwords_in, without_secrets
from waldur_site_agent.cycles.limits import by_account, unlimited_text
from waldur_site_agent.cycles.placements import misplaced
from waldur_site_agent.events.broker import Address, tls_context, unreachable
from waldur_site_agent.events.registration import Registration
from waldur_site_agent.model.errors import SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import (
    OrderState,
    Resource,
    ResourceState,
    User,
    WaldurOffering,
)
from waldur_site_agent.planning.limits import (
    LimitPrecision,
    limit_differences,
    limited_by,
    unlimited_components,
)
from waldur_site_agent.planning.membership import consent_problem
from waldur_site_agent.planning.offering import (
    SERVED_TYPES,
    component_differences,
    name_of,
    plan_components,
)
from waldur_site_agent.service.session import (
    access_tokens,
    billing_zone,
    broker_address,
    connect,
    open_transport,
)
from waldur_site_agent.waldur import Waldur
from waldur_site_agent.waldur.address import Proxy

_TOLERABLE_SECONDS = 60.0


def diagnose_machine(configuration: Configuration, source: Source) -> Iterator[Check]:
    """Checks of this machine, which concern all offerings; never raises."""
    yield from _secrets(configuration, source)
    yield _time_zone(configuration)
    yield _locks()
    if configuration.coordination_url is not None:
        yield _coordination(configuration.coordination_url)
    for key, path in (
        ("journal", configuration.journal),
        ("health_file", configuration.health_file),
    ):
        if path:
            yield _writable(key, Path(path))


def diagnose_settings(configuration: Configuration, offering: Offering) -> Iterator[Check]:
    """Check what the file leaves open about an offering and the site should decide."""
    limited = sorted(n for n, each in offering.components.items() if each.rules.is_limited)
    is_decided = "missing_limits" in configuration.safety_of(offering).model_fields_set
    if limited and offering.backend_for(Job.ORDERS) and not is_decided:
        yield Check(
            name="missing limits",
            verdict=CheckStatus.WARNING,
            detail="an order may leave out the limit of what is sold by limit, "
            f"{' and '.join(limited)}: usage is then unlimited and not billed",
            remedy="set safety.missing_limits: refuse, or unlimited if that is meant",
        )


def clock_check(ahead_seconds: float | None) -> Check:
    """Compare this machine's clock with the server's."""
    if ahead_seconds is None:
        detail = "the server's answer has no Date header"
        return Check(name="clock", verdict=CheckStatus.WARNING, detail=detail)
    if abs(ahead_seconds) <= _TOLERABLE_SECONDS:
        return Check(name="clock", verdict=CheckStatus.OK, detail="agrees with the server's")
    way = "behind" if ahead_seconds > 0 else "ahead of"
    return Check(
        name="clock",
        verdict=CheckStatus.WARNING,
        detail=f"is {abs(ahead_seconds):.0f} s {way} the server's: months end, and roles of people "
        "expire, at the wrong moment",
        remedy="let chrony or systemd-timesyncd set this machine's clock",
    )


def _secrets(configuration: Configuration, source: Source) -> Iterator[Check]:
    """The files that hold tokens, without repetitions."""
    paths = {
        source.path.parent / os.path.expandvars(file)
        for offering in configuration.offerings
        for file in (offering.waldur_api_token_file, offering.oidc_client_secret_file)
        if file
    }
    if configuration.coordination_file:
        paths.add(source.path.parent / os.path.expandvars(configuration.coordination_file))
    try:
        text = source.path.read_text(encoding="utf-8")
    except OSError:  # it was read a moment ago; whoever reads it next reports the error
        text = ""
    secrets = {o.token for o in configuration.offerings}
    secrets |= {o.oidc_client_secret.get_secret_value() for o in configuration.offerings}
    urls = (configuration.global_proxy, configuration.coordination)
    secrets |= set(passwords_in(url.get_secret_value() for url in urls))
    holds_a_token = any(secret and secret in text for secret in secrets)
    yield _readable_for_few("configuration file", source.path, secret=holds_a_token)
    for path in sorted(paths):
        yield _readable_for_few("token file", path, secret=True)


def _readable_for_few(name: str, path: Path, *, secret: bool) -> Check:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return Check(name=name, verdict=CheckStatus.FAILED, detail=f"{path}: {error.strerror}")
    wide = mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP)
    allowed = wide & (stat.S_IWOTH | stat.S_IWGRP) == 0 and (not secret or not wide)
    holds = "holds a token and " if secret else ""
    return Check(
        name=name,
        verdict=CheckStatus.OK if allowed else CheckStatus.WARNING,
        detail=f"{path} has mode {mode:04o}"
        + ("" if allowed else f": it {holds}can be read or changed by users other than its owner"),
        remedy="" if allowed else f"chmod {'640' if secret else '644'} {path}",
    )


def _time_zone(configuration: Configuration) -> Check:
    zone: tzinfo = billing_zone(configuration)
    if configuration.timezone or _is_utc(zone):
        return Check(
            name="time zone",
            verdict=CheckStatus.OK,
            detail=f"billing months begin and end in {zone}",
        )
    return Check(
        name="time zone",
        verdict=CheckStatus.WARNING,
        detail=f"billing months begin and end in {zone}, the machine's, as timezone is not set",
        remedy="set timezone, so that every machine bills the same months; Waldur itself uses UTC",
    )


def _is_utc(zone: tzinfo) -> bool:
    no_time: timedelta | None = zone.utcoffset(None)
    return str(zone) in ("UTC", "Etc/UTC") or (no_time is not None and not no_time)


def _locks() -> Check:
    try:
        directory = default_lock_file("waldur-site-agent.lock").parent
    except TemporaryError as error:
        return Check(
            name="lock directory",
            verdict=CheckStatus.FAILED,
            detail=error.problem,
            remedy=error.remedy,
        )
    if directory == OWN_DIRECTORY:
        return Check(name="lock directory", verdict=CheckStatus.OK, detail=str(directory))
    return Check(
        name="lock directory",
        verdict=CheckStatus.WARNING,
        detail=f"{directory}, because this user cannot use {OWN_DIRECTORY}: agents of other users "
        "may not see these locks",
        remedy="run this as the service's user; systemd creates the directory for the service "
        "(RuntimeDirectory=waldur-site-agent)",
    )


def _coordination(url: DatabaseUrl) -> Check:
    try:
        session = open_session(url, "waldur-site-agent diagnose")
        session.ask()
        session.close()
    except DatabaseError as error:
        return failed_check("coordination", error)
    return Check(
        name="coordination",
        verdict=CheckStatus.WARNING if url.exposed else CheckStatus.OK,
        detail=url.exposed or f"leases in {url}",
        remedy=f"coordination: {VERIFIED}" if url.exposed else "",
    )


def _writable(key: str, path: Path) -> Check:
    place = path if path.exists() else path.parent
    if os.access(place, os.W_OK):
        return Check(name=key, verdict=CheckStatus.OK, detail=str(path))
    return Check(
        name=key,
        verdict=CheckStatus.FAILED,
        detail=f"{path} cannot be written by this user",
        remedy=f"create {path.parent} and make it writable for the agent's user",
    )


_SHORT_LIFETIME_SECONDS = 86400
_NOT_CHECKED = "the checks that follow were skipped"


def diagnose_waldur(offering: Offering) -> Iterator[Check]:
    """Check server, token, permissions, offering, components and open orders; never raises."""
    if offering.uses_oidc:
        checks = list(never_raising("identity provider", _identity_provider(offering)))
        yield from checks
        if checks[-1].verdict is CheckStatus.FAILED:
            return
    yield from never_raising("Waldur", _waldur_checks(offering))


def _waldur_checks(offering: Offering) -> Iterator[Check]:
    with connect(offering, "diagnostics") as waldur:
        version = waldur.server_version()
        detail = f"runs version {version}" if version else "answers"
        by = f" through {proxy}" if (proxy := waldur.proxy) else ""
        yield _passed("Waldur", f"{waldur.base_url} {detail}{by}")
        yield clock_check(waldur.clock_ahead_seconds())
        user = waldur.whoami()
        yield _client(offering, user) if offering.uses_oidc else _token(user)
        found = waldur.offering(offering.waldur_offering_uuid)
        yield from _offering(found)
        yield _rights(user, found)
        yield from _components(offering, found)
        yield _orders(offering, waldur)
        if offering.require_consent:
            yield _consent(offering, waldur)


def diagnose_backends(offering: Offering, source: Source, registry: Registry) -> Iterator[Check]:
    """Let each backend of the offering run its own checks, once; never raises."""
    names = sorted({name for job in Job if (name := offering.backend_for(job))})
    if not names:
        yield Check(
            name="backend",
            verdict=CheckStatus.WARNING,
            detail="no backend is configured, so no job runs for this offering",
            remedy=f"set {', '.join(job.value for job in Job)} as needed",
        )
    number = source.offering_number(offering.name)
    for name in names:
        checks = _backend_checks(name, offering, source, registry, number)
        yield from never_raising(f"backend {name}", checks)


def _backend_checks(
    name: str, offering: Offering, source: Source, registry: Registry, number: int
) -> Iterator[Check]:
    settings = registry.settings(name, offering, source, number)
    backend = registry.open(name, settings, offering)
    try:
        yield from backend.diagnose()
    finally:
        backend.close()


def never_raising(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    """Yield the checks; an exception becomes the last of them."""
    try:
        yield from checks
    except SiteAgentError as error:
        yield failed_check(name, error, f"{error.problem}; {_NOT_CHECKED}")
    except ConfigurationError as error:
        yield Check(name=name, verdict=CheckStatus.FAILED, detail=f"{error}; {_NOT_CHECKED}")
    except Exception as error:  # a plugin may fail in any way; the other checks still run
        log = structlog.get_logger()
        log.exception("a check failed because of a bug in the agent or a plugin", check=name)
        yield Check(
            name=name,
            verdict=CheckStatus.FAILED,
            detail=f"bug in the agent or a plugin: {type(error).__name__}: {error}; {_NOT_CHECKED}",
            remedy="report it with the traceback above",
        )


def _passed(name: str, detail: str) -> Check:
    return Check(name=name, verdict=CheckStatus.OK, detail=detail)


def _identity_provider(offering: Offering) -> Iterator[Check]:
    seconds = access_tokens(offering).seconds_left()
    detail = f"{without_secrets(offering.oidc_token_url)} gave a token for {seconds:.0f} s"
    yield _passed("identity provider", detail)


def _client(offering: Offering, user: User) -> Check:
    detail = f'client "{offering.oidc_client_id}" is user "{name_of(user)}"; renewed in time'
    return _passed("token", detail)


def _token(user: User) -> Check:
    name = user.username or user.full_name or str(user.uuid)
    if user.token_lifetime is None:
        return _passed("token", f'belongs to "{name}" and does not expire')
    short = user.token_lifetime < _SHORT_LIFETIME_SECONDS
    return Check(
        name="token",
        verdict=CheckStatus.WARNING if short else CheckStatus.OK,
        detail=f'belongs to "{name}" and expires after {user.token_lifetime} s without a request',
        remedy="set the token lifetime of this user to none in Waldur" if short else "",
    )


def _offering(found: WaldurOffering) -> Iterator[Check]:
    known = found.type in SERVED_TYPES
    yield Check(
        name="offering",
        verdict=CheckStatus.OK if known else CheckStatus.FAILED,
        detail=f'"{found.name}" of {found.customer_name or "?"}, {found.type}, {found.state}',
        remedy="" if known else f"the agent serves offerings of type {' or '.join(SERVED_TYPES)}",
    )
    if not found.plugin_options.get("service_provider_can_create_offering_user"):
        yield Check(
            name="offering users",
            verdict=CheckStatus.WARNING,
            detail="service_provider_can_create_offering_user is off, or not visible to this token",
            remedy="enable it in the offering's integration options; until then no member is added",
        )


def _rights(user: User, found: WaldurOffering) -> Check:
    if user.is_staff:
        return _passed("rights", "staff: all permissions")
    on_customer = [p.role_name for p in user.permissions if p.scope_uuid == found.customer_uuid]
    on_offering = [p.role_name for p in user.permissions if p.scope_uuid == found.uuid]
    if on_customer:
        roles = ", ".join(on_customer)
        return _passed("rights", f'{roles} of the provider "{found.customer_name}"')
    remedy = f'give the user a role with ORDER.APPROVE at "{found.customer_name}"'
    if on_offering:
        return Check(
            name="rights",
            verdict=CheckStatus.WARNING,
            detail=f"{', '.join(on_offering)} of the offering only: cannot approve orders, and "
            "older servers refuse other calls as well",
            remedy=remedy,
        )
    return Check(
        name="rights",
        verdict=CheckStatus.FAILED,
        detail="the user has no role at the provider or on the offering",
        remedy=remedy,
    )


def _components(offering: Offering, found: WaldurOffering) -> Iterator[Check]:
    plan = plan_components(offering.components, found.components)
    by_type = {component.type: component for component in found.components}
    load = "run waldur_site_load_components"
    for component in plan.create:
        yield Check(
            name=f"component {component.type}",
            verdict=CheckStatus.FAILED,
            detail="is configured, but missing in Waldur",
            remedy=load,
        )
    for component in plan.update:
        yield Check(
            name=f"component {component.type}",
            verdict=CheckStatus.WARNING,
            detail="; ".join(component_differences(component, by_type[component.type])),
            remedy=load,
        )
    for name in plan.unchanged:
        yield _passed(f"component {name}", "as configured")
    for name in plan.only_in_waldur:
        yield Check(
            name=f"component {name}",
            verdict=CheckStatus.WARNING,
            detail="is in Waldur, but not configured; the agent ignores it",
            remedy="add it to backend_components, or archive it in Waldur",
        )


def _orders(offering: Offering, waldur: Waldur) -> Check:
    states = (OrderState.PENDING_PROVIDER, OrderState.EXECUTING)
    orders = waldur.orders(offering.waldur_offering_uuid, states).items
    pending = sum(order.state == OrderState.PENDING_PROVIDER for order in orders)
    detail = f"{pending} pending approval, {len(orders) - pending} executing"
    return _passed("orders", detail)


def _consent(offering: Offering, waldur: Waldur) -> Check:
    users = waldur.offering_users(offering.waldur_offering_uuid).items
    if problem := consent_problem(users):
        reason, _, remedy = problem.partition("; ")
        return _failed(reason, remedy, name="consent")
    given = sum(bool(user.has_consent) for user in users)
    return _passed("consent", f"{given} of {len(users)} users have consented to the terms")


_SECONDS = 10.0
_WEBSOCKET = "broker's WebSocket"
_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    # any 16 bytes will do, in base64
    "Sec-WebSocket-Key": "d2FsZHVyLXNpdGUtYWdlbg==",
}
_STATUS_OF_A_PATH_THAT_IS_NOT_THERE = 404


def diagnose_broker(offering: Offering, *, login: bool = False) -> Iterator[Check]:
    """Check connection, certificate and WebSocket, and with ``login`` registration; never raises.

    To log in, the agent registers in Waldur as ``event_process`` does at start; messages that
    are delivered meanwhile go back to the queue.
    """
    if offering.by_events:
        yield from never_raising("broker", _broker_checks(offering, login=login))


def _broker_checks(offering: Offering, *, login: bool) -> Iterator[Check]:
    # imported on demand, like the transports themselves
    from waldur_site_agent.events.stomp import proxy_to_broker  # noqa: PLC0415

    address = broker_address(offering)
    proxy = None if offering.mqtt_enabled else proxy_to_broker(address)
    checks = [_connection(address) if proxy is None else _through(proxy, address)]
    if proxy is None and checks[-1].verdict is not CheckStatus.FAILED:
        checks.append(_websocket(address, "mqtt" if offering.mqtt_enabled else "v12.stomp"))
    yield from checks
    if checks[-1].verdict is not CheckStatus.FAILED and login:
        yield _login(offering)


def _through(proxy: Proxy, address: Address) -> Check:
    """Check all the way to the WebSocket, for a broker behind a proxy."""
    from waldur_site_agent.events.stomp import StompTransport  # noqa: PLC0415

    try:
        StompTransport(address).probe()
    except SiteAgentError as error:
        return failed_check("broker", error)
    return _passed("broker", f"{address} is reachable through {proxy}")


def _connection(address: Address) -> Check:
    """Check TCP, and TLS if it is enabled."""
    try:
        context = tls_context(address)
        with socket.create_connection((address.host, address.port), _SECONDS) as plain:
            if context is None:
                return _passed("broker", f"{address} is reachable, without TLS")
            with context.wrap_socket(plain, server_hostname=address.host) as secure:
                detail = f"{address} is reachable, {secure.version()}"
                return _passed("broker", detail + ("" if address.verify else ", not verified"))
    except OSError as error:
        return failed_check("broker", unreachable(address, error))


def _websocket(address: Address, subprotocol: str) -> Check:
    connection = (
        http.client.HTTPSConnection(
            address.host, address.port, timeout=_SECONDS, context=tls_context(address)
        )
        if address.tls
        else http.client.HTTPConnection(address.host, address.port, timeout=_SECONDS)
    )
    headers = {**_UPGRADE, "Sec-WebSocket-Protocol": subprotocol}
    try:
        connection.request("GET", address.path, headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return _failed(
            f"{address} does not answer like a web server: {type(error).__name__}: {error}",
            "use the port of the web server or of the broker's WebSocket",
            _WEBSOCKET,
        )
    finally:
        with suppress(OSError):
            connection.close()
    if status in (http.client.SWITCHING_PROTOCOLS, http.client.UPGRADE_REQUIRED):
        return _passed(_WEBSOCKET, f"{address.path} answers {status}")
    wrong_path = status == _STATUS_OF_A_PATH_THAT_IS_NOT_THERE
    return _failed(
        f"{address.path} answers HTTP {status} instead of 101",
        "check stomp_ws_path or mqtt_ws_path, and the web server's rule for it"
        if wrong_path
        else "the web server in front of the broker must forward WebSockets",
        _WEBSOCKET,
    )


def _login(offering: Offering) -> Check:
    if offering.mqtt_enabled:
        detail = (
            "skipped: a second MQTT client with the same client ID would disconnect a running agent"
        )
        return Check(name="broker's login", verdict=CheckStatus.OK, detail=detail)
    try:
        with connect(offering, "diagnostics") as waldur:
            subscription = Registration(waldur, offering, structlog.get_logger()).subscribe()
            open_transport(offering).connect(subscription).close()
    except SiteAgentError as error:
        return failed_check("broker's login", error)
    queues = ", ".join(subscription.queues)
    return _passed("broker's login", f"accepted and subscribed to {queues}")


def _failed(detail: str, remedy: str, name: str = "broker") -> Check:
    return Check(name=name, verdict=CheckStatus.FAILED, detail=detail, remedy=remedy)


_WITHOUT_ORDER = (ResourceState.OK, ResourceState.ERRED)
_SHOWN = 20
_NEXT = {
    "backend": "the next cycle reports the account's limits to Waldur (limits: backend)",
    "waldur": "the next membership_sync sets the limits sold (limits: waldur)",
    "report": "neither side changes (limits: report)",
}


def diagnose_limits(offering: Offering, source: Source, registry: Registry) -> Iterator[Check]:
    """Every limit that differs between Waldur and backend, with the command that corrects it.

    To be called after the other checks of Waldur and the backend passed; never raises.
    """
    yield from never_raising("limits", _checks(offering, source, registry))


def _checks(offering: Offering, source: Source, registry: Registry) -> Iterator[Check]:
    name = offering.backend_for(Job.MEMBERSHIP) or offering.backend_for(Job.ORDERS)
    if not name or not offering.components:
        return
    with connect(offering, "diagnostics") as waldur:
        listed = waldur.resources(offering.waldur_offering_uuid, _WITHOUT_ORDER).items
    groups = by_account(listed)
    if not groups:
        return
    settings = registry.settings(name, offering, source, source.offering_number(offering.name))
    backend = registry.open(name, settings, offering)
    try:
        yield from _compared(offering, groups, backend)
        yield from _places(offering, groups, backend)
    finally:
        backend.close()


def _compared(
    offering: Offering, groups: Mapping[str, Sequence[Resource]], backend: Backend
) -> Iterator[Check]:
    if not backend.capabilities.tells_limits:
        return
    components = limited_by(backend, offering.components)
    precision, state = LimitPrecision.of(backend), backend.observe()
    differing: list[Check] = []
    unlimited: dict[str, list[str]] = defaultdict(list)
    agreeing = 0
    for account, resources in sorted(groups.items()):
        found = state.resources.get(account)
        if found is None or not found.is_complete or not found.limits_are_known:
            continue
        differences = limit_differences(resources[0], found, components, precision)
        agreeing += not differences
        for component in unlimited_components(resources[0], found, components):
            unlimited[component].append(account)
        differing += [
            Check(
                name=f"limits of {account}",
                verdict=CheckStatus.WARNING,
                detail=str(difference),
                remedy=_remedy(offering, len(resources), is_missing=difference.found is None),
            )
            for difference in differences
        ]
    yield from differing[:_SHOWN]
    if len(differing) > _SHOWN:
        yield Check(
            name="limits",
            verdict=CheckStatus.WARNING,
            detail=f"{len(differing) - _SHOWN} more differ",
            remedy="waldur-site-agent limits sync --to backend --dry-run shows them all",
        )
    for component, accounts in unlimited.items():
        yield Check(
            name="limits", verdict=CheckStatus.WARNING, detail=unlimited_text(component, accounts)
        )
    if agreeing:
        detail = f"{agreeing} of {len(groups)} accounts have the limits that Waldur shows"
        yield Check(name="limits", verdict=CheckStatus.OK, detail=detail)


def _places(
    offering: Offering, groups: Mapping[str, Sequence[Resource]], backend: Backend
) -> Iterator[Check]:
    """Accounts of projects that are not below their organization's."""
    for text, remedy in misplaced(offering, groups, backend)[:_SHOWN]:
        yield Check(
            name="projects that move", verdict=CheckStatus.WARNING, detail=text, remedy=remedy
        )


def _remedy(offering: Offering, resources: int, *, is_missing: bool) -> str:
    if resources > 1:
        return f"{resources} resources share the account; correct the backend_id of all but one"
    by_hand = "waldur-site-agent limits sync --to backend"
    if is_missing and offering.limits != "waldur":
        return f"{by_hand} sets it"
    return f"{_NEXT[offering.limits]}; to decide by hand: {by_hand}, or --to waldur"


def warn_of_unused_settings(configuration: Configuration) -> None:
    """Log settings that have no effect because a setting they depend on is missing."""
    log = structlog.get_logger()
    for offering in configuration.offerings:
        for key, remedy in _unused(offering):
            log.warning("setting has no effect", offering=offering.name, setting=key, remedy=remedy)


_TARGETS_HAVE_FACTORS = (
    "remove it: the factors of target_components say how many backend units make one measured "
    "unit, for limits and for usage"
)


def _unused(offering: Offering) -> Iterator[tuple[str, str]]:
    membership = Job.MEMBERSHIP.value
    if offering.oidc_token_url and offering.token:
        yield "oidc_token_url", "remove waldur_api_token, which is used instead"
    if offering.proxy and offering.mqtt_enabled:
        yield "global_proxy", "let the firewall pass MQTT, which goes to the broker directly"
    if offering.resource_import_enabled and not offering.backend_for(Job.MEMBERSHIP):
        yield "resource_import_enabled", f"set {membership}"
    if offering.limits == "waldur" and not offering.backend_for(Job.MEMBERSHIP):
        yield "limits", f"set {membership}"
    if offering.by_events and not any(
        offering.backend_for(j) for j in (Job.ORDERS, Job.MEMBERSHIP)
    ):
        key = "mqtt_enabled" if offering.mqtt_enabled else "stomp_enabled"
        yield key, f"set {Job.ORDERS.value} or {membership}"
    for name, component in offering.backend_components.items():
        for key in component.without_effect:
            yield f"backend_components.{name}.{key}", _TARGETS_HAVE_FACTORS
