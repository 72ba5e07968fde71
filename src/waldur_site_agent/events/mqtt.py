"""MQTT 3.1.1 over WebSocket, for Waldur servers of 2025, which publish to topics."""

from __future__ import annotations

import hashlib
import threading
from contextlib import ExitStack

from paho.mqtt.client import (
    Client,
    ConnectFlags,
    DisconnectFlags,
    MQTTMessage,
    WebsocketConnectionError,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

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

_BAD_LOGINS = ("Bad user name or password", "Not authorized")
_AT_LEAST_ONCE = 1
"""The requested quality of service; a message published with 0 is delivered with 0."""


class MqttConnection:
    """An MQTT 3.1.1 session; see :class:`~waldur_site_agent.events.broker.Connection`.

    One difference: messages published with quality of service 0 need no acknowledgement and are
    not redelivered when the connection breaks.
    """

    def __init__(self, client: Client, address: Address, subscription: Subscription) -> None:
        self._client = client
        self._where = f"{address} (virtual host {subscription.vhost})"
        self._subscription = subscription
        self._mailbox = Mailbox()
        self._dropped = DroppedBodies()
        self._logged_in = False
        self._subscribed = threading.Event()
        self._refusal: LoginRefusedError | QueueRefusedError | None = None
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_log = self._on_log

    def start(self, timeout_seconds: float) -> None:
        """Log in and subscribe on the network thread; wait until the broker has confirmed both.

        Raises:
            LoginRefusedError: Login, password or virtual host are not accepted.
            QueueRefusedError: A topic is refused.
            ConnectionLostError: The connection ended, or the confirmation timed out.
        """
        self._client.loop_start()
        if not self._subscribed.wait(timeout_seconds):
            self._finish(f"{self._where}: no confirmation within {timeout_seconds:g} s; try again")
        if self._refusal is not None:
            raise self._refusal
        self._mailbox.raise_if_over()

    def receive(self, timeout_seconds: float) -> Delivery | None:
        """Return the next message, or ``None`` on timeout."""
        return self._mailbox.receive(timeout_seconds)

    def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge a message."""
        if not self._mailbox.settle(delivery) or not isinstance(delivery.ack, int):
            return
        if self._client.ack(delivery.ack, _AT_LEAST_ONCE) != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._finish(f"{self._where}: the connection broke; connect again")
            self._mailbox.raise_if_over()

    def close(self) -> None:
        """Close the connection; the broker keeps the session with its unacknowledged messages."""
        self._finish(f"{self._where}: closed by this side")
        if self._client.is_connected():  # otherwise the library logs a complaint
            self._client.disconnect()
        self._client.loop_stop()
        socket = self._client.socket()
        if socket is not None:  # the broker may have stopped reading
            socket.close()

    def heard_seconds_ago(self) -> float:
        """Seconds since anything, ping responses included, came from the broker."""
        return self._mailbox.heard_seconds_ago()

    def _refuse_login(self, said: str) -> None:
        self._refusal = LoginRefusedError(
            f"{self._where}: login {self._subscription.login} is refused ({said}); "
            "register with Waldur again"
        )

    def _finish(self, reason: str) -> None:
        self._mailbox.finish(ConnectionLostError(reason))
        self._subscribed.set()

    def _on_connect(
        self,
        client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if not reason.is_failure:
            self._logged_in = True
            client.subscribe([(topic, _AT_LEAST_ONCE) for topic in self._subscription.queues])
            return
        if str(reason) in _BAD_LOGINS:
            self._refuse_login(str(reason))
        self._finish(f"{self._where}: the broker does not accept the connection ({reason})")

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        refused = [
            topic
            for topic, reason in zip(self._subscription.queues, reasons, strict=False)
            if reason.is_failure
        ]
        if refused:
            text = f"{self._where}: no subscription to {', '.join(refused)}"
            self._refusal = QueueRefusedError(f"{text}; register with Waldur again")
            self._finish(text)
        self._subscribed.set()

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        body = bytes(message.payload)
        if len(body) > LARGEST_BODY:
            self._dropped.note(message.topic, len(body))
            body = b""
        ack = message.mid if message.qos == _AT_LEAST_ONCE else None
        self._mailbox.put(body, message.topic, {"qos": str(message.qos)}, message.dup, ack)

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: object,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if not self._logged_in and self._refusal is None:
            # RabbitMQ 3.10 closes the WebSocket instead of refusing a login
            self._refuse_login("the broker closed the connection without an answer")
        self._finish(
            f"{self._where}: the connection ended ({reason}); connect again; if it happens all the "
            "time, another agent uses the same subscription"
        )

    def _on_log(self, _client: Client, _userdata: object, _level: int, text: str) -> None:
        # the only hook that the library calls for every packet, ping responses included
        if text.startswith("Received"):
            self._mailbox.hear()


_CONNECT_SECONDS = 15.0


class MqttTransport:
    """Connects to a broker over MQTT; see :class:`~waldur_site_agent.events.broker.Transport`.

    ``Subscription.queues`` are topics here, and ``declared`` is ignored.
    """

    def __init__(self, address: Address, *, keepalive_seconds: int = 10) -> None:
        """Create a transport; it does not connect yet.

        Args:
            address: Where the broker's WebSocket listens.
            keepalive_seconds: Idle time before a ping; after the same time without a response the
                connection is dropped.
        """
        self._address = address
        self._keepalive_seconds = keepalive_seconds

    def connect(self, subscription: Subscription) -> MqttConnection:
        """Log in and subscribe; return when the broker has confirmed every topic."""
        client = self._client(subscription)
        connection = MqttConnection(client, self._address, subscription)
        with ExitStack() as undo:
            undo.callback(connection.close)
            try:
                client.connect(self._address.host, self._address.port, self._keepalive_seconds)
            except WebsocketConnectionError as error:
                raise ConnectionLostError(
                    f"{self._address}: no WebSocket there ({error}); check mqtt_ws_path and proxies"
                ) from error
            except (OSError, ValueError) as error:
                raise unreachable(self._address, error) from error
            connection.start(_CONNECT_SECONDS)
            undo.pop_all()
        return connection

    def _client(self, subscription: Subscription) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id(subscription),
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            transport="websockets",
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = _CONNECT_SECONDS
        client.ws_set_options(path="/" + self._address.path.lstrip("/"))
        client.username_pw_set(f"{subscription.vhost}:{subscription.login}", subscription.password)
        context = tls_context(self._address)
        if context is not None:
            client.tls_set_context(context)
            if not self._address.verify:
                client.tls_insecure_set(True)
        return client


def client_id(subscription: Subscription) -> str:
    """Return the MQTT client ID.

    It is stable for a subscription, so that messages wait for a restarting agent, and unique to it,
    because two connections with one client ID disconnect each other.
    """
    parts = (subscription.vhost, subscription.login, *sorted(subscription.queues))
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"wsa-{digest[:19]}"  # every MQTT 3.1.1 server accepts up to 23 characters
