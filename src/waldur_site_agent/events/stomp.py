"""STOMP 1.2 over WebSocket, for RabbitMQ."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from waldur_site_agent.events.broker import (
    LARGEST_BODY,
    Address,
    ConnectionLostError,
    Delivery,
    DroppedBodies,
    LoginRefusedError,
    Mailbox,
    QueueRefusedError,
    Subscription,
    tls_context,
    unreachable,
)
from waldur_site_agent.waldur.address import GLOBAL_PROXY, Proxy, proxy_for

HEART_BEAT = b"\n"

_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
"""Used in CONNECT as well: RabbitMQ unescapes it there, contrary to STOMP 1.2."""
_UNESCAPES = {escaped: plain for plain, escaped in _ESCAPES.items()}
_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_LONGEST_COUNT = 18
_RAREST_BEAT_SECONDS = 3600.0
_LARGEST_HEAD = 512 * 1024
"""Of a larger one only the headers that are used are kept: publishers add what they like."""
_LONGEST_LINE = 4096
_LONGEST_END = 4
_USED = (b"subscription", b"destination", b"ack", b"redelivered", b"content-length", b"message")


class FrameError(ValueError):
    """The data is not STOMP; the rest of the stream cannot be parsed either."""


@dataclass(frozen=True)
class Frame:
    """A frame with its headers in order; the first of repeated headers counts."""

    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    dropped_bytes: int = 0
    """The size of a body that was dropped as too large; ``body`` is empty then."""


def encode(frame: Frame) -> bytes:
    """Return the encoded frame."""
    lines = [frame.command]
    lines += [f"{_escape(name)}:{_escape(value)}" for name, value in frame.headers.items()]
    if frame.body:
        lines.append(f"content-length:{len(frame.body)}")
    return "\n".join([*lines, "", ""]).encode() + frame.body + b"\0"


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _UNESCAPES.get(found[0], found[0]), text)


class Decoder:
    """Decodes frames from chunks of any size; keeps only the size of a large body."""

    def __init__(self, largest_body: int) -> None:
        self._largest_body = largest_body
        self._pending = bytearray()
        self._body: _Body | None = None

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Yield the frames that this chunk completes; heart-beats yield nothing.

        Raises:
            FrameError: The data is not STOMP; the decoder cannot be used any more.
        """
        rest = piece
        while rest:
            if self._body is None:
                rest = self._head(rest)
                if self._body is None:
                    return
            rest = self._body.take(rest)
            if self._body.complete:
                frame, self._body = self._body.frame(), None
                yield frame

    def _head(self, piece: bytes) -> bytes:
        """Collect command and headers; return what follows them once they are complete."""
        before = len(self._pending)
        if before:
            self._pending += piece
        else:
            piece = piece.lstrip(b"\r\n")
        head = self._pending or piece
        found = _END_OF_HEADERS.search(head, max(0, before - _LONGEST_END))
        if found is None:
            if len(head) > _LARGEST_HEAD:
                raise FrameError(f"no end of headers within {_LARGEST_HEAD} bytes")
            self._pending = bytearray(head)
            return b""
        self._pending = bytearray()
        self._body = self._begun(bytes(head[: found.start()]))
        return piece[found.end() - before :]

    def _begun(self, head: bytes) -> _Body:
        kept = head if len(head) <= _LARGEST_HEAD else b"\n".join(_used_lines(head))
        command, *lines = kept.decode(errors="replace").split("\n")
        command = command.rstrip("\r")
        if not command.isalpha():
            raise FrameError(f"{command[:40]!r} is not a command")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.rstrip("\r").partition(":")
            if colon:
                headers.setdefault(_unescape(name), _unescape(value))
        return _Body(command, headers, self._largest_body)


def _used_lines(head: bytes) -> Iterator[bytes]:
    """The command and the first line of each header that is used, without splitting all lines."""
    yield head[: min(head.find(b"\n"), _LONGEST_LINE)]
    for name in _USED:
        at = head.find(b"\n" + name + b":") + 1
        if at:
            yield head[at : at + _LONGEST_LINE].partition(b"\n")[0]


