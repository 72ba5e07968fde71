"""Lines of sacct become values. Pure: no process, no clock.

Numbers and TRES come first; the two free texts, user and account, stand last with the row's own
number between them. So a ``|`` in either of them spoils nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from waldur_site_agent.backends import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIELDS = ("DBIndex", "JobIDRaw", "ElapsedRaw", "Suspended", "Submit", "Start", "End", "UID")
CUT_FIELDS = ("DBIndex", "ElapsedRaw")

_COLUMNS = len(FIELDS) + 4
_LINES_OF_A_ROW = 20
"""More line ends than that are in no name."""
_NO_END = ("Unknown", "None")
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


def job_rows(lines: Iterable[str]) -> Iterator[JobRow]:
    """Read the answer to :func:`asking.jobs_between`; jobs that never started are left out.

    Raises:
        TemporaryError: a line is not what sacct prints, or the last one is not whole.
    """
    pending: list[str] = []
    for line in lines:
        if pending or line.count("|") < _COLUMNS - 1:
            pending.append(line)
            if len(pending) > _LINES_OF_A_ROW:
                break
            line = "\n".join(pending)  # noqa: PLW2901 - a name with a line end in it makes one row
            if line.count("|") < _COLUMNS - 1:
                continue
            pending.clear()
        row = _job_row(line)
        if row is not None:
            yield row
    if pending:
        raise TemporaryError(_unreadable(pending[0]))


def elapsed_by_row(lines: Iterable[str]) -> dict[int, int]:
    """Read the answer to :func:`asking.jobs_cut_at`: seconds by the row's number.

    Raises:
        TemporaryError: a line is not what sacct prints.
    """
    found: dict[int, int] = {}
    for line in lines:
        index, separator, elapsed = line.partition("|")
        if not (separator and index.isdecimal() and elapsed.isdecimal()):
            raise TemporaryError(_unreadable(line))
        found[int(index)] = int(elapsed)
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
        raise ValueError(f"{duration!r} is not a duration")
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _job_row(line: str) -> JobRow | None:
    fields = line.split("|")
    if len(fields) != _COLUMNS or fields[0] != fields[-2]:
        fields = _with_free_names(line)
    index, job, elapsed, suspended, submit, start, end, uid, tres, user, _, account = fields
    if not tres or not start.isdecimal():
        # never started; but a row that is no row must not pass for one
        if not (index.isdecimal() and elapsed.isdecimal()):
            raise TemporaryError(_unreadable(line))
        return None
    try:
        began, ran, stood = int(start), int(elapsed), seconds(suspended)
        running = end in _NO_END
        return JobRow(
            number=int(index),
            job=job,
            elapsed=ran,
            suspended=stood,
            submit=int(submit) if submit.isdecimal() else began,
            start=began,
            end=began + ran + stood if running else int(end),
            running=running,
            tres=tres,
            uid=uid,
            user=user.lower(),
            account=account.lower(),
        )
    except ValueError as error:
        raise TemporaryError(_unreadable(line)) from error


def _with_free_names(line: str) -> list[str]:
    """Split a row in which user or account contain the separator."""
    *fields, rest = line.split("|", len(FIELDS) + 1)
    user, separator, account = rest.partition(f"|{fields[0]}|")
    if not separator:
        raise TemporaryError(_unreadable(line))
    return [*fields, user, fields[0], account]


def _unreadable(line: str) -> str:
    shown = ascii(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...")
    return (
        f"sacct printed a row that cannot be read: {shown}; no usage is reported. "
        "The answer may have been cut off; if this stays, look at the job with: "
        "sacct -X -D -P -j JOBID --format=" + ",".join(FIELDS)
    )
