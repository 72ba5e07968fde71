"""Can usage be read, and is there anything in it that is no usage?"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from waldur_site_agent.backends import Check, TemporaryError, Verdict
from waldur_site_agent_slurm import commands, facts
from waldur_site_agent_slurm.accounting import asking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from waldur_site_agent_slurm.client import SlurmClient

_HIDING = frozenset({"jobs", "usage"})
_DAYS_OF_TWO_MONTHS = 62
_KEPT = re.compile(r"(\d+) ?([hdm])")
_NAMED = 5
_COLUMNS = 3


def visibility(client: SlurmClient, privileged: Callable[[], bool]) -> Check:
    """Whether this user is shown the jobs of others; what is hidden looks like no usage.

    slurmdbd hides them in sacct, slurmctld in squeue, each by a setting of its own. ``privileged``
    is asked only where one of them does.
    """
    values = facts.values_of("PrivateData", client.ask(asking.configuration()))
    private = sorted({part.strip().lower() for value in values for part in value.split(",")})
    hidden = bool(_HIDING.intersection(private)) and not privileged()
    return Check(
        name="jobs of others",
        verdict=Verdict.FAILED if hidden else Verdict.OK,
        detail=("hidden: usage would be reported as zero" if hidden else "visible")
        + f" (PrivateData of slurmdbd and slurmctld: {','.join(private) or 'none'})",
        remedy="give the agent's user adminlevel=operator" if hidden else "",
    )


def purging(client: SlurmClient) -> Iterator[Check]:
    """Whether slurmdbd keeps what jobs used until the month they ran in is reported for good."""
    found = facts.parse_configuration(client.ask(asking.configuration()))
    short = [
        f"{name} = {found[name]}"
        for name in ("PurgeJobAfter", "PurgeSuspendAfter")
        if _kept_days(found.get(name, "")) < _DAYS_OF_TWO_MONTHS
    ]
    yield Check(
        name="records of jobs",
        verdict=Verdict.WARNING if short else Verdict.OK,
        detail=f"{', '.join(short)} in slurmdbd.conf: usage is gone before its month is closed"
        if short
        else f"kept long enough (PurgeJobAfter = {found.get('PurgeJobAfter', 'NONE')})",
        remedy="keep them for 3months or longer" if short else "",
    )


def _kept_days(value: str) -> float:
    """How long ``36 hours``, ``40 days`` or ``12 months*`` is; anything else is for ever."""
    match = _KEPT.match(value)
    if match is None:
        return math.inf
    return int(match[1]) * {"h": 1 / 24, "d": 1, "m": 31}[match[2]]


def usage_factors(client: SlurmClient) -> Iterator[Check]:
    """QOS whose usage counts for limits otherwise than by time; what is reported is time."""
    rows = client.ask(commands.show_usage_factors()).splitlines()
    factors = {name: factor for name, _, factor in (row.rpartition("|") for row in rows) if name}
    odd = {name: factor for name, factor in factors.items() if _factor(factor) != 1}
    if not odd:
        yield Check(name="UsageFactor", verdict=Verdict.OK, detail="1 in every QOS")
    for name, factor in sorted(odd.items()):
        yield Check(
            name=f"UsageFactor of QOS {name}",
            verdict=Verdict.WARNING,
            detail=f"is {factor}: its jobs count so many times for limits (GrpTRESMins), and are "
            "reported to Waldur and billed by time alone",
            remedy="if that is not meant, an administrator runs: sacctmgr modify qos "
            f"{name} set usagefactor=1",
        )


def _factor(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return math.nan


def runaway_jobs(client: SlurmClient) -> Iterator[Check]:
    """Jobs without an end that slurmctld does not know: they are in no usage until they have one.

    ``sacctmgr show runawayjobs`` has a list of them too, but then asks what to do, without end
    where nobody answers.
    """
    # the database first: a job that ends in between stays in the queue's listing for minutes
    running = _running(client.ask(asking.running_jobs(client.cluster)))
    known = facts.parse_names(client.ask(asking.known_jobs(client.cluster)))
    lost = sorted(running - set(known), key=int)
    named = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
    yield Check(
        name="runaway jobs",
        verdict=Verdict.WARNING if lost else Verdict.OK,
        detail=f"{len(lost)} jobs run by slurmdbd's records, and slurmctld does not know them "
        f"({named}): left out of usage until they have an end; they may just have ended while "
        "slurmdbd was away"
        if lost
        else "none",
        remedy="if they stay, an administrator ends them with: sacctmgr show runawayjobs"
        if lost
        else "",
    )


def _running(output: str) -> set[str]:
    jobs: set[str] = set()
    for line in output.splitlines():
        fields = line.split("|")
        if len(fields) != _COLUMNS or not fields[0].isdecimal():
            raise TemporaryError(f"sacct printed a row that cannot be read: {line[:200]!a}")
        if not fields[1].isdecimal():
            jobs.add(fields[0])
    return jobs