def _count(text: str) -> int | None:
    """A number in a header, if it is one.

    Raises:
        FrameError: it has more digits than any number of bytes or queues.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > _LONGEST_COUNT:
        raise FrameError(f"a number of {len(text)} digits in a header")
    return int(text)


class _Body:
    """The body of a frame that is being received, and the NUL after it."""

    def __init__(self, command: str, headers: dict[str, str], largest: int) -> None:
        self._command = command
        self._headers = headers
        self._largest = largest
        self._length = _count(headers.get("content-length", "").strip())
        self._kept = bytearray()
        self._size = 0
        self.complete = False

    def take(self, piece: bytes) -> bytes:
        """Keep what belongs to the body, and return what comes after it."""
        if self._length is None:
            end = piece.find(b"\0")
            mine = len(piece) if end < 0 else end
        else:
            mine = min(len(piece), self._length - self._size)
        self._size += mine
        if self._size <= self._largest:
            self._kept += piece[:mine]
        else:
            self._kept.clear()
        if mine == len(piece):
            return b""
        if piece[mine] != 0:
            raise FrameError(
                f"{self._command} of {self._length} bytes is longer than its content-length"
            )
        self.complete = True
        return piece[mine + 1 :]

    def frame(self) -> Frame:
        dropped = self._size if self._size > self._largest else 0
        return Frame(self._command, self._headers, bytes(self._kept), dropped)


_LONGEST_QUOTE = 300


def quoted(frame: Frame, secret: str) -> str:
    """Return the text of an ``ERROR`` frame on one line, with the secret masked."""
    body = frame.body.decode(errors="replace")
    text = " ".join(f"{frame.headers.get('message', '')}: {body}".split())
    if secret:
        text = text.replace(secret, "***")
    return text[:_LONGEST_QUOTE].strip(": ")


def broker_said(where: str, frame: Frame, secret: str) -> str:
    """The broker sent an ``ERROR`` frame."""
    return f"{where}: the broker reports an error ({quoted(frame, secret)}); connect again"


def closed(where: str, error: Exception) -> str:
    """The WebSocket was closed, with or without a close frame."""
    if isinstance(error, ConnectionClosed):
        if error.sent is not None and error.sent.code == _TOO_BIG:
            return (
                f"{where}: a message exceeds RabbitMQ's default maximum size; "
                "purge the queue or lower max_message_size of the broker"
            )
        if error.rcvd is not None:
            said = f"{error.rcvd.code} {error.rcvd.reason}".strip()
            return f"{where}: the broker closed the connection ({said}); connect again"
    return f"{where}: the connection broke ({error}); connect again"


def silent(where: str, seconds: float) -> str:
    """Nothing came from the broker for too long."""
    return f"{where}: nothing heard for {seconds:g} s, not even a heart-beat; connect again"


def not_stomp(where: str, error: Exception) -> str:
    """The broker sent data that is not STOMP."""
    return f"{where}: the answer is not STOMP ({error}); check the path and any proxies in between"


def queue_refused(reason: str, queues: Iterable[str]) -> str:
    """The broker ended the session at the subscription to these queues."""
    names = ", ".join(sorted(queues)) or "none"
    return (
        f"{reason}; no subscription to {names}: it does not exist, has other properties, or may "
        "not be read; register with Waldur again"
    )


_TOO_BIG = 1009


_SILENT_BEATS = 2.5
"""The connection counts as dead after this many intervals without data from the broker."""
_LONGEST_CLOSING_SECONDS = 4.0
_EARLY = 0.8
"""Heart-beats are sent after this fraction of the interval, to allow for a slow network."""


class StompConnection:
    """A STOMP 1.2 session; see :class:`~waldur_site_agent.events.broker.Connection`."""

    def __init__(
        self,
        websocket: ClientConnection,
        decoder: Decoder,
        address: Address,
        subscription: Subscription,
        *,
        beat_seconds: float,
        silence_seconds: float,
    ) -> None:
        self._websocket = websocket
        self._socket = websocket.socket
        self._decoder = decoder
        self._where = f"{address} (virtual host {subscription.vhost})"
        self._subscription = subscription
        self._beat_seconds = beat_seconds * _EARLY
        self._silence_seconds = silence_seconds * _SILENT_BEATS
        self._mailbox = Mailbox()
        self._dropped = DroppedBodies()
        self._confirmed: set[str] = set()
        self._answered = threading.Condition()
        self._refused = False
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"stomp-{name}", daemon=True)
            for name, target in (("reader", self._read), ("heart-beats", self._beat))
        ]
        for thread in self._threads:
            thread.start()

    def subscribe(self, prefetch: int, timeout_seconds: float) -> None:
        """Subscribe to every queue and wait until the broker has confirmed them all.

        Raises:
            QueueRefusedError: The broker ended the session instead.
            ConnectionLostError: The confirmation timed out, or the network failed.
        """
        wanted = {str(number) for number in range(len(self._subscription.queues))}
        try:
            for number, queue in enumerate(self._subscription.queues):
                self._send(_subscribing(str(number), queue, self._subscription.declared, prefetch))
            with self._answered:
                self._answered.wait_for(
                    lambda: self._mailbox.end or wanted <= self._confirmed, timeout_seconds
                )
            if self._mailbox.end is None and not wanted <= self._confirmed:
                self._finish(f"{self._where}: no confirmation within {timeout_seconds:g} s")
            self._mailbox.raise_if_over()
        except ConnectionLostError as error:
            if self._refused:
                missing = [self._subscription.queues[int(n)] for n in wanted - self._confirmed]
                raise QueueRefusedError(queue_refused(str(error), missing)) from error
            raise

    def receive(self, timeout_seconds: float) -> Delivery | None:
        """Return the next message, or ``None`` on timeout."""
        return self._mailbox.receive(timeout_seconds)

    def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge a message."""
        if self._mailbox.settle(delivery):
            self._send(Frame("ACK", {"id": str(delivery.ack)}))

    def close(self) -> None:
        """Close the session gracefully if the broker cooperates, otherwise at once."""
        if self._mailbox.end is None:
            self._mailbox.finish(ConnectionLostError(f"{self._where}: closed by this side"))
            self._over.set()
            # a thread that is blocked in send would delay the closing handshake
            late = threading.Timer(_LONGEST_CLOSING_SECONDS, self._cut)
            late.daemon = True
            late.start()
            # the closing handshake follows every acknowledgement on the wire
            self._websocket.close()
            late.cancel()
        self._cut()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5)

    def heard_seconds_ago(self) -> float:
        """Seconds since anything, heart-beats included, came from the broker."""
        return self._mailbox.heard_seconds_ago()

    def _send(self, frame: Frame) -> None:
        try:
            self._websocket.send(encode(frame), text=True)
        except (ConnectionClosed, OSError) as error:
            self._broken(error)
        self._mailbox.raise_if_over()

    def _beat(self) -> None:
        while not self._over.wait(self._beat_seconds):
            try:
                self._websocket.send(HEART_BEAT, text=True)
            except (ConnectionClosed, OSError) as error:
                self._broken(error)

    def _read(self) -> None:
        try:
            while not self._over.is_set():
                self._read_one()
        except (ConnectionClosed, OSError) as error:
            self._broken(error)
        except FrameError as error:
            self._finish(not_stomp(self._where, error))
        finally:
            # anything else that ends this thread is a bug; wake up waiting threads
            self._finish(f"{self._where}: the reading thread ended")

    def _read_one(self) -> None:
        left = self._silence_seconds - self._mailbox.heard_seconds_ago()
        if left <= 0:
            self._finish(silent(self._where, self._silence_seconds))
            return
        try:
            message = self._websocket.recv(timeout=left, decode=False)
        except TimeoutError:
            return
        self._mailbox.hear()
        piece = message.encode() if isinstance(message, str) else message
        for frame in self._decoder.feed(piece):
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.command == "MESSAGE":
            self._deliver(frame)
        elif frame.command == "RECEIPT":
            with self._answered:
                self._confirmed.add(frame.headers.get("receipt-id", ""))
                self._answered.notify_all()
        elif frame.command == "ERROR":
            self._refused = True
            self._finish(broker_said(self._where, frame, self._subscription.password))

    def _deliver(self, frame: Frame) -> None:
        number = _count(frame.headers.get("subscription", ""))
        queues = self._subscription.queues
        known = number is not None and number < len(queues)
        queue = queues[number or 0] if known else frame.headers.get("destination", "")
        if frame.dropped_bytes:
            self._dropped.note(queue, frame.dropped_bytes)
        redelivered = frame.headers.get("redelivered") == "true"
        ack = frame.headers.get("ack", "")
        self._mailbox.put(frame.body, queue, frame.headers, redelivered, ack)

    def _broken(self, error: ConnectionClosed | OSError) -> None:
        # RabbitMQ refuses a queue with a close frame instead of a confirmation
        if isinstance(error, ConnectionClosed) and error.rcvd is not None:
            self._refused = True
        self._finish(closed(self._where, error))

    def _finish(self, reason: str) -> None:
        self._over.set()
        if self._mailbox.end is not None:
            return
        self._mailbox.finish(ConnectionLostError(reason))
        with self._answered:
            self._answered.notify_all()
        self._cut()

    def _cut(self) -> None:
        """Shut the socket down: only this wakes a thread that is blocked in send.

        This calls the method of the base class, because that of TLS sockets removes TLS under a
        reading thread.
        """
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already


