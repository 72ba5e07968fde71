"""Usage at the borders of months, and after clocks that jump."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from zoneinfo import ZoneInfo

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from harness import Relay
from harness.metering import Meter, a_meter
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Resource

SET_USAGE = "marketplace_component_usages_set_usage"


@pytest.fixture
def meter() -> Iterator[Meter]:
    with a_meter() as meter:
        yield meter


@pytest.fixture
def old_meter() -> Iterator[Meter]:
    with a_meter("7.7.9") as meter:
        yield meter


def as_staff(meter: Meter) -> Meter:
    return meter.with_(token=meter.sandbox.staff().token)


def busy(meter: Meter, since: str = "2027-03-20T00:00") -> Resource:
    """A resource on which somebody works all the time from then on."""
    resource = meter.resource()
    meter.ledger.run(resource.backend_id, "ada", meter.travel(since), hours=None)
    return resource


def hours(meter: Meter, resource: Resource, month: str) -> int:
    """Whole hours that Waldur bills, also checked against the user's part."""
    total = meter.total(resource, month).get("cpu", Decimal(0))
    assert sum(meter.parts(resource, month).get("cpu", {}).values()) == total
    return round(total)


def test_the_first_cycles_of_a_month_close_the_one_before_in_one_reading_each(
    meter: Meter,
) -> None:
    meter = as_staff(meter)
    ocean = busy(meter)
    meter.travel("2027-03-31T23:00")
    meter.report_again()
    meter.ledger.differences = ["cpu of a_ocean: 288 here, 287 there"]
    meter.travel("2027-04-01T01:00")
    meter.ledger.reads.clear()
    with capture_logs() as logs:
        assert not meter.report_again().failed
    assert (hours(meter, ocean, "2027-03"), hours(meter, ocean, "2027-04")) == (288, 1)
    assert [len(periods) for periods in meter.ledger.reads] == [2]
    assert meter.ledger.differences[0] in [entry.get("difference") for entry in logs]
    for moment in ("2027-04-01T02:05", "2027-04-01T02:35"):
        meter.sandbox.requests.clear()
        meter.travel(moment)
        meter.report_again()
    assert [len(periods) for periods in meter.ledger.reads] == [2, 2, 1]
    assert {"2027-03" in r.query for r in meter.sandbox.requests} == {False}
    assert [p.start.month for p in meter.ledger.verified] == [3]


def test_a_month_that_staff_alone_may_close_is_left_quietly_and_asked_for_once(
    meter: Meter,
) -> None:
    ocean, ice = busy(meter), meter.resource("ice")
    meter.travel("2027-03-31T23:00")
    meter.report_again()
    meter.ledger.run("a_ice", "bob", meter.travel("2027-03-31T23:30"))
    meter.travel("2027-04-01T01:00")
    meter.sandbox.requests.clear()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with capture_logs() as logs:
        for _ in range(2):
            assert not meter.report_again().failed
    assert [e for e in logs if e["log_level"] not in ("debug", "info")] == []
    (said,) = [entry for entry in logs if "not_billed" in entry]
    assert (said["month"], said["not_billed"]) == ("2027-03", {"cpu": "1.50"})
    statuses = [request.status for request in meter.reports()]
    assert statuses.count(400) == 2  # with what does not change, and by itself; never again
    assert (hours(meter, ocean, "2027-03"), hours(meter, ocean, "2027-04")) == (287, 1)
    assert hours(meter, ice, "2027-03") == 0


