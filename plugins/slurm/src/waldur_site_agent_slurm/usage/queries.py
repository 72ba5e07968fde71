"""The commands that read usage, as data. Pure: nothing is started here.

``uts<epoch>`` means the same moment in every time zone; the runner has sacct print epochs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from waldur_site_agent_slurm.commands import Argv, on_cluster
from waldur_site_agent_slurm.usage.jobs import CUT_FIELDS, LAYOUT, STATES, columns

_LAST_RUNS = ("sacct", "-a", "-X", "-P", "-n", "--noconvert")
_JOBS = (*_LAST_RUNS, "-D")
"""``-X`` leaves out job steps; without ``-D`` earlier runs of requeued jobs would be missing."""


def jobs_between(
    start: int, end: int, tres_field: str, cluster: str | None, *, every_run: bool = True
) -> Argv:
    """Ask for every run of a job that overlaps the time from ``start`` to ``end`` (epochs)."""
    return (
        *(_JOBS if every_run else _LAST_RUNS),
        *on_cluster(cluster),
        *("-S", f"uts{start}", "-E", f"uts{end}"),
        f"--format={columns(tres_field)}",
    )


def jobs_cut_at(ids: Sequence[str], start: int, end: int, cluster: str | None) -> Argv:
    """Ask how long jobs had run by ``end``; ``start`` is no later than the start of any."""
    if not ids or not all(job.isdigit() for job in ids):
        raise ValueError("job ids are numbers, and at least one is needed")
    return (
        *_JOBS,
        "-T",
        *on_cluster(cluster),
        *("-j", ",".join(ids)),
        *("-S", f"uts{start}", "-E", f"uts{end}"),
        f"--format={','.join(CUT_FIELDS)}",
    )


def jobs_of_controller(cluster: str | None) -> Argv:
    """Ask slurmctld which jobs run, and which of those it remembers are over.

    Without ``-a`` jobs in hidden partitions are missing; ``-r`` lists array tasks one by one.
    """
    return ("squeue", "-a", "-h", "-r", *on_cluster(cluster), "-t", STATES, "-o", LAYOUT)


def running_jobs(cluster: str | None) -> Argv:
    """Ask what the database believes to be running. With ``-S`` it would be what ever ran."""
    return (*_JOBS, *on_cluster(cluster), "-s", "R,S", "--format=JobIDRaw,End,State")


def known_jobs(cluster: str | None) -> Argv:
    """Ask slurmctld for all jobs it knows, also those that ended minutes ago."""
    return ("squeue", "-a", "-h", "-r", *on_cluster(cluster), "-t", "all", "-o", "%A")


def used_between(start: str, end: str, tres: Iterable[str], cluster: str | None) -> Argv:
    """Ask sreport for the usage of every user by account; times as ``2026-10-01T00:00:00``."""
    return (
        *("sreport", "-n", "-P", "-t", "Seconds", f"--tres={','.join(sorted(tres))}"),
        *(("-M", cluster) if cluster else ()),
        *("cluster", "AccountUtilizationByUser", f"start={start}", f"end={end}"),
        "format=TresName,Used,Login,Accounts",
    )


def configuration() -> Argv:
    """Ask slurmdbd for its configuration."""
    return ("sacctmgr", "show", "config")


def statistics() -> Argv:
    """Ask slurmdbd for its statistics, which say when it added up usage for the last time."""
    return ("sacctmgr", "show", "stats")
