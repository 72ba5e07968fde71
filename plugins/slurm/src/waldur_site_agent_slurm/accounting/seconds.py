"""How many seconds of a job lie in a span of time. Pure.

Of a job that was never suspended that is plain arithmetic. One that was suspended, and crosses a
border of the span, must be looked up: only the database knows on which side of the border it
stood still. ``Elapsed`` has what was looked up: by moment and row, how long the job had run then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from waldur_site_agent_slurm.accounting.rows import JobRow

Elapsed: TypeAlias = Mapping[int, Mapping[int, int]]
"""By moment (epoch) and number of the row: seconds without suspension up to then."""


class Span(NamedTuple):
    """A time, in epochs; the end does not belong to it."""

    start: int
    end: int


class Share(NamedTuple):
    """What of a job lies in a span, in seconds."""

    held: int
    """With the time it was suspended."""
    active: int
    """Without it."""


def begin(row: JobRow, *, resized_once: bool = True) -> int:
    """When what a row counts begins.

    After a resize the new row still has the job's first start, and the moment of the resize as
    its submission; what was before is in the row of the old size.
    """
    return max(row.start, row.submit) if resized_once else row.start


def held(row: JobRow, span: Span) -> int:
    """How long a job had its resources within a span, suspended or not."""
    return max(0, min(row.end, span.end) - max(row.start, span.start))


def share(row: JobRow, span: Span, elapsed: Elapsed) -> Share:
    """How long a job ran within a span, which begins no earlier than what the row counts.

    Raises:
        KeyError: the job was suspended and crosses a border that was not looked up.
    """
    within = held(row, span)
    if not row.suspended or not within:
        return Share(within, within)
    active = _ran_until(row, span.end, elapsed) - _ran_until(row, span.start, elapsed)
    return Share(within, min(within, max(0, active)))


def to_look_up(row: JobRow, span: Span) -> tuple[int, ...]:
    """At which moments :func:`share` needs to know how long the row had run."""
    if not row.suspended or not held(row, span):
        return ()
    return tuple(moment for moment in span if row.start < moment < row.end)


def _ran_until(row: JobRow, moment: int, elapsed: Elapsed) -> int:
    if moment <= row.start:
        return 0
    if moment >= row.end:
        return row.elapsed
    # a row that sacct did not list at that moment was not suspended before it: after a resize
    # the time before is in the row of the old size
    return min(row.elapsed, elapsed[moment].get(row.number, moment - row.start))
