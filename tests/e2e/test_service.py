"""The agent as a service: schedule, signals, one copy only, and kill -9."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from functools import partial

import pytest

from harness import Installation, SimulatedSite, eventually
from waldur_site_agent.backends.locking import default_lock_file, exclusive_lock
from waldur_site_agent_sandbox import Order

QUICKLY = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.01"}
SLOWLY = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "60"}
AT_ONCE = {"waldur_site_agent.service.worker.SECONDS_FOR_A_PREDECESSOR_TO_STOP": 0.0}


def is_done(testbed: SimulatedSite, order: Order) -> bool:
    return testbed.state(order) == "done"


def test_orders_are_carried_out_as_they_come(installation: Installation) -> None:
    testbed = installation.testbed
    project = testbed.project(ada="ada01")
    with installation.service(**QUICKLY):
        for name in ("one", "two"):
            order = testbed.order(project, name)
            eventually(partial(is_done, testbed, order), f"order {name}")


def test_an_idle_agent_asks_once_per_cycle_and_starts_no_command(
    installation: Installation,
) -> None:
    requests = installation.testbed.sandbox.requests
    shutil.rmtree(installation.directory / "bin")  # any command would fail
    with installation.service(**QUICKLY) as service:
        eventually(lambda: requests.count("marketplace_orders_list") >= 4, "four cycles")
    lists = requests.count("marketplace_orders_list")
    assert requests.count() - lists <= 3
    assert "cut short" not in service.text


def test_sigterm_ends_a_waiting_agent_at_once(installation: Installation) -> None:
    requests = installation.testbed.sandbox.requests
    for number in (signal.SIGTERM, signal.SIGINT):
        requests.clear()
        with installation.service(**SLOWLY) as service:
            eventually(lambda: requests.count("marketplace_orders_list"), "the first cycle")
            service.send(number)
            assert service.wait() == 0
            assert "stopping" in service.text


@pytest.mark.guarantee("orders: The agent dies")
def test_sigterm_finishes_the_order_in_hand(installation: Installation) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add("marketplace_orders_set_state_done", "latency", seconds=1)
    with installation.service(**SLOWLY) as service:
        eventually(lambda: testbed.resource(order).backend_id, "the account's name in Waldur")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert testbed.state(order) in ("done", "executing")
    assert installation.run("--once").code == 0
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}


def test_sighup_reads_the_configuration_again(installation: Installation) -> None:
    testbed = installation.testbed
    with installation.service(**QUICKLY) as service:
        eventually(lambda: testbed.sandbox.requests.count("users_me_retrieve"), "the start")
        installation.write(
            backend_settings=installation.backend_settings | {"allocation_prefix": "new_"}
        )
        service.send(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in service.text, "the reload")
        order = testbed.order(testbed.project(ada="ada01"))
        eventually(lambda: is_done(testbed, order), "an order after the reload")
    assert testbed.resource(order).backend_id.startswith("new_")


def test_a_reload_counts_an_offering_once_however_many_modes_serve_it(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    installation.write(membership_sync_backend="slurm")
    with installation.service("-m", "all", **QUICKLY) as service:
        eventually(lambda: testbed.sandbox.requests.count("users_me_retrieve") > 1, "the start")
        service.send(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in service.text, "the reload")
        assert "configuration reloaded offerings=1\n" in service.text


def test_a_wrong_configuration_on_sighup_leaves_the_old_one_in_force(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    with installation.service(**QUICKLY) as service:
        eventually(lambda: testbed.sandbox.requests.count("users_me_retrieve"), "the start")
        installation.write(no_such_key="x")
        service.send(signal.SIGHUP)
        eventually(lambda: "the old one stays in force" in service.text, "the refusal")
        order = testbed.order(testbed.project(ada="ada01"))
        eventually(lambda: is_done(testbed, order), "an order after the refusal")


@pytest.mark.guarantee("orders: Several at once")
def test_a_second_agent_on_the_same_offering_is_refused_by_name(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    with installation.service(**SLOWLY) as first:
        eventually(lambda: testbed.sandbox.requests.count("marketplace_orders_list"), "the first")
        second = installation.run("--once")
        assert second.code == 1
        assert f"pid {first.process.pid}" in second.err
        assert "already served in mode order_process" in second.err


def test_a_service_that_was_refused_tries_again(installation: Installation) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    uuid = testbed.sandbox.offering.uuid.replace("-", "")
    lock = default_lock_file(f"waldur-site-agent-{uuid}-order_process.lock")
    installation.constants = AT_ONCE
    with ExitStack() as holder:
        holder.enter_context(exclusive_lock(lock, 0, "a test"))
        with installation.service(**QUICKLY) as service:
            eventually(lambda: service.text.count("already served") >= 2, "two refusals")
            assert testbed.state(order) == "pending-provider"
            holder.close()
            eventually(lambda: is_done(testbed, order), "the order")


def test_a_lock_file_that_cannot_be_used_stops_no_other_offering(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    other = "1111111111114111911111111111cafe"
    installation.write_offerings({"name": "Broken", "waldur_offering_uuid": other}, {})
    lock = default_lock_file(f"waldur-site-agent-{other}-order_process.lock")
    order = testbed.order(testbed.project(ada="ada01"))
    lock.mkdir()
    try:
        done = installation.run("--once")
        assert done.code == 1
        assert f"the lock file {lock} cannot be used" in done.err
        assert "defect" not in done.err
        assert testbed.state(order) == "done"
        order = testbed.order(testbed.project("later", ada="ada01"))
        with installation.service(**QUICKLY) as service:
            eventually(lambda: is_done(testbed, order), "the other offering's order")
            eventually(lambda: service.text.count("cannot be used") >= 2, "more than one try")
            assert "Traceback" not in service.text
    finally:
        lock.rmdir()


def test_the_lock_of_a_killed_agent_does_not_stay(installation: Installation) -> None:
    testbed = installation.testbed
    with installation.service(**SLOWLY) as first:
        eventually(lambda: testbed.sandbox.requests.count("marketplace_orders_list"), "the first")
        first.send(signal.SIGKILL)
        first.wait()
    assert installation.run("--once").code == 0


def test_an_agent_waits_for_a_waldur_that_is_away_at_its_start(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    testbed.sandbox.faults.add("users_me_retrieve", "status", status=502, times=6)
    order = testbed.order(testbed.project(ada="ada01"))
    with installation.service(**QUICKLY):
        eventually(lambda: is_done(testbed, order), "an order after the outage")
