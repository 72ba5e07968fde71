"""Logging in to a broker that speaks STOMP 1.2 over WebSocket."""

from __future__ import annotations

import logging
import ssl
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
from waldur_site_agent.waldur.proxies import masked, proxy_for

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from waldur_site_agent.events.transport import Address, Subscription
    from waldur_site_agent.waldur.proxies import Proxy

_CONNECT_SECONDS = 15.0
"""For each of: reaching the broker, logging in, being subscribed."""
_CLOSE_SECONDS = 2.0
_LARGEST_FRAME = 129 * 1024 * 1024
"""RabbitMQ's largest message by default, 128 MiB until version 3.13 and 16 MiB since, and headers.

A larger one ends the connection before it is read, and comes again.
"""

_NO_WEBSOCKET = (
    OSError,
    EOFError,
    InvalidHandshake,
    InvalidProxy,
    InvalidURI,
    ImportError,  # of a SOCKS proxy without the package that it needs
    ValueError,  # of a proxy whose port is no number
)
"""What the library raises."""

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
        proxy = _proxy_to(self._address)
        try:
            websocket = undo.enter_context(
                connect(
                    str(self._address),
                    ssl=context,
                    proxy=None if proxy is None else proxy.full_url,
                    subprotocols=[Subprotocol("v12.stomp")],
                    compression=None,
                    open_timeout=_CONNECT_SECONDS,
                    close_timeout=_CLOSE_SECONDS,
                    ping_interval=None,  # STOMP has heart-beats of its own
                    max_size=_LARGEST_FRAME,
                    logger=_quiet,
                )
            )
        except _NO_WEBSOCKET as error:
            raise _no_websocket(self._address, proxy, error) from error
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


def _proxy_to(address: Address) -> Proxy | None:
    plain = () if address.tls else ("http",)
    own = "wss" if address.tls else "ws"
    return proxy_for(address.host, (own, "socks", "https", *plain, "all"))


def _no_websocket(address: Address, proxy: Proxy | None, error: Exception) -> ConnectionLostError:
    if isinstance(error, InvalidStatus):
        text = f"{address}: HTTP {error.response.status_code} instead of a WebSocket"
        return ConnectionLostError(text, remedy="check stomp_ws_path and proxies")
    if isinstance(error, ssl.SSLError):  # a refused certificate is a ValueError, too
        return unreachable(address, error)
    if proxy is not None and not isinstance(error, (InvalidHandshake, InvalidURI)):
        return _no_proxy(address, proxy, error)
    if isinstance(error, ProxyError) and proxy is not None:
        return _no_proxy(address, proxy, error)
    if isinstance(error, (InvalidHandshake, InvalidURI, EOFError, ValueError)):
        text = f"{address}: no WebSocket there ({error})"
        return ConnectionLostError(text, remedy="check host, port and path")
    return unreachable(address, error)


def _no_proxy(address: Address, proxy: Proxy, error: Exception) -> ConnectionLostError:
    """With a proxy in between, only the proxy itself is ever connected to."""
    why = masked(str(error)) or type(error).__name__
    remedy = f"correct {proxy.variable}, or add {address.host} to NO_PROXY"
    return ConnectionLostError(f"{address}: {proxy} fails ({why})", remedy=remedy)
