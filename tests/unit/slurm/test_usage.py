"""What of which job counts, for whom, and in which period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest

from unit.slurm.simulated_jobs import (
    LONG_AGO,
    NOVEMBER,
    NOW,
    OCTOBER,
    at,
    backend_on,
    between,
    cpu_seconds,
    simulated,
    tres_seconds,
)
from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.model.usage import BillingMonth, Period
from waldur_site_agent_slurm.simulator import Outage, SimulatedSlurm

CLIMATE = {"climate": LONG_AGO}
TWO = {"cpu": 2}


@pytest.fixture
def slurm() -> SimulatedSlurm:
    return simulated()


def test_usage_is_what_was_given_times_how_long_by_user(slurm: SimulatedSlurm) -> None:
    tres = {"cpu": 4, "mem": 1536, "gres/gpu": 1, "gres/gpu:a100": 1, "license/x": 3, "node": 1}
    slurm.run_job("ada", "climate", tres, at("11-02 10:00"), at("11-02 11:00"))
    slurm.run_job("bob", "climate", TWO, at("11-02 10:00"), at("11-02 10:01"))
    names = ("mem", "cpu", "gres/gpu:a100", "license/x", "fs/disk")
    report = backend_on(slurm, names).usage(CLIMATE, NOVEMBER)
    assert tres_seconds(report) == {
        "ada": {
            "mem": 1536 * 3600, "cpu": 4 * 3600, "gres/gpu:a100": 3600, "license/x": 3 * 3600,
            "fs/disk": 0,
        },
        "bob": {"mem": 0, "cpu": 120, "gres/gpu:a100": 0, "license/x": 0, "fs/disk": 0},
    }  # fmt: skip
    assert report.resources["climate"].total["cpu"] == Fraction(4 * 3600 + 120, 60)
    assert report.remarks == ()


def test_amounts_stay_exact_where_a_minute_does_not_divide(slurm: SimulatedSlurm) -> None:
    start = at("11-02 10:00")
    slurm.run_job("ada", "climate", {"cpu": 1}, start, start + timedelta(seconds=7))
    report = backend_on(slurm).usage(CLIMATE, NOVEMBER)
    assert report.resources["climate"].by_user["ada"] == {"cpu": Fraction(7, 60)}


def test_an_idle_resource_is_reported_without_users(slurm: SimulatedSlurm) -> None:
    report = backend_on(slurm).usage({"climate": LONG_AGO, "Ocean": LONG_AGO}, NOVEMBER)
    assert [(n, u.by_user) for n, u in report.resources.items()] == [("climate", {}), ("Ocean", {})]


def test_names_are_compared_without_case_and_returned_as_asked(slurm: SimulatedSlurm) -> None:
    slurm.run_job("Ada", "climate", TWO, at("11-02 10:00"), at("11-02 10:01"))
    report = backend_on(slurm, ("CPU",)).usage({"Climate": LONG_AGO}, NOVEMBER)
    assert tres_seconds(report, "Climate") == {"ada": {"CPU": 120}}


def test_accounts_that_were_not_asked_for_are_not_there(slurm: SimulatedSlurm) -> None:
    slurm.run_job("ada", "physics", TWO, at("11-02 10:00"), at("11-02 10:01"))
    assert set(backend_on(slurm).usage(CLIMATE, NOVEMBER).resources) == {"climate"}


def test_a_job_across_a_border_is_divided_between_the_periods(slurm: SimulatedSlurm) -> None:
    slurm.run_job("ada", "climate", TWO, at("10-31 23:15"), at("11-01 00:23"))
    months = [BillingMonth(2026, 10).period(UTC), NOVEMBER]
    closed, current = backend_on(slurm).usages(CLIMATE, months)
    assert (cpu_seconds(closed), cpu_seconds(current)) == ({"ada": 5400}, {"ada": 2760})


def test_a_job_longer_than_a_month_counts_for_the_whole_month(slurm: SimulatedSlurm) -> None:
    slurm.run_job("ada", "climate", {"cpu": 1}, at("09-20 00:00"), at("11-19 00:00"))
    report = backend_on(slurm).usage(CLIMATE, BillingMonth(2026, 10).period(UTC))
    assert cpu_seconds(report) == {"ada": 31 * 86400}


def test_months_are_cut_in_the_zone_of_the_site(slurm: SimulatedSlurm) -> None:
    slurm.run_job("ada", "climate", {"cpu": 1}, at("10-01 00:00"), at("11-02 00:00"))
    october = BillingMonth(2026, 10).period(ZoneInfo("Europe/Vienna"))  # ends with winter time
    assert cpu_seconds(backend_on(slurm).usage(CLIMATE, october)) == {"ada": 30 * 86400 + 82800}


def test_a_running_job_counts_up_to_now_and_a_pending_one_not_at_all(
    slurm: SimulatedSlurm,
) -> None:
    slurm.run_job("ada", "climate", TWO, NOW - timedelta(minutes=5))
    backend = backend_on(slurm)
    assert cpu_seconds(backend.usage(CLIMATE, NOVEMBER)) == {"ada": 600}
    with slurm.change() as state:
        state.now = int(NOW.timestamp()) + 60
    assert cpu_seconds(backend.usage(CLIMATE, NOVEMBER)) == {"ada": 720}
    assert backend.usage(CLIMATE, between("12-01 00:00", "12-31 00:00")).resources[
        "climate"
    ].by_user == {}  # fmt: skip


def test_every_run_of_a_requeued_job_counts(slurm: SimulatedSlurm) -> None:
    job = slurm.run_job(
        "ada", "climate", TWO, at("11-02 10:00"), at("11-02 10:10"), state="REQUEUED"
    )
    slurm.run_job("ada", "climate", TWO, at("11-02 11:00"), at("11-02 11:30"), job=job)
    assert cpu_seconds(backend_on(slurm).usage(CLIMATE, NOVEMBER)) == {"ada": 2 * 2400}


def test_the_site_may_count_only_the_last_run_of_a_requeued_job(slurm: SimulatedSlurm) -> None:
    job = slurm.run_job(
        "ada", "climate", TWO, at("11-02 10:00"), at("11-02 10:10"), state="REQUEUED"
    )
    slurm.run_job("ada", "climate", TWO, at("11-02 11:00"), at("11-02 11:30"), job=job)
    backend = backend_on(slurm, requeued_jobs="last_run")
    assert cpu_seconds(backend.usage(CLIMATE, NOVEMBER)) == {"ada": 2 * 1800}


def test_the_last_run_of_each_month_counts_when_a_job_is_requeued_across_its_end(
    slurm: SimulatedSlurm,
) -> None:
    job = slurm.run_job(
        "ada", "climate", TWO, at("10-31 10:00"), at("10-31 10:10"), state="REQUEUED"
    )
    slurm.run_job("ada", "climate", TWO, at("11-01 11:00"), at("11-01 11:30"), job=job)
    backend = backend_on(slurm, requeued_jobs="last_run")
    october, november = backend.usages(CLIMATE, [OCTOBER, NOVEMBER])
    assert (cpu_seconds(october), cpu_seconds(november)) == ({"ada": 1200}, {"ada": 3600})


def test_a_resized_job_counts_once(slurm: SimulatedSlurm) -> None:
    start, resized, end = at("11-02 10:00"), at("11-02 10:10"), at("11-02 10:30")
    job = slurm.run_job("ada", "climate", {"cpu": 8}, start, resized, state="RESIZING")
    slurm.run_job("ada", "climate", {"cpu": 2}, start, end, submit=resized, job=job)
    assert cpu_seconds(backend_on(slurm).usage(CLIMATE, NOVEMBER)) == {"ada": 8 * 600 + 2 * 1200}


@pytest.mark.parametrize(
    ("suspended_time", "cpu", "mem"),
    [("excluded", 1800, 1800), ("cpu", 1800, 3000), ("counted", 3000, 3000)],
)
def test_the_site_decides_whether_suspended_time_counts(
    slurm: SimulatedSlurm, suspended_time: str, cpu: int, mem: int
) -> None:
    slurm.run_job(
        *("ada", "climate", {"cpu": 1, "mem": 1}, at("11-02 10:00"), at("11-02 10:50")),
        suspended=[(at("11-02 10:10"), at("11-02 10:30"))],
    )
    backend = backend_on(slurm, ("cpu", "mem"), suspended_time=suspended_time)
    report = backend.usage(CLIMATE, NOVEMBER)
    assert tres_seconds(report) == {"ada": {"cpu": cpu, "mem": mem}}


def test_a_suspension_counts_on_its_own_side_of_the_border(slurm: SimulatedSlurm) -> None:
    slurm.run_job(
        *("ada", "climate", {"cpu": 1}, at("11-02 10:00"), at("11-02 13:00")),
        suspended=[(at("11-02 10:10"), at("11-02 10:30")), (at("11-02 11:50"), at("11-02 12:10"))],
    )
    hours = [between("11-02 10:00", "11-02 11:00"), between("11-02 12:00", "11-02 14:00")]
    first, last = backend_on(slurm).usages(CLIMATE, hours)
    assert (cpu_seconds(first), cpu_seconds(last)) == ({"ada": 2400}, {"ada": 3000})


def test_a_job_that_is_suspended_now_has_stopped_counting(slurm: SimulatedSlurm) -> None:
    slurm.run_job(
        *("ada", "climate", {"cpu": 1}, NOW - timedelta(hours=2)),
        suspended=[(NOW - timedelta(hours=1), None)],
    )
    for start in ("11-01 00:00", "11-22 10:30"):
        report = backend_on(slurm).usage(CLIMATE, between(start, "12-01 00:00"))
        assert cpu_seconds(report) == {"ada": 3600 if start.startswith("11-01") else 1800}


def test_what_ran_before_the_resource_existed_belongs_to_another_one(
    slurm: SimulatedSlurm,
) -> None:
    slurm.run_job("eve", "climate", TWO, at("11-02 10:00"), at("11-02 11:00"))
    slurm.run_job("ada", "climate", TWO, at("11-04 23:59"), at("11-05 00:01"))
    created = at("11-05 00:00") + timedelta(microseconds=4711)
    report = backend_on(slurm).usage({"climate": created}, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 120}


def test_a_site_may_count_what_was_asked_for(slurm: SimulatedSlurm) -> None:
    slurm.run_job(
        *("ada", "climate", {"cpu": 4}, at("11-02 10:00"), at("11-02 10:01")),
        requested={"cpu": 1},
    )
    report = backend_on(slurm, usage_source="reqtres").usage(CLIMATE, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 60}


def test_the_days_of_a_month_are_read_at_once_and_add_up_to_it(slurm: SimulatedSlurm) -> None:
    slurm.run_job("ada", "climate", TWO, at("11-02 10:00"), at("11-05 11:00"))
    days = [
        Period(start=NOVEMBER.start + timedelta(days=n), end=NOVEMBER.start + timedelta(days=n + 1))
        for n in range(30)
    ]
    backend = backend_on(slurm)
    reports = backend.usages(CLIMATE, days[::-1])
    assert [report.period for report in reports] == days[::-1]
    by_day = [cpu_seconds(report).get("ada", 0) for report in reports]
    assert by_day == [0] * 25 + [22 * 3600, 2 * 86400, 2 * 86400, 28 * 3600, 0]
    assert slurm.commands_run["sacct"] == 1


def test_nothing_is_started_when_nothing_is_asked_for(slurm: SimulatedSlurm) -> None:
    backend = backend_on(slurm)
    assert backend.usage({}, NOVEMBER).resources == {}
    moment = Period(start=NOW, end=NOW)
    assert backend.usage(CLIMATE, moment).resources["climate"].by_user == {}
    assert backend.usages(CLIMATE, []) == ()
    assert slurm.commands_run == {}


def test_jobs_without_a_name_are_counted_and_remarked_on(slurm: SimulatedSlurm) -> None:
    day = (at("11-02 10:00"), at("11-02 10:01"))
    slurm.run_job("", "climate", TWO, *day)
    slurm.run_job("", "climate", TWO, *day)
    slurm.run_job("ada", "", TWO, *day)
    report = backend_on(slurm).usage(CLIMATE, NOVEMBER)
    assert cpu_seconds(report)["uid 1000"] == 240
    account, user = report.remarks
    assert account.startswith("1 job without an account")
    assert user.startswith("2 jobs of users whom neither Slurm nor the operating system knows")


@pytest.mark.guarantee("usage: When sacct fails")
@pytest.mark.parametrize("user", ["a|b", "a|1|climate", "new\nline", "5|", "Ünï ", "1\n|77"])
def test_no_username_spoils_the_columns(slurm: SimulatedSlurm, user: str) -> None:
    for who in ("ada", user, "bob"):
        slurm.run_job(who, "climate", TWO, at("11-02 10:00"), at("11-02 10:01"))
    report = backend_on(slurm).usage(CLIMATE, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 120, user.lower(): 120, "bob": 120}


@pytest.mark.guarantee("usage: When sacct fails")
@pytest.mark.parametrize("account", ["climate|x", "x|climate", "climate\n", "1|climate", "|"])
def test_no_other_account_passes_for_ours(slurm: SimulatedSlurm, account: str) -> None:
    slurm.run_job("ada", account, TWO, at("11-02 10:00"), at("11-02 10:01"))
    slurm.run_job("bob", "climate", TWO, at("11-02 10:00"), at("11-02 10:01"))
    report = backend_on(slurm).usage(CLIMATE, NOVEMBER)
    assert cpu_seconds(report) == {"bob": 120}


def test_a_cluster_that_slurmdbd_does_not_know_has_no_usage_of_zero(slurm: SimulatedSlurm) -> None:
    with pytest.raises(TemporaryError, match="without the root account"):
        backend_on(slurm, cluster="elsewhere").usage(CLIMATE, NOVEMBER)


@pytest.mark.parametrize("outage", [Outage.SLURMDBD_REFUSED, Outage.MARIADB_AWAY])
def test_without_its_database_nothing_is_reported(slurm: SimulatedSlurm, outage: Outage) -> None:
    with slurm.outage(outage), pytest.raises(TemporaryError, match="slurmdbd"):
        backend_on(slurm).usage(CLIMATE, NOVEMBER)


def test_a_month_that_has_not_begun_yet_is_empty(slurm: SimulatedSlurm) -> None:
    slurm.run_job("ada", "climate", TWO, NOW - timedelta(hours=1))
    period = Period(start=datetime(2027, 1, 1, tzinfo=UTC), end=datetime(2027, 2, 1, tzinfo=UTC))
    assert backend_on(slurm).usage(CLIMATE, period).resources["climate"].by_user == {}
