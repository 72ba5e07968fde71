"""Sums over jobs as they stream by: nothing is kept of a job but what it adds.

Only jobs that were suspended across a border are kept aside until it is known on which side.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent_slurm import tres
from waldur_site_agent_slurm.settings import Rules
from waldur_site_agent_slurm.usage.jobs import UNREADABLE, Doubt, JobRow, OddRow

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


Amount: TypeAlias = int | Fraction

_DISTINCT_TRES = 20_000
_FEW = 10
"""So many odd rows are no reason to doubt the rest, however few there are."""
_CLOCKS_DIFFER = 300
"""Seconds."""


@dataclass(slots=True)
class Sums:
    """What is known of one span: TRES-seconds by account and user, and what is odd."""

    amounts: dict[tuple[str, str], list[Amount]] = field(default_factory=dict)
    """In the order of the TRES that are counted."""
    nameless: Counter[str] = field(default_factory=Counter)
    """Jobs of users without a name, by account."""
    without_account: int = 0
    endless: int = 0
    """Jobs without an end that slurmctld does not say to run: left out."""
    unfinished: set[str] = field(default_factory=set)
    """Accounts with a job that is left out until its end is known."""
    odd: list[OddRow] = field(default_factory=list)
    """Rows that cannot be read or believed: left out."""
    ahead: list[str] = field(default_factory=list)
    """Jobs that by the database ended in the future, with their accounts."""
    is_settled: bool = True
    """Whether nothing was left out that may count later."""


class Tally:
    """Adds up what jobs used in several spans that do not overlap, in one pass."""

    def __init__(
        self,
        spans: Sequence[Span],
        since: Mapping[str, int] | None,
        components: Sequence[str],
        rules: Rules,
        now: Callable[[], float],
    ) -> None:
        """``since`` has the accounts that count and from when; ``None`` means every account.

        ``components`` are TRES names in lower case; ``now`` is the time of the cluster, an epoch.
        """
        self._order = sorted(range(len(spans)), key=lambda number: spans[number])
        self._spans = [spans[number] for number in self._order]
        self._ends = [span.end for span in self._spans]
        self._since = since
        self._rules = rules
        self._active = [rules.leaves_out_suspension(name) for name in components]
        self._needs_active = any(self._active)
        self._sums = [Sums() for _ in spans]
        self._aside: list[JobRow] = []
        self._clock = now
        self._now = int(now())
        self._read = self._odd = 0
        self._last_odd: OddRow | None = None
        self._counts = lru_cache(_DISTINCT_TRES)(_Counts(components).of)

    @property
    def sums(self) -> list[Sums]:
        """The sums, in the order in which the spans were given."""
        ordered = [Sums()] * len(self._order)
        for place, number in enumerate(self._order):
            ordered[number] = self._sums[place]
        return ordered

    def add(
        self,
        rows: Iterable[JobRow | OddRow],
        confirmed: Callable[[JobRow], JobRow | Doubt] | None = None,
    ) -> None:
        """Count rows, or keep them aside where :meth:`aside` says what must be looked up.

        ``confirmed`` says how far a row without an end counts, if at all; without it such rows
        count as far as the database says.

        Raises:
            TemporaryError: so many rows are odd that the answer as a whole cannot be believed.
        """
        for each in rows:
            self._read += 1
            if self._since is not None and each.account and each.account not in self._since:
                continue
            row = self._checked(each)
            if isinstance(row, OddRow):
                self._leave_out_odd(row)
                continue
            known = confirmed(row) if row.running and confirmed is not None else row
            if isinstance(known, Doubt):
                self._leave_out(row, known)
            elif known.suspended and self._needs_active_of(known) and self._moments(known):
                self._aside.append(known)
            else:
                self._add(known, {})
        if self._odd > max(_FEW, self._read // 2):
            raise TemporaryError(
                f"{self._odd} of {self._read} rows of sacct cannot be read: {self._last_odd}; no "
                "usage is reported"
            )

    def aside(self) -> dict[int, list[JobRow]]:
        """The rows that wait, by each moment that must be looked up for them."""
        waiting: dict[int, list[JobRow]] = {}
        for row in self._aside:
            for moment in sorted(set(self._moments(row))):
                waiting.setdefault(moment, []).append(row)
        return waiting

    def settle(self, elapsed: Elapsed) -> None:
        """Count the rows that waited."""
        for row in self._aside:
            seen = [elapsed[moment].get(row.number) for moment in self._moments(row)]
            if UNREADABLE in seen:
                self._leave_out_odd(_odd(row, "how long it had run at a border cannot be read"))
            else:
                self._add(row, elapsed)
        self._aside.clear()

    def _checked(self, row: JobRow | OddRow) -> JobRow | OddRow:
        """Find what cannot be, and cut what ends in the future to the moment of asking."""
        if isinstance(row, OddRow):
            return row
        try:
            self._counts(row.tres)
        except ValueError as error:
            return _odd(row, f"{self._rules.tres_field}: {error}")
        if row.running or row.end <= self._now:
            return row
        self._now = int(self._clock())
        if row.end > self._now + _CLOCKS_DIFFER and row.account:
            for place, span in self._parts(row):
                if span.end > self._now:
                    self._sums[place].ahead.append(f"{row.job} ({row.account})")
        return row._replace(
            end=max(row.start, min(row.end, self._now)),
            elapsed=min(row.elapsed, max(0, self._now - row.start)),
        )

    def _leave_out_odd(self, row: OddRow) -> None:
        """Nobody knows what it used; a row that is nobody's is no loss."""
        self._odd += 1
        self._last_odd = row
        if not row.account:
            return
        for sums, span in zip(self._sums, self._spans, strict=True):
            if row.start < span.end and span.start < row.end:
                sums.odd.append(row)
                sums.is_settled = False

    def _leave_out(self, row: JobRow, doubt: Doubt) -> None:
        for place, _ in self._parts(row):
            self._sums[place].is_settled = False
            self._sums[place].unfinished.add(row.account)
            self._sums[place].endless += doubt is Doubt.ENDLESS

    def _needs_active_of(self, row: JobRow) -> bool:
        return self._needs_active or row.stands

    def _moments(self, row: JobRow) -> list[int]:
        parts = self._parts(row)
        return [moment for _, within in parts for moment in to_look_up(row, within)]

    def _add(self, row: JobRow, elapsed: Elapsed) -> None:
        for place, within in self._parts(row):
            sums = self._sums[place]
            if not row.account:
                sums.without_account += 1
                continue
            part = self._share(row, within, elapsed)
            if row.stands:
                part = self._without_standing(part, sums)
            if part.held:
                if not row.user:
                    sums.nameless[row.account] += 1
                self._sum_up(row, part, sums)

    def _share(self, row: JobRow, within: Span, elapsed: Elapsed) -> Share:
        if self._needs_active_of(row):
            return share(row, within, elapsed)
        seconds = held(row, within)
        return Share(seconds, seconds)

    def _without_standing(self, part: Share, sums: Sums) -> Share:
        """What counts of a job that stands now: Slurm ends one that is cancelled where it stopped.

        How long it has stood this time, and how long before, only its end will tell.
        """
        if part.held > part.active and not all(self._active):
            sums.is_settled = False
        return Share(part.active, part.active)

    def _parts(self, row: JobRow) -> list[tuple[int, Span]]:
        """Into which spans a row falls, each cut to what of it counts."""
        first = begin(row, resized_once=self._rules.resized_once)
        if self._since is not None:
            first = max(first, self._since.get(row.account, first))
        parts: list[tuple[int, Span]] = []
        place = bisect_right(self._ends, first)
        while place < len(self._spans) and self._spans[place].start < row.end:
            span = self._spans[place]
            parts.append((place, Span(max(span.start, first), span.end)))
            place += 1
        return parts

    def _sum_up(self, row: JobRow, part: Share, sums: Sums) -> None:
        whose = (row.account, row.user or f"uid {row.uid}")
        total = sums.amounts.get(whose)
        if total is None:
            total = sums.amounts[whose] = [0] * len(self._active)
        for place, count in self._counts(row.tres):
            total[place] += count * (part.active if self._active[place] else part.held)


class _Counts:
    """Reads TRES lists; most jobs have one of few."""

    def __init__(self, components: Sequence[str]) -> None:
        self._components = components

    def of(self, text: str) -> tuple[tuple[int, Amount], ...]:
        found = tres.given(text, self._components)
        return tuple((place, _whole(Fraction(each))) for place, each in enumerate(found) if each)


def _odd(row: JobRow, reason: str) -> OddRow:
    return OddRow(row.job, row.account, row.start, row.end, reason)


def _whole(amount: Fraction) -> Amount:
    return amount.numerator if amount.denominator == 1 else amount
