"""What systemd is told, on a socket as systemd has it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from waldur_site_agent.service.health import Health
from waldur_site_agent.service.monitoring import READY_WITHIN_SECONDS, Monitoring
from waldur_site_agent.service.process import Notifier


class Systemd:
    """The other end of the socket."""

    def __init__(self, path: Path) -> None:
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.line.bind(str(path))
        self.line.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "3000000"}

    def heard(self) -> list[str]:
        """Every message since the last time."""
        found: list[str] = []
        while True:
            try:
                found.append(self.line.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.line.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def monitored(systemd: Systemd, clock: Clock) -> Monitoring:
    health = Health(stuck_after_seconds=600)
    return Monitoring("all", health, Notifier(systemd.environ), monotonic=clock)


def test_the_start_is_over_when_the_first_offering_is_served(systemd: Systemd) -> None:
    clock = Clock()
    monitoring = monitored(systemd, clock)
    worker_health = monitoring.health.worker_health("Cluster", "report")
    worker_health.fail("Waldur is away")
    monitoring.beat()
    told = systemd.heard()
    assert "READY=1" not in told
    assert "EXTEND_TIMEOUT_USEC=30000000" in told
    assert "STATUS=report of Cluster: Waldur is away" in told
    worker_health.start()
    clock.now += 1
    monitoring.beat()
    assert "READY=1" in systemd.heard()
    clock.now += 1
    monitoring.beat()
    assert "READY=1" not in systemd.heard()


def test_a_waldur_that_is_away_holds_the_boot_up_for_a_minute_only(systemd: Systemd) -> None:
    clock = Clock()
    monitoring = monitored(systemd, clock)
    monitoring.health.worker_health("Cluster", "report").fail("Waldur is away")
    monitoring.beat()
    clock.now += READY_WITHIN_SECONDS
    monitoring.beat()
    told = systemd.heard()
    assert "READY=1" in told
    assert "STATUS=report of Cluster: Waldur is away" in told


def test_the_watchdog_is_fed_until_a_worker_is_stuck(systemd: Systemd) -> None:
    clock = Clock()
    monitoring = monitored(systemd, clock)
    worker_health = monitoring.health.worker_health("Cluster", "report")
    worker_health.monotonic = clock
    worker_health.begin()
    monitoring.beat()
    assert "WATCHDOG=1" in systemd.heard()
    clock.now += 601
    monitoring.beat()
    told = systemd.heard()
    assert "WATCHDOG=1" not in told
    assert "STATUS=report of Cluster is stuck" in told
    worker_health.progress()
    clock.now += 1
    monitoring.beat()
    assert "WATCHDOG=1" in systemd.heard()


def test_the_watchdog_is_fed_well_before_its_time(systemd: Systemd) -> None:
    clock = Clock()
    monitoring = monitored(systemd, clock)
    for _ in range(30):  # three seconds, as the main thread looks about
        monitoring.beat()
        clock.now += 0.1
    assert systemd.heard().count("WATCHDOG=1") == 3


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({}, 0),
    ],
)
def test_a_watchdog_for_another_process_is_not_fed(
    systemd: Systemd, environ: dict[str, str], seconds: float
) -> None:
    address = systemd.environ["NOTIFY_SOCKET"]
    notifier = Notifier({"NOTIFY_SOCKET": address, **environ})
    assert notifier.watchdog_seconds == seconds
    notifier.alive()
    assert len(systemd.heard()) == (seconds > 0)


def test_a_name_in_the_abstract_name_space_is_understood() -> None:
    name = f"waldur-site-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"\0{name}")
        line.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert line.recv(100) == b"STOPPING=1"


def test_without_systemd_and_with_a_dead_one_nothing_happens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.status("two\nlines")
    assert not Notifier({}).listened_to
