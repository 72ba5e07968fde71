"""Can usage be read, and is there anything in it that is no usage?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import Check, TemporaryError, Verdict
from waldur_site_agent_slurm import facts
from waldur_site_agent_slurm.accounting import asking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waldur_site_agent_slurm.client import SlurmClient

_HIDING = frozenset({"jobs", "usage"})
_NAMED = 5
_COLUMNS = 3


def visibility(client: SlurmClient, *, privileged: bool) -> Iterator[Check]:
    """Whether slurmdbd shows this user the jobs of others; what it hides looks like no usage."""
    found = facts.parse_configuration(client.ask(asking.configuration()))
    private = found.get("PrivateData", "none").lower()
    hidden = bool(_HIDING & {part.strip() for part in private.split(",")}) and not privileged
    yield Check(
        name="jobs of others",
        verdict=Verdict.FAILED if hidden else Verdict.OK,
        detail=f"PrivateData={private} of slurmdbd"
        + (" hides them: usage would be reported as zero" if hidden else ""),
        remedy="give the agent's user adminlevel=operator" if hidden else "",
    )


def runaway_jobs(client: SlurmClient) -> Iterator[Check]:
    """Jobs without an end that slurmctld does not know: they count for ever.

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
        f"({named}): their usage grows until somebody ends them"
        if lost
        else "none",
        remedy="an administrator ends them with: sacctmgr show runawayjobs" if lost else "",
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
