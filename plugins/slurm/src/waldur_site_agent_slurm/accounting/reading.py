"""Reads jobs and adds up what they used: one squeue and one sacct, and few more at times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from waldur_site_agent_slurm.accounting import asking
from waldur_site_agent_slurm.accounting.controller import counted, known_jobs
from waldur_site_agent_slurm.accounting.rows import UNREADABLE, elapsed_by_row, job_rows
from waldur_site_agent_slurm.accounting.tally import Tally
from waldur_site_agent_slurm.commands import chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from waldur_site_agent_slurm.accounting.controller import Doubt, KnownJob
    from waldur_site_agent_slurm.accounting.rows import JobRow
    from waldur_site_agent_slurm.accounting.rules import Rules
    from waldur_site_agent_slurm.accounting.seconds import Span
    from waldur_site_agent_slurm.accounting.tally import Sums
    from waldur_site_agent_slurm.client import SlurmClient

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
        first = min((span.start for span in spans), default=0)
        last = max((span.end for span in spans), default=0)
        tally = Tally(spans, since, components, rules, self._now)
        if first < last:
            confirmed = None if by_database else self._asked_controller()
            argv = asking.jobs_between(first, last, rules.tres_field, self._client.cluster)
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

        self._client.stream(asking.jobs_of_controller(self._client.cluster), self._timeout, read)
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
            argv = asking.jobs_cut_at(jobs, start, moment, self._client.cluster)
            self._client.stream(argv, self._timeout, read)
        return elapsed
