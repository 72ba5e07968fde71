"""A service tells systemd, probes and Prometheus how it does: a real process, real sockets."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import Installation, eventually, patience

PERIOD = "WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES"


def add_to_the_file(installation: Installation, **settings: Any) -> None:
    content = yaml.safe_load(installation.file.read_text())
    installation.file.write_text(yaml.safe_dump(content | settings))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def answer(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience())
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def answer_or_nothing(port: int, path: str) -> str:
    try:
        return answer(port, path)
    except OSError:
        return ""


class Systemd:
    """The other end of the socket, which listens all the time.

    A socket holds ten messages: where nobody listens for a while, later ones get lost.
    """

    def __init__(self, path: Path) -> None:
        self.heard: list[str] = []
        self.path = path
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.line.bind(str(path))
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    @property
    def fed(self) -> int:
        """How often the watchdog was fed."""
        return self.heard.count("WATCHDOG=1")

    def has_heard(self, message: str) -> bool:
        return message in self.heard

    def close(self) -> None:
        self.line.shutdown(socket.SHUT_RD)
        self._listening.join()
        self.line.close()

    def _listen(self) -> None:
        while message := self.line.recv(4096):
            self.heard.append(message.decode())


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


def test_a_service_tells_how_it_does_from_its_start_to_its_end(
    installation: Installation, tmp_path: Path, systemd: Systemd
) -> None:
    port = free_port()
    file = tmp_path / "health-{mode}.json"
    add_to_the_file(installation, health_file=str(file), metrics_listen=f"127.0.0.1:{port}")
    probe = ("health",)
    assert installation.run(*probe, command="waldur-site-agent").code == 1
    testbed = installation.testbed
    testbed.order(testbed.project(ada="ada01"))
    variables = {PERIOD: "0.02", "NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "2000000"}
    with installation.service(**variables) as service:
        eventually(lambda: systemd.has_heard("READY=1"), "the start")
        eventually(lambda: systemd.has_heard("WATCHDOG=1"), "a sign of life")
        done = 'actions_total{action="CreateResource",mode="order_process"'
        eventually(lambda: done in answer(port, "/metrics"), "the order in the metrics")
        assert '"status": "ok"' in answer(port, "/health")
        assert 'command="sacctmgr write",result="success"' in answer(port, "/metrics")
        eventually((tmp_path / "health-order_process.json").exists, "the health file")
        found = installation.run(*probe, command="waldur-site-agent")
        assert (found.code, found.out.partition(":")[0]) == (0, "ok")
        testbed.sandbox.faults.add("marketplace_orders_list", "status", status=403, times=1000)
        eventually(lambda: '"failing"' in answer(port, "/health"), "trouble in the report")
        eventually(lambda: any("STATUS=" in h for h in systemd.heard), "a status")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
        eventually(lambda: systemd.has_heard("STOPPING=1"), "the end")
    assert not (tmp_path / "health-order_process.json").exists()


def test_the_probe_of_version_1_finds_a_service_that_sets_no_health_file(
    installation: Installation, tmp_path: Path
) -> None:
    installation.variables["XDG_RUNTIME_DIR"] = str(tmp_path)
    probe = partial(installation.run, command="waldur_site_healthz")
    assert probe().code == 1
    with installation.service(**{PERIOD: "0.02"}) as service:
        eventually(lambda: probe().code == 0, "a healthy agent")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert probe().code == 1


def test_a_cycle_in_which_nothing_comes_back_is_told_and_ended_with_all_its_threads_in_the_log(
    installation: Installation, tmp_path: Path, systemd: Systemd
) -> None:
    port, file = free_port(), tmp_path / "health.json"
    listen = {"health_file": str(file), "metrics_listen": f"127.0.0.1:{port}"}
    add_to_the_file(installation, stuck_after_minutes=0.01, **listen)
    testbed = installation.testbed
    testbed.order(testbed.project(ada="ada01"))
    variables = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "2000000"}
    with installation.stalled_writes() as writes, installation.service(**variables) as service:
        eventually(writes.begun, "a write that hangs")
        eventually(lambda: '"stuck"' in answer(port, "/health"), "the stuck cycle in the report")
        eventually(
            lambda: systemd.has_heard("STATUS=order_process of Test cluster is stuck"), "a status"
        )
        fed = systemd.fed
        eventually(lambda: '"status": "stuck"' in file.read_text(), "the stuck cycle in the file")
        assert installation.run("health", command="waldur-site-agent").code == 1
        assert 'worker_alive{mode="order_process",offering="Test cluster"} 0.0' in answer(
            port, "/metrics"
        )
        assert systemd.fed == fed
        service.send(signal.SIGABRT)
        assert service.wait() == -signal.SIGABRT
    assert "in communicate" in service.text.partition("Fatal Python error: Aborted")[2]


def test_a_reload_moves_the_endpoint(installation: Installation) -> None:
    old, new = free_port(), free_port()
    add_to_the_file(installation, metrics_listen=f"127.0.0.1:{old}")
    with installation.service(**{PERIOD: "0.02"}) as service:
        name = "waldur_site_agent_cycles_total{"
        eventually(lambda: name in answer_or_nothing(old, "/metrics"), "the first address")
        add_to_the_file(installation, metrics_listen=f"127.0.0.1:{new}")
        service.send(signal.SIGHUP)
        eventually(lambda: name in answer_or_nothing(new, "/metrics"), "the second address")
        assert answer_or_nothing(old, "/metrics") == ""
        eventually(lambda: '"status": "ok"' in answer(new, "/health"), "a good report")
