"""One STOMP session after its login: two threads, neither of which waits for the consumer.

One thread reads whatever the broker sends and notices silence; the other sends heart-beats. A
consumer may take as long as it likes. Any end of the session is final.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

from waldur_site_agent.events.mailbox import Mailbox, warn_of_dropped_body
from waldur_site_agent.events.stomp.frames import HEART_BEAT, Frame, FrameError, encode
from waldur_site_agent.events.stomp.wording import (
    broker_said,
    closed,
    not_stomp,
    queue_refused,
    silent,
)
from waldur_site_agent.events.transport import ConnectionLostError, QueueRefusedError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from waldur_site_agent.events.stomp.frames import Decoder
    from waldur_site_agent.events.transport import Address, Delivery, Subscription

_SILENT_BEATS = 2.5
"""So many intervals without anything from the broker, and the connection counts as dead."""
_LONGEST_CLOSING_SECONDS = 4.0
_EARLY = 0.8
"""Heart-beats are sent after this part of the interval, so that a slow network does not matter."""


class StompConnection:
    """A session of STOMP 1.2; the promises are those of :class:`transport.Connection`."""

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
        """Subscribe to every queue and wait until the broker confirmed them all.

        Raises:
            QueueRefusedError: The broker ended the session instead.
            ConnectionLostError: No confirmation came in time, or the network failed.
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
        """Return the next message, or ``None`` if none came in time."""
        return self._mailbox.receive(timeout_seconds)

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a message is dealt with."""
        if self._mailbox.settle(delivery):
            self._send(Frame("ACK", {"id": str(delivery.ack)}))

    def close(self) -> None:
        """End the session in good order if the broker plays along, else at once."""
        if self._mailbox.end is None:
            self._mailbox.finish(ConnectionLostError(f"{self._where}: closed by this side"))
            self._over.set()
            # a thread that is stuck in sending would keep the handshake from beginning
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
        """How long nothing came from the broker, heart-beats included."""
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
            # whatever else ended this thread is a defect, and nobody is to wait for it
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
        number = frame.headers.get("subscription", "")
        queues = self._subscription.queues
        known = number.isascii() and number.isdigit() and int(number) < len(queues)
        queue = queues[int(number)] if known else frame.headers.get("destination", "")
        if frame.dropped_bytes:
            warn_of_dropped_body(queue, frame.dropped_bytes)
        redelivered = frame.headers.get("redelivered") == "true"
        ack = frame.headers.get("ack", "")
        self._mailbox.put(frame.body, queue, frame.headers, redelivered, ack)

    def _broken(self, error: ConnectionClosed | OSError) -> None:
        # a closing frame in place of a confirmation is how RabbitMQ refuses a queue
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
        """Shut the socket down: this alone wakes a thread that is stuck in sending.

        The method of the base class, because that of TLS sockets takes TLS away from a reading
        thread.
        """
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already


def destination(queue: str, declared: bool) -> str:
    """Return where RabbitMQ has a queue that exists, or one that subscribing makes."""
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
