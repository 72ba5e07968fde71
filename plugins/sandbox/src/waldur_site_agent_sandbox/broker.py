"""Messages to agents, and RabbitMQ as its administrator and as a sender uses it."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from typing import Protocol
from uuid import uuid4

import httpx
from pydantic import JsonValue

from waldur_site_agent_sandbox.records import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One event, for one offering."""

    object_type: str
    offering: str
    payload: JsonObject
    """Fields that all servers send, without the offering."""
    more: JsonObject = field(default_factory=dict)
    """Further fields, which only unified queues get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One message for one queue."""

    vhost: str
    queue: str
    made_by_server: bool
    """Whether the server created the queue; otherwise sending creates it unless it exists."""
    topic: str | None
    """The MQTT topic that it is also sent to, if any."""
    payload: JsonObject

    @property
    def body(self) -> bytes:
        """The message body."""
        return json.dumps(self.payload).encode()

    @property
    def message_id(self) -> str:
        """A hash of the content: repeated messages have the same one."""
        content = f"{self.vhost}:{self.topic or self.queue}:".encode() + self.body
        return sha256(content).hexdigest()[:32]


_PATIENCE_SECONDS = 5.0
QUEUE_ARGUMENTS: dict[str, JsonValue] = {
    "x-message-ttl": 3_600_000,
    "x-max-length": 10_000,
    "x-overflow": "reject-publish-dlx",
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "waldur.dlq.messages",
}
"""Arguments of all queues that the server creates. The dead-letter queue is never created."""

_EVERYTHING: JsonValue = {"configure": ".*", "write": ".*", "read": ".*"}


class BrokerTroubleError(Exception):
    """A request to the broker failed; the message says which one."""


class BrokerAdmin(Protocol):
    """The broker operations that registrations need."""

    def open_vhost(self, vhost: str) -> None:
        """Create a virtual host if it does not exist."""

    def put_login(self, vhost: str, login: str, password: str) -> None:
        """Create a user with all permissions in one virtual host, or set its password."""

    def may_enter(self, vhost: str, login: str) -> bool:
        """Return whether a user exists and has permissions in a virtual host."""

    def put_queue(self, vhost: str, name: str) -> None:
        """Create a queue if it does not exist."""

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with its messages, if it exists."""

    def delete_login(self, login: str) -> None:
        """Delete a user, if it exists."""

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with everything in it, if it exists."""


class NoBroker:
    """Used when no broker is attached: everything succeeds and nothing happens."""

    def open_vhost(self, vhost: str) -> None:
        """Do nothing."""

    def put_login(self, vhost: str, login: str, password: str) -> None:
        """Do nothing."""

    def may_enter(self, vhost: str, login: str) -> bool:  # noqa: ARG002  # anybody may
        """Return True for everybody."""
        return True

    def put_queue(self, vhost: str, name: str) -> None:
        """Do nothing."""

    def delete_queue(self, vhost: str, name: str) -> None:
        """Do nothing."""

    def delete_login(self, login: str) -> None:
        """Do nothing."""

    def delete_vhost(self, vhost: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """The addresses and the administrator of a RabbitMQ."""

    management_url: str
    """Such as ``http://127.0.0.1:15672``."""
    username: str
    password: str = field(repr=False)
    host: str
    stomp_port: int
    mqtt_port: int | None = None
    """``None``: nothing is published over MQTT."""


class RabbitManagement:
    """RabbitMQ's management interface. Every method raises ``BrokerTroubleError``."""

    def __init__(self, address: BrokerAddress) -> None:
        self._http = httpx.Client(
            base_url=f"{address.management_url.rstrip('/')}/api/",
            auth=(address.username, address.password),
            timeout=_PATIENCE_SECONDS,
            trust_env=False,
        )

    def open_vhost(self, vhost: str) -> None:
        """Create a virtual host if it does not exist."""
        self._ask("PUT", f"vhosts/{vhost}")

    def put_login(self, vhost: str, login: str, password: str) -> None:
        """Create a user with all permissions in one virtual host, or set its password."""
        self._ask("PUT", f"users/{login}", {"password": password, "tags": []})
        self._ask("PUT", f"permissions/{vhost}/{login}", _EVERYTHING)

    def may_enter(self, vhost: str, login: str) -> bool:
        """Return whether a user exists and has permissions in a virtual host."""
        return self._ask("GET", f"permissions/{vhost}/{login}") != HTTPStatus.NOT_FOUND

    def put_queue(self, vhost: str, name: str) -> None:
        """Create a queue if it does not exist."""
        body: JsonValue = {"durable": True, "auto_delete": False, "arguments": QUEUE_ARGUMENTS}
        self._ask("PUT", f"queues/{vhost}/{name}", body)

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with its messages, if it exists."""
        self._ask("DELETE", f"queues/{vhost}/{name}")

    def delete_login(self, login: str) -> None:
        """Delete a user, if it exists."""
        self._ask("DELETE", f"users/{login}")

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with everything in it, if it exists."""
        self._ask("DELETE", f"vhosts/{vhost}")

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()

    def _ask(self, method: str, path: str, body: JsonValue = None) -> int:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise BrokerTroubleError(f"{method} {path}: {error or type(error).__name__}") from error
        missing = answer.status_code == HTTPStatus.NOT_FOUND and method != "PUT"
        if not (answer.is_success or missing):
            raise BrokerTroubleError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.status_code


_HOUR_MS = 3_600_000
_FRAME_END = b"\0"


def send(address: BrokerAddress, message: Destination) -> None:
    """Send a message over STOMP, and over MQTT if it has a topic.

    Raises:
        BrokerTroubleError: The broker is unreachable or refuses. A missing or full queue is not
            noticed, because no receipt is requested.
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
        # Only DISCONNECT gets a receipt; without it, closing could overtake the message. Both are
        # sent at once, because the kernel would delay a second packet until the first is acked.
        disconnect = _frame("DISCONNECT", {"receipt": "bye"})
        connection.sendall(_frame("SEND", headers, message.body) + disconnect)
        _expect(connection, b"RECEIPT")


def _frame(command: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [command, *(f"{name}:{value}" for name, value in headers.items()), "", ""]
    return "\n".join(lines).encode() + body + _FRAME_END


def _expect(connection: socket.socket, command: bytes) -> None:
    received = b""
    while _FRAME_END not in received:
        more = connection.recv(65536)
        if not more:
            raise BrokerTroubleError("the broker closed the connection")
        received += more
    answer = received.lstrip(b"\n")
    if not answer.startswith(command):
        raise BrokerTroubleError(answer.partition(_FRAME_END)[0].decode(errors="replace"))


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
        disconnect = _packet(0xE0, b"")
        connection.sendall(_packet(0x30, _text(topic) + message.body) + disconnect)
        # The broker closes the connection after DISCONNECT; by then it has the message.
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
