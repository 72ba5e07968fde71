"""Several agents with one file: one works, the others take over, and nobody writes beside them."""

from __future__ import annotations

import pytest

from harness import eventually
from harness.several_agents import SILENCE, Agent, SeveralAgents
from integration.databases import RealDatabase

OVER = "nothing is written until there is another"
AWAY = "no work until the coordinating database can be used"
pytestmark = pytest.mark.database


def holder(agents: list[Agent]) -> Agent:
    """The only agent that works, once there is one."""
    eventually(lambda: any(agent.holds() for agent in agents), "an agent that works")
    return next(agent for agent in agents if agent.holds())


def in_the_middle_of_a_write(site: SeveralAgents) -> None:
    """Have the next writing command hang, and wait for it."""
    eventually(site.writing.is_set, "a write")


@pytest.mark.guarantee("With several agents one works")
def test_a_holder_that_is_killed_while_it_writes_is_replaced(agents: SeveralAgents) -> None:
    testbed, side = agents.testbed, agents.testbed.sandbox.customer
    agents.constants[SILENCE] = 60.0
    agents.log.seconds_of_a_write = 0.1
    agents.may_write.clear()
    project = testbed.project(ada="ada01", bob="bob01")
    order = testbed.order(project, "one")
    running = [agents.start("-m", "order_process") for _ in range(3)]
    in_the_middle_of_a_write(agents)
    refused = agents.run("-m", "order_process", "--once")
    assert refused.code == 1
    assert "already served in mode order_process" in refused.err
    first = holder(running)
    first.kill()
    # its command still hangs, so its session lives: nobody else takes the lease, and writes
    fourth = agents.start("-m", "order_process")
    eventually(lambda: "standing by" in fourth.service.text, "a newcomer stands by")
    assert not any(agent.holds() for agent in [*running, fourth] if agent is not first)
    agents.may_write.set()
    agents.done(order)
    assert testbed.members(order) == {"ada01", "bob01"}
    assert agents.log.overlapping() == []
    assert first.number in agents.log.writers()[:1]
    second = holder([agent for agent in [*running, fourth] if agent is not first])
    second.kill()
    side.remove_member(project, "bob")
    later = testbed.order(project, "two")
    agents.done(later)
    assert testbed.members(later) == {"ada01"}
    assert agents.log.overlapping() == []
    for agent in running:
        assert "s3cret" not in agent.service.text
        assert "Traceback" not in agent.service.text


@pytest.mark.guarantee("With several agents one works")
def test_a_holder_that_was_frozen_or_cut_off_writes_no_more(agents: SeveralAgents) -> None:
    testbed = agents.testbed
    agents.may_write.clear()
    project = testbed.project(ada="ada01")
    order = testbed.order(project, "one")
    running = [agents.start("-m", "order_process") for _ in range(2)]
    in_the_middle_of_a_write(agents)
    frozen = holder(running)
    other = next(agent for agent in running if agent is not frozen)
    frozen.freeze()
    agents.may_write.set()
    agents.done(order)
    frozen.thaw()
    eventually(lambda: OVER in frozen.service.text, "the thawed agent notices")
    assert agents.log.writers() == [frozen.number, other.number]
    other.wire.cut()
    eventually(lambda: OVER in other.service.text, "the agent that is cut off notices")
    second = testbed.order(project, "two")
    agents.done(second)
    assert agents.log.writers() == [frozen.number, other.number, frozen.number]
    other.wire.mend()
    eventually(lambda: "connected to the database again" in other.service.text, "a new session")
    assert agents.log.overlapping() == []
    assert testbed.members(second) == {"ada01"}


@pytest.mark.guarantee("high-availability: What happens when")
def test_an_agent_whose_cycles_fail_leaves_the_work_to_others(agents: SeveralAgents) -> None:
    testbed = agents.testbed
    first = agents.start("-m", "order_process")
    eventually(first.holds, "an agent that works")
    second = agents.start("-m", "order_process")
    eventually(lambda: "standing by" in second.service.text, "another that stands by")
    commands = agents.directory / f"host{first.number}" / "bin"
    commands.rename(commands.with_name("away"))
    order = testbed.order(testbed.project(ada="ada01"), "one")
    agents.done(order)
    assert agents.log.writers() == [second.number]
    assert "handing the offering over" in first.service.text


@pytest.mark.guarantee("high-availability: What happens when")
def test_without_the_database_nobody_works(agents: SeveralAgents, database: RealDatabase) -> None:
    testbed = agents.testbed
    project = testbed.project(ada="ada01")
    running = [agents.start("-m", "order_process") for _ in range(2)]
    holder(running)
    database.kill()
    try:
        for agent in running:
            eventually(lambda agent=agent: AWAY in agent.service.text, "an agent says so")  # type: ignore[misc]  # a loop variable as default
        order = testbed.order(project, "one")
        refused = agents.run("-m", "order_process", "--once")
        assert refused.code == 1
        assert f":{database.port}/agent" not in refused.err  # the wire's port
        assert "could not start" in refused.err
        assert testbed.state(order) == "pending-provider"
        assert agents.log.entries == []
    finally:
        database.start()
    agents.done(order)
    assert agents.log.overlapping() == []
