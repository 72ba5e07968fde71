"""Lines of sacct become values. Pure: no process, no clock.

Numbers and TRES come first; of the two free texts, user and account, each is followed by the row's
own number once more. So neither a ``|`` nor a line end in them can pass for anything else.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from waldur_site_agent.backends import TemporaryError

FIELDS = ("DBIndex", "JobIDRaw", "ElapsedRaw", "Suspended", "Submit", "Start", "End", "UID")
CUT_FIELDS = ("DBIndex", "ElapsedRaw")

_FREE = ("User", "DBIndex", "Account", "DBIndex")
_COLUMNS = len(FIELDS) + 1 + len(_FREE)
_LINES_OF_A_ROW = 20
"""More line ends than that are in no name."""
_NO_TIME = ("Unknown", "None", "")
_NO_USER = 2**32 - 2
"""From here on a number is what Slurm stores in place of a user."""
_SHOWN = 200
_NEVER_SUSPENDED = "00:00:00"
_DURATION = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)(?:\.\d+)?")


class JobRow(NamedTuple):
    """One run of a job: requeued jobs have several, and so have jobs that were resized."""

    number: int
    """The row's number in the database; job ids come again after slurmctld lost its state."""
    job: str
    elapsed: int
    """Seconds from start to end (or now) without the time it was suspended."""
    suspended: int
    """Seconds; of a job that is suspended now, up to now."""
    submit: int
    start: int
    end: int
    """Epoch; of a running job the moment at which the database answered."""
    running: bool
    tres: str
    uid: str
    user: str
    """In lower case; empty where neither the database nor the operating system has a name."""
    account: str
    """In lower case."""
    stands: bool = False
    """Whether it is suspended now, by slurmctld."""


class OddRow(NamedTuple):
    """A whole row with something in it that cannot be, so that the job cannot be counted."""

    job: str
    account: str
    """In lower case."""
    start: int
    """Epoch; 0 where that is what cannot be read."""
    end: int
    """Epoch; a time far away where the row has none that can be read."""
    reason: str

    def __str__(self) -> str:
        return f"job {self.job} of account {self.account}: {self.reason}"


UNREADABLE = -1
"""In place of the seconds that a job had run."""
_FAR_AWAY = 2**62
_DIGITS = 18
"""Of a number of seconds; more are none."""


def columns(tres_field: str) -> str:
    """The columns that :func:`job_rows` reads, as sacct takes them."""
    return ",".join((*FIELDS, tres_field, *_FREE))


def job_rows(lines: Iterable[str]) -> Iterator[JobRow | OddRow]:
    """Read the answer to :func:`asking.jobs_between`; jobs that never started are left out.

    Raises:
        TemporaryError: a line is not what sacct prints, or the last row is not whole.
    """
    begun: list[str] = []
    for line in lines:
        fields = line.split("|")
        if begun or len(fields) != _COLUMNS or not fields[0] == fields[-3] == fields[-1]:
            begun.append(line)
            found = _with_free_names("\n".join(begun))
            if found is None:
                if len(begun) >= _LINES_OF_A_ROW:
                    break
                continue
            fields = found
            begun.clear()
        row = _job_row(fields)
        if row is not None:
            yield row
    if begun:
        raise TemporaryError(_unreadable(begun[0]))


def elapsed_by_row(lines: Iterable[str]) -> dict[int, int]:
    """Read the answer to :func:`asking.jobs_cut_at`: seconds by the row's number.

    Seconds that cannot be read are ``UNREADABLE``.

    Raises:
        TemporaryError: a line is not what sacct prints.
    """
    found: dict[int, int] = {}
    for line in lines:
        index, separator, elapsed = line.partition("|")
        if not (separator and index.isdecimal() and elapsed):
            raise TemporaryError(_unreadable(line))
        found[int(index)] = int(elapsed) if elapsed.isdecimal() else UNREADABLE
    return found


def seconds(duration: str) -> int:
    """Read ``[D-]HH:MM:SS``.

    Raises:
        ValueError: it is something else.
    """
    if duration == _NEVER_SUSPENDED:
        return 0
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"Suspended is {duration[:_SHOWN]!a}, which is no duration")
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _with_free_names(text: str) -> list[str] | None:
    """Split a row with a separator or a line end in a name; ``None`` if it has not ended yet."""
    fields = text.split("|", len(FIELDS) + 1)
    if len(fields) <= len(FIELDS) + 1:
        return None
    rest, ours, mark = fields.pop(), fields[0], f"|{fields[0]}"
    user, separator, account = rest.removesuffix(mark).partition(f"{mark}|")
    if not rest.endswith(mark) or not separator:
        return None
    return [*fields, user, ours, account, ours]


def _job_row(fields: list[str]) -> JobRow | OddRow | None:
    number, job, elapsed, suspended, submit, start, end, uid, tres, user, _, account, _ = fields
    if not number.isdecimal():
        # a row that is no row must not pass for one
        raise TemporaryError(_unreadable("|".join(fields)))
    never_ran = elapsed == "0" and not tres
    if start in _NO_TIME or never_ran:
        return None
    try:
        _require_tres(tres)
        began, ran, stood = (
            _number("Start", start),
            _number("ElapsedRaw", elapsed),
            seconds(suspended),
        )
        running = end in _NO_TIME
        if not user:
            _require_user(uid)
        return JobRow(
            number=int(number),
            job=job,
            elapsed=ran,
            suspended=stood,
            submit=int(submit) if submit.isdecimal() else began,
            start=began,
            end=began + ran + stood if running else _number("End", end),
            running=running,
            tres=tres,
            uid=uid,
            user=user.lower(),
            account=account.lower(),
        )
    except ValueError as error:
        return OddRow(
            job=job,
            account=account.lower(),
            start=int(start) if start.isdecimal() and len(start) <= _DIGITS else 0,
            end=int(end) if end.isdecimal() and len(end) <= _DIGITS else _FAR_AWAY,
            reason=str(error),
        )


def _number(column: str, text: str) -> int:
    if not text.isdecimal() or len(text) > _DIGITS:
        raise ValueError(f"{column} is {text[:_SHOWN]!a}, which is no number of seconds")
    return int(text)


def _require_tres(text: str) -> None:
    if not text:
        raise ValueError("it ran, and what it was given is not recorded")


def _require_user(uid: str) -> None:
    if not uid.isdecimal() or int(uid) >= _NO_USER:
        raise ValueError(f"it has neither the name nor the number of a user (UID {uid!a})")


def _unreadable(line: str) -> str:
    shown = ascii(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...")
    return (
        f"sacct printed a row that cannot be read: {shown}; no usage is reported. "
        "The answer may have been cut off; if this stays, look at the job with: "
        "sacct -X -D -P -j JOBID --format=" + ",".join(FIELDS)
    )


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
_QUEUE_COLUMNS = 5
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
        if len(fields) != _QUEUE_COLUMNS or not fields[0].isdecimal():
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
