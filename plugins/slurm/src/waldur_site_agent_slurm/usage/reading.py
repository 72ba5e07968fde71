"""Sums become what the contract asks for: reports with exact amounts and remarks. Pure."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import TypeAlias

from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.model.usage import Amounts, Period, ResourceUsage, UsageReport
from waldur_site_agent_slurm.client import SlurmClient
from waldur_site_agent_slurm.commands import chunks
from waldur_site_agent_slurm.settings import SREPORT, Rules
from waldur_site_agent_slurm.usage import queries
from waldur_site_agent_slurm.usage.jobs import (
    UNREADABLE,
    Doubt,
    JobRow,
    KnownJob,
    counted,
    elapsed_by_row,
    job_rows,
    known_jobs,
)
from waldur_site_agent_slurm.usage.tally import Amount, Span, Sums, Tally

_SECONDS_PER_MINUTE = 60
_NAMED = 5


def reports(
    read: Callable[[Sequence[Span], Mapping[str, int]], Sequence[Sums]],
    since: Mapping[str, datetime],
    periods: Sequence[Period],
    components: Sequence[str],
) -> tuple[UsageReport, ...]:
    """One report for each period; ``components`` as configured, ``read`` counts in their order."""
    begins = {name.lower(): epoch(moment) for name, moment in since.items()}
    sums = read([span_of(period) for period in periods], begins) if since else ()
    if not since:
        return tuple(UsageReport(period=period, resources={}) for period in periods)
    return tuple(
        UsageReport(
            period=period,
            resources=_resources(since, found, components),
            remarks=tuple(_remarks(found)),
            is_settled=found.is_settled,
            unfinished=frozenset(name for name in since if name.lower() in found.unfinished),
        )
        for period, found in zip(periods, sums, strict=True)
    )


def span_of(period: Period) -> Span:
    """A period in whole seconds, as Slurm counts."""
    return Span(epoch(period.start), epoch(period.end))


def epoch(moment: datetime) -> int:
    """A moment in whole seconds; a border within a second is moved to its beginning."""
    return math.floor(moment.timestamp())


def _resources(
    since: Mapping[str, datetime], sums: Sums, components: Sequence[str]
) -> dict[str, ResourceUsage]:
    users: dict[str, dict[str, Amounts]] = {}
    for (account, user), amounts in sums.amounts.items():
        if not any(amounts):  # suspended all the time, or without anything that is counted
            continue
        users.setdefault(account, {})[user] = {
            component: Fraction(amount) / _SECONDS_PER_MINUTE
            for component, amount in zip(components, amounts, strict=True)
        }
    return {name: ResourceUsage(by_user=users.get(name.lower(), {})) for name in since}


def _remarks(sums: Sums) -> Iterator[str]:
    if sums.without_account:
        yield (
            f"{_jobs(sums.without_account)} without an account: in no resource's usage; set "
            "AccountingStorageEnforce=associations so that every job has one"
        )
    if sums.nameless:
        worst = ", ".join(
            f"{account} {count}" for account, count in sums.nameless.most_common(_NAMED)
        )
        more = ", ..." if len(sums.nameless) > _NAMED else ""
        yield (
            f"{_jobs(sums.nameless.total())} of users whom neither Slurm nor the operating system "
            f"knows any more ({worst}{more}): counted under 'uid NUMBER'"
        )
    if sums.odd:
        named = "; ".join(str(row) for row in sums.odd[:_NAMED])
        more = f"; and {len(sums.odd) - _NAMED} more" if len(sums.odd) > _NAMED else ""
        yield (
            f"{_jobs(len(sums.odd))} left out, whose rows in the accounting database cannot be "
            f"read or believed: {named}{more}. Look at: sacct -X -D -P -j JOBID --format=ALL"
        )
    if sums.ahead:
        named = ", ".join(sums.ahead[:_NAMED]) + (", ..." if len(sums.ahead) > _NAMED else "")
        yield (
            f"{_jobs(len(sums.ahead))} with an end in the future, counted up to now: {named}; "
            "correct the clocks, or the row in the accounting database"
        )
    if sums.endless:
        yield (
            f"{_jobs(sums.endless)} without an end in the accounting database that slurmctld does "
            "not say to run: runaway, or slurmdbd is behind; left out until their end is known. If "
            "this stays, an administrator ends them: sacctmgr show runawayjobs"
        )


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


_REMEMBERED = 100_000
_LONG_PASSED = 3600
"""Seconds after which a moment's suspensions of a job that still runs are all in the database."""