def test_what_staff_alone_may_report_keeps_nothing_else_of_a_month_back(meter: Meter) -> None:
    """The server takes components by limit of a past month from everybody, cpu is by usage."""
    ocean, ice = busy(meter), meter.resource("ice")
    begin = meter.travel("2027-03-31T23:00")
    meter.ledger.run("a_ocean", "ada", begin, None, "mem")
    meter.report_again()
    meter.ledger.run("a_ice", "bob", meter.travel("2027-03-31T23:30"), component="mem")
    meter.travel("2027-04-01T00:20")
    assert not meter.report_again().failed
    march = {"ada": Decimal("1.00")}
    assert meter.total(ocean, "2027-03") == {"cpu": Decimal("287.00"), "mem": Decimal("1.00")}
    assert meter.parts(ocean, "2027-03")["mem"] == march
    assert (meter.total(ice, "2027-03")["mem"], meter.parts(ice, "2027-03")["mem"]) == (
        Decimal("0.50"),
        {"bob": Decimal("0.50")},
    )
    meter.sandbox.requests.clear()
    assert not meter.report_again().failed
    assert {request.status for request in meter.reports()} <= {201}


def test_a_close_that_failed_is_tried_again_by_the_next_cycle(meter: Meter) -> None:
    meter = as_staff(meter)
    ocean = busy(meter)
    meter.travel("2027-03-31T23:00")
    meter.report_again()
    meter.travel("2027-04-01T01:00")
    asked_whether_dates_are_read, current = 1, 1
    well = asked_whether_dates_are_read + current
    meter.sandbox.faults.add(SET_USAGE, "status", status=503, skip=well, times=4)
    assert meter.report_again().failed
    assert (hours(meter, ocean, "2027-03"), hours(meter, ocean, "2027-04")) == (287, 1)
    assert not meter.report_again().failed
    assert hours(meter, ocean, "2027-03") == 288


@pytest.mark.guarantee("usage: Months")
def test_what_the_accounting_database_learns_late_is_billed(meter: Meter) -> None:
    meter = as_staff(meter)
    ocean = busy(meter)
    meter.travel("2027-04-01T00:05")
    assert not meter.report_again().failed
    meter.ledger.run("a_ocean", "ada", datetime(2027, 3, 31, 12, tzinfo=UTC), hours=10)
    meter.travel("2027-04-01T01:55")
    assert not meter.report_again().failed
    assert hours(meter, ocean, "2027-03") == 298
    meter.travel("2027-04-01T02:05")
    assert not meter.report_again().failed
    meter.ledger.reads.clear()
    meter.travel("2027-04-01T02:35")
    assert not meter.report_again().failed
    assert [len(periods) for periods in meter.ledger.reads] == [1]


def test_a_month_is_not_closed_while_some_of_its_work_may_still_grow(meter: Meter) -> None:
    meter = as_staff(meter)
    ocean = busy(meter)
    meter.ledger.settled = False
    meter.travel("2027-04-02T00:00")
    assert not meter.report_again().failed
    assert meter.ledger.verified == []
    meter.ledger.run("a_ocean", "ada", datetime(2027, 3, 31, 12, tzinfo=UTC), hours=10)
    meter.ledger.settled = True
    meter.travel("2027-04-20T00:00")
    assert not meter.report_again().failed
    assert hours(meter, ocean, "2027-03") == 298
    assert len(meter.ledger.verified) == 1


def test_east_of_utc_a_month_is_told_as_long_as_waldur_is_in_it(meter: Meter) -> None:
    meter = meter.with_(zone=ZoneInfo("Pacific/Kiritimati"))
    ocean = busy(meter, "2027-03-31T00:00")
    for moment in ("2027-03-31T10:30", "2027-03-31T13:00"):
        meter.travel(moment)
        assert not meter.report_again().failed
    assert hours(meter, ocean, "2027-03") == 10
    meter.ledger.run("a_ocean", "ada", datetime(2027, 3, 31, 8, tzinfo=UTC), hours=1)
    meter.travel("2027-03-31T23:00")
    assert not meter.report_again().failed
    assert hours(meter, ocean, "2027-03") == 11


@pytest.mark.parametrize("version", ["7.7.9", "8.1.3"])
def test_a_clock_that_is_a_little_ahead_closes_no_month_early(version: str) -> None:
    with a_meter(version) as someone:
        meter = as_staff(someone)
        ocean = busy(meter)
        for moment in ("2027-03-31T23:20", "2027-03-31T23:57", "2027-04-01T03:00"):
            meter.travel(moment)
            assert not seen_from(meter, timedelta(minutes=4)).report_again().failed
        expected = 288 if version == "8.1.3" else 287
        assert hours(meter, ocean, "2027-03") == expected


