"""One odd row costs the usage of its job, and nothing else; what was counted stays right."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta

import pytest

from unit.slurm.simulated_jobs import (
    LONG_AGO,
    NOVEMBER,
    NOW,
    at,
    backend_on,
    cpu_seconds,
    simulated,
    tres_seconds,
)
from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.model.usage import BillingMonth, UsageReport
from waldur_site_agent_slurm.simulator import SimulatedSlurm

BOTH = {"climate": LONG_AGO, "ocean": LONG_AGO}
OCTOBER = BillingMonth(2026, 10).period(UTC)
START = int(at("11-02 10:00").timestamp())


class Answering:
    """A cluster whose commands say something else, or more."""

    def __init__(
        self, slurm: SimulatedSlurm, more: Sequence[str] = (), *, squeue: str = ""
    ) -> None:
        self._slurm, self._more, self._squeue = slurm, more, squeue

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        result = self._slurm.runner().run(argv, timeout)
        said = result.stdout
        if argv[0] == "sacct":
            said = "".join(f"{line}\n" for line in (*self._more, *said.splitlines()))
        if argv[0] == "squeue":
            said += self._squeue
        return CommandResult(result.argv, result.exit_code, said, result.stderr)


@pytest.fixture
def slurm() -> SimulatedSlurm:
    slurm = simulated()
    slurm.run_job("ada", "climate", {"cpu": 2}, at("11-02 10:00"), at("11-02 10:01"))
    slurm.run_job("bob", "ocean", {"cpu": 2}, at("11-02 10:00"), at("11-02 10:01"))
    return slurm


def row(
    tres: str = "cpu=2",
    *,
    elapsed: str = "60",
    suspended: str = "00:00:00",
    start: str = str(START),
    end: str = str(START + 60),
    uid: str = "999",
    user: str = "eve",
    account: str = "climate",
) -> str:
    fields = ("99", "4711", elapsed, suspended, start, start, end, uid, tres)
    return "|".join((*fields, user, "99", account, "99"))


@pytest.mark.guarantee("usage: What each job counts")
@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (row("cpu=NONE"), "'NONE' is not an amount of cpu"),
        (row("cpu=-2"), "'-2' is not an amount of cpu"),
        (row("cpu=18446744073709551614"), "more than any machine"),
        (row("cpu=4294967294"), "more than any machine"),
        (row("cpu=2,cpu=4"), "there twice"),
        (row("cpu:2"), "name=amount"),
        (row(""), "what it was given is not recorded"),
        (row(elapsed="x"), "ElapsedRaw is 'x'"),
        (row(suspended="soon"), "Suspended is 'soon'"),
        (row(start="2026-11-02T10:00:00"), "Start is '2026-11-02T10:00:00'"),
        (row(end="never"), "End is 'never'"),
        (row(end="9" * 5000), "End is '999"),
        (row(user="", uid=""), "neither the name nor the number of a user"),
        (row(user="", uid="4294967295"), "neither the name nor the number of a user"),
    ],
)
def test_an_odd_row_is_left_out_named_and_keeps_its_month_open(
    slurm: SimulatedSlurm, odd: str, words: str
) -> None:
    report = backend_on(Answering(slurm, [odd])).usage(BOTH, NOVEMBER)
    assert cpu_seconds(report, "climate") == {"ada": 120}
    assert cpu_seconds(report, "ocean") == {"bob": 120}
    (remark,) = report.remarks
    assert "job 4711 of account climate" in remark
    assert words in remark
    assert not report.is_settled


@pytest.mark.parametrize(
    "tres",
    [
        "billing=NONE,cpu=2",
        "cpu=2,energy=18446744073709551614,node=x",
        "1001=?,cpu=2,gres/gpu:a100=many",
    ],
)
def test_what_is_not_counted_is_not_even_read(slurm: SimulatedSlurm, tres: str) -> None:
    report = backend_on(Answering(slurm, [row(tres)])).usage(BOTH, NOVEMBER)
    assert cpu_seconds(report, "climate") == {"ada": 120, "eve": 120}
    assert (report.remarks, report.is_settled) == ((), True)


@pytest.mark.parametrize("account", ["physics", ""])
def test_an_odd_row_of_an_account_that_is_not_ours_is_no_concern(
    slurm: SimulatedSlurm, account: str
) -> None:
    odd = Answering(slurm, [row("cpu=NONE", account=account)])
    report = backend_on(odd).usage(BOTH, NOVEMBER)
    assert (report.remarks, report.is_settled) == ((), True)


def test_a_month_without_the_odd_row_is_settled(slurm: SimulatedSlurm) -> None:
    odd = Answering(slurm, [row("cpu=NONE")])
    october, november = backend_on(odd).usages(BOTH, [OCTOBER, NOVEMBER])
    assert (october.is_settled, november.is_settled) == (True, False)


def test_a_user_without_a_name_counts_by_the_number_alone(slurm: SimulatedSlurm) -> None:
    report = backend_on(Answering(slurm, [row(user="", uid="4242")])).usage(BOTH, NOVEMBER)
    assert cpu_seconds(report, "climate") == {"ada": 120, "uid 4242": 120}
    report = backend_on(Answering(slurm, [row(user="eve", uid="")])).usage(BOTH, NOVEMBER)
    assert cpu_seconds(report, "climate") == {"ada": 120, "eve": 120}


def test_an_answer_of_which_most_is_odd_is_no_answer(slurm: SimulatedSlurm) -> None:
    odd = Answering(slurm, [row(start="2026-11-02T10:00:00")] * 20)
    with pytest.raises(TemporaryError, match=r"20 of 22 rows .*2026-11-02T10"):
        backend_on(odd).usage(BOTH, NOVEMBER)


@pytest.mark.guarantee("usage: What each job counts")
@pytest.mark.parametrize(
    ("tres", "gpus", "a100"),
    [
        ({"gres/gpu:a100": 2}, 2, 2),
        ({"gres/gpu:a100": 2, "gres/gpu:v100": 1}, 3, 2),
        ({"gres/gpu": 3, "gres/gpu:a100": 2, "gres/gpu:v100": 1}, 3, 2),
        ({"gres/gpu": 3}, 3, 0),
        ({"gres/gpumem": 3}, 0, 0),
    ],
)
def test_gpus_count_once_however_they_are_stored(
    tres: dict[str, int], gpus: int, a100: int
) -> None:
    slurm = simulated()
    slurm.run_job("ada", "climate", {"cpu": 1, **tres}, at("11-02 10:00"), at("11-02 10:01"))
    report = backend_on(slurm, ("cpu", "gres/gpu", "gres/gpu:A100")).usage(BOTH, NOVEMBER)
    amounts = {"cpu": 60, "gres/gpu": 60 * gpus, "gres/gpu:A100": 60 * a100}
    assert tres_seconds(report) == {"ada": amounts}


@pytest.mark.parametrize(
    ("name", "most"),
    [("cpu", 10**8), ("gres/gpu", 10**8), ("mem", 2**40), ("gres/tmp", 2**60)],
)
def test_what_the_largest_machine_has_is_believed(
    slurm: SimulatedSlurm, name: str, most: int
) -> None:
    def read(amount: int) -> UsageReport:
        text = f"{name}={amount}{'M' if name == 'mem' else ''}"
        return backend_on(Answering(slurm, [row(text)]), (name,)).usage(BOTH, NOVEMBER)

    assert tres_seconds(read(most))["eve"] == {name: most * 60}
    assert "eve" not in tres_seconds(read(most + 1))


def test_a_finished_job_that_ends_in_the_future_counts_up_to_now(slurm: SimulatedSlurm) -> None:
    slurm.run_job("eve", "climate", {"cpu": 2}, NOW - timedelta(minutes=1), NOW + timedelta(days=9))
    slurm.run_job("kim", "climate", {"cpu": 2}, NOW + timedelta(days=1), NOW + timedelta(days=2))
    backend = backend_on(slurm)
    report = backend.usage(BOTH, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 120, "eve": 120}
    (remark,) = report.remarks
    assert "2 jobs with an end in the future" in remark
    assert "(climate)" in remark
    assert report.is_settled


def test_suspended_time_of_a_job_that_ends_in_the_future_counts_no_more_than_there_was() -> None:
    slurm = simulated()
    slurm.run_job(
        *("eve", "climate", {"cpu": 2}, NOW - timedelta(minutes=10), NOW + timedelta(days=9)),
        suspended=[(NOW - timedelta(minutes=8), NOW - timedelta(minutes=3))],
    )
    assert cpu_seconds(backend_on(slurm).usage(BOTH, NOVEMBER))["eve"] <= 2 * 600


def test_an_odd_line_of_the_queue_leaves_out_its_job_alone(slurm: SimulatedSlurm) -> None:
    for user in ("kim", "lee"):
        slurm.run_job(user, "climate", {"cpu": 2}, NOW - timedelta(minutes=1))
    odd = Answering(slurm, squeue="77|RUNNING\n")
    report = backend_on(odd).usage(BOTH, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 120, "kim": 120, "lee": 120}


def test_a_job_whose_suspension_cannot_be_looked_up_is_left_out_alone(
    slurm: SimulatedSlurm,
) -> None:
    number = slurm.run_job(
        *("eve", "climate", {"cpu": 1}, at("10-31 23:00"), at("11-01 01:00")),
        suspended=[(at("10-31 23:10"), at("10-31 23:20"))],
    )

    class Forgetful(Answering):
        def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
            result = super().run(argv, timeout)
            if "-T" not in argv:
                return result
            return CommandResult(result.argv, 0, f"{number}|x\n", "")

    report = backend_on(Forgetful(slurm)).usage(BOTH, NOVEMBER)
    assert cpu_seconds(report) == {"ada": 120}
    assert not report.is_settled
