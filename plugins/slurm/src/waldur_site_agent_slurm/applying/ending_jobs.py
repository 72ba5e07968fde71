"""Cancelling jobs and waiting until the queue no longer shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.facts import Job


def end_jobs(work: Work, leaving: Mapping[Task, Collection[str] | None]) -> None:
    """End the jobs of these users in the accounts of the tasks; ``None`` means everybody.

    Tasks whose jobs do not end in time fail with a ``TemporaryError``; the others go on. Without
    slurmctld all of them fail, because nobody knows whether there are jobs.
    """
    tasks = tuple(leaving)
    if not tasks:
        return
    with work.ledger.attempt(*tasks):
        remaining = _cancel_and_wait(work, leaving)
        for task in tasks:
            left = [job.id for job in remaining if _concerns(job, task, leaving)]
            if left:
                with work.ledger.attempt(task):
                    raise TemporaryError(_still_there(work, task, left))


def _cancel_and_wait(work: Work, leaving: Mapping[Task, Collection[str] | None]) -> Sequence[Job]:
    accounts = {task.account for task in leaving}
    cancelled: set[str] = set()
    jobs: list[Job] = []
    for _ in work.patience.looks():
        jobs = [
            job
            for job in work.client.jobs(accounts)
            if any(_concerns(job, task, leaving) for task in leaving)
        ]
        if not jobs:
            break
        work.client.cancel(job for job in jobs if job.id not in cancelled)
        cancelled.update(job.id for job in jobs)
    return jobs


def _concerns(job: Job, task: Task, leaving: Mapping[Task, Collection[str] | None]) -> bool:
    users = leaving[task]
    return job.account == task.account and (users is None or job.user in users)


def _still_there(work: Work, task: Task, jobs: Sequence[str]) -> str:
    most = 5
    shown = ", ".join(jobs[:most]) + (", ..." if len(jobs) > most else "")
    return (
        f"{task.account}: {len(jobs)} jobs were cancelled but are still in the queue after "
        f"{work.patience.seconds:g} seconds ({shown}); it is tried again; if they stay, look at "
        "their nodes with: scontrol show job"
    )