def test_a_month_is_verified_again_when_the_second_source_was_not_ready(meter: Meter) -> None:
    busy(meter)
    meter.travel("2027-04-01T01:00")
    meter.ledger.unverifiable = 1
    for _ in range(3):
        assert not meter.report_again().failed
    assert len(meter.ledger.verified) == 2


def test_closing_compares_the_parts_even_where_the_totals_agree(meter: Meter) -> None:
    meter = as_staff(meter)
    ocean = busy(meter)
    meter.travel("2027-03-25T00:00")
    meter.report()
    meter.travel("2027-04-02T00:00")
    meter.sandbox.customer.put_usage(ocean, "cpu", 288, "2027-03")
    assert meter.parts(ocean, "2027-03")["cpu"] == {"ada": 120}
    meter.report()
    assert hours(meter, ocean, "2027-03") == 288


def test_a_cycle_that_lasts_beyond_midnight_stays_in_its_month(meter: Meter) -> None:
    meter = as_staff(meter)
    ocean = busy(meter)
    _report_across_midnight(meter)
    assert hours(meter, ocean, "2027-03") == 288
    assert meter.total(ocean, "2027-04") == {}


def test_an_old_server_gets_nothing_from_a_cycle_that_crossed_midnight(old_meter: Meter) -> None:
    ocean = busy(old_meter)
    old_meter.travel("2027-03-31T20:00")
    old_meter.report()
    old_meter.sandbox.requests.clear()
    _report_across_midnight(old_meter)
    assert old_meter.writes() == []
    assert hours(old_meter, ocean, "2027-03") == 284
    assert old_meter.total(ocean, "2027-04") == {}


def _report_across_midnight(meter: Meter) -> None:
    meter.travel("2027-03-31T23:50")
    meter.ledger.meanwhile = lambda: meter.travel("2027-04-01T00:10")
    meter.report()


@pytest.mark.parametrize("version", ["7.7.9", "8.1.3"])
@pytest.mark.parametrize(
    ("zone", "border"),
    [("Pacific/Kiritimati", "2027-03-31T10:00"), ("Pacific/Niue", "2027-04-01T11:00")],
    ids=["east", "west"],
)
def test_no_usage_is_booked_in_the_wrong_month_however_far_the_zones_are(
    version: str, zone: str, border: str
) -> None:
    with a_meter(version) as utc:
        meter = utc.with_(zone=ZoneInfo(zone))
        ocean = busy(meter, "2027-03-30T00:00")
        midnight = datetime.fromisoformat(border).replace(tzinfo=UTC)
        for hour in range(-24, 36, 3):
            now = meter.travel((midnight + timedelta(hours=hour, minutes=1)).isoformat()[:16])
            assert not meter.report_again().failed
            march = round((min(now, midnight) - _START).total_seconds() / 3600)
            april = round((now - midnight).total_seconds() / 3600)
            assert hours(meter, ocean, "2027-03") <= march
            assert hours(meter, ocean, "2027-04") <= max(0, april)
            assert meter.total(ocean, "2027-05") == {}
        assert hours(meter, ocean, "2027-04") == april
        lost = march - hours(meter, ocean, "2027-03")
        assert lost == (0 if zone.endswith("Kiritimati") else 12)


_START = datetime(2027, 3, 30, tzinfo=UTC)


def test_behind_utc_staff_reports_a_month_to_its_end(meter: Meter) -> None:
    meter = as_staff(meter).with_(zone=ZoneInfo("America/New_York"))
    ocean = busy(meter, "2027-03-31T00:00")
    meter.travel("2027-04-01T03:00")
    assert not meter.report_again().failed
    assert hours(meter, ocean, "2027-03") == 27
    meter.travel("2027-04-01T05:00")
    assert not meter.report_again().failed
    assert (hours(meter, ocean, "2027-03"), hours(meter, ocean, "2027-04")) == (28, 1)


