"""Jobs without an end: what slurmctld says of them decides, and no figure is ever too high."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from unit.slurm.simulated_jobs import (
    LONG_AGO,
    NOVEMBER,
    NOW,
    at,
    backend_on,
    between,
    cpu_seconds,
    simulated,
    tres_seconds,
)
from waldur_site_agent.backends import PermanentError, TemporaryError
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent_slurm.simulator import Outage, SimulatedSlurm
from waldur_site_agent_slurm.usage.jobs import KnownJob, known_jobs

CLIMATE = {"climate": LONG_AGO}
TWO = {"cpu": 2}
HOUR = timedelta(hours=1)
EPOCH = int(NOW.timestamp())


@pytest.fixture
def slurm() -> SimulatedSlurm:
    return simulated()


def travel(slurm: SimulatedSlurm, by: timedelta) -> None:
    with slurm.change() as state:
        state.now = (state.now or EPOCH) + int(by.total_seconds())


def change(slurm: SimulatedSlurm, job: int, state: str, end: datetime | None = None) -> None:
    """Let slurmctld know more of a job than the database does."""
    with slurm.change() as cluster:
        cluster.jobs[job].state = state
        cluster.jobs[job].end = None if end is None else int(end.timestamp())


def forget(slurm: SimulatedSlurm, job: int) -> None:
    with slurm.change() as state:
        del state.jobs[job]


def test_a_job_without_an_end_that_slurmctld_does_not_know_is_left_out_until_it_has_one(
    slurm: SimulatedSlurm,
) -> None:
    lost = slurm.run_job("ada", "climate", TWO, at("10-31 23:00"))
    slurm.run_job("bob", "climate", TWO, NOW - HOUR)
    forget(slurm, lost)
    backend = backend_on(slurm)
    months = [BillingMonth(2026, 10).period(UTC), NOVEMBER]
    for report, whole in zip(backend.usages(CLIMATE, months), ({}, {"bob": 7200}), strict=True):
        assert cpu_seconds(report) == whole
        assert not report.is_settled
        assert report.unfinished == {"climate"}
        (remark,) = report.remarks
        assert remark.startswith("1 job without an end in the accounting database")
    earlier = backend.usage(CLIMATE, between("09-01 00:00", "10-01 00:00"))
    assert earlier.is_settled
    assert earlier.remarks == ()
    with slurm.change() as state:
        state.runs[0].end = int(at("11-01 01:00").timestamp())
    for report, whole in zip(
        backend.usages(CLIMATE, months), ({"ada": 7200}, {"ada": 7200, "bob": 7200}), strict=True
    ):
        assert cpu_seconds(report) == whole
        assert report.is_settled
        assert not report.unfinished


def test_a_job_that_slurmctld_knows_to_be_over_ends_where_it_says(slurm: SimulatedSlurm) -> None:
    """Messages to slurmdbd take a moment, on every cluster: no job is left out for that."""
    plain = slurm.run_job("ada", "climate", TWO, NOW - HOUR)
    stopped = slurm.run_job(
        *("bob", "climate", TWO, NOW - HOUR),
        suspended=[(NOW - timedelta(minutes=40), NOW - timedelta(minutes=30))],
    )
    change(slurm, plain, "COMPLETING", NOW - timedelta(seconds=7))
    change(slurm, stopped, "CANCELLED", NOW - timedelta(seconds=10))
    report = backend_on(slurm).usage(CLIMATE, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 2 * (3600 - 7), "bob": 2 * (3600 - 600 - 10)}
    assert report.is_settled
    assert report.remarks == ()


def test_a_run_that_is_not_the_present_one_is_left_out(slurm: SimulatedSlurm) -> None:
    """The database has not heard that the first run ended, when the job was requeued."""
    job = slurm.run_job("ada", "climate", TWO, NOW - HOUR)
    slurm.run_job("ada", "climate", TWO, NOW - timedelta(minutes=1), job=job)
    report = backend_on(slurm).usage(CLIMATE, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 120}
    assert not report.is_settled


def test_a_job_whose_nodes_are_being_prepared_counts_from_when_it_really_starts(
    slurm: SimulatedSlurm,
) -> None:
    job = slurm.run_job("ada", "climate", TWO, NOW - timedelta(minutes=1))
    change(slurm, job, "CONFIGURING")
    report = backend_on(slurm).usage(CLIMATE, NOVEMBER)
    assert (cpu_seconds(report), report.is_settled, report.remarks) == ({}, False, ())


class Slow:
    """A cluster that takes time: what runs is asked first, and the answer of sacct is late."""

    def __init__(self, slurm: SimulatedSlurm, seconds: float) -> None:
        self._slurm, self._seconds, self._time = slurm, seconds, 0.0

    def clock(self) -> float:
        return self._time

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        if argv[0] == "sacct":
            self._time += self._seconds
            travel(self._slurm, timedelta(seconds=int(self._seconds)))
        return self._slurm.runner().run(argv, timeout)


def test_no_running_job_counts_beyond_the_moment_when_slurmctld_was_asked(
    slurm: SimulatedSlurm,
) -> None:
    slurm.run_job("ada", "climate", TWO, NOW - HOUR)
    slurm.run_job("bob", "climate", TWO, NOW + timedelta(seconds=2))
    slow = Slow(slurm, 40.2)
    report = backend_on(slow, clock=slow.clock).usage(CLIMATE, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 2 * 3599}  # 40.2 seconds passed, and 41 are taken off
    assert report.is_settled


@pytest.mark.parametrize("state", ["RUNNING", "SUSPENDED", "COMPLETED"])
def test_a_job_of_whose_suspension_the_database_has_not_heard_is_left_out(
    slurm: SimulatedSlurm, state: str
) -> None:
    job = slurm.run_job("ada", "climate", TWO, NOW - HOUR)
    change(slurm, job, state, NOW if state == "COMPLETED" else None)
    behind = Changed(slurm, lambda said: said.replace("1:00:00", "50:00"))
    report = backend_on(behind).usage(CLIMATE, NOVEMBER)
    assert (cpu_seconds(report), report.is_settled) == ({}, False)


class Changed:
    """A cluster whose squeue says something else."""

    def __init__(self, slurm: SimulatedSlurm, change: Callable[[str], str]) -> None:
        self._slurm, self._change = slurm, change

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        result = self._slurm.runner().run(argv, timeout)
        if argv[0] != "squeue":
            return result
        return CommandResult(result.argv, 0, self._change(result.stdout), "")


@pytest.mark.parametrize("said", ["1|RUNNING|5\n", "x|RUNNING|5|5|0:01\n", "1|RUNNING|5|5|0:01"])
def test_a_queue_that_cannot_be_read_counts_for_nothing(slurm: SimulatedSlurm, said: str) -> None:
    slurm.run_job("ada", "climate", TWO, NOW - HOUR)
    with pytest.raises(TemporaryError, match="squeue"):
        backend_on(Changed(slurm, lambda _: said)).usage(CLIMATE, NOVEMBER)


def test_without_slurmctld_nothing_is_reported(slurm: SimulatedSlurm) -> None:
    with slurm.outage(Outage.SLURMCTLD_AWAY), pytest.raises(TemporaryError, match="slurmctld"):
        backend_on(slurm).usage(CLIMATE, NOVEMBER)
    assert "sacct" not in slurm.commands_run


def test_what_squeue_prints_is_read() -> None:
    lines = [
        "6|RUNNING|1795379360|1795381160|0:07",
        "1|SUSPENDED|1795379360|NONE|1-02:03:04",
        "7|RUNNING|1795379360|1795381160|INVALID",
        "9|PENDING|N/A|N/A|0:00",
        "8|COMPLETED|1795379360|1795379362|1:00:02",
    ]
    assert known_jobs(lines) == {
        "6": KnownJob("RUNNING", 1795379360, 1795381160, 7),
        "1": KnownJob("SUSPENDED", 1795379360, None, 93784),
        "7": KnownJob("RUNNING", 1795379360, 1795381160, 0),
        "8": KnownJob("COMPLETED", 1795379360, 1795379362, 3602),
    }


@pytest.mark.guarantee("usage: What the site decides")
@pytest.mark.parametrize("suspended_time", ["excluded", "cpu", "counted"])
def test_suspended_time_counts_only_when_the_job_has_gone_on_or_ended(
    slurm: SimulatedSlurm, suspended_time: str
) -> None:
    """Slurm ends a job that is cancelled while it is suspended where it stopped."""
    tres = {"cpu": 1, "mem": 1}
    jobs = [
        slurm.run_job(user, "climate", tres, NOW - 2 * HOUR, suspended=[(NOW - HOUR, None)])
        for user in ("ada", "bob")
    ]
    backend = backend_on(slurm, ("cpu", "mem"), suspended_time=suspended_time)
    report = backend.usage(CLIMATE, NOVEMBER)
    assert tres_seconds(report) == {user: {"cpu": 3600, "mem": 3600} for user in ("ada", "bob")}
    assert report.is_settled is (suspended_time == "excluded")
    half = between("11-22 10:30", "12-01 00:00")
    assert tres_seconds(backend.usage(CLIMATE, half))["ada"] == {"cpu": 1800, "mem": 1800}

    slurm.run(["scancel", str(jobs[0])])
    with slurm.change() as state:
        state.runs[1].suspensions = [(EPOCH - 3600, EPOCH)]
        state.jobs[jobs[1]].state = "RUNNING"
    report = backend.usage(CLIMATE, NOVEMBER)
    standing = {"cpu": 3600 * (suspended_time == "counted"), "mem": 3600}
    if suspended_time == "excluded":
        standing["mem"] = 0
    assert tres_seconds(report) == {
        "ada": {"cpu": 3600, "mem": 3600},
        "bob": {name: 3600 + seconds for name, seconds in standing.items()},
    }
    assert report.is_settled


@pytest.mark.guarantee("usage: In Slurm")
def test_a_cycle_starts_squeue_and_sacct_and_once_looks_at_what_is_hidden(
    slurm: SimulatedSlurm,
) -> None:
    slurm.run_job("ada", "climate", TWO, at("10-31 10:00"), at("11-02 11:00"))
    slurm.run_job("ada", "climate", TWO, NOW - HOUR)
    backend = backend_on(slurm)
    months = [BillingMonth(2026, 10).period(UTC), NOVEMBER]
    backend.usages(CLIMATE, months)
    assert slurm.commands_run == {"sacctmgr read": 1, "squeue": 1, "sacct": 1}
    slurm.commands_run.clear()
    backend.usages(CLIMATE, months)
    assert slurm.commands_run == {"squeue": 1, "sacct": 1}
    assert [argv[0] for argv in slurm.history][-2:] == ["squeue", "sacct"]


@pytest.fixture
def across(slurm: SimulatedSlurm) -> SimulatedSlurm:
    """A job that runs on, and one that ended; both were suspended, and cross the month's border."""
    stop = [(at("10-31 23:30"), at("10-31 23:40"))]
    slurm.run_job("ada", "climate", TWO, at("10-31 23:00"), suspended=stop)
    slurm.run_job("bob", "climate", TWO, at("10-31 23:00"), at("11-01 01:00"), suspended=stop)
    return slurm


