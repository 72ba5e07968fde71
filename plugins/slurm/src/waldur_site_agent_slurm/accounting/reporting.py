"""Sums become what the contract asks for: reports with exact amounts and remarks. Pure."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from waldur_site_agent.model.usage import ResourceUsage, UsageReport
from waldur_site_agent_slurm.accounting.seconds import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from waldur_site_agent.model.usage import Amounts, Period
    from waldur_site_agent_slurm.accounting.tally import Sums

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
