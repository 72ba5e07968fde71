"""The real RabbitMQ that integration tests run against, and what they need to do to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from harness.patience import eventually, patience
from integration.places import place_of, to_purge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SERVICE = Path(__file__).parents[1] / "services" / "rabbitmq"
_PORTS = 8

Arguments = dict[str, int | str]

WALDURS_ARGUMENTS: Arguments = {
    "x-message-ttl": 3_600_000,
    "x-max-length": 10_000,
    "x-overflow": "reject-publish-dlx",
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "waldur.dlq.messages",
}
"""What the queues have that Waldur makes."""


_ENVIRONMENT = place_of("rabbitmq", 27817, _PORTS)


class RealRabbitMQ:
    """A running broker of the test service."""

    host = "127.0.0.1"
    admin = "waldur"
    admin_password = "waldur"
    stomp_ws_path = "/rmqws-stomp"
    mqtt_ws_path = "/rmqws"

    def __init__(self, directory: Path, first_port: int) -> None:
        self.directory = directory
        self.amqp_port = first_port
        self.management_port = first_port + 1
        self.stomp_port = first_port + 2
        self.stomp_ws_port = first_port + 3
        self.mqtt_port = first_port + 4
        self.mqtt_ws_port = first_port + 5
        self.management_url = f"http://{self.host}:{self.management_port}"
        self._http = httpx.Client(
            base_url=f"{self.management_url}/api/",
            auth=(self.admin, self.admin_password),
            timeout=patience(),
            trust_env=False,
        )

    # what Waldur does through the management interface

    def register(
        self, vhost: str, login: str, password: str, queues: Mapping[str, Arguments] | None = None
    ) -> None:
        """Make virtual host, login with every permission, and queues, as Waldur makes them."""
        self.request("PUT", f"vhosts/{quote(vhost, safe='')}")
        self.request("PUT", f"users/{login}", {"password": password, "tags": []})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.request("PUT", f"permissions/{quote(vhost, safe='')}/{login}", everything)
        for name, arguments in (queues or {}).items():
            self.make_queue(vhost, name, arguments)

    def make_queue(self, vhost: str, name: str, arguments: Arguments = WALDURS_ARGUMENTS) -> None:
        """Make a durable queue with such arguments."""
        made = {"durable": True, "auto_delete": False, "arguments": arguments}
        self.request("PUT", f"queues/{quote(vhost, safe='')}/{quote(name, safe='')}", made)

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with everything in it."""
        self.request("DELETE", f"queues/{quote(vhost, safe='')}/{quote(name, safe='')}")

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with all its queues."""
        self.request("DELETE", f"vhosts/{quote(vhost, safe='')}")

    def delete_user(self, login: str) -> None:
        """Delete a login; its connections end."""
        self.request("DELETE", f"users/{login}")

    def logins(self, vhost: str) -> list[str]:
        """The logins that somebody registered for a virtual host."""
        path = f"vhosts/{quote(vhost, safe='')}/permissions"
        found = [str(each["user"]) for each in self.request("GET", path).json()]
        return [login for login in found if login != self.admin]

    def change_password(self, login: str, password: str) -> None:
        """Give a login another password; its connections live on."""
        self.request("PUT", f"users/{login}", {"password": password, "tags": []})

    def cut_off(self, login: str) -> None:
        """End the connections of a login, which show themselves after some seconds."""

        def found() -> list[str]:
            listed = self.request("GET", "connections").json()
            return [each["name"] for each in listed if each.get("user") == login]

        wait_until(lambda: bool(found()))
        for name in found():
            self.request("DELETE", f"connections/{quote(name, safe='')}")

    def publish(self, vhost: str, queue: str, *bodies: bytes, on_disk: bool = False) -> None:
        """Send messages as Waldur does: as administrator, by STOMP, to a queue that exists.

        With ``on_disk``, wait until they are there, which Waldur does not.
        """
        with socket.create_connection((self.host, self.stomp_port), timeout=patience()) as stomp:
            login = f"login:{self.admin}\npasscode:{self.admin_password}"
            stomp.sendall(f"CONNECT\naccept-version:1.2\nhost:{vhost}\n{login}\n\n\0".encode())
            for number, body in enumerate(bodies):
                where = f"destination:/amq/queue/{queue}\nx-message-id:{number}"
                head = f"SEND\n{where}\npersistent:true\ncontent-length:{len(body)}\n"
                head += f"receipt:{number}\n\n" if on_disk else "\n"
                stomp.sendall(head.encode() + body + b"\0")
            answer, wanted = b"", len(bodies) if on_disk else 0
            while answer.count(b"RECEIPT") < wanted and (piece := stomp.recv(65536)):
                answer += piece
            stomp.sendall(b"DISCONNECT\nreceipt:last\n\n\0")
            while piece := stomp.recv(65536):
                answer += piece
        assert b"receipt-id:last" in answer, answer

    def request(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Ask the management interface as administrator; anything but success is an error."""
        answer = self._http.request(method, path, json=body)
        answer.raise_for_status()
        return answer

    def close(self) -> None:
        """Close the connections of this object; the broker goes on."""
        self._http.close()

    def waiting(self, vhost: str) -> dict[str, tuple[int, int]]:
        """By queue: how many messages are ready, and how many are out and unacknowledged."""
        columns = ("name", "messages_ready", "messages_unacknowledged")
        printed = self.ctl("-q", "--no-table-headers", "list_queues", "-p", vhost, *columns)
        rows = (line.split("\t") for line in printed.splitlines())
        return {name: (int(ready), int(out)) for name, ready, out in rows}

    # the node

    def ctl(self, *words: str) -> str:
        """Run ``rabbitmqctl`` and return what it printed; a failure is an error.

        Now and then its node never finds the broker's, so it gets a second and a third chance: all
        that tests tell it may be repeated.
        """
        for chances_left in (2, 1, 0):
            try:
                done = subprocess.run(
                    [self.directory / "ctl", *words],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=patience() / 2,
                )
            except subprocess.TimeoutExpired:
                if not chances_left:
                    raise
            else:
                break
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """Start the broker if it is not running, and wait until it listens."""
        _start()

    def stop(self) -> None:
        """Stop the broker in good order and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker with SIGKILL and wait until it is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the broker in good order and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Have the broker keep its connections and say nothing (SIGSTOP) until ``thaw``."""
        os.kill(self._pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        os.kill(self._pid(), signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have a broker that says nothing while the body runs."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def _pid(self) -> int:
        return int((self.directory / "run" / "beam.smp.pid").read_text(encoding="ascii"))

    def _end(self, how: signal.Signals) -> None:
        pid = self._pid()
        os.kill(pid, how)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition of the broker."""
    eventually(condition, "what the test waits for at the broker")


def up() -> RealRabbitMQ:
    """Start the broker if it is not running."""
    _start()
    directory, port = _ENVIRONMENT["WSA_RABBITMQ_DIR"], _ENVIRONMENT["WSA_RABBITMQ_PORT"]
    return RealRabbitMQ(Path(directory), int(port))


def _start() -> None:
    started = subprocess.run(
        [SERVICE / "up.sh"],
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr


def to_purge_at_the_end() -> list[str]:
    """What ``down`` is to be given later, should nobody have made the broker's directory yet."""
    return to_purge(_ENVIRONMENT["WSA_RABBITMQ_DIR"])


def down(*options: str) -> None:
    """Stop the broker."""
    command = [str(SERVICE / "down.sh"), *options]
    subprocess.run(command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, check=True)


def is_running() -> bool:
    """Whether somebody started the broker already."""
    try:
        pid = (Path(_ENVIRONMENT["WSA_RABBITMQ_DIR"]) / "run" / "beam.smp.pid").read_text("ascii")
        return Path(f"/proc/{pid.strip()}/comm").read_text("ascii").strip() == "beam.smp"
    except OSError:
        return False


def why_there_can_be_none() -> str:
    """Why no broker can be started on this machine, or nothing."""
    if os.geteuid() != 0:
        return "it is started by root only"
    installed = shutil.which("rabbitmq-server", path="/usr/sbin:/usr/bin")
    if not installed and shutil.which("apt-get") is None:
        return "RabbitMQ is not installed and there is no apt-get to install it"
    return ""