class JobReader:
    """Reads one cluster's accounting database."""

    def __init__(
        self,
        client: SlurmClient,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``timeout`` in seconds, for each command; ``clock`` in seconds, never set back.

        ``now`` is the time of the cluster, an epoch.
        """
        self._client = client
        self._timeout = timeout
        self._clock = clock
        self._now = now
        self._ran: dict[tuple[int, int], int | None] = {}
        """By row and moment, how long a job had run; ``None`` where sacct did not list it."""

    def sums(
        self,
        spans: Sequence[Span],
        since: Mapping[str, int] | None,
        components: Sequence[str],
        rules: Rules,
        *,
        by_database: bool = False,
    ) -> list[Sums]:
        """Add up the usage in each span; see :class:`Tally` for the arguments.

        ``by_database`` takes the database's word for what runs, as sreport does; otherwise
        slurmctld is asked.

        Raises:
            TemporaryError: a command failed, took too long, or its answer is not whole.
        """
        if not rules.every_run and len(spans) > 1:  # which run is the last depends on the span
            each = ((span,) for span in spans)
            return [
                found
                for one in each
                for found in self.sums(one, since, components, rules, by_database=by_database)
            ]
        first = min((span.start for span in spans), default=0)
        last = max((span.end for span in spans), default=0)
        tally = Tally(spans, since, components, rules, self._now)
        if first < last:
            confirmed = None if by_database else self._asked_controller()
            argv = queries.jobs_between(
                *(first, last, rules.tres_field, self._client.cluster), every_run=rules.every_run
            )
            self._client.stream(
                argv, self._timeout, lambda lines: tally.add(job_rows(lines), confirmed)
            )
            tally.settle(
                {moment: self._ran_by(moment, rows) for moment, rows in tally.aside().items()}
            )
        return tally.sums

    def _asked_controller(self) -> Callable[[JobRow], JobRow | Doubt]:
        """Ask slurmctld what runs, and return what says how far a row without an end counts."""
        asked = self._clock()
        jobs: dict[str, KnownJob] = {}

        def read(lines: Iterator[str]) -> None:
            jobs.update(known_jobs(lines))

        self._client.stream(queries.jobs_of_controller(self._client.cluster), self._timeout, read)
        return lambda row: counted(row, jobs, self._clock() - asked)

    def _ran_by(self, moment: int, rows: Sequence[JobRow]) -> dict[int, int]:
        """How long each of these runs had lasted by a moment, without suspension."""
        unknown = [row for row in rows if (row.number, moment) not in self._ran]
        found = self._look_up(moment, unknown) if unknown else {}
        for row in rows:
            known = self._ran.get((row.number, moment))
            if known is not None:
                found[row.number] = known
        for row in unknown:
            if found.get(row.number) == UNREADABLE:
                continue
            if not row.running or moment <= row.end - _LONG_PASSED:
                self._remember((row.number, moment), found.get(row.number))
        return found

    def _remember(self, key: tuple[int, int], ran: int | None) -> None:
        if len(self._ran) >= _REMEMBERED:
            del self._ran[next(iter(self._ran))]
        self._ran[key] = ran

    def _look_up(self, moment: int, rows: Sequence[JobRow]) -> dict[int, int]:
        start = min(row.start for row in rows)
        elapsed: dict[int, int] = {}

        def read(lines: Iterator[str]) -> None:
            elapsed.update(elapsed_by_row(lines))

        for jobs in chunks({row.job for row in rows}):
            argv = queries.jobs_cut_at(jobs, start, moment, self._client.cluster)
            self._client.stream(argv, self._timeout, read)
        return elapsed


Key: TypeAlias = tuple[str, str, str]
"""Account, user, TRES."""

_HOUR = 3600
_COLUMNS = 4
_SHOWN = 100
_ROLLUP = re.compile(r"rollup last ran .*\((\d+)\)")


def differences(
    client: SlurmClient,
    reader: JobReader,
    period: Period,
    components: Sequence[str],
    timeout: float,
) -> list[str]:
    """A line for everything that sacct and sreport count differently in a closed period.

    Both sides count by sreport's rules, and every account of the cluster.

    Raises:
        TemporaryError: a command failed, or slurmdbd has not added up the period yet.
    """
    span = span_of(period)
    if span.start % _HOUR or span.end % _HOUR:
        return [
            f"usage from {period.start} to {period.end} cannot be compared: sreport has whole hours"
        ]
    _require_rollup(client, span)
    (sums,) = reader.sums([span], None, components, SREPORT, by_database=True)
    ours = dict(_by_key(sums, components))
    theirs: dict[Key, int] = {}

    def read(lines: Iterator[str]) -> None:
        theirs.update(_sreport_rows(lines))

    known = client.tres_names() if any("/" in name for name in components) else ()
    types = [name for name in known if name.rpartition(":")[0] in components]
    asked = {*components, *types}
    argv = queries.used_between(_local(span.start), _local(span.end), asked, client.cluster)
    client.stream(argv, timeout, read)
    theirs = _without_types(theirs, components)
    if ours and not theirs:
        raise TemporaryError(
            f"sreport has no usage from {period.start} to {period.end}, and sacct has: slurmdbd "
            "has not added it up yet; it does so every hour (sacctmgr show stats)"
        )
    return list(_different(ours, theirs))


def _require_rollup(client: SlurmClient, span: Span) -> None:
    found = _ROLLUP.search(client.ask(queries.statistics()))
    if found is not None and int(found[1]) < span.end:
        raise TemporaryError(
            f"slurmdbd added up usage for the last time at {_local(int(found[1]))} UTC, before the "
            f"end of the period at {_local(span.end)} UTC; it does so every hour"
        )


def _by_key(sums: Sums, components: Sequence[str]) -> Iterator[tuple[Key, Amount]]:
    for (account, user), amounts in sums.amounts.items():
        if "|" in account or "|" in user:  # sreport's columns cannot be told apart then
            continue
        for component, amount in zip(components, amounts, strict=True):
            if amount:
                yield (account, user, component), amount


def _sreport_rows(lines: Iterable[str]) -> Iterator[tuple[Key, int]]:
    for line in lines:
        fields = line.split("|")
        if len(fields) != _COLUMNS:
            continue
        tres, used, user, account = fields
        if not used.isdecimal():
            raise TemporaryError(f"sreport printed a row that cannot be read: {line[:200]!a}")
        # without a user it is the sum over an account and those below it
        if user and int(used):
            yield (account.lower(), user.lower(), tres.lower()), int(used)


def _without_types(found: Mapping[Key, int], components: Sequence[str]) -> dict[Key, int]:
    """As jobs are counted: the types count together where nothing is under the name itself."""
    counted = {key: used for key, used in found.items() if key[2] in components}
    for (account, user, tres), used in found.items():
        whole = (account, user, tres.rpartition(":")[0])
        if whole[2] in components and whole not in found:
            counted[whole] = counted.get(whole, 0) + used
    return counted


def _different(ours: Mapping[Key, Amount], theirs: Mapping[Key, int]) -> Iterator[str]:
    keys = sorted(key for key in {*ours, *theirs} if ours.get(key, 0) != theirs.get(key, 0))
    for account, user, tres in keys[:_SHOWN]:
        mine, other = ours.get((account, user, tres), 0), theirs.get((account, user, tres), 0)
        yield (
            f"account {account}, user {user}, {tres}: {mine} TRES-seconds by sacct, "
            f"{other} by sreport"
        )
    if len(keys) > _SHOWN:
        yield f"and {len(keys) - _SHOWN} more differences"


def _local(moment: int) -> str:
    """A moment as sreport reads it; commands run with TZ=UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")
