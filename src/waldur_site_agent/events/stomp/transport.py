"""Logging in to a broker that speaks STOMP 1.2 over WebSocket."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from waldur_site_agent.events.mailbox import LARGEST_BODY
from waldur_site_agent.events.stomp.connection import StompConnection
from waldur_site_agent.events.stomp.frames import Decoder, Frame, FrameError, encode
from waldur_site_agent.events.stomp.wording import closed, not_stomp, quoted
from waldur_site_agent.events.transport import ConnectionLostError, LoginRefusedError
from waldur_site_agent.events.trust import tls_context, unreachable

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from waldur_site_agent.events.transport import Address, Subscription

_CONNECT_SECONDS = 15.0
"""For each of: reaching the broker, logging in, being subscribed."""
_CLOSE_SECONDS = 2.0
_LARGEST_FRAME = 129 * 1024 * 1024
"""RabbitMQ's largest message by default, 128 MiB until version 3.13 and 16 MiB since, and headers.

A larger one ends the connection before it is read, and comes again.
"""

_NO_WEBSOCKET = (OSError, EOFError, InvalidHandshake, InvalidProxy, InvalidURI, ImportError)
"""What the library raises; the last one for a SOCKS proxy without the package it needs."""

_quiet = logging.getLogger("waldur_site_agent.events.stomp.websocket")
_quiet.setLevel(logging.WARNING)
"""At level DEBUG the library would log every frame, the one with the password too."""


class StompTransport:
    """Connects to one broker by STOMP; see :class:`transport.Transport`."""

    def __init__(
        self, address: Address, *, prefetch: int = 20, heartbeat_seconds: float = 10
    ) -> None:
        """Keep how to connect.

        Args:
            address: Where the broker's WebSocket listens.
            prefetch: How many messages of a queue may be out unacknowledged.
            heartbeat_seconds: How often each side is to say that it lives; a broker that is silent
                for two and a half times as long is given up.
        """
        self._address = address
        self._prefetch = prefetch
        self._heartbeat_seconds = heartbeat_seconds

    def connect(self, subscription: Subscription) -> StompConnection:
        """Log in and subscribe; return when the broker confirmed every queue."""
        with ExitStack() as undo:
            websocket = self._dial(undo)
            decoder = Decoder(LARGEST_BODY)
            promised = self._log_in(websocket, decoder, subscription)
            connection = StompConnection(
                websocket,
                decoder,
                self._address,
                subscription,
                beat_seconds=max(self._heartbeat_seconds, promised[1]),
                silence_seconds=max(self._heartbeat_seconds, promised[0]),
            )
            undo.callback(connection.close)
            connection.subscribe(self._prefetch, _CONNECT_SECONDS)
            undo.pop_all()
        return connection

    def _dial(self, undo: ExitStack) -> ClientConnection:
        """Open the WebSocket, through the proxy of the environment if there is one for it."""
        context = tls_context(self._address)
        try:
            websocket = undo.enter_context(
                connect(
                    str(self._address),
                    ssl=context,
                    subprotocols=[Subprotocol("v12.stomp")],
                    compression=None,
                    open_timeout=_CONNECT_SECONDS,
                    close_timeout=_CLOSE_SECONDS,
                    ping_interval=None,  # STOMP has heart-beats of its own
                    max_size=_LARGEST_FRAME,
                    logger=_quiet,
                )
            )
        except (
            OSError,
            EOFError,
            InvalidHandshake,
            InvalidProxy,
            InvalidURI,
            ImportError,
        ) as error:
            raise ConnectionLostError(_why_no_websocket(self._address, error)) from error
        reached = websocket.protocol.uri
        if (reached.host, reached.port) != (self._address.host.lower(), self._address.port):
            raise ConnectionLostError(
                f"{self._address}: redirects to {reached.host}:{reached.port}, where the password "
                "is not sent; set host, port and path of the broker itself"
            )
        return websocket

    def _log_in(
        self, websocket: ClientConnection, decoder: Decoder, subscription: Subscription
    ) -> tuple[float, float]:
        """Return how often the broker sends heart-beats and wants to have some, in seconds."""
        where = f"{self._address} (virtual host {subscription.vhost})"
        milliseconds = max(1, round(self._heartbeat_seconds * 1000))
        headers = {
            "accept-version": "1.2",
            "host": subscription.vhost,
            "login": subscription.login,
            "passcode": subscription.password,
            "heart-beat": f"{milliseconds},{milliseconds}",
        }
        try:
            websocket.send(encode(Frame("CONNECT", headers)), text=True)
            answer = _first_frame(websocket, decoder)
        except TimeoutError as error:
            raise ConnectionLostError(f"{where}: no answer to the login; try again") from error
        except (ConnectionClosed, OSError) as error:
            raise ConnectionLostError(closed(where, error)) from error
        except FrameError as error:
            raise ConnectionLostError(not_stomp(where, error)) from error
        if answer.command != "CONNECTED":
            raise _refusal(where, answer, subscription)
        return _heart_beats(where, answer.headers.get("heart-beat", ""))


def _first_frame(websocket: ClientConnection, decoder: Decoder) -> Frame:
    deadline = time.monotonic() + _CONNECT_SECONDS
    while True:
        message = websocket.recv(timeout=max(0.0, deadline - time.monotonic()), decode=False)
        for frame in decoder.feed(message.encode() if isinstance(message, str) else message):
            return frame


def _refusal(
    where: str, answer: Frame, subscription: Subscription
) -> LoginRefusedError | ConnectionLostError:
    said = quoted(answer, subscription.password)
    if answer.command != "ERROR":
        return ConnectionLostError(f"{where}: {answer.command} instead of an answer to the login")
    if "version" in said.lower():
        return ConnectionLostError(f"{where}: the broker does not speak STOMP 1.2 ({said})")
    return LoginRefusedError(
        f"{where}: login {subscription.login} is refused ({said}); register with Waldur again"
    )


def _heart_beats(where: str, promised: str) -> tuple[float, float]:
    sends, _, wants = promised.partition(",")
    try:
        seconds = int(sends) / 1000, int(wants) / 1000
    except ValueError:
        seconds = 0.0, 0.0
    if seconds[0] <= 0:
        raise ConnectionLostError(
            f"{where}: the broker promises no heart-beats ({promised!r}), so its death could not "
            "be noticed; check what answers at that address"
        )
    return seconds


def _why_no_websocket(address: Address, error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return f"{address}: HTTP {status} instead of a WebSocket; check stomp_ws_path and proxies"
    if isinstance(error, (ProxyError, InvalidProxy, ImportError)):
        return f"{address}: the proxy of the environment fails ({error}); check it, or set no_proxy"
    if isinstance(error, (InvalidHandshake, InvalidURI, EOFError)):
        return f"{address}: no WebSocket there ({error}); check host, port and path"
    return str(unreachable(address, error))
