"""What the sandbox does at a message broker as its administrator: hosts, logins and queues."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import httpx
from pydantic import JsonValue

_PATIENCE_SECONDS = 5.0
QUEUE_ARGUMENTS: dict[str, JsonValue] = {
    "x-message-ttl": 3_600_000,
    "x-max-length": 10_000,
    "x-overflow": "reject-publish-dlx",
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "waldur.dlq.messages",
}
"""Of every queue that the server makes; nobody makes the queue for dead letters."""

_EVERYTHING: JsonValue = {"configure": ".*", "write": ".*", "read": ".*"}


class BrokerTroubleError(Exception):
    """The broker did not do what was asked of it; the text says what."""


class BrokerAdmin(Protocol):
    """What registrations need of a broker."""

    def open_vhost(self, vhost: str) -> None:
        """Make a virtual host unless it is there."""

    def put_login(self, vhost: str, login: str, password: str) -> None:
        """Make a login that may do everything in one virtual host, or give it a new password."""

    def may_enter(self, vhost: str, login: str) -> bool:
        """Tell whether a login is there and may do anything in a virtual host."""

    def put_queue(self, vhost: str, name: str) -> None:
        """Make a queue unless it is there."""

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with what is in it; none is no error."""

    def delete_login(self, login: str) -> None:
        """Delete a login; none is no error."""

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with everything in it; none is no error."""


class NoBroker:
    """Stands for a broker where none is attached: all is well, and nothing happens."""

    def open_vhost(self, vhost: str) -> None:
        """Do nothing."""

    def put_login(self, vhost: str, login: str, password: str) -> None:
        """Do nothing."""

    def may_enter(self, vhost: str, login: str) -> bool:  # noqa: ARG002  # anybody may
        """Let everybody in."""
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
    """Where RabbitMQ is for its administrator."""

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
        """Make a virtual host unless it is there."""
        self._ask("PUT", f"vhosts/{vhost}")

    def put_login(self, vhost: str, login: str, password: str) -> None:
        """Make a login that may do everything in one virtual host, or give it a new password."""
        self._ask("PUT", f"users/{login}", {"password": password, "tags": []})
        self._ask("PUT", f"permissions/{vhost}/{login}", _EVERYTHING)

    def may_enter(self, vhost: str, login: str) -> bool:
        """Tell whether a login is there and may do anything in a virtual host."""
        return self._ask("GET", f"permissions/{vhost}/{login}") != HTTPStatus.NOT_FOUND

    def put_queue(self, vhost: str, name: str) -> None:
        """Make a queue unless it is there."""
        body: JsonValue = {"durable": True, "auto_delete": False, "arguments": QUEUE_ARGUMENTS}
        self._ask("PUT", f"queues/{vhost}/{name}", body)

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with what is in it; none is no error."""
        self._ask("DELETE", f"queues/{vhost}/{name}")

    def delete_login(self, login: str) -> None:
        """Delete a login; none is no error."""
        self._ask("DELETE", f"users/{login}")

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with everything in it; none is no error."""
        self._ask("DELETE", f"vhosts/{vhost}")

    def close(self) -> None:
        """Close the connections; the broker goes on."""
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
