"""Usage of real jobs, compared with an independent count in slurmdbd's own tables."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.slurm.accounting_database import AccountingDatabase
from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period, UsageReport
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_slurm.usage import queries

if TYPE_CHECKING:
    from integration.conftest import RealSlurm

pytestmark = pytest.mark.slurm

TRES = ("cpu", "mem", "gres/gpu", "node", "billing")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(real_slurm: RealSlurm, account: str) -> Iterator[AccountingDatabase]:
    database = AccountingDatabase(real_slurm)
    yield database
    database.forget(account)


@pytest.fixture
def account(real_slurm: RealSlurm, prefix: str) -> str:
    """An account with users."""
    real_slurm.sacctmgr("add", "account", f"name={prefix}", "parent=root", "organization=o")
    users = ",".join(real_slurm.users[:4])
    real_slurm.sacctmgr("add", "user", f"name={users}", f"account={prefix}")
    return prefix


def backend_on(real_slurm: RealSlurm, **settings: object) -> SlurmBackend:
    counted = {
        name: Component(type=name, measured_unit="h", label=name, accounting_type="usage")
        for name in TRES
    }
    chosen = SlurmSettings.model_validate(settings)
    return SlurmBackend(chosen, counted, runner=real_slurm.runner())


def between(start: int, end: int) -> Period:
    return Period(start=at(start), end=at(end))


def at(epoch: int) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def used(report: UsageReport, account: str) -> dict[str, dict[str, int]]:
    return {
        user: {name: int(amount * 60) for name, amount in amounts.items()}
        for user, amounts in report.resources[account].by_user.items()
    }


def next_second(seconds: int = 1) -> int:
    """Wait until the clock shows so many seconds more, and return it."""
    reached = int(time.time()) + seconds
    while time.time() < reached:
        time.sleep(0.02)
    return reached


@pytest.mark.guarantee("usage: Checked against the real thing")
def test_real_jobs_come_out_as_the_tables_of_slurmdbd_say(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    """An array, a requeue, suspensions across borders, a running job, one before ``since``."""
    ada, bob, cyd, dora = real_slurm.users[:4]
    begin = int(time.time()) - 1
    go_home = Path(tempfile.gettempdir()) / f"wsatest-{account}"  # where every user may look
    waiting = f"until [ -e {go_home} ]; do sleep 0.2; done"
    real_slurm.submit(ada, account, "-c", "2", "--array=0-1", "--wrap", waiting)
    again = real_slurm.submit(bob, account, "--gres=gpu:1", "--requeue", "--wrap", "sleep 590")
    still = real_slurm.submit(cyd, account, "-n", "4", "--mem=300", "--wrap", "sleep 590")
    real_slurm.submit(dora, account, "--wrap", "sleep 590")
    real_slurm.wait_until(lambda: real_slurm.run("squeue", "-h", "-t", "R").stdout.count("\n") >= 5)
    since = next_second(2)
    go_home.touch()
    real_slurm.run("scontrol", "suspend", still)
    real_slurm.run("scontrol", "requeue", again)
    border = next_second(2)
    next_second()
    real_slurm.run("scontrol", "resume", still)
    next_second(2)
    real_slurm.run("scontrol", "suspend", still)
    later = next_second(2)
    real_slurm.run("scontrol", "release", again)
    listed = ("sacct", "-X", "-D", "-n", "-P", "-A", account, "--format=State")
    real_slurm.wait_until(
        lambda: (
            {"COMPLETED", "REQUEUED", "SUSPENDED"} <= set(real_slurm.run(*listed).stdout.split())
        )
    )
    go_home.unlink()
    next_second()

    backend = backend_on(real_slurm)
    edges = [begin, border, later, later + 86400]
    periods = [between(a, b) for a, b in pairwise(edges)]
    for counted_from, begins in ((begin, LONG_AGO), (since, at(since))):
        before = database.used(account, max(later, counted_from), edges[-1], TRES)
        next_second(4)  # running jobs count up to a moment before the reading
        closed, middle, current = backend.usages({account: begins}, periods)
        after = database.used(account, max(later, counted_from), edges[-1], TRES)
        for report, first, last in ((closed, begin, border), (middle, border, later)):
            expected = database.used(account, max(first, counted_from), last, TRES)
            assert used(report, account) == expected
        found = used(current, account)
        assert dora in found
        assert cyd not in found, "suspended since before this period"
        for user, amounts in found.items():
            for name, amount in amounts.items():
                assert before[user][name] <= amount <= after[user][name]
    # one each, and one for each border that the suspended job crosses
    assert backend.commands_run()["sacct"] <= (1 + 2) + (1 + 3)
    assert (backend.commands_run()["squeue"], backend.commands_run()["sacctmgr read"]) == (2, 1)


@pytest.mark.guarantee("usage: Which jobs are running")
def test_while_slurmdbd_is_behind_no_figure_is_too_high(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    """Jobs end, are requeued, and stand still while slurmdbd is away; then it is told."""
    ends, again, stops, stays = real_slurm.users[:4]
    begin = int(time.time()) - 1
    jobs = {
        user: real_slurm.submit(user, account, "--requeue", "--wrap", "sleep 300")
        for user in (ends, again, stops, stays)
    }
    listed = ("sacct", "-X", "-n", "-P", "-A", account, "--format=State")
    running = ["RUNNING"] * len(jobs)
    real_slurm.wait_until(lambda: real_slurm.run(*listed).stdout.split() == running)
    backend = backend_on(real_slurm, suspended_time="counted")
    readings: list[UsageReport] = []

    def read() -> UsageReport:
        readings.append(backend.usage({account: LONG_AGO}, between(begin, begin + 86400)))
        return readings[-1]

    next_second(3)
    assert set(used(read(), account)) == set(jobs)
    with real_slurm.slurmdbd_stopped():
        real_slurm.run("scontrol", "suspend", jobs[stops])
        real_slurm.run("scancel", jobs[ends])
        real_slurm.run("scontrol", "requeuehold", jobs[again])
        real_slurm.wait_until(lambda: len(running_jobs(real_slurm, account)) == 2)
        next_second(3)
    next_second()
    real_slurm.wait_until(
        lambda: not read().remarks and set(used(readings[-1], account)) == set(jobs)
    )
    assert not readings[-1].is_settled, "one job stands still"
    real_slurm.run("scancel", *jobs.values())
    real_slurm.wait_until(lambda: not running_jobs(real_slurm, account))
    over = {"CANCELLED", "REQUEUED"}
    real_slurm.wait_until(
        lambda: over >= {s.split()[0] for s in real_slurm.run(*listed, "-D").stdout.splitlines()}
    )
    read()
    assert used(readings[-1], account) == database.used(account, begin, begin + 86400, TRES)
    as_in_version_1 = backend_on(real_slurm, suspended_time="counted", requeued_jobs="last_run")
    report = as_in_version_1.usage({account: LONG_AGO}, between(begin, begin + 86400))
    assert set(used(report, account)) == {ends, stops, stays}, "the last run never started"
    for reading in readings:
        for user, amounts in used(reading, account).items():
            for name, amount in amounts.items():
                assert amount <= used(readings[-1], account)[user][name]


def running_jobs(real_slurm: RealSlurm, account: str) -> list[str]:
    return real_slurm.run("squeue", "-h", "-A", account, "-t", "R,S", "-o", "%A").stdout.split()


def test_a_job_without_an_end_that_slurmctld_does_not_know_is_left_out(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    user, start = real_slurm.users[0], int(time.time()) - 3600
    database.insert(900_040, account, user, start, 0, state=1)
    report = backend_on(real_slurm).usage({account: LONG_AGO}, between(start, start + 86400))
    assert used(report, account) == {}
    assert not report.is_settled
    assert any("without an end" in remark for remark in report.remarks)


def test_jobs_in_hidden_partitions_are_confirmed_too(real_slurm: RealSlurm, account: str) -> None:
    user, start = real_slurm.users[0], int(time.time()) - 3600
    real_slurm.submit_job(user, account)
    real_slurm.run("scontrol", "update", "partition=main", "hidden=yes")
    try:
        listed = real_slurm.run(*queries.jobs_of_controller(None), user=real_slurm.users[1])
    finally:
        real_slurm.run("scontrol", "update", "partition=main", "hidden=no")
    assert "|RUNNING|" in listed.stdout
    next_second(3)
    for cluster in (None, "wsatest"):
        report = backend_on(real_slurm, cluster=cluster).usage(
            {account: LONG_AGO}, between(start, start + 86400)
        )
        assert set(used(report, account)) == {user}
        assert report.is_settled


@pytest.mark.guarantee("usage: Checked against the real thing")
def test_what_cannot_be_waited_for_is_counted_alike(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    """Resized and suspended, longer than the period, several suspensions across every border."""
    ada, bob, cyd = real_slurm.users[:3]
    hour, base = 3600, int(datetime(2026, 3, 10, tzinfo=UTC).timestamp())
    database.insert(900_001, account, ada, base - 60 * 86400, base + 60 * 86400)
    database.insert(900_002, account, bob, base, base + hour, state=5, tres="1=8,2=100")
    database.insert(
        *(900_002, account, bob, base, base + 4 * hour),
        submit=base + hour,
        suspensions=[(base + 2 * hour - 600, base + 2 * hour + 60)],
    )
    stops = [(base + n * hour - 5, base + n * hour + 7) for n in range(1, 6)]
    database.insert(900_003, account, cyd, base + 11, base + 6 * hour + 3, suspensions=stops)
    edges = [base + n * hour for n in range(7)]
    periods = [between(a, b) for a, b in pairwise(edges)]
    since = base + 2 * hour + 30
    for begins in (0, since):
        reports = backend_on(real_slurm).usages({account: at(begins)}, periods)
        for report, (first, last) in zip(reports, pairwise(edges), strict=True):
            expected = database.used(account, max(first, begins), max(last, begins), TRES)
            assert used(report, account) == expected


def test_jobs_of_users_without_a_name_are_there_under_their_number(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    start = int(datetime(2026, 3, 10, tzinfo=UTC).timestamp())
    database.insert(900_010, account, "", start, start + 60)
    report = backend_on(real_slurm).usage({account: LONG_AGO}, between(start, start + 3600))
    assert used(report, account)["uid 4242"]["cpu"] == 120
    assert any("1 job of users" in remark for remark in report.remarks)


@pytest.mark.guarantee("usage: What each job counts")
def test_odd_rows_cost_their_own_jobs_and_nothing_else(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    """What Slurm stores for unknown numbers comes out as nothing, NONE, or a number of its own."""
    user, start = real_slurm.users[0], int(datetime(2026, 3, 10, tzinfo=UTC).timestamp())
    believed = ("1=2,2=300", "1=2,2=300,3=18446744073709551615", "1=2,2=300,3=x")
    odd = (
        *("1=2,5=18446744073709551615", "1=18446744073709551614", "1=18446744073709551615"),
        *("1=4294967294,2=300", "1=2,2=9223372036854775908"),
    )
    for number, tres in enumerate((*believed, *odd)):
        database.insert(900_020 + number, account, user, start, start + 60, tres=tres)
    database.forget_user(database.insert(900_030, account, "", start, start + 60))
    report = backend_on(real_slurm).usage({account: LONG_AGO}, between(start, start + 3600))
    amounts = {"cpu": 360, "mem": 54000, "gres/gpu": 0, "node": 0, "billing": 0}
    assert used(report, account) == {user: amounts}
    assert not report.is_settled
    (remark,) = report.remarks
    assert remark.startswith("6 jobs left out")
    assert f"job 900023 of account {account}" in remark


def test_a_finished_job_that_ends_in_the_future_counts_up_to_now(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    user, now = real_slurm.users[0], int(time.time())
    database.insert(900_031, account, user, now - 60, now + 86400)
    report = backend_on(real_slurm).usage({account: LONG_AGO}, between(now - 60, now + 86400))
    assert 2 * 60 <= used(report, account)[user]["cpu"] <= 2 * (time.time() - now + 60)
    assert any("1 job with an end in the future" in remark for remark in report.remarks)


def test_without_slurmdbd_nothing_is_reported(real_slurm: RealSlurm, account: str) -> None:
    now = int(time.time())
    backend = backend_on(real_slurm, usage_timeout_seconds=1)
    backend.usage({account: LONG_AGO}, between(now - 60, now))
    with real_slurm.slurmdbd_frozen(), pytest.raises(TemporaryError, match="usage_timeout"):
        backend.usage({account: LONG_AGO}, between(now - 60, now))
    with real_slurm.slurmdbd_stopped(), pytest.raises(TemporaryError, match="slurmdbd"):
        backend.usage({account: LONG_AGO}, between(now - 60, now))


def test_a_closed_time_agrees_with_sreport_and_a_difference_is_found(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    ada, bob = real_slurm.users[:2]
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = int((today - timedelta(days=1)).timestamp())
    period = between(first, first + 6 * 3600)
    database.insert(900_020, account, ada, first - 1800, first + 5 * 3600 + 77)
    database.insert(
        *(900_021, account, bob, first + 100, first + 7 * 3600),
        suspensions=[
            (first + 3 * 3600 - 50, first + 3 * 3600 + 500),
            (first + 21500, first + 22000),
        ],
    )
    database.add_up_again_from(first - 3600)
    real_slurm.stop_slurmdbd()
    real_slurm.start()
    backend = backend_on(real_slurm, usage_check=True)
    found: list[str] = ["not compared yet"]

    def compared() -> bool:
        with suppress(TemporaryError):
            found[:] = backend.verify_usage(period)
        return not found

    real_slurm.wait_until(compared)
    database.insert(900_022, account, ada, first + 60, first + 120)
    differences = list(backend.verify_usage(period))
    assert all(line.startswith(f"account {account}, user {ada}, ") for line in differences)
    assert len(differences) == 2
    database.forget(account)
    database.add_up_again_from(first - 3600)  # for whoever compares after this


def test_the_simulator_prints_jobs_as_sacct_does(
    real_slurm: RealSlurm, account: str, database: AccountingDatabase
) -> None:
    user, base = real_slurm.users[0], int(datetime(2026, 3, 10, tzinfo=UTC).timestamp())
    simulated = SimulatedSlurm(cluster="wsatest")
    for job, start, end, stops in (
        (900_030, 0, 3600, []),
        (900_030, 4000, 9000, [(5000, 6000)]),
        (900_031, -500_000, 500_000, [(-400_000, -300_000), (100, 3700)]),
        (900_032, 3600, 3600, []),
    ):
        spans = [(base + a, base + b) for a, b in stops]
        database.insert(job, account, user, base + start, base + end, suspensions=spans)
        simulated.run_job(
            *(user, account, {"cpu": 2, "mem": 300}, at(base + start), at(base + end)),
            suspended=[(at(a), at(b)) for a, b in spans],
            job=job,
        )
    columns = "--format=JobIDRaw,ElapsedRaw,Suspended,Submit,AllocTRES,User,Account"
    asked = ("sacct", "-a", "-X", "-P", "-n", "--noconvert", "-A", account, columns)
    for first, last in ((0, 3000), (3601, 5500), (-450_000, 200), (600_000, 700_000)):
        for words in (("-D",), ("-D", "-T"), ()):
            argv = (*asked, *words, "-S", f"uts{base + first}", "-E", f"uts{base + last}")
            real = real_slurm.runner().run(argv, 60)
            mine = simulated.runner().run(argv, 60)
            assert sorted(real.stdout.split()) == sorted(mine.stdout.split()), argv
            assert (real.exit_code, real.stderr) == (mine.exit_code, mine.stderr)
