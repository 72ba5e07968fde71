"""A stuck cycle is told from a long one, from a failing one and from idleness."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from waldur_site_agent.service.health import (
    FRESH_SECONDS,
    Health,
    HealthFile,
    HealthStatus,
    WorkerHealth,
    files_of,
    read_health,
)

ALLOWANCE = 600.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def at_work(clock: Clock) -> WorkerHealth:
    worker_health = WorkerHealth("Cluster", "order_process", monotonic=clock)
    worker_health.begin()
    return worker_health


def test_a_cycle_in_which_nothing_comes_back_is_stuck() -> None:
    clock = Clock()
    worker_health = at_work(clock)
    clock.now += ALLOWANCE
    assert worker_health.status(ALLOWANCE) is HealthStatus.OK
    clock.now += 1
    assert worker_health.status(ALLOWANCE) is HealthStatus.STUCK


def test_a_cycle_of_hours_is_not_stuck_as_long_as_something_comes_back() -> None:
    clock = Clock()
    worker_health = at_work(clock)
    for _ in range(100):
        clock.now += ALLOWANCE - 1
        assert worker_health.status(ALLOWANCE) is HealthStatus.OK
        worker_health.progress()


def test_a_rest_is_not_silence_until_it_should_be_over() -> None:
    clock = Clock()
    worker_health = at_work(clock)
    worker_health.end()
    worker_health.rest(86400)
    clock.now += 86400 + ALLOWANCE
    assert worker_health.status(ALLOWANCE) is HealthStatus.OK
    clock.now += 1
    assert worker_health.status(ALLOWANCE) is HealthStatus.STUCK


def test_a_failing_worker_is_alive_and_says_why() -> None:
    health = Health()
    worker_health = health.worker_health("Cluster", "order_process")
    worker_health.fail("Waldur is away")
    assert health.status() is HealthStatus.FAILING
    assert health.status().alive
    assert health.report()["workers"][0]["trouble"] == "Waldur is away"
    worker_health.succeed()
    assert health.status() is HealthStatus.OK
    assert isinstance(worker_health.last_success, datetime)


def test_a_thread_that_ended_unasked_is_dead_and_one_that_was_dismissed_is_not() -> None:
    health = Health()
    thread = threading.Thread(target=lambda: None)
    health.take_over("Cluster", "order_process", thread)
    assert health.status() is HealthStatus.OK
    thread.start()
    thread.join()
    assert health.status() is HealthStatus.DEAD
    health.retire()
    assert health.status() is HealthStatus.OK


def test_a_successor_starts_with_a_clean_slate_but_remembers_the_last_success() -> None:
    health = Health()
    worker_health, other = (
        health.worker_health("Cluster", "report"),
        health.worker_health("Gone", "report"),
    )
    worker_health.succeed()
    worker_health.fail("stuck in the old configuration")
    health.retire()
    successor = health.take_over("Cluster", "report", threading.Thread())
    health.forget_retired()
    assert health.all_workers() == [successor]
    assert other not in health.all_workers()
    assert (successor.trouble, successor.last_success) == ("", worker_health.last_success)


def test_the_file_of_a_running_agent_tells_how_it_does(tmp_path: Path) -> None:
    health = Health()
    file = HealthFile(f"{tmp_path}/health-{{mode}}.json", "report")
    health.worker_health("Cluster", "report").fail("Waldur is away")
    file.write(health.report())
    (path,) = files_of(f"{tmp_path}/health-{{mode}}.json", None)
    found = read_health(path)
    assert (found.status, found.alive) == ("failing", True)
    assert "report of Cluster: failing, resting, Waldur is away" in found.detail
    assert found.report["pid"] == os.getpid()
    file.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"status": "splendid", "written": 1, "workers": []}', '{"status": "ok"}'],
)
def test_a_file_that_says_nothing_is_that_of_a_dead_agent(tmp_path: Path, text: str) -> None:
    path = tmp_path / "health.json"
    assert not read_health(path).alive
    path.write_text(text)
    assert not read_health(path).alive


def test_an_old_file_is_that_of_a_dead_agent(tmp_path: Path) -> None:
    file = HealthFile(f"{tmp_path}/health.json", "report")
    file.write(Health().report())
    assert read_health(file.path).alive
    report = json.loads(file.path.read_text())
    file.path.write_text(json.dumps(report | {"written": time.time() - FRESH_SECONDS - 1}))
    found = read_health(file.path)
    assert not found.alive
    assert "written 61 s ago" in found.detail


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    file = HealthFile(f"{tmp_path}/missing/health.json", "report")
    file.write({"since": datetime.now(UTC)})
    assert not file.path.exists()


def test_an_offering_that_is_polled_again_has_no_connection_that_could_be_down() -> None:
    health = Health()
    health.worker_health("Cluster", "event_process")
    health.watch_events("Cluster", lambda: {"connected": False})
    health.retire()
    health.take_over("Cluster", "order_process", threading.current_thread())
    health.forget_retired()
    assert health.events() == {}
