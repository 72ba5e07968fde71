"""Looks at the way to the message broker, step by step, as far as that changes nothing."""

from __future__ import annotations

import http.client
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from waldur_site_agent.backends import Check, Verdict, failed_check
from waldur_site_agent.events.subscribing import Registration
from waldur_site_agent.events.trust import tls_context, unreachable
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.diagnosis import never_raising
from waldur_site_agent.service.event_transport import broker_address, open_transport
from waldur_site_agent.service.sessions import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waldur_site_agent.config import Offering
    from waldur_site_agent.events.transport import Address

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
    """Connection, certificate, WebSocket; with ``login`` also registration; never raises.

    To log in, the agent registers at Waldur as ``event_process`` does when it starts; whatever
    is delivered meanwhile goes back to the queue.
    """
    if offering.by_events:
        yield from never_raising("broker", _broker_checks(offering, login=login))


def _broker_checks(offering: Offering, *, login: bool) -> Iterator[Check]:
    address = broker_address(offering)
    checks = [_connection(address)]
    if checks[-1].verdict is not Verdict.FAILED:
        checks.append(_websocket(address, "mqtt" if offering.mqtt_enabled else "v12.stomp"))
    yield from checks
    if checks[-1].verdict is not Verdict.FAILED and login:
        yield _login(offering)


def _connection(address: Address) -> Check:
    """TCP, and TLS where it is on."""
    try:
        context = tls_context(address)
        with socket.create_connection((address.host, address.port), _SECONDS) as plain:
            if context is None:
                return _passed("broker", f"{address} can be reached, without TLS")
            with context.wrap_socket(plain, server_hostname=address.host) as secure:
                detail = f"{address} can be reached, {secure.version()}"
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
            f"{address} does not answer as a web server: {type(error).__name__}: {error}",
            "the port has to be that of the web server or of the broker's WebSocket",
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
        else "the web server in front of the broker has to pass WebSockets on",
        _WEBSOCKET,
    )


def _login(offering: Offering) -> Check:
    if offering.mqtt_enabled:
        detail = "not tried: a second MQTT client of the same name would disconnect a running agent"
        return Check(name="broker's login", verdict=Verdict.OK, detail=detail)
    try:
        with connect(offering, "diagnostics") as waldur:
            subscription = Registration(waldur, offering, structlog.get_logger()).subscribe()
            open_transport(offering).connect(subscription).close()
    except SiteAgentError as error:
        return failed_check("broker's login", error)
    queues = ", ".join(subscription.queues)
    return _passed("broker's login", f"accepted and subscribed to {queues}")


def _passed(name: str, detail: str) -> Check:
    return Check(name=name, verdict=Verdict.OK, detail=detail)


def _failed(detail: str, remedy: str = "", name: str = "broker") -> Check:
    return Check(name=name, verdict=Verdict.FAILED, detail=detail, remedy=remedy)
