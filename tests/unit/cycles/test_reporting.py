"""Usage on its way from a backend to Waldur, cycle by cycle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from harness.metering import Meter, a_meter
from waldur_site_agent.model.errors import PermanentError, TemporaryError

SET_USAGE = "marketplace_component_usages_set_usage"
SET_USER_USAGE = "marketplace_component_usages_set_user_usage"


@pytest.fixture
def meter() -> Iterator[Meter]:
    with a_meter() as meter:
        yield meter


def warnings(entries: list[Any]) -> list[Any]:
    return [entry for entry in entries if entry["log_level"] in ("warning", "error")]


def test_totals_and_parts_arrive_and_a_second_agent_sends_nothing(meter: Meter) -> None:
    ocean, ice = meter.resource("ocean"), meter.resource("ice")
    start = meter.travel("2027-03-11T00:00")
    meter.ledger.run("a_ocean", "ada", start, hours=2)
    meter.ledger.run("a_ocean", "bob", start, hours=1, rate=3)
    meter.ledger.run("a_ocean", "bob", start, hours=1, component="mem")
    meter.travel("2027-03-11T12:00")
    report = meter.report()
    assert not report.failed, report.failures
    assert meter.total(ocean) == {"cpu": 5, "mem": 1}
    assert meter.parts(ocean) == {"cpu": {"ada": 2, "bob": 3}, "mem": {"bob": 1}}
    assert meter.total(ice) == {"cpu": 0, "mem": 0}
    assert meter.sandbox.customer.current(ocean).current_usages == {"cpu": 5.0, "mem": 1.0}
    meter.sandbox.requests.clear()
    assert not meter.report().failed
    assert meter.sandbox.requests.writes() == []


def test_a_dry_run_sends_nothing(meter: Meter) -> None:
    ocean = meter.resource("ocean", state="Erred")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T00:00"), hours=None)
    report = meter.report(dry_run=True)
    (plan,) = report.months[0].plan.resources
    assert plan.is_changed
    assert meter.sandbox.requests.writes() == []
    assert meter.total(ocean) == {}


def test_usage_grows_and_those_who_vanish_become_zero(meter: Meter) -> None:
    ocean = meter.resource("ocean")
    start = meter.travel("2027-03-11T00:00")
    meter.ledger.run("a_ocean", "ada", start)
    meter.ledger.run("a_ocean", "bob", start, hours=None)
    meter.travel("2027-03-11T01:00")
    meter.report()
    meter.ledger.work = [replace(w, user="bob") for w in meter.ledger.work]
    meter.travel("2027-03-11T03:00")
    meter.report()
    assert meter.total(ocean)["cpu"] == 4
    assert meter.parts(ocean)["cpu"] == {"ada": 0, "bob": 4}


def test_a_part_that_rows_of_zero_make_up_for_in_the_count_is_found(meter: Meter) -> None:
    ocean, ice = meter.resource("ocean"), meter.resource("ice")
    start = meter.travel("2027-03-11T00:00")
    for user in ("ada", "bob"):
        meter.ledger.run("a_ocean", user, start)
    meter.travel("2027-03-11T02:00")
    meter.report()
    meter.ledger.work = [replace(work, user="ada") for work in meter.ledger.work]
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T03:00"))
    meter.ledger.run("a_ice", "cyd", meter.travel("2027-03-11T04:00"))
    meter.travel("2027-03-11T06:00")
    meter.sandbox.customer.put_usage(ice, "cpu", 1)  # an agent that died here sent no part
    meter.report()
    meter.sandbox.customer.world.user_usages = {
        key: row
        for key, row in meter.sandbox.customer.world.user_usages.items()
        if row.username != "cyd"
    }
    assert meter.parts(ocean)["cpu"] == {"ada": 3, "bob": 0}
    for _ in range(2):
        assert not meter.report_again().failed
    assert meter.parts(ice)["cpu"] == {"cyd": 1}
    meter.sandbox.requests.clear()
    for moment in ("2027-03-11T12:00", "2027-03-11T18:00", "2027-03-12T06:00", "2027-03-12T12:00"):
        meter.travel(moment)
        assert not meter.report_again().failed
    assert meter.sandbox.requests.count("marketplace_component_user_usages_list") == 1


def test_what_ran_before_the_resource_was_made_is_not_its_own(meter: Meter) -> None:
    start = meter.travel("2027-03-11T00:00")
    meter.ledger.run("a_ocean", "ada", start, hours=None)
    meter.travel("2027-03-11T10:00")
    ocean = meter.resource("ocean")
    meter.travel("2027-03-11T12:00")
    meter.report()
    assert meter.total(ocean)["cpu"] == 2


def test_a_lower_figure_is_kept_back_alone_and_said_with_both_values(meter: Meter) -> None:
    ocean = meter.resource("ocean")
    start = meter.travel("2027-03-11T00:00")
    for component in ("cpu", "mem"):
        meter.ledger.run("a_ocean", "ada", start, component=component)
    meter.travel("2027-03-11T02:00")
    side = meter.sandbox.customer
    side.put_usage(ocean, "cpu", 9)
    with capture_logs() as logs:
        report = meter.report()
    assert report.failed
    assert meter.total(ocean) == {"cpu": 9, "mem": 1}
    assert meter.parts(ocean) == {"mem": {"ada": 1}}
    (warning,) = warnings(logs)
    assert (warning["used"], warning["in_waldur"]) == ("1.00", "9.00")
    (call,) = meter.reports()
    assert isinstance(call.body, dict)
    assert call.body["usages"] == [{"type": "mem", "amount": "1.00"}]
    assert not meter.with_(allow_decrease=True).report().failed
    assert meter.total(ocean) == {"cpu": 1, "mem": 1}


def test_one_refused_resource_stops_none_of_the_others(meter: Meter) -> None:
    resources = [meter.resource(f"r{number}") for number in range(20)]
    start = meter.travel("2027-03-11T00:00")
    for resource in resources:
        meter.ledger.run(resource.backend_id, "ada", start)
    meter.travel("2027-03-11T02:00")
    meter.ledger.meanwhile = lambda: meter.change(resources[7], state="Erred")
    report = meter.report()
    assert report.failed
    assert len(report.failures) == 1
    assert sorted(meter.total(r).get("cpu", Decimal(0)) for r in resources) == [0] + [1] * 19
    assert not meter.report().failed
    assert {meter.total(r)["cpu"] for r in resources} == {1}
    assert all(meter.parts(r) == {"cpu": {"ada": 1}} for r in resources)


def test_a_component_that_waldur_refuses_holds_up_none_of_the_others(meter: Meter) -> None:
    ocean = meter.resource("ocean")
    start = meter.travel("2027-03-11T00:00")
    for component in ("cpu", "mem"):
        meter.ledger.run("a_ocean", "ada", start, hours=None, component=component)
    side, offering = meter.sandbox.customer, meter.sandbox.offering
    capped = [
        replace(each, limit_period="month", limit_amount=10) if each.type == "mem" else each
        for each in offering.components
    ]
    side.world.put(replace(offering, components=tuple(capped)))
    for moment, used in (
        ("2027-03-11T08:00", 8),
        ("2027-03-11T12:00", 12),
        ("2027-03-12T00:00", 24),
    ):
        meter.travel(moment)
        report = meter.report_again()
        assert [failure.split(": ")[:2] for failure in report.failures] == (
            [["a_ocean", "mem"]] if used > 10 else []
        )
        assert meter.total(ocean) == {"cpu": used, "mem": 8}
        assert meter.parts(ocean)["cpu"] == {"ada": used}
    assert meter.parts(ocean)["mem"] == {"ada": 12}  # what came before the total was refused
    side.world.put(offering)
    assert not meter.report_again().failed
    assert meter.total(ocean) == {"cpu": 24, "mem": 24}
    assert meter.parts(ocean)["mem"] == {"ada": 24}


def test_a_part_that_waldur_refuses_holds_up_neither_the_total_nor_the_other_parts(
    meter: Meter,
) -> None:
    ocean = meter.resource("ocean")
    start = meter.travel("2027-03-11T00:00")
    for user in ("ada", "bob", "cyd"):
        meter.ledger.run("a_ocean", user, start)
    meter.travel("2027-03-11T01:00")
    meter.report()
    for user in ("ada", "bob", "cyd"):
        meter.ledger.run("a_ocean", user, meter.sandbox.clock.now())
    meter.travel("2027-03-11T03:00")
    meter.sandbox.faults.add(f"{SET_USER_USAGE}s", "status", status=400)
    meter.sandbox.faults.add(SET_USER_USAGE, "status", status=400, skip=1)
    assert len(meter.report().failures) == 1
    assert meter.total(ocean)["cpu"] == 6
    assert meter.parts(ocean)["cpu"] == {"ada": 2, "bob": 1, "cyd": 2}


def test_an_erred_resource_with_its_account_is_set_ok_and_reported(meter: Meter) -> None:
    ocean = meter.resource("ocean", state="Erred")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T00:00"))
    meter.travel("2027-03-11T02:00")
    assert not meter.report().failed
    assert meter.sandbox.customer.current(ocean).state == "OK"
    assert meter.total(ocean)["cpu"] == 1


def test_an_erred_resource_that_stays_erred_is_skipped_with_the_reason(meter: Meter) -> None:
    ocean, ice = meter.resource("ocean", state="Erred"), meter.resource("ice")
    operation = "marketplace_provider_resources_set_as_ok"
    meter.sandbox.faults.add(operation, "status", status=403, times=None)
    for _ in range(2):
        report = meter.report_again()
        assert ["Erred" in failure for failure in report.failures] == [True]
    assert meter.total(ocean) == {}
    assert meter.total(ice) == {"cpu": 0, "mem": 0}
    assert meter.sandbox.requests.count(operation) == 1


def test_a_resource_whose_account_is_gone_is_marked_and_not_reported(meter: Meter) -> None:
    ocean, ice = meter.resource("ocean"), meter.resource("ice")
    meter.ledger.accounts.discard("a_ocean")
    report = meter.report()
    assert report.failed
    assert meter.sandbox.customer.current(ocean).state == "Erred"
    assert meter.total(ocean) == {}
    assert meter.total(ice) == {"cpu": 0, "mem": 0}
    meter.ledger.accounts.add("a_ocean")
    assert not meter.report().failed
    assert meter.sandbox.customer.current(ocean).state == "OK"


@pytest.mark.parametrize("state", ["Updating", "Terminating"])
def test_a_resource_with_an_order_in_progress_is_reported(meter: Meter, state: str) -> None:
    ocean = meter.resource("ocean", state=state)
    meter.resource("new", state="Creating")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T00:00"))
    meter.travel("2027-03-11T02:00")
    assert not meter.report().failed
    assert meter.total(ocean)["cpu"] == 1
    assert meter.sandbox.customer.current(ocean).state == state


def test_an_account_of_several_resources_is_reported_for_none(meter: Meter) -> None:
    first, second = meter.resource("ocean"), meter.resource("again", backend_id="A_Ocean ")
    meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T00:00"))
    meter.travel("2027-03-11T02:00")
    report = meter.report()
    assert len(report.failures) == 1
    assert "several resources" in report.failures[0]
    assert meter.total(first) == meter.total(second) == {}


def test_components_that_waldur_does_not_count_are_named_once(meter: Meter) -> None:
    meter.resource("ocean")
    meter.components["gres/gpu"] = meter.components["cpu"]
    with capture_logs() as logs:
        meter.report_again()
        meter.report_again()
    (warning,) = warnings(logs)
    assert warning["components"] == ["gres/gpu"]


def test_nothing_is_sent_after_a_failed_read(meter: Meter) -> None:
    ocean = meter.resource("ocean")
    meter.ledger.trouble = [TemporaryError("sacct died half way")]
    with pytest.raises(TemporaryError):
        meter.report()
    assert meter.sandbox.requests.writes() == []
    meter.sandbox.faults.add("marketplace_component_usages_list", "short_page", times=None)
    meter.sandbox.customer.put_usage(ocean, "cpu", 0)
    with pytest.raises(TemporaryError):
        meter.report()
    assert meter.sandbox.requests.writes() == []


def test_an_agent_that_is_stopping_begins_nothing_new(meter: Meter) -> None:
    ocean = meter.resource("ocean")
    assert meter.with_(stopping=lambda: True).report().failed
    assert meter.total(ocean) == {}


def test_limits_found_are_reported_once_and_a_refusal_is_not_repeated(meter: Meter) -> None:
    ocean = meter.resource("ocean", limits={"mem": 10})
    meter.ledger.limits["a_ocean"] = {"mem": Decimal(1200)}
    assert not meter.report().failed
    assert meter.sandbox.customer.current(ocean).limits == {"mem": 20}
    meter.ledger.limits["a_ocean"] = {"mem": Decimal(1800)}
    operation = "marketplace_provider_resources_set_limits"
    meter.sandbox.faults.add(operation, "status", status=400)
    meter.sandbox.requests.clear()
    assert [meter.report_again().failed for _ in range(2)] == [True, False]
    assert meter.sandbox.requests.count(operation) == 1


@pytest.mark.parametrize("version", ["7.7.9", "8.0.0", "8.1.3"])
def test_servers_of_all_ages_are_told_the_same(version: str) -> None:
    with a_meter(version) as meter:
        ocean = meter.resource("ocean")
        start = meter.travel("2027-03-11T00:00")
        for user in ("ada", "bob", "cyd"):
            meter.ledger.run("a_ocean", user, start, hours=None)
        for day in (12, 13):
            meter.travel(f"2027-03-{day}T00:00")
            assert not meter.report_again().failed
        absent = [
            r for r in meter.sandbox.requests.writes() if r.status is None or r.status in (404, 405)
        ]
        assert len(absent) <= (0 if version == "8.1.3" else 1)
        total = meter.total(ocean)["cpu"]
        assert 144 <= total < 145
        assert sum(meter.parts(ocean)["cpu"].values()) == total


def test_two_reporters_at_once_leave_the_same_as_one(meter: Meter) -> None:
    ocean = meter.resource("ocean")
    start = meter.travel("2027-03-11T00:00")
    for user in ("ada", "bob"):
        meter.ledger.run("a_ocean", user, start)
    meter.travel("2027-03-11T02:00")
    meter.ledger.meanwhile = meter.report
    assert not meter.report().failed
    assert meter.total(ocean)["cpu"] == 2
    assert meter.parts(ocean)["cpu"] == {"ada": 1, "bob": 1}


def test_a_backend_that_cannot_report_says_so(meter: Meter) -> None:
    meter.resource("ocean")
    meter.ledger.trouble = [PermanentError("no accounting here")]
    with pytest.raises(PermanentError, match="no accounting"):
        meter.report()


def test_an_offering_without_resources_costs_no_process(meter: Meter) -> None:
    assert not meter.report().failed
    assert meter.ledger.reads == []


@pytest.mark.parametrize("version", ["7.7.9", "8.0.2", "8.1.3"])
def test_usage_is_billed_although_the_version_is_for_staff_alone(version: str) -> None:
    with a_meter(version) as meter:
        ocean = meter.resource()
        meter.ledger.run("a_ocean", "ada", meter.travel("2027-03-11T00:00"), hours=3)
        meter.travel("2027-03-11T04:00")
        assert not meter.report_again().failed
        assert meter.total(ocean)["cpu"] == 3
        assert meter.sandbox.requests.count("version_retrieve") == 0
