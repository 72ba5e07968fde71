"""Cancelling jobs and waiting until the queue no longer shows them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from waldur_site_agent.backends import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.facts import Job

    Leaving: TypeAlias = Mapping[Task, Collection[str] | None]


def jobs_in_the_way(work: Work, leaving: Leaving, *, cancel: bool) -> Mapping[Task, Sequence[Job]]:
    """Return the jobs of these users (``None``: of everybody) in the accounts of the tasks.

    With ``cancel`` they are cancelled first, and those are returned that do not end in time.
    Without slurmctld all tasks fail, because nobody knows whether there are jobs.
    """
    found: defaultdict[Task, list[Job]] = defaultdict(list)
    tasks = tuple(leaving)
    if not tasks:
        return found
    with work.ledger.attempt(*tasks):
        jobs = _cancel_and_wait(work, leaving) if cancel else _jobs(work, leaving)
        for task in tasks:
            found[task] += (job for job in jobs if _concerns(job, task, leaving))
    return found


def still_there(
    work: Work, account: str, jobs: Sequence[Job], *, cancelled: bool
) -> TemporaryError:
    """Return the trouble that jobs in the way of a removal are."""
    numbers, users = _some(job.id for job in jobs), _some({job.user for job in jobs})
    if cancelled:
        return TemporaryError(
            f"{account}: {len(jobs)} jobs of {users} were cancelled but are still in the queue "
            f"after {work.patience.seconds:g} seconds ({numbers}); it is tried again; if they "
            "stay, look at their nodes with: scontrol show job"
        )
    return TemporaryError(
        f"{account}: {users} stays until {len(jobs)} jobs are over ({numbers}), because "
        "cancel_jobs_on_removal is false; it is tried again; to end them now: scancel"
    )


def _jobs(work: Work, leaving: Leaving) -> list[Job]:
    return [
        job
        for job in work.client.jobs({task.account for task in leaving})
        if any(_concerns(job, task, leaving) for task in leaving)
    ]


def _cancel_and_wait(work: Work, leaving: Leaving) -> list[Job]:
    cancelled: set[str] = set()
    jobs: list[Job] = []
    for _ in work.patience.looks():
        jobs = _jobs(work, leaving)
        if not jobs:
            break
        work.client.cancel(job for job in jobs if job.id not in cancelled)
        cancelled.update(job.id for job in jobs)
    return jobs


def _concerns(job: Job, task: Task, leaving: Leaving) -> bool:
    users = leaving[task]
    # the database does not tell case apart, so neither does the removal of an association
    is_theirs = users is None or job.user.lower() in {user.lower() for user in users}
    return job.account == task.account and is_theirs


def _some(names: Iterable[str]) -> str:
    most = 5
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (", ..." if len(ordered) > most else "")
