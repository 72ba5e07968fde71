"""How a server hands a message to RabbitMQ: a connection of its own for each, and no receipt."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from paho.mqtt import MQTTException, publish

from waldur_site_agent.sandbox.broker import BrokerTroubleError

if TYPE_CHECKING:
    from waldur_site_agent.sandbox.broker import BrokerAddress
    from waldur_site_agent.sandbox.events.occurrences import Destination

_PATIENCE_SECONDS = 5.0
_HOUR_MS = 3_600_000
_END = b"\0"


def send(address: BrokerAddress, message: Destination) -> None:
    """Send a message, over MQTT too where its destination has a topic.

    Raises:
        BrokerTroubleError: The broker cannot be reached or refuses; a queue that is missing or
            full is no reason, as nobody asks for a receipt.
    """
    try:
        _send_stomp(address, message)
        if message.topic is not None and address.mqtt_port is not None:
            _send_mqtt(address, message, address.mqtt_port, message.topic)
    except (OSError, MQTTException) as error:
        raise BrokerTroubleError(f"{message.queue}: {error or type(error).__name__}") from error


def _send_stomp(address: BrokerAddress, message: Destination) -> None:
    kind = "amq/queue" if message.made_by_server else "queue"
    headers = {
        "destination": f"/{kind}/{message.queue}",
        "persistent": "true",
        "durable": "true",
        "auto-delete": "false",
        "content-type": "application/json",
        "x-message-id": message.message_id,
        "content-length": str(len(message.body)),
    }
    if not message.made_by_server:
        headers["expiration"] = str(_HOUR_MS)
    place = (address.host, address.stomp_port)
    with socket.create_connection(place, _PATIENCE_SECONDS) as connection:
        connection.sendall(
            _frame(
                "CONNECT",
                {
                    "accept-version": "1.2",
                    "host": message.vhost,
                    "login": address.username,
                    "passcode": address.password,
                },
            )
        )
        _expect(connection, b"CONNECTED")
        connection.sendall(_frame("SEND", headers, message.body))
        # The farewell alone is confirmed: without it, closing could overtake the message.
        connection.sendall(_frame("DISCONNECT", {"receipt": "bye"}))
        _expect(connection, b"RECEIPT")


def _frame(command: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [command, *(f"{name}:{value}" for name, value in headers.items()), "", ""]
    return "\n".join(lines).encode() + body + _END


def _expect(connection: socket.socket, command: bytes) -> None:
    received = b""
    while _END not in received:
        more = connection.recv(65536)
        if not more:
            raise BrokerTroubleError("the broker closed the connection")
        received += more
    answer = received.lstrip(b"\n")
    if not answer.startswith(command):
        raise BrokerTroubleError(answer.partition(_END)[0].decode(errors="replace"))


def _send_mqtt(address: BrokerAddress, message: Destination, port: int, topic: str) -> None:
    login = f"{message.vhost}:{address.username}"
    publish.single(
        topic,
        message.body,
        qos=0,
        hostname=address.host,
        port=port,
        auth={"username": login, "password": address.password},
    )
