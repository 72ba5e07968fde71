"""Usage of random jobs, against an independent count and against itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.slurm.simulated_jobs import backend_on, simulated
from waldur_site_agent.model.usage import BillingMonth, Period, UsageReport
from waldur_site_agent_slurm.simulator import SimulatedSlurm

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
"""Of a leap year."""
DAYS = 150
ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Vienna", "Asia/Kolkata", "America/St_Johns")]
BORDERS = sorted(
    (BillingMonth(2024, month).period(zone).start - BEGIN) // timedelta(seconds=1)
    for month in range(1, 6)
    for zone in ZONES
)

moments = st.one_of(
    st.integers(0, DAYS * 86400),
    # close to where something could go wrong: months, and the nights when clocks change
    st.builds(
        lambda border, off: max(0, border + off),
        st.sampled_from([*BORDERS, 31 * 86400 + 28 * 86400, 90 * 86400 + 3600]),
        st.integers(-7300, 7300),
    ),
)


@dataclass(frozen=True)
class Job:
    """Seconds after BEGIN."""

    account: str
    user: str
    cpus: int
    start: int
    counted_from: int
    end: int | None
    suspensions: tuple[tuple[int, int | None], ...]


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    start, *inner = sorted(draw(st.lists(moments, min_size=2, max_size=6, unique=True)))
    running = draw(st.booleans()) and draw(st.booleans())
    end = None if running else inner.pop()
    resized = bool(inner) and draw(st.booleans())
    counted_from = inner.pop(0) if resized else start
    cuts: list[int | None] = [*inner]
    if len(cuts) % 2:
        cuts = [*cuts, None] if running else cuts[1:]
    return Job(
        account=draw(st.sampled_from(["climate", "ocean", "other"])),
        user=draw(st.sampled_from(["ada", "bob", ""])),
        cpus=draw(st.integers(1, 128)),
        start=start,
        counted_from=counted_from,
        end=end,
        suspensions=tuple((a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=True) if a),
    )


tables = st.lists(jobs(), max_size=8)


def cluster_of(table: Iterable[Job]) -> SimulatedSlurm:
    slurm = simulated(BEGIN + timedelta(days=DAYS + 1))
    for job in table:
        slurm.run_job(
            *(job.user, job.account, {"cpu": job.cpus}, moment(job.start)),
            None if job.end is None else moment(job.end),
            submit=moment(job.counted_from),
            suspended=[(moment(a), None if b is None else moment(b)) for a, b in job.suspensions],
        )
    return slurm


def moment(second: int) -> datetime:
    return BEGIN + timedelta(seconds=second)


def counted(table: Iterable[Job], first: int, last: int, since: dict[str, int]) -> Counter[str]:
    """The independent count: cut time at whatever happens, ask of each piece whether it counts."""
    used: Counter[str] = Counter()
    now = (DAYS + 1) * 86400
    for job in table:
        stops = [(a, now if b is None else b) for a, b in job.suspensions]
        events = {job.start, job.counted_from, now if job.end is None else job.end, first, last}
        events |= {edge for stop in stops for edge in stop} | {since.get(job.account, 0)}
        for left, right in pairwise(sorted(events)):
            counts = (
                job.account in since
                and first <= left < last
                and job.counted_from <= left
                and left >= since[job.account]
                and (left < now if job.end is None else left < job.end)
                and not any(a <= left < b for a, b in stops)
            )
            used[f"{job.account} {job.user or 'uid 1000'}"] += counts * (right - left) * job.cpus
    return +used


def reported(report: UsageReport) -> Counter[str]:
    return Counter(
        {
            f"{resource} {user}": int(amounts["cpu"] * 60)
            for resource, usage in report.resources.items()
            for user, amounts in usage.by_user.items()
            if amounts["cpu"]
        }
    )


sinces = st.fixed_dictionaries({"climate": moments, "ocean": st.just(0)})


@pytest.mark.guarantee("usage: Checked against the real thing")
@settings(max_examples=60)
@given(table=tables, since=sinces, zone=st.sampled_from(ZONES))
def test_every_month_is_what_an_independent_count_says_and_all_months_are_the_whole(
    table: list[Job], since: dict[str, int], zone: ZoneInfo
) -> None:
    months = [BillingMonth(2023, 12), *(BillingMonth(2024, n) for n in range(1, 7))]
    periods = [month.period(zone) for month in months]
    begins = {name: moment(second) for name, second in since.items()}
    backend = backend_on(cluster_of(table))
    reports = backend.usages(begins, periods)
    for period, report in zip(periods, reports, strict=True):
        first, last = (
            (edge - BEGIN) // timedelta(seconds=1) for edge in (period.start, period.end)
        )
        assert reported(report) == counted(table, first, last, since)
    whole = backend.usage(begins, Period(start=periods[0].start, end=periods[-1].end))
    assert reported(whole) == sum((reported(report) for report in reports), Counter())


@settings(max_examples=30)
@given(table=tables, edges=st.lists(moments, min_size=3, max_size=12, unique=True))
def test_time_cut_anywhere_adds_up_and_users_add_up_to_the_total(
    table: list[Job], edges: list[int]
) -> None:
    edges.sort()
    since = {"climate": BEGIN, "ocean": BEGIN}
    backend = backend_on(cluster_of(table))
    pieces = [Period(start=moment(a), end=moment(b)) for a, b in pairwise(edges)]
    whole = Period(start=moment(edges[0]), end=moment(edges[-1]))
    found = backend.usages(since, pieces)
    report = backend.usage(since, whole)
    assert reported(report) == sum((reported(piece) for piece in found), Counter())
    for usage in report.resources.values():
        by_user = [amounts["cpu"] for amounts in usage.by_user.values()]
        assert usage.total.get("cpu", Fraction(0)) == sum(by_user, Fraction(0))