def test_months_with_a_clock_change_have_their_own_length(meter: Meter) -> None:
    meter = as_staff(meter).with_(zone=ZoneInfo("Europe/Tallinn"))
    ocean = busy(meter, "2027-03-27T22:00")
    meter.travel("2027-04-01T12:00")
    assert not meter.report().failed
    assert hours(meter, ocean, "2027-03") == 4 * 24 - 1
    assert hours(meter, ocean, "2027-04") == 15


def _always(moment: datetime) -> datetime:
    return moment


def test_a_clock_that_jumped_back_months_changes_no_bill(meter: Meter) -> None:
    ocean = busy(meter)
    meter.travel("2027-03-25T00:00")
    meter.report()
    for wrong in ("2026-12-05T00:00", "1970-01-02T00:00"):
        moment = datetime.fromisoformat(wrong).replace(tzinfo=UTC)
        meter.with_(now=partial(_always, moment)).report()
    assert hours(meter, ocean, "2027-03") == 120
    assert {row.billing_period.month for row in meter.sandbox.customer.usage_rows(ocean)} == {3}


class _WrongClock(Relay):
    """Answers whose time is that of a server seen from a machine whose clock is wrong."""

    def __init__(self, ahead: timedelta, inner: httpx.BaseTransport) -> None:
        super().__init__(inner)
        self._ahead = ahead

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        right = parsedate_to_datetime(response.headers["date"])
        response.headers["date"] = format_datetime(right - self._ahead, usegmt=True)
        return response


class _JumpyClock(_WrongClock):
    """The same for a clock that jumps; the last entry says how far ahead it is."""

    def __init__(self, ahead: list[timedelta], inner: httpx.BaseTransport) -> None:
        super().__init__(ahead[0], inner)
        self._jumps = ahead

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._ahead = self._jumps[-1]
        return super().handle_request(request)


def seen_from(meter: Meter, ahead: timedelta) -> Meter:
    """The meter by an agent and a backend whose clock is ahead."""
    right = meter.sandbox.clock.now
    meter.ledger.now = lambda: right() + ahead
    return meter.with_(now=meter.ledger.now, transport=partial(_WrongClock, ahead))


@pytest.mark.guarantee("usage: Months")
@pytest.mark.parametrize("version", ["7.7.9", "8.1.3"])
@pytest.mark.parametrize("days", [3, 40, -40])
def test_a_machine_whose_clock_is_wrong_sends_nothing_and_says_so(version: str, days: int) -> None:
    with a_meter(version) as meter:
        ocean = busy(meter)
        meter.travel("2027-03-25T00:00")
        meter.report()
        meter.sandbox.requests.clear()
        wrong = seen_from(meter, timedelta(days=days))
        with pytest.raises(TemporaryError, match=r"Waldur's says 2027-03-2[45] .* UTC.*NTP"):
            wrong.report()
        assert meter.sandbox.requests.writes() == []
        meter.ledger.now = meter.sandbox.clock.now
        meter.travel("2027-03-26T00:00")
        assert not meter.report().failed
        assert hours(meter, ocean, "2027-03") == 144


def test_a_clock_that_jumps_within_a_cycle_sends_nothing(meter: Meter) -> None:
    ocean = busy(meter)
    meter.travel("2027-03-25T00:00")
    meter.report()
    meter.travel("2027-03-25T01:00")
    ahead = [timedelta(0)]
    jumpy = meter.with_(transport=partial(_JumpyClock, ahead))
    meter.ledger.meanwhile = lambda: ahead.append(timedelta(hours=1))
    assert jumpy.report().failed
    assert hours(meter, ocean, "2027-03") == 120


@pytest.mark.parametrize("seconds", [240, -240])
def test_clocks_may_differ_a_little(meter: Meter, seconds: int) -> None:
    ocean = busy(meter)
    meter.travel("2027-03-25T00:00")
    assert not seen_from(meter, timedelta(seconds=seconds)).report().failed
    assert hours(meter, ocean, "2027-03") == 120
