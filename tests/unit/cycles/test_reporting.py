"""Usage on its way from a backend to Waldur, cycle by cycle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.metering import Meter, a_meter


@pytest.fixture
def meter() -> Iterator[Meter]:
    with a_meter() as meter:
        yield meter


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
    meter.sandbox.requests.clear()
    assert not meter.report().failed
    assert meter.sandbox.requests.writes() == []
    assert meter.sandbox.requests.count() <= 7
