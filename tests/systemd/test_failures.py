"""What systemd does about a service that fails, and the agent about systemd."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import eventually
from harness.processes import StalledWrites
from systemd.conftest import PROGRAMS, RUN, Services, run

SOON = "[Service]\nRestartSec=100ms\n"


@pytest.mark.guarantee("security: The services")
def test_a_killed_service_comes_back_and_takes_the_work_up(services: Services) -> None:
    unit = services.install()
    assert unit["RestartUSec"] == "15s"
    unit.drop_in(SOON)
    unit.systemctl("start")
    killed = unit.pid
    os.kill(killed, signal.SIGKILL)
    order = services.testbed.order(services.testbed.project(ada="ada01"))
    eventually(lambda: unit.pid not in (0, killed) and unit.is_("active"), "another process")
    assert unit["NRestarts"] == "1"
    services.wait_for(order)


@pytest.mark.guarantee("security: The services")
def test_five_failures_in_five_minutes_are_enough(services: Services) -> None:
    unit = services.install()
    assert (unit["StartLimitIntervalUSec"], unit["StartLimitBurst"]) == ("5min", "5")
    # no restart helps: the program is killed whenever it starts
    unit.drop_in(f"{SOON}ExecStart=\nExecStart=/bin/sh -c 'kill -9 $$$$'\n")
    unit.systemctl("start", check=False)
    eventually(lambda: unit.is_("failed"), "the end")
    assert unit.log.count("Starting ") == 5
    assert "Start request repeated too quickly" in unit.log


@pytest.mark.guarantee("security: The services")
@pytest.mark.parametrize("options", [(), ("--legacy",)], ids=["as installed", "legacy"])
def test_an_invalid_configuration_is_said_once_and_never_tried_again(
    services: Services, options: tuple[str, ...]
) -> None:
    unit = services.install(*options)
    unit.drop_in(SOON)
    services.write(waldur_offering_uuid="nonsense")
    started = unit.systemctl("start", check=False)
    eventually(lambda: unit.is_("failed"), "the end")
    assert (unit["ExecMainStatus"], unit["NRestarts"]) == ("2", "0")
    said = services.log_of(unit)
    assert str(services.site.file) in said
    assert "waldur_offering_uuid" in said
    if not options:
        assert started.returncode != 0
    services.write()
    unit.systemctl("start")
    assert unit.is_("active")


@pytest.mark.guarantee("security: The services")
def test_a_process_that_is_frozen_is_ended_by_the_watchdog_and_comes_back(
    services: Services,
) -> None:
    unit = services.install()
    unit.systemctl("start")
    assert unit["WatchdogUSec"] == "5min"
    # SIGABRT waits until a stopped process continues; SIGKILL does not
    unit.drop_in(f"{SOON}WatchdogSec=2\nTimeoutAbortSec=2\n")
    unit.systemctl("restart")
    frozen = unit.pid
    os.kill(frozen, signal.SIGSTOP)
    order = services.testbed.order(services.testbed.project(ada="ada01"))
    eventually(lambda: unit.pid not in (0, frozen) and unit.is_("active"), "another process")
    assert "Watchdog timeout" in unit.log
    assert "with signal SIGABRT" in unit.log
    services.wait_for(order)


@pytest.mark.guarantee("security: The services")
def test_a_stuck_cycle_is_ended_by_the_watchdog_and_the_journal_shows_where_it_hung(
    services: Services, stalled_writes: StalledWrites
) -> None:
    unit = services.install()
    unit.drop_in(f"{SOON}WatchdogSec=2\n")
    services.write({"stuck_after_minutes": 0.03})
    order = services.testbed.order(services.testbed.project(ada="ada01"))
    unit.systemctl("start", "--no-block")
    eventually(stalled_writes.begun, "a write that hangs")
    stuck = unit.pid
    eventually(lambda: "is stuck" in unit["StatusText"], "a status")
    eventually(lambda: "Watchdog timeout" in unit.log, "the watchdog")
    eventually(lambda: unit.pid not in (0, stuck), "another process")
    assert "Fatal Python error: Aborted" in unit.log
    assert "in communicate" in unit.log
    stalled_writes.release()
    services.wait_for(order)


@pytest.mark.guarantee("security: The services")
def test_waldur_may_be_away_when_the_machine_boots(services: Services) -> None:
    order = services.testbed.order(services.testbed.project(ada="ada01"))
    services.testbed.sandbox.faults.add("*", "cut", times=None)
    unit = services.install()
    unit.systemctl("start", "--no-block")
    eventually(lambda: "no response from" in unit["StatusText"], "the reason")
    assert unit.is_("activating")
    eventually(lambda: unit.is_("active"), "a start that waits no longer")
    assert unit["NRestarts"] == "0"
    services.testbed.sandbox.faults.clear()
    services.wait_for(order)
    eventually(lambda: "served" in unit["StatusText"], "a good status")


@pytest.mark.guarantee("security: The services")
@pytest.mark.parametrize("options", [(), ("--legacy",)], ids=["as installed", "legacy"])
def test_a_stop_lets_the_command_that_is_running_finish(
    services: Services, stalled_writes: StalledWrites, options: tuple[str, ...]
) -> None:
    unit = services.install(*options)
    order = services.testbed.order(services.testbed.project(ada="ada01"))
    unit.systemctl("start", "--no-block")
    eventually(stalled_writes.begun, "a write that hangs")
    unit.systemctl("stop", "--no-block")
    eventually(lambda: "stopping" in services.log_of(unit), "a stop that has begun")
    assert services.testbed.accounts == set()
    stalled_writes.release()
    eventually(lambda: unit.is_("inactive"), "the end")
    assert unit["Result"] == "success"
    assert services.testbed.accounts != set()
    unit.systemctl("start")
    services.wait_for(order)


@pytest.mark.guarantee("security: The services")
def test_a_command_that_hangs_does_not_outlive_the_stop(
    services: Services, stalled_writes: StalledWrites
) -> None:
    unit = services.install()
    assert unit["TimeoutStopUSec"] == "45s"
    services.testbed.order(services.testbed.project(ada="ada01"))
    unit.systemctl("start", "--no-block")
    eventually(stalled_writes.begun, "a write that hangs")
    processes = _processes(unit["ControlGroup"])
    assert len(processes) > 1
    unit.systemctl("stop")
    assert unit["Result"] != "timeout"
    assert "unfinished work" in unit.log
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []


def test_a_waldur_that_does_not_answer_does_not_hold_up_the_stop(services: Services) -> None:
    unit = services.install()
    unit.systemctl("start")
    waldur = services.testbed.sandbox
    waldur.faults.add("marketplace_orders_list", "latency", seconds=300, times=None)
    answered = waldur.requests.count("marketplace_orders_list")
    eventually(lambda: answered == waldur.requests.count("marketplace_orders_list"), "silence")
    unit.systemctl("stop")
    assert unit["Result"] != "timeout"


def test_an_idle_service_stops_at_once_and_leaves_the_locks_of_others(services: Services) -> None:
    orders, members = (services.install(mode=m) for m in ("order_process", "membership_sync"))
    services.write({"health_file": f"{RUN}/health-{{mode}}.json"})
    for unit in (orders, members):
        unit.systemctl("start")
    files = [RUN / f"health-{mode}.json" for mode in ("order_process", "membership_sync")]
    eventually(lambda: all(file.exists() for file in files), "both health files")
    orders.systemctl("stop")
    assert orders["Result"] == "success"
    assert [file.exists() for file in files] == [False, True]
    run(PROGRAMS / "waldur-site-agent", "health", "-m", "membership_sync", "-c", services.site.file)


def _processes(cgroup: str) -> list[str]:
    return Path(f"/sys/fs/cgroup{cgroup}/cgroup.procs").read_text(encoding="ascii").split()
