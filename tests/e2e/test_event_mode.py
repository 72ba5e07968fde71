"""event_process where there is no broker: what it does all the same."""

from __future__ import annotations

import signal

from harness import Installation, SimulatedSite, eventually
from waldur_site_agent_sandbox import Order

NOBODY_LISTENS_HERE = 1


def by_events(installation: Installation) -> SimulatedSite:
    installation.write(
        membership_sync_backend="slurm",
        stomp_enabled=True,
        websocket_use_tls=False,
        stomp_ws_host="127.0.0.1",
        stomp_ws_port=NOBODY_LISTENS_HERE,
    )
    installation.constants = {
        "waldur_site_agent.service.worker.SECONDS_FOR_THE_FIRST_CONNECTION": 0.1
    }
    return installation.testbed


def placed(testbed: SimulatedSite) -> Order:
    return testbed.order(testbed.project(ada="ada01"))


def test_a_broker_that_is_away_costs_nothing_but_time(installation: Installation) -> None:
    testbed = by_events(installation)
    order = placed(testbed)
    with installation.service("-m", "event_process") as service:
        eventually(lambda: testbed.state(order) == "done", "the full pass at the start")
        eventually(lambda: "not listening to events" in service.text, "a warning")
        second = installation.run("-m", "event_process", "--once")
        assert second.code == 1
        assert "already served in mode order_process" in second.err
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert testbed.sandbox.token not in service.text
    assert "Traceback" not in service.text


def test_once_is_one_full_pass_and_a_dry_run_changes_nothing(installation: Installation) -> None:
    testbed = by_events(installation)
    order = placed(testbed)
    testbed.forget()
    planned = installation.run("-m", "event_process", "--dry-run")
    assert planned.code == 0, planned.err
    assert "+ account" in planned.out
    assert testbed.sandbox.requests.writes() == []
    done = installation.run("-m", "event_process", "--once")
    assert done.code == 0, done.err
    assert testbed.state(order) == "done"


def test_all_modes_serve_each_offering_as_its_switches_say(installation: Installation) -> None:
    testbed = by_events(installation)
    order = placed(testbed)
    assert installation.run("-m", "order_process", "--once").code == 2
    assert installation.run("-m", "all", "--once").code == 0
    assert testbed.state(order) == "done"


def test_a_token_that_waldur_does_not_know_is_said_and_tried_again(
    installation: Installation,
) -> None:
    testbed = by_events(installation)
    testbed.sandbox.faults.add("users_me_retrieve", "status", status=401, times=1)
    order = placed(testbed)
    with installation.service("-m", "event_process") as service:
        eventually(lambda: testbed.state(order) == "done", "an order after all")
        assert "could not start; will retry" in service.text
