"""Logging in to a broker that speaks MQTT 3.1.1 over WebSocket."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

from paho.mqtt.client import Client, WebsocketConnectionError
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from waldur_site_agent.events.mqtt.connection import MqttConnection
from waldur_site_agent.events.transport import ConnectionLostError
from waldur_site_agent.events.trust import tls_context, unreachable

if TYPE_CHECKING:
    from waldur_site_agent.events.transport import Address, Subscription

_CONNECT_SECONDS = 15.0


class MqttTransport:
    """Connects to one broker by MQTT; see :class:`transport.Transport`.

    ``Subscription.queues`` are topics here, and ``declared`` has no meaning.
    """

    def __init__(self, address: Address, *, keepalive_seconds: int = 10) -> None:
        """Keep how to connect.

        Args:
            address: Where the broker's WebSocket listens.
            keepalive_seconds: After so long without a packet the broker is asked for one; after as
                long again without an answer it is given up.
        """
        self._address = address
        self._keepalive_seconds = keepalive_seconds

    def connect(self, subscription: Subscription) -> MqttConnection:
        """Log in and subscribe; return when the broker confirmed every topic."""
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
    """Return the name of the session at the broker.

    The same for the same subscription, so that messages wait for an agent that restarts; another
    for another, because two connections of one name end each other.
    """
    parts = (subscription.vhost, subscription.login, *sorted(subscription.queues))
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"wsa-{digest[:19]}"  # 23 characters: what every server of MQTT 3.1.1 accepts
