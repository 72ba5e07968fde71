"""What signals do to an agent that is in the middle of something."""

from __future__ import annotations

import signal

import pytest

from harness import Installation, eventually

QUICKLY = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.01"}
IMPATIENT = {"waldur_site_agent.service.pool.STOP_WITHIN_SECONDS": 0.3}
LEFT = "stopped with unfinished work; the next start takes it up"


@pytest.mark.parametrize("arguments", [(), ("--once",)])
@pytest.mark.parametrize("orders", [1, 2])
def test_sigterm_ends_an_agent_whom_waldur_told_to_wait(
    installation: Installation, orders: int, arguments: tuple[str, ...]
) -> None:
    testbed = installation.testbed
    project = testbed.project(ada="ada01")
    for number in range(orders):
        testbed.order(project, f"run{number}")
    testbed.sandbox.faults.add(
        "marketplace_orders_approve_by_provider", "status", status=429, retry_after=50, times=None
    )
    approvals = "marketplace_orders_approve_by_provider"
    with installation.service(*arguments) as service:
        eventually(lambda: testbed.sandbox.requests.count(approvals) >= orders, "the approvals")
        service.send(signal.SIGTERM)
        assert service.wait() == (1 if arguments else 0)
        assert "stopping" in service.text
        assert LEFT not in service.text
        assert "Traceback" not in service.text


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_requests_without_an_answer_do_not_keep_the_process_alive(
    installation: Installation, arguments: tuple[str, ...]
) -> None:
    testbed = installation.testbed
    project = testbed.project(ada="ada01")
    orders = [testbed.order(project, "one"), testbed.order(project, "two")]
    testbed.sandbox.faults.add(
        "marketplace_provider_resources_set_backend_id", "latency", seconds=50, times=None
    )
    installation.constants = IMPATIENT
    with installation.service(*arguments) as service:
        made = {f"a_{testbed.resource(order).slug}" for order in orders}
        eventually(lambda: made <= testbed.slurm.state.accounts.keys(), "the accounts")
        service.send(signal.SIGTERM)
        assert service.wait() == 1
        assert LEFT in service.text


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_work_that_takes_too_long_is_left_to_the_next_start(
    installation: Installation, arguments: tuple[str, ...]
) -> None:
    installation.constants = IMPATIENT
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    with installation.stalled_writes() as writes:
        with installation.service(*arguments) as service:
            eventually(writes.begun, "a write")
            service.send(signal.SIGTERM)
            assert service.wait() == 1
            assert LEFT in service.text
            assert "the current work took longer than 0.3 s" in service.text
        assert testbed.state(order) == "executing"
        writes.release()
        assert installation.run("--once").code == 0
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_a_second_signal_ends_the_agent_at_once(
    installation: Installation, arguments: tuple[str, ...]
) -> None:
    testbed = installation.testbed
    testbed.order(testbed.project(ada="ada01"))
    with (
        installation.stalled_writes() as writes,
        installation.service(*arguments) as service,
    ):
        eventually(writes.begun, "a write")
        service.send(signal.SIGTERM)
        eventually(lambda: "stopping" in service.text, "the first signal")
        service.send(signal.SIGINT)
        assert service.wait() == 1
        assert LEFT in service.text
        assert "a second stop signal was received" in service.text


def test_sigterm_during_once_finishes_the_write_in_hand_and_says_that_work_is_left(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    with (
        installation.stalled_writes() as writes,
        installation.service("--once") as service,
    ):
        eventually(writes.begun, "a write")
        service.send(signal.SIGTERM)
        eventually(lambda: "stopping" in service.text, "the signal")
        writes.release()
        assert service.wait() == 1
        assert LEFT not in service.text
    assert testbed.resource(order).backend_id in testbed.slurm.state.accounts
    assert testbed.state(order) == "executing"
    assert installation.run("--once").code == 0
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}


def test_sigterm_during_once_begins_no_further_offering(installation: Installation) -> None:
    testbed = installation.testbed
    installation.write_offerings(
        {"name": "First"},
        {"name": "Second", "waldur_offering_uuid": "11111111111111111111111111111111"},
    )
    testbed.order(testbed.project(ada="ada01"))
    with (
        installation.stalled_writes() as writes,
        installation.service("--once") as service,
    ):
        eventually(writes.begun, "a write")
        service.send(signal.SIGTERM)
        eventually(lambda: "stopping" in service.text, "the signal")
        writes.release()
        assert service.wait() == 1
        assert "the agent was asked to stop before it reached this offering" in service.text


def test_sighup_during_a_slow_write_waits_for_its_end(installation: Installation) -> None:
    installation.constants = IMPATIENT
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))
    with (
        installation.stalled_writes() as writes,
        installation.service(**QUICKLY) as service,
    ):
        eventually(writes.begun, "a write")
        installation.write(
            backend_settings=installation.backend_settings | {"allocation_prefix": "new_"}
        )
        service.send(signal.SIGHUP)
        waits = "waits until the current work is finished"
        eventually(lambda: service.text.count(waits) >= 2, "more than the patience")
        assert service.process.poll() is None
        assert "configuration reloaded" not in service.text
        assert service.text.count("connected") == 1
        writes.release()
        eventually(lambda: testbed.state(order) == "done", "the order")
        eventually(lambda: "configuration reloaded" in service.text, "the reload")
        later = testbed.order(testbed.project("later", bob="bob01"))
        eventually(lambda: testbed.state(later) == "done", "an order after the reload")
    assert testbed.resource(later).backend_id.startswith("new_")


def test_sigterm_is_heard_while_a_new_configuration_waits(installation: Installation) -> None:
    installation.constants = IMPATIENT
    testbed = installation.testbed
    testbed.order(testbed.project(ada="ada01"))
    with (
        installation.stalled_writes() as writes,
        installation.service(**QUICKLY) as service,
    ):
        eventually(writes.begun, "a write")
        service.send(signal.SIGHUP)
        eventually(lambda: "waits until the current work" in service.text, "the reload")
        service.send(signal.SIGTERM)
        assert service.wait() == 1
        assert LEFT in service.text
