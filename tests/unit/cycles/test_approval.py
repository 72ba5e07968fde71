"""Who decides on pending orders, and what becomes of those that are not approved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import pytest

from harness import KilledError, KillSwitch
from harness.testbed import SimulatedSite
from waldur_site_agent.backends import Decision
from waldur_site_agent.cycles.order_inputs import OrdersReport, OrderStatus
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.model.backend import ResourceFacts
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import Order
from waldur_site_agent.planning.plan import Call
from waldur_site_agent_sandbox import Order as SandboxOrder
from waldur_site_agent_slurm.backend import SlurmBackend

Rule = Literal["always", "never", "backend"]


def cycle(testbed: SimulatedSite, rule: Rule, *, dry_run: bool = False) -> OrdersReport:
    with testbed.agent() as site:
        offering = site.offering.model_copy(update={"approve_orders": rule})
        return process_orders(replace(site, offering=offering), dry_run=dry_run)


def approve_by_hand(testbed: SimulatedSite, order: SandboxOrder) -> None:
    with testbed.agent() as site:
        site.waldur.approve_order(order.uuid)


@pytest.fixture
def decide(monkeypatch: pytest.MonkeyPatch) -> Callable[[Decision | Exception], None]:
    """Let the backend decide so on every order."""

    def set_decision(decision: Decision | Exception) -> None:
        def method(_backend: SlurmBackend, _order: Order, facts: ResourceFacts | None) -> Decision:
            assert facts is not None
            if isinstance(decision, Exception):
                raise decision
            return decision

        monkeypatch.setattr(SlurmBackend, "decide", method)

    return set_decision


@pytest.mark.guarantee("orders: Not every order is approved")
def test_orders_that_people_approve_are_left_pending_until_they_have(
    testbed: SimulatedSite,
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    running = testbed.order(testbed.project("other", bob="bob01"))
    approve_by_hand(testbed, running)
    cycle(testbed, "never")
    assert testbed.state(running) == "done"
    assert testbed.state(order) == "pending-provider"
    assert testbed.sandbox.requests.count("marketplace_orders_approve_by_provider") == 1
    approve_by_hand(testbed, order)
    cycle(testbed, "never")
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}


def test_where_nothing_is_approved_the_cluster_is_not_read(testbed: SimulatedSite) -> None:
    testbed.order(testbed.project(ada="ada01"))
    before = len(testbed.slurm.history)
    cycle(testbed, "never")
    assert len(testbed.slurm.history) == before


@pytest.mark.guarantee("orders: Not every order is approved")
def test_the_customer_sees_why_the_backend_rejects_an_order(
    testbed: SimulatedSite, decide: Callable[[Decision], None]
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    decide(Decision(rejection="more CPU hours than the machine has in a year"))
    report = cycle(testbed, "backend")
    assert [result.status for result in report.results] == [OrderStatus.REJECTED]
    current = testbed.sandbox.customer.current(order)
    assert (current.state, current.provider_rejection_comment) == (
        "rejected",
        "more CPU hours than the machine has in a year",
    )
    assert testbed.accounts == set()
    assert not report.has_failures


@pytest.mark.guarantee("orders: Not every order is approved")
def test_a_plan_shows_the_rejection_and_changes_nothing(
    testbed: SimulatedSite, decide: Callable[[Decision], None]
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    decide(Decision(rejection="too large"))
    report = cycle(testbed, "backend", dry_run=True)
    assert [(write.call, write.reason) for write in report.writes] == [
        (Call.REJECT_ORDER, "too large")
    ]
    assert testbed.state(order) == "pending-provider"


@pytest.mark.guarantee("orders: Not every order is approved")
@pytest.mark.parametrize(
    "obstacle", [Decision(waiting_for="the project's data agreement"), TemporaryError("no answer")]
)
def test_an_order_without_a_decision_stays_pending_and_is_asked_about_again(
    testbed: SimulatedSite,
    decide: Callable[[Decision | Exception], None],
    obstacle: Decision | Exception,
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    decide(obstacle)
    (result,) = cycle(testbed, "backend").results
    assert result.status is OrderStatus.WAITING
    assert str(getattr(obstacle, "waiting_for", obstacle)) in result.reason
    assert testbed.state(order) == "pending-provider"
    decide(Decision())
    cycle(testbed, "backend")
    assert testbed.state(order) == "done"


def test_the_backend_is_not_asked_unless_the_site_says_so(
    testbed: SimulatedSite, decide: Callable[[Decision], None]
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    decide(Decision(rejection="too large"))
    cycle(testbed, "always")
    assert testbed.state(order) == "done"


@pytest.mark.guarantee("orders: Not every order is approved")
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_rejection_survives_a_kill_at_any_step(
    testbed: SimulatedSite, decide: Callable[[Decision], None], *, after_effect: bool
) -> None:
    decide(Decision(rejection="too large"))
    project = testbed.project(ada="ada01")
    counting = KillSwitch()
    testbed.order(project, "first")
    cycle(testbed.with_(transport=counting.transport), "backend")
    assert len(counting.steps) >= 3
    for number in range(1, len(counting.steps) + 1):
        order = testbed.order(project, f"run {number}")
        blade = KillSwitch(at=number, after_effect=after_effect)
        with pytest.raises(KilledError):
            cycle(testbed.with_(transport=blade.transport), "backend")
        cycle(testbed, "backend")
        assert testbed.state(order) == "rejected"
        assert testbed.accounts == set()


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
def test_a_lost_answer_to_a_rejection_changes_nothing_in_the_end(
    testbed: SimulatedSite, decide: Callable[[Decision], None], kind: Literal["lost_answer", "cut"]
) -> None:
    decide(Decision(rejection="too large"))
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add("marketplace_orders_reject_by_provider", kind)
    with suppress(TemporaryError):
        cycle(testbed, "backend")
    cycle(testbed, "backend")
    assert testbed.state(order) == "rejected"


@pytest.mark.guarantee("orders: Not every order is approved")
def test_no_order_is_decided_on_while_its_resource_cannot_be_read(
    testbed: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def method(_backend: SlurmBackend, _order: Order, facts: ResourceFacts | None) -> Decision:
        return Decision() if facts is not None else Decision(rejection="has no resource")

    monkeypatch.setattr(SlurmBackend, "decide", method)
    order = testbed.order(testbed.project(ada="ada01"))
    testbed.sandbox.faults.add(
        "marketplace_provider_resources_retrieve", "status", status=500, times=None
    )
    with suppress(TemporaryError):
        cycle(testbed, "backend")
    assert testbed.state(order) == "pending-provider"
    testbed.sandbox.faults.clear()
    cycle(testbed, "backend")
    assert testbed.state(order) == "done"


def test_a_defect_of_the_backend_in_one_decision_stops_no_other_order(
    testbed: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_backend: SlurmBackend, order: Order, _facts: ResourceFacts | None) -> Decision:
        if order.resource_name == "odd":
            raise KeyError("quota")
        return Decision()

    monkeypatch.setattr(SlurmBackend, "decide", broken)
    project = testbed.project(ada="ada01")
    odd, other = testbed.order(project, "odd"), testbed.order(project, "other")
    report = cycle(testbed, "backend")
    assert testbed.state(odd) == "pending-provider"
    assert testbed.state(other) == "done"
    assert report.has_failures