@pytest.mark.guarantee("usage: In Slurm")
def test_how_long_a_job_had_run_at_a_border_is_looked_up_once(across: SimulatedSlurm) -> None:
    backend = backend_on(across)
    months = [BillingMonth(2026, 10).period(UTC), NOVEMBER]
    first = backend.usages(CLIMATE, months)
    assert across.commands_run["sacct"] == 2
    assert cpu_seconds(first[0]) == {"ada": 6000, "bob": 6000}
    again = backend.usages(CLIMATE, months)
    assert across.commands_run["sacct"] == 3
    assert again == first


def test_what_a_running_job_had_run_at_a_border_is_looked_up_again_within_the_hour() -> None:
    """The database may not have heard of everything yet."""
    slurm = simulated(at("11-01 00:30"))
    stop = [(at("10-31 23:30"), at("10-31 23:40"))]
    slurm.run_job("ada", "climate", TWO, at("10-31 23:00"), suspended=stop)
    backend = backend_on(slurm)
    for looks in (2, 4):
        backend.usage(CLIMATE, NOVEMBER)
        assert slurm.commands_run["sacct"] == looks


@pytest.mark.guarantee("usage: What is not usage, and what can hide usage")
def test_hidden_jobs_of_others_are_refused_until_the_agent_may_see_them(
    slurm: SimulatedSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waldur_site_agent_slurm.diagnosis.operating_system_user", lambda: "waldur")
    slurm.run_job("ada", "climate", TWO, NOW - HOUR)
    with slurm.change() as state:
        state.configuration["PrivateData"] = "accounts,jobs"
    backend = backend_on(slurm)
    with pytest.raises(PermanentError, match=r"hidden.*adminlevel=operator"):
        backend.usage(CLIMATE, NOVEMBER)
    assert "sacct" not in slurm.commands_run
    with slurm.change() as state:
        state.configuration["PrivateData"] = "accounts"
    assert cpu_seconds(backend.usage(CLIMATE, NOVEMBER)) == {"ada": 7200}
