"""Reads jobs with sacct and adds up what they used: one command, and few more at times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.accounting import asking
from waldur_site_agent_slurm.accounting.rows import elapsed_by_row, job_rows
from waldur_site_agent_slurm.accounting.tally import Tally
from waldur_site_agent_slurm.commands import chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from waldur_site_agent_slurm.accounting.rows import JobRow
    from waldur_site_agent_slurm.accounting.rules import Rules
    from waldur_site_agent_slurm.accounting.seconds import Span
    from waldur_site_agent_slurm.accounting.tally import Sums
    from waldur_site_agent_slurm.client import SlurmClient


class JobReader:
    """Reads one cluster's accounting database."""

    def __init__(self, client: SlurmClient, timeout: float) -> None:
        """``timeout`` in seconds, for each command."""
        self._client = client
        self._timeout = timeout

    def sums(
        self,
        spans: Sequence[Span],
        since: Mapping[str, int] | None,
        components: Sequence[str],
        rules: Rules,
    ) -> list[Sums]:
        """Add up the usage in each span; see :class:`Tally` for the arguments.

        Raises:
            TemporaryError: a command failed, took too long, or its answer is not whole.
        """
        first = min((span.start for span in spans), default=0)
        last = max((span.end for span in spans), default=0)
        tally = Tally(spans, since, components, rules)
        if first < last:
            argv = asking.jobs_between(first, last, rules.tres_field, self._client.cluster)
            self._client.stream(argv, self._timeout, lambda lines: tally.add(job_rows(lines)))
            tally.settle(
                {moment: self._ran_by(moment, rows) for moment, rows in tally.aside().items()}
            )
        return tally.sums

    def _ran_by(self, moment: int, rows: Sequence[JobRow]) -> dict[int, int]:
        """How long each of these runs had lasted by a moment, without suspension."""
        start = min(row.start for row in rows)
        elapsed: dict[int, int] = {}

        def read(lines: Iterator[str]) -> None:
            elapsed.update(elapsed_by_row(lines))

        for jobs in chunks({row.job for row in rows}):
            argv = asking.jobs_cut_at(jobs, start, moment, self._client.cluster)
            self._client.stream(argv, self._timeout, read)
        return elapsed
