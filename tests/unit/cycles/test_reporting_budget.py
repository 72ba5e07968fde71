"""How many requests and readings a cycle of reports may cost, on a site of a real size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.metering import Meter, a_meter

RESOURCES, USERS = 100, 10
COMPONENTS = ("cpu", "mem", "gres/gpu")


@pytest.fixture(scope="module")
def meter() -> Iterator[Meter]:
    """A hundred resources, each with ten users of three components."""
    with a_meter() as meter:
        side = meter.sandbox.customer
        side.add_component("gres/gpu", "usage", "GPU-hours")
        meter.components["gres/gpu"] = meter.components["cpu"]
        start = meter.travel("2027-03-11T00:00")
        for number in range(RESOURCES):
            resource = meter.resource(f"r{number:03}")
            for user in range(USERS):
                for component in COMPONENTS:
                    meter.ledger.run(
                        resource.backend_id, f"u{user}", start, hours=24, component=component
                    )
                if number < USERS:
                    _account(meter, f"u{number * USERS + user}")
        meter.travel("2027-03-12T00:00")
        yield meter


def _account(meter: Meter, name: str) -> None:
    user = meter.sandbox.customer.add_user(name)
    meter.sandbox.customer.set_account(user, name)


def cost(meter: Meter) -> int:
    """Requests of a start and a cycle."""
    meter.sandbox.requests.clear()
    with meter.agent() as site:
        site.waldur.whoami()
    assert not meter.report().failed
    return meter.sandbox.requests.count()


@pytest.mark.guarantee("usage: What it costs")
@pytest.mark.guarantee("Requests and processes per cycle are a constant plus the number of changes")
def test_a_hundred_new_resources_cost_no_more_than_promised(meter: Meter) -> None:
    assert cost(meter) <= 520
    operations = meter.sandbox.requests.by_operation()
    asked_whether_dates_are_read = 1
    reports = operations["marketplace_component_usages_set_usage"]
    assert reports == RESOURCES + asked_whether_dates_are_read
    bulk = operations["marketplace_component_usages_set_user_usages"]
    assert bulk == RESOURCES * len(COMPONENTS)
    assert len(meter.sandbox.customer.world.user_usages) == RESOURCES * USERS * len(COMPONENTS)


@pytest.mark.guarantee("usage: What it costs")
@pytest.mark.guarantee("A second cycle with no news writes nothing")
def test_nothing_new_costs_a_handful_of_reads(meter: Meter) -> None:
    meter.report()
    for resource in meter.sandbox.customer.world.resources.values():
        assert meter.total(resource) == dict.fromkeys(COMPONENTS, 24 * USERS)
    meter.ledger.reads.clear()
    assert cost(meter) <= 8
    assert meter.sandbox.requests.writes() == []
    assert len(meter.ledger.reads) == 1


def test_one_busy_resource_costs_a_request_for_itself_and_one_per_component(meter: Meter) -> None:
    meter.report()
    start = meter.travel("2027-03-13T00:00")
    meter.ledger.run("a_r007", "u3", start, hours=1)
    meter.travel("2027-03-13T02:00")
    cost(meter)
    assert sorted(request.operation for request in meter.writes()) == [
        "marketplace_component_usages_set_usage",
        "marketplace_component_usages_set_user_usages",
    ]


@pytest.mark.guarantee("usage: What it costs")
def test_closing_a_month_costs_what_differs_and_a_few_lists(meter: Meter) -> None:
    """Last in this file: time goes on."""
    staff = meter.with_(token=meter.sandbox.staff().token)
    meter.travel("2027-03-31T23:30")
    staff.report_again()
    for number in range(RESOURCES):
        meter.ledger.run(f"a_r{number:03}", "u0", meter.sandbox.clock.now(), hours=0.25)
    costs = []
    for moment in ("00:05", "00:35", "01:05", "02:05", "02:35", "03:05"):
        meter.travel(f"2027-04-01T{moment}")
        meter.sandbox.requests.clear()
        assert not staff.report_again().failed
        costs.append(meter.sandbox.requests.count())
    assert costs[0] <= 3 * RESOURCES + 15  # this month's zeros; totals and parts of the last one
    assert max(costs[1:3]) <= 5
    assert costs[3] <= 15  # the last look at all parts, 300 to a page
    assert max(costs[4:]) <= 4


@pytest.mark.guarantee("usage: What it costs")
def test_an_old_server_costs_a_request_for_each_part_that_differs() -> None:
    with a_meter("7.7.9") as old:
        start = old.travel("2027-03-11T00:00")
        for number in range(5):
            resource = old.resource(f"r{number}")
            for user in range(USERS):
                old.ledger.run(resource.backend_id, f"u{user}", start, hours=1)
        old.travel("2027-03-11T02:00")
        assert not old.report_again().failed
        old.ledger.run("a_r3", "u3", old.travel("2027-03-11T03:00"))
        for moment, users in (("2027-03-11T05:00", 1), ("2027-03-11T06:00", 0)):
            old.travel(moment)
            old.sandbox.requests.clear()
            assert not old.report_again().failed
            operations = old.sandbox.requests.by_operation()
            assert operations.get("marketplace_component_usages_set_user_usage", 0) == users
            assert len(old.reports()) == users