def destination(queue: str, declared: bool) -> str:
    """Return the destination of a queue that exists, or that subscribing creates."""
    return f"/{'amq/' if declared else ''}queue/{queue}"


def _subscribing(number: str, queue: str, declared: bool, prefetch: int) -> Frame:
    return Frame(
        "SUBSCRIBE",
        {
            "id": number,
            "destination": destination(queue, declared),
            "ack": "client-individual",
            "prefetch-count": str(prefetch),
            "receipt": number,
        },
    )


_CONNECT_SECONDS = 15.0
"""The timeout for each of: connecting, logging in, subscribing."""
_CLOSE_SECONDS = 2.0
_LARGEST_FRAME = 129 * 1024 * 1024
"""RabbitMQ's largest message by default, 128 MiB until version 3.13 and 16 MiB since, and headers.

A larger one ends the connection before it is read, and is redelivered.
"""

_NO_WEBSOCKET = (
    OSError,
    EOFError,
    InvalidHandshake,
    InvalidProxy,
    InvalidURI,
    ConnectionClosed,  # in the middle of the handshake
    ImportError,  # a SOCKS proxy without the package that it needs
    ValueError,  # a proxy whose port is not a number
)
"""The exceptions of the library."""

_quiet = logging.getLogger("waldur_site_agent.events.stomp.websocket")
_quiet.setLevel(logging.WARNING)
"""Keeps the library from logging frames at level DEBUG, the one with the password included."""


