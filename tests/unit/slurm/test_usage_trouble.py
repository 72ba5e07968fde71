"""sacct dies, hangs, or is cut off: nothing is reported that is not whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness.patience import slowness
from unit.slurm.simulated_jobs import LONG_AGO, NOVEMBER, at, backend_on, cpu_seconds, simulated
from waldur_site_agent.backends import CheckStatus, TemporaryError
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import CommandTimedOutError, ProcessRunner
from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_slurm.usage.jobs import JobRow, elapsed_by_row, job_rows, seconds

RECORDED = Path(__file__).parents[2] / "data" / "slurm"
CLIMATE = {"climate": LONG_AGO}
ROW = "7|7|60|00:00:00|1793613600|1793613600|1793613660|999|cpu=2|ada|7|climate|7"


def sacct(directory: Path, script: str, usage_timeout_seconds: float = 600) -> SlurmBackend:
    """A backend whose sacct is a shell script; ``row`` in it prints a good row."""
    good = f"row() {{ printf '%s\\n' '{ROW}'; }}"
    scripts = {"sacct": f"{good}\n{script}", "squeue": "", "sacctmgr": "echo PrivateData = none"}
    for name, text in scripts.items():
        program = directory / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    runner = ProcessRunner(directory, {"PATH": os.environ["PATH"]})
    return backend_on(runner, usage_timeout_seconds=usage_timeout_seconds)


def test_a_whole_answer_counts(tmp_path: Path) -> None:
    assert cpu_seconds(sacct(tmp_path, "row").usage(CLIMATE, NOVEMBER)) == {"ada": 120}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("row; row; kill -9 $$", "exit code -9"),
        ("row; echo 'sacct: error: slurmdbd: Getting response to message type' >&2; exit 1",
         "exit code 1"),
        ("row; echo 'sacct: error: slurmdbd: Getting response to message type 1444' >&2",
         "slurmdbd cannot be reached"),
        ("row; printf '8|8|60|00:0'", "middle of a line"),
        ("row; printf '8|8|60|00:00:00|1793613600|17936\\n'; row", "cannot be read"),
        ("echo 'x|8|60|00:00:00|1793613600|1793613600|1793613660|9|cpu=2|ada|x|climate|x'",
         "cannot be read"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_whole_counts_for_nothing(
    tmp_path: Path, script: str, words: str
) -> None:
    with pytest.raises(TemporaryError, match=words):
        sacct(tmp_path, script).usage(CLIMATE, NOVEMBER)


def test_a_sacct_that_hangs_half_way_is_killed_and_the_setting_named(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script, seconds = f"echo $$ >{pid}; row; exec sleep 6000", 0.5 * slowness()
    backend = sacct(tmp_path, script, usage_timeout_seconds=seconds)
    with pytest.raises(CommandTimedOutError, match="usage_timeout_seconds"):
        backend.usage(CLIMATE, NOVEMBER)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_flood_of_complaints_neither_blocks_nor_is_taken_for_success(tmp_path: Path) -> None:
    script = (
        "yes 'sacct: error: no' | head -c 3000000 >&2; row; "
        "echo 'sacct: error: Sending PersistInit msg: Connection refused' >&2"
    )
    with pytest.raises(TemporaryError, match="slurmdbd cannot be reached"):
        sacct(tmp_path, script).usage(CLIMATE, NOVEMBER)


def test_a_remark_about_slurm_conf_does_not_stop_the_report(tmp_path: Path) -> None:
    script = "echo 'sacct: error: NodeNames=n1 CPUs=32 does not match, resetting CPUs' >&2; row"
    found = cpu_seconds(sacct(tmp_path, script).usage(CLIMATE, NOVEMBER))
    assert found == {"ada": 120}


def test_a_warning_is_no_failure_and_bytes_that_are_no_text_are_borne(tmp_path: Path) -> None:
    script = (
        "echo 'sacct: warning: old option' >&2; row; row | sed 's/ada/\\xff/'\n"
        'yes "$(row)" | head -5000'
    )
    found = cpu_seconds(sacct(tmp_path, script).usage(CLIMATE, NOVEMBER))
    assert found == {"ada": 120 * 5001, "\N{REPLACEMENT CHARACTER}": 120}


class Forgetful:
    """A cluster on which the second look at a job fails."""

    def __init__(self, slurm: SimulatedSlurm, answer: tuple[int, str, str]) -> None:
        self._slurm, self._answer = slurm, answer

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        if "-T" in argv:
            return CommandResult(tuple(argv), *self._answer)
        return self._slurm.runner().run(argv, timeout)


@pytest.mark.parametrize(
    "answer", [(1, "", "sacct: error: no"), (0, "x|60\n", ""), (0, "1|60", ""), (0, "1\n", "")]
)
def test_a_second_look_that_fails_counts_for_nothing_too(answer: tuple[int, str, str]) -> None:
    slurm = simulated()
    slurm.run_job(
        *("ada", "climate", {"cpu": 1}, at("10-31 23:00"), at("11-01 01:00")),
        suspended=[(at("10-31 23:10"), at("10-31 23:20"))],
    )
    with pytest.raises(TemporaryError):
        backend_on(Forgetful(slurm, answer)).usage(CLIMATE, NOVEMBER)


def recorded_rows(name: str) -> dict[int, JobRow]:
    lines = (RECORDED / name).read_text(encoding="utf-8").split("\n")[:-1]
    return {row.number: row for row in job_rows(lines) if isinstance(row, JobRow)}


def test_recorded_rows_are_read_as_what_they_are() -> None:
    rows = recorded_rows("sacct-22.05.txt")
    running = {number for number, row in rows.items() if row.running}
    assert running == {19, 24}
    assert (rows[4].suspended, rows[4].end) == (3, rows[4].start + rows[4].elapsed + 3)
    assert (rows[24].suspended, rows[24].end) == (3, rows[24].start + rows[24].elapsed + 3)
    assert 26 not in rows  # pending
    assert (rows[21].suspended, rows[21].account) == (70000, "ex1")
    assert (rows[6].user, rows[6].account) == ("wsatest4", "pi|pe")
    assert (rows[23].user, rows[23].account) == ("a|b", "ex1")
    assert (rows[15].user, rows[15].uid, rows[17].account) == ("", "4242", "")
    assert rows[20].submit == rows[20].start + 5


def test_durations_have_days() -> None:
    assert [seconds(text) for text in ("00:00:00", "00:00:59", "01:00:00", "1-01:01:01")] == [
        0,
        59,
        3600,
        86400 + 3661,
    ]
    with pytest.raises(ValueError, match="INVALID"):
        seconds("INVALID")


def test_the_second_look_is_read_by_the_number_of_the_row() -> None:
    assert elapsed_by_row(["3|60", "4|0"]) == {3: 60, 4: 0}


@pytest.fixture
def checked() -> SimulatedSlurm:
    slurm = simulated()
    slurm.run_job("ada", "climate", {"cpu": 1}, at("11-22 10:00"))
    return slurm


def verdicts(backend: SlurmBackend) -> Mapping[str, CheckStatus]:
    return {check.name: check.verdict for check in backend.diagnose()}


def test_a_diagnosis_names_jobs_that_only_the_database_believes_to_run(
    checked: SimulatedSlurm, tmp_path: Path
) -> None:
    backend = backend_on(checked, lock_file=tmp_path / "lock")
    assert verdicts(backend)["runaway jobs"] is CheckStatus.OK
    with checked.change() as state:
        state.jobs.clear()
    check = next(check for check in backend.diagnose() if check.name == "runaway jobs")
    assert check.verdict is CheckStatus.WARNING
    assert "1 jobs" in check.detail
    assert "runawayjobs" in check.remedy


def test_a_diagnosis_says_when_the_jobs_of_others_are_hidden(
    checked: SimulatedSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_on(checked, lock_file=tmp_path / "lock")
    assert verdicts(backend)["jobs of others"] is CheckStatus.OK
    with checked.change() as state:
        state.configuration["PrivateData"] = "accounts,jobs"
    monkeypatch.setattr("waldur_site_agent_slurm.diagnosis.operating_system_user", lambda: "waldur")
    assert verdicts(backend)["jobs of others"] is CheckStatus.FAILED


@pytest.mark.parametrize(
    ("kept", "verdict"),
    [
        ("NONE", CheckStatus.OK),
        ("12 months*", CheckStatus.OK),
        ("62 days", CheckStatus.OK),
        ("40 days", CheckStatus.WARNING),
        ("36 hours", CheckStatus.WARNING),
        ("1 months", CheckStatus.WARNING),
    ],
)
def test_a_diagnosis_warns_where_jobs_are_forgotten_before_their_month_is_closed(
    checked: SimulatedSlurm, tmp_path: Path, kept: str, verdict: CheckStatus
) -> None:
    with checked.change() as state:
        state.configuration["PurgeJobAfter"] = kept
    assert verdicts(backend_on(checked, lock_file=tmp_path / "lock"))["records of jobs"] is verdict
