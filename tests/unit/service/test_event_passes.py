"""What passes tell the event queue: done, again, later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
import structlog

from harness import SimulatedSite
from waldur_site_agent.config import Job
from waldur_site_agent.events.pending import LONGEST_DELAY, EventQueue, Kind
from waldur_site_agent.model.backend import Everything, OrderScope, ProjectScope, ResourceScope
from waldur_site_agent.service.session import EVENT_PROCESS, MEMBERSHIP_SYNC, ORDER_PROCESS
from waldur_site_agent.service.worker import Passes, Session


class Bench:
    """Passes over a house, and a clock that stands still until it is moved."""

    def __init__(self, testbed: SimulatedSite, event_session: Session) -> None:
        self.now = 0.0
        offering = UUID(testbed.sandbox.offering.uuid)
        self.event_queue = EventQueue(offering, [], structlog.get_logger(), clock=lambda: self.now)
        self.passes = Passes(event_session, self.event_queue)

    def carry_out(self) -> Kind | None:
        """Do the pass that is due, if one is."""
        batch = self.event_queue.take(0)
        if batch is None:
            return None
        self.passes.carry_out(batch)
        return batch.kind

    def later(self, seconds: float) -> Kind | None:
        """Do what is due after so many seconds."""
        self.now += seconds
        return self.carry_out()


@contextmanager
def bench_of(testbed: SimulatedSite) -> Iterator[Bench]:
    modes = {
        Job.ORDERS: EVENT_PROCESS.renamed(ORDER_PROCESS),
        Job.MEMBERSHIP: EVENT_PROCESS.renamed(MEMBERSHIP_SYNC),
    }
    with testbed.agent() as site:
        yield Bench(testbed, Session(dict.fromkeys(modes, site), modes))


@pytest.fixture
def bench(testbed: SimulatedSite) -> Iterator[Bench]:
    with bench_of(testbed) as bench:
        yield bench


def test_an_order_is_carried_out_and_its_account_looked_at_later(
    testbed: SimulatedSite, bench: Bench
) -> None:
    project = testbed.project(ada="ada01")
    order = testbed.order(project)
    testbed.sandbox.customer.add_service_account(project, "svc01")
    bench.event_queue.want(OrderScope(UUID(order.uuid)))
    assert bench.carry_out() is Kind.ORDERS
    assert testbed.members(order) == {"ada01"}
    assert bench.carry_out() is None
    assert bench.later(LONGEST_DELAY) is Kind.MEMBERS
    assert testbed.members(order) == {"ada01", "svc01"}
    assert bench.later(LONGEST_DELAY) is None


def test_an_order_that_temporary_trouble_stops_is_tried_again_alone(
    testbed: SimulatedSite, bench: Bench
) -> None:
    first, second = (testbed.order(testbed.project(slug, ada="ada01"), slug) for slug in ("a", "b"))
    testbed.sandbox.faults.add("*_set_backend_id", "status", status=503, times=8)
    for order in (first, second):
        bench.event_queue.want(OrderScope(UUID(order.uuid)))
    bench.carry_out()
    states = {testbed.state(first), testbed.state(second)}
    assert "executing" in states
    testbed.sandbox.faults.clear()
    assert bench.later(0.5) is None
    assert bench.later(1.0) is Kind.ORDERS
    assert (testbed.state(first), testbed.state(second)) == ("done", "done")


def test_a_cut_full_pass_is_repeated_and_takes_what_waits_along(
    testbed: SimulatedSite, bench: Bench
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add("marketplace_orders_list", "status", status=502, times=None)
    bench.event_queue.want(Everything())
    bench.event_queue.want(OrderScope(UUID(order.uuid)))
    assert bench.carry_out() is Kind.EVERYTHING
    testbed.sandbox.faults.clear()
    assert bench.later(1.0) is Kind.EVERYTHING
    assert testbed.state(order) == "done"


def test_members_whom_the_system_does_not_know_yet_are_looked_at_later(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01")
    resource = testbed.settled(project)
    testbed.sandbox.customer.add_member(project, testbed.person("cyd", "cyd01"))
    with bench_of(testbed.with_(unknown_to_the_system=frozenset({"cyd01"}))) as bench:
        bench.event_queue.want(ProjectScope(UUID(project.uuid)))
        assert bench.carry_out() is Kind.MEMBERS
        assert testbed.members_of(resource) == {"ada01"}
        assert bench.carry_out() is None
        assert bench.later(LONGEST_DELAY) is Kind.MEMBERS


def test_one_project_in_trouble_does_not_keep_the_other_from_its_members(
    testbed: SimulatedSite, bench: Bench
) -> None:
    side = testbed.sandbox.customer
    one, two = testbed.project("one", ada="ada01"), testbed.project("two", ada="ada01")
    first, second = testbed.settled(one, "one"), testbed.settled(two, "two")
    side.set_flags(first, paused=True)
    side.set_flags(second, restrict_member_access=True)
    testbed.sandbox.faults.add("*_set_backend_metadata", "status", status=503, times=None)
    for resource in (first, second):
        bench.event_queue.want(ResourceScope(UUID(resource.uuid)))
    assert bench.carry_out() is Kind.MEMBERS
    assert testbed.members_of(second) == set()
    assert [bench.later(1.0), bench.carry_out()] == [Kind.MEMBERS, Kind.MEMBERS]
    assert len(bench.event_queue.waited_seconds()) == 1


def test_removals_that_only_add_up_to_many_wait_for_a_full_pass(
    testbed: SimulatedSite, bench: Bench
) -> None:
    side = testbed.sandbox.customer
    people = {f"u{number}": f"u{number:02}" for number in range(12)}
    project = testbed.project(**people)
    resource = testbed.settled(project)
    scope = ProjectScope(UUID(project.uuid))
    for name in people:
        side.remove_member(project, name)
        bench.event_queue.want(scope)
        bench.carry_out()
    left = len(testbed.members_of(resource))
    assert left == 2
    kinds = {bench.later(LONGEST_DELAY / 2) for _ in range(3)}
    assert Kind.EVERYTHING in kinds
    assert testbed.members_of(resource) == set()