class StompTransport:
    """Connects to a broker over STOMP; see :class:`~waldur_site_agent.events.broker.Transport`."""

    def __init__(
        self, address: Address, *, prefetch: int = 20, heartbeat_seconds: float = 10
    ) -> None:
        """Create a transport; it does not connect yet.

        Args:
            address: Where the broker's WebSocket listens.
            prefetch: How many messages of a queue may be unacknowledged.
            heartbeat_seconds: The interval of heart-beats in both directions; the connection is
                dropped after two and a half intervals without data from the broker.
        """
        self._address = address
        self._prefetch = prefetch
        self._heartbeat_seconds = heartbeat_seconds

    def connect(self, subscription: Subscription) -> StompConnection:
        """Log in and subscribe; return when the broker has confirmed every queue."""
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

    def probe(self) -> None:
        """Open the WebSocket and close it again, without logging in.

        Raises:
            ConnectionLostError: It cannot be opened.
        """
        with ExitStack() as undo:
            self._dial(undo)

    def _dial(self, undo: ExitStack) -> ClientConnection:
        """Open the WebSocket, through a proxy if there is one for it."""
        context = tls_context(self._address)
        proxy = proxy_to_broker(self._address)
        try:
            websocket = undo.enter_context(
                connect(
                    str(self._address),
                    ssl=context,
                    proxy=None if proxy is None else _for_websocket(proxy),
                    proxy_ssl=_trusted_by_proxy(self._address, proxy),
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
        """Return how often the broker sends and expects heart-beats, in seconds."""
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
    except (ValueError, OverflowError):
        seconds = 0.0, 0.0
    if not 0 < seconds[0] <= _RAREST_BEAT_SECONDS:
        raise ConnectionLostError(
            f"{where}: the broker promises no heart-beats ({promised!r}), so its death could not "
            "be noticed; check what answers at that address"
        )
    return seconds[0], min(seconds[1], _RAREST_BEAT_SECONDS)


def proxy_to_broker(address: Address) -> Proxy | None:
    """The proxy of the configuration, or the one that the environment has for this broker."""
    if configured := Proxy.configured(address.proxy):
        return configured
    plain = () if address.tls else ("http",)
    own = "wss" if address.tls else "ws"
    return proxy_for(address.host, (own, "socks", "https", *plain, "all"))


def _for_websocket(proxy: Proxy) -> str:
    """The URL; of ``global_proxy``, the proxy resolves names, as the HTTP client lets it."""
    scheme, _, rest = proxy.full_url.partition("://")
    is_plain_socks = scheme == "socks5" and proxy.variable == GLOBAL_PROXY
    return f"socks5h://{rest}" if is_plain_socks else proxy.full_url


def _trusted_by_proxy(address: Address, proxy: Proxy | None) -> ssl.SSLContext | None:
    if proxy is None or not proxy.full_url.startswith("https://"):
        return None
    return tls_context(replace(address, tls=True))


def _no_websocket(address: Address, proxy: Proxy | None, error: Exception) -> ConnectionLostError:
    if isinstance(error, InvalidStatus):
        text = f"{address}: HTTP {error.response.status_code} instead of a WebSocket"
        return ConnectionLostError(text, remedy="check stomp_ws_path and proxies")
    if isinstance(error, ssl.SSLError):  # an untrusted certificate is a ValueError, too
        return unreachable(address, error)
    if proxy is not None and not isinstance(error, (InvalidHandshake, InvalidURI)):
        return _no_proxy(address, proxy, error)
    if isinstance(error, ProxyError) and proxy is not None:
        return _no_proxy(address, proxy, error)
    if isinstance(error, (InvalidHandshake, InvalidURI, ConnectionClosed, EOFError, ValueError)):
        text = f"{address}: no WebSocket there ({error})"
        return ConnectionLostError(text, remedy="check host, port and path")
    return unreachable(address, error)


def _no_proxy(address: Address, proxy: Proxy, error: Exception) -> ConnectionLostError:
    """Describe a failure to connect through a proxy."""
    why = proxy.concealed(str(error)) or type(error).__name__
    text = f"{address}: {proxy} fails ({why})"
    return ConnectionLostError(text, remedy=proxy.remedy(address.host))
