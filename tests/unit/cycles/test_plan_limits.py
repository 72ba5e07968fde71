"""Orders without limits, and what backends are told of attributes and options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import pytest

from harness import SimulatedSite
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.waldur.api.offerings import OfferingsApi
from waldur_site_agent_sandbox import Order

SMALL, LARGE = {"cpu": 5, "mem": 0}, {"cpu": 50, "mem": 7}


def ordered(site: SimulatedSite, limits: dict[str, Any], **more: Any) -> Order:
    """By a plan that includes five k-Hours, unless another is given."""
    side = site.sandbox.customer
    plan = more.pop("plan", None) or side.add_plan("Small", {**SMALL})
    return side.place_create_order(site.project(ada="ada01"), "run", limits, plan=plan, **more)


@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_an_order_without_limits_gets_those_of_its_plan(
    testbed: SimulatedSite, limits: str
) -> None:
    testbed = replace(testbed, limits=limits)
    order = ordered(testbed, {})
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.account(order).limits == {"cpu": 300000}
    for _ in range(2):
        testbed.sync()
    assert testbed.account(order).limits == {"cpu": 300000}


def test_the_limits_of_an_order_count_and_its_plan_is_not_read(
    testbed: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OfferingsApi, "plans", lambda *_: pytest.fail("plans were read"))
    order = ordered(testbed, {"cpu": 1})
    testbed.cycle()
    assert testbed.account(order).limits == {"cpu": 60000}


def test_another_plan_is_no_reason_to_change_limits_that_were_ordered(
    testbed: SimulatedSite,
) -> None:
    order = ordered(testbed, {"cpu": 1})
    testbed.cycle()
    side = testbed.sandbox.customer
    switch = side.place_update_order(testbed.resource(order), plan=side.add_plan("L", {**LARGE}))
    testbed.cycle()
    assert testbed.state(switch) == "done"
    assert testbed.account(order).limits == {"cpu": 60000}


def test_a_resource_that_has_the_limits_of_its_plan_gets_those_of_another(
    testbed: SimulatedSite,
) -> None:
    testbed = replace(testbed, limits="waldur")
    order = ordered(testbed, {})
    testbed.cycle()
    side = testbed.sandbox.customer
    switch = side.place_update_order(testbed.resource(order), plan=side.add_plan("L", {**LARGE}))
    testbed.cycle()
    assert testbed.state(switch) == "done"
    assert testbed.account(order).limits == {"cpu": 3000000, "mem": 430080}


def test_a_restored_resource_without_limits_gets_those_of_its_plan(
    testbed: SimulatedSite,
) -> None:
    order = ordered(testbed, {})
    testbed.cycle()
    side = testbed.sandbox.customer
    side.place_terminate_order(testbed.resource(order))
    testbed.cycle()
    back = side.place_restore_order(testbed.resource(order))
    testbed.cycle()
    assert testbed.state(back) == "done"
    assert testbed.account(order).limits == {"cpu": 300000}


def test_an_order_waits_while_its_plan_cannot_be_read_and_others_do_not(
    testbed: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_self: OfferingsApi, _uuid: object) -> NoReturn:
        raise TemporaryError("Waldur is away")

    by_plan = ordered(testbed, {})
    other = testbed.order(testbed.project("plasma", bob="bob01"), "Other", cpu=3)
    with monkeypatch.context() as patched:
        patched.setattr(OfferingsApi, "plans", away)
        testbed.cycle()
    assert (testbed.state(by_plan), testbed.state(other)) == ("executing", "done")
    testbed.cycle()
    assert testbed.state(by_plan) == "done"
    assert testbed.account(by_plan).limits == {"cpu": 300000}
