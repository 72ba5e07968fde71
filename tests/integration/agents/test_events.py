"""Competing consumers: only the agent with the leases listens, and the next one loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness import eventually
from harness.several_agents import Agent, SeveralAgents
from integration.databases import POSTGRESQL

pytestmark = [
    pytest.mark.database,
    pytest.mark.rabbitmq,
    pytest.mark.parametrize("database", [POSTGRESQL], indirect=True, ids=["postgresql"]),
]
QUICKLY = {
    "waldur_site_agent.events.listener.SECONDS_BETWEEN_CATCH_UPS": 1.0,
    "waldur_site_agent.events.listener.LONGEST_PAUSE": 2.0,
}


@pytest.fixture
def listeners(agents: SeveralAgents, real_rabbitmq: Any) -> Iterator[SeveralAgents]:
    """Agents that follow the events of a real broker."""
    sandbox = agents.testbed.sandbox
    sandbox.attach_broker(
        real_rabbitmq.management_url,
        real_rabbitmq.admin,
        real_rabbitmq.admin_password,
        stomp_port=real_rabbitmq.stomp_port,
        mqtt_port=real_rabbitmq.mqtt_port,
    )
    agents.constants |= QUICKLY
    agents.write(
        stomp_enabled=True, websocket_use_tls=False, stomp_ws_port=real_rabbitmq.stomp_ws_port
    )
    yield agents
    sandbox.detach_broker()
    vhost = sandbox.agent.uuid
    if vhost in {each["name"] for each in real_rabbitmq.request("GET", "vhosts").json()}:
        real_rabbitmq.delete_vhost(vhost)


def listening(agent: Agent) -> bool:
    return "listening to events" in agent.service.text


def consumers(broker: Any, site: SeveralAgents) -> int:
    """How many listen at the queues of the offering."""
    vhost = site.testbed.sandbox.agent.uuid
    printed = broker.ctl("-q", "--no-table-headers", "list_queues", "-p", vhost, "consumers")
    return max((int(line) for line in printed.split()), default=0)


def is_quiet(broker: Any, site: SeveralAgents) -> bool:
    """Whether no message waits anywhere, twice in a row."""
    vhost = site.testbed.sandbox.agent.uuid
    if any(sum(each) for each in broker.waiting(vhost).values()):
        return False
    time.sleep(0.2)  # a message on its way is in no queue
    return not any(sum(each) for each in broker.waiting(vhost).values())


@pytest.mark.guarantee("high-availability: Events")
def test_only_the_holder_listens_and_whoever_takes_over_loses_no_event(
    listeners: SeveralAgents, real_rabbitmq: Any
) -> None:
    testbed, side = listeners.testbed, listeners.testbed.sandbox.customer
    project = testbed.project(ada="ada01", bob="bob01")
    first = listeners.start("-m", "event_process")
    eventually(lambda: listening(first), "a subscription")
    order = testbed.order(project, "one")
    listeners.done(order)
    others = [listeners.start("-m", "event_process") for _ in range(2)]
    eventually(lambda: all("standing by" in agent.service.text for agent in others), "two stand by")
    assert consumers(real_rabbitmq, listeners) == 1
    # an event in hand, and another while nobody listens
    listeners.writing.clear()
    listeners.may_write.clear()
    side.remove_member(project, "bob")
    eventually(listeners.writing.is_set, "the event is worked on")
    first.freeze()
    side.add_member(project, testbed.person("cyd", "cyd01"))
    listeners.may_write.set()
    eventually(lambda: any(map(listening, others)), "another listens")
    eventually(lambda: testbed.members(order) == {"ada01", "cyd01"}, "both changes")
    first.thaw()
    eventually(lambda: "nothing is written until" in first.service.text, "the first notices")
    second = next(agent for agent in others if listening(agent))
    second.kill()
    later = testbed.order(project, "two")
    listeners.done(later)
    assert testbed.members(later) == {"ada01", "cyd01"}
    testbed.sandbox.events.settle()
    eventually(lambda: is_quiet(real_rabbitmq, listeners), "every message acknowledged")
    assert consumers(real_rabbitmq, listeners) == 1
    assert listeners.log.overlapping() == []


@pytest.mark.guarantee("high-availability: What happens when")
def test_a_listener_whose_passes_fail_leaves_the_events_to_others(listeners: SeveralAgents) -> None:
    testbed = listeners.testbed
    project = testbed.project(ada="ada01")
    first = listeners.start("-m", "event_process")
    eventually(lambda: listening(first), "a subscription")
    listeners.done(testbed.order(project, "one"))
    second = listeners.start("-m", "event_process")
    eventually(lambda: "standing by" in second.service.text, "another that stands by")
    commands = listeners.directory / f"host{first.number}" / "bin"
    commands.rename(commands.with_name("away"))
    later = testbed.order(project, "two")
    listeners.done(later)
    assert testbed.members(later) == {"ada01"}
    assert "handing the offering over" in first.service.text
    assert listeners.log.overlapping() == []
