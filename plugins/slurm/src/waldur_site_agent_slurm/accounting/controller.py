"""What slurmctld says of jobs that have no end in the accounting database. Pure.

slurmctld tells slurmdbd of every start, suspension and end, and keeps what it could not tell until
slurmdbd is back. Until then sacct says of jobs that are over that they run, and counts them up to
now; that would be reported, and could never be lowered again. So a row without an end counts only
as far as slurmctld, asked **before** the database, says that the job had come.
"""

from __future__ import annotations

import enum
import math
import re
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from waldur_site_agent.backends import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from waldur_site_agent_slurm.accounting.rows import JobRow

LAYOUT = "%A|%T|%S|%e|%M"
"""For squeue: the job's number, its state, when it began, when it ends, how long it ran."""
STATES = "R,S,CG,CD,CA,F,TO,NF,PR,OOM,BF,DL"
"""All but pending; slurmctld remembers for some minutes the jobs that ended."""

_RUNS = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING"})
_OVER = frozenset(
    {
        *("COMPLETING", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT"),
        *("NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"),
    }
)
_STARTS = frozenset({"CONFIGURING", "RESIZING"})
_USED = re.compile(r"(?:(?:(?:(\d+)-)?(\d+):)?(\d+):)?(\d+)")
_COLUMNS = 5
_CLOCKS_DIFFER = 300
"""Seconds. How long a job has run is reckoned by squeue with the clock of this machine; with more
of a difference munge would let it in nowhere."""


class KnownJob(NamedTuple):
    """A job as slurmctld knows it."""

    state: str
    start: int
    """Epoch; of a job that was requeued, of its last run."""
    end: int | None
    """Epoch; of a job that runs, the end of its time limit, if it has one."""
    used: int
    """Seconds that it ran, without suspension."""


class Doubt(enum.Enum):
    """Why a row without an end does not count."""

    STARTING = "its nodes are being prepared: its start may still be moved"
    ENDLESS = "slurmctld does not say that it runs"


Jobs: TypeAlias = "Mapping[str, KnownJob]"
"""By the number of the job, which is unique in slurmctld; array tasks have one each."""


def known_jobs(lines: Iterable[str]) -> Jobs:
    """Read the answer to :func:`asking.jobs_of_controller`.

    A line that cannot be read leaves its job unknown, so that the job does not count until it has
    an end.

    Raises:
        TemporaryError: most lines are not what squeue prints.
    """
    found: dict[str, KnownJob] = {}
    odd: list[str] = []
    read = 0
    for line in lines:
        read += 1
        fields = line.split("|")
        if len(fields) != _COLUMNS or not fields[0].isdecimal():
            odd.append(line)
            continue
        job, state, start, end, used = fields
        if start.isdecimal():
            known_end = int(end) if end.isdecimal() else None
            found[job] = KnownJob(state, int(start), known_end, _seconds(used))
    if len(odd) > read // 2:
        raise TemporaryError(
            f"squeue printed {len(odd)} of {read} rows that cannot be read: {odd[-1][:200]!a}; no "
            "usage is reported, because it is not known which jobs run; look at: squeue -a -h -r "
            f"-o '{LAYOUT}'"
        )
    return found


def counted(row: JobRow, jobs: Jobs, passed: float) -> JobRow | Doubt:
    """Cut a row without an end to what certainly ran before slurmctld was asked.

    ``passed`` is how many seconds ago that was, at most, when the row was read.
    """
    job = jobs.get(row.job)
    if job is not None and job.state in _STARTS:
        return Doubt.STARTING
    # another start is another run: of a requeued job, or of one that got the same number
    if job is None or job.start != row.start:
        return Doubt.ENDLESS
    if job.state in _RUNS:
        return _running(row, job, math.ceil(passed))
    if job.state in _OVER and job.end is not None:
        return _over(row, job, job.end, math.ceil(passed))
    return Doubt.ENDLESS


def _running(row: JobRow, job: KnownJob, passed: int) -> JobRow | Doubt:
    stands = job.state == "SUSPENDED"
    unexplained = row.elapsed - job.used
    if unexplained > (passed if stands else passed + _CLOCKS_DIFFER):
        return Doubt.ENDLESS  # the database has not heard of a suspension
    less = max(unexplained, 0 if stands else passed)
    return row._replace(
        elapsed=max(0, row.elapsed - less),
        end=max(row.start, row.end - less),
        stands=stands,
    )


def _over(row: JobRow, job: KnownJob, end: int, passed: int) -> JobRow | Doubt:
    """Give a row the end of which the database has not heard yet."""
    if end > row.end + _CLOCKS_DIFFER:
        return Doubt.ENDLESS
    end = max(row.start, min(row.end, end))
    ran = row.elapsed - (row.end - end)
    if ran > job.used + passed:
        return Doubt.ENDLESS  # nor of a suspension
    elapsed = min(row.elapsed, job.used, end - row.start)
    return row._replace(end=end, elapsed=elapsed, suspended=end - row.start - elapsed)


def _seconds(used: str) -> int:
    """Read ``[[D-]HH:]MM:SS``; anything else, such as INVALID of clocks that differ, is nothing."""
    match = _USED.fullmatch(used)
    if match is None:
        return 0
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
