"""Charges become usage: whole, at the end of the job, of the right account, exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.moab_testbed import DEPOSIT, a_simulated_moab_site
from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.model.usage import BillingMonth, Period
from waldur_site_agent_moab import backend as charging
from waldur_site_agent_moab.backend import MoabBackend
from waldur_site_agent_moab.facts import Charge
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.simulator import Outage, SimulatedMam
from waldur_site_agent_moab.simulator.state import SimCharge

TALLINN = ZoneInfo("Europe/Tallinn")
NOVEMBER = BillingMonth(2026, 11).period(TALLINN)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def backend(mam: SimulatedMam) -> MoabBackend:
    return MoabBackend(MoabSettings(), {}, runner=mam.runner())


def job(mam: SimulatedMam, account: str, user: str, end: datetime, charge: str) -> None:
    seconds = (int((end - 3 * HOUR).timestamp()), int(end.timestamp()))
    mam.state.charges.append(SimCharge(account, user, *seconds, Decimal(charge)))


def test_usage_is_read_for_all_accounts_at_once_by_user_and_without_rounding() -> None:
    mam = SimulatedMam()
    inside = NOVEMBER.start + timedelta(days=3)
    job(mam, "a", "ada", inside, "0.1000000001")
    job(mam, "a", "ada", inside, "0.2")
    job(mam, "a", "bob", inside, "3")
    job(mam, "other", "bob", inside, "99")
    since = {"a": LONG_AGO, "idle": LONG_AGO}
    report = backend(mam).usage(since, NOVEMBER)
    assert {"deposit": Fraction(33000000001, 10**10)} == report.resources["a"].total
    assert {"ada", "bob"} == set(report.resources["a"].by_user)
    assert set(since) == set(report.resources)
    assert report.resources["idle"].total == {}
    assert mam.commands_run.total() == 1


def test_a_charge_belongs_to_the_month_in_which_its_job_ended_in_the_sites_zone() -> None:
    mam = SimulatedMam()
    job(mam, "a", "ada", NOVEMBER.start - timedelta(seconds=1), "1")
    job(mam, "a", "ada", NOVEMBER.start, "2")
    job(mam, "a", "ada", NOVEMBER.end - timedelta(seconds=1), "4")
    job(mam, "a", "ada", NOVEMBER.end, "8")
    months = [BillingMonth(2026, number).period(TALLINN) for number in (10, 11, 12)]
    reports = backend(mam).usages({"a": LONG_AGO}, months)
    assert [report.resources["a"].total["deposit"] for report in reports] == [1, 6, 8]
    assert mam.commands_run.total() == 1
    assert backend(mam).usages({"a": LONG_AGO}, []) == ()


def test_a_long_job_from_the_month_before_is_found_and_an_earlier_accounts_is_not() -> None:
    mam = SimulatedMam()
    long_job = SimCharge("a", "ada", 0, int((NOVEMBER.start + HOUR).timestamp()), Decimal(5))
    long_job.start = int((NOVEMBER.start - timedelta(days=20)).timestamp())
    mam.state.charges.append(long_job)
    assert backend(mam).usage({"a": LONG_AGO}, NOVEMBER).resources["a"].total == {"deposit": 5}
    made = NOVEMBER.start - timedelta(days=19)
    assert backend(mam).usage({"a": made}, NOVEMBER).resources["a"].total == {}


def test_records_without_a_user_or_an_end_are_not_counted_and_the_former_are_named() -> None:
    mam = SimulatedMam()
    job(mam, "a", "", NOVEMBER.start + HOUR, "5")
    mam.state.charges.append(SimCharge("a", "ada", 1, 0, Decimal(7)))
    report = backend(mam).usage({"a": LONG_AGO}, NOVEMBER)
    assert report.resources["a"].total == {}
    (remark,) = report.remarks
    assert "1 usage records of 5.00 in total name no user" in remark


def test_a_list_that_cannot_be_read_reports_nothing() -> None:
    mam = SimulatedMam()
    with mam.outage(Outage.REFUSED), pytest.raises(TemporaryError, match="cannot be reached"):
        backend(mam).usage({"a": LONG_AGO}, NOVEMBER)


MOMENTS = st.datetimes(datetime(2026, 9, 1), datetime(2027, 2, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive by hypothesis's rule
AMOUNTS = st.decimals(0, 1000, places=4)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), MOMENTS, AMOUNTS), max_size=20))
def test_months_add_up_to_the_whole(jobs: list[tuple[str, datetime, Decimal]]) -> None:
    charges = [
        Charge(account=name, user="ada", start=end - HOUR, end=end, amount=amount)
        for name, end, amount in jobs
    ]
    months = [BillingMonth(2026, n).period(TALLINN) for n in range(8, 13)]
    months += [BillingMonth(2027, n).period(TALLINN) for n in (1, 2)]
    whole = Period(start=months[0].start, end=months[-1].end)
    since = {"a": LONG_AGO, "b": LONG_AGO}
    parts = charging.reports(charges, since, months)
    (total,) = charging.reports(charges, since, [whole])
    for name in since:
        expected = sum(Fraction(amount) for account, _, amount in jobs if account == name)
        assert expected == total.resources[name].total.get("deposit", 0)
        assert expected == sum(p.resources[name].total.get("deposit", 0) for p in parts)


def test_waldur_is_told_what_was_charged_and_the_second_time_nothing(tmp_path: Path) -> None:
    with a_simulated_moab_site(tmp_path / "lock") as testbed:
        testbed.components = {"deposit": DEPOSIT, "cpu": {**DEPOSIT, "label": "CPU"}}
        resource = testbed.created(
            testbed.project(ada="ada01", bob="bob01"), "Ocean", deposit=100, cpu=7
        )
        now = datetime.now(UTC) + timedelta(seconds=2)
        testbed.mam.charge(resource.backend_id, "ada01", Decimal("12.345"), now, now)
        testbed.mam.charge(resource.backend_id, "bob01", Decimal("1.1"), now, now)
        testbed.forget()
        assert not testbed.report().failed
        # the question whether this server takes dates, which stores nothing, and the figure
        assert testbed.sandbox.requests.count("*_set_usage") == 2
        (usage,) = testbed.sandbox.customer.world.component_usages.values()
        assert ("deposit", Decimal("13.44")) == (usage.component_type, Decimal(str(usage.usage)))
        testbed.forget()
        assert not testbed.report().failed
        assert not testbed.sandbox.requests.count("*set_*")
        assert testbed.mam.commands_run["mam-list-usagerecords"] == 1
