"""How a server hands a message to RabbitMQ: a connection of its own for each, and no receipt."""

from __future__ import annotations

import socket
from uuid import uuid4

from waldur_site_agent_sandbox.broker import BrokerAddress, BrokerTroubleError
from waldur_site_agent_sandbox.occurrences import Destination

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
    except OSError as error:
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
        # The farewell alone is confirmed: without it, closing could overtake the message. In one
        # piece, as the system would hold a second one back until the first is acknowledged.
        farewell = _frame("DISCONNECT", {"receipt": "bye"})
        connection.sendall(_frame("SEND", headers, message.body) + farewell)
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
    """Speak just enough MQTT 3.1.1: connect, publish once at QoS 0, disconnect."""
    clean_session_with_login = bytes([0b1100_0010])
    keep_alive = (60).to_bytes(2)
    words = (f"sandbox-{uuid4().hex[:12]}", f"{message.vhost}:{address.username}", address.password)
    connect = _text("MQTT") + bytes([4]) + clean_session_with_login + keep_alive
    with socket.create_connection((address.host, port), _PATIENCE_SECONDS) as connection:
        connection.sendall(_packet(0x10, connect + b"".join(map(_text, words))))
        answer = connection.recv(4, socket.MSG_WAITALL)
        if answer != b"\x20\x02\x00\x00":
            raise BrokerTroubleError(f"MQTT login refused: {answer.hex()}")
        farewell = _packet(0xE0, b"")
        connection.sendall(_packet(0x30, _text(topic) + message.body) + farewell)
        # The broker closes after the farewell: by then it has the message.
        connection.recv(1)


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2) + raw


def _packet(kind: int, content: bytes) -> bytes:
    rest, length = len(content), b""
    while True:
        rest, digit = divmod(rest, 128)
        length += bytes([digit | 0x80 if rest else digit])
        if not rest:
            return bytes([kind]) + length + content
