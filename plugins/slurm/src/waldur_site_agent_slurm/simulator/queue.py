"""``squeue``, ``scancel`` and ``scontrol``: what slurmctld answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator.accounting import clock, end_runs, used
from waldur_site_agent_slurm.simulator.request import Answer, names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from waldur_site_agent_slurm.simulator.state import SimJob, SimState

_STATES = {
    "PENDING": "PD",
    "RUNNING": "R",
    "CONFIGURING": "R",  # a running job, with a remark
    "SUSPENDED": "S",
    "COMPLETING": "CG",
    "COMPLETED": "CD",
    "CANCELLED": "CA",
}


def squeue(state: SimState, words: Sequence[str]) -> Answer:
    """List jobs, by account and user; without ``-t`` those that are not over."""
    options, _ = _options(words)
    if options.get("-M", state.cluster) != state.cluster:
        return Answer(1, "", f"squeue: error: No cluster '{options['-M']}' known by database.\n")
    states = options.get("-t", "PD,R,S,CG").split(",")
    accounts, users = names(options.get("-A", "")), names(options.get("-u", ""))
    chosen = [
        job
        for job in state.jobs.values()
        if (not accounts or job.account in accounts)
        and (not users or job.user in users)
        and (not job.hidden or "-a" in words)
        and (states == ["all"] or _STATES.get(job.state, job.state) in states)
    ]
    layout = options.get("-o", "%i|%a|%u|%T")
    header = "" if "-h" in words else "JOBID|ACCOUNT|USER|STATE\n"
    return Answer(0, header + "".join(f"{_line(state, job, layout)}\n" for job in chosen))


def scancel(state: SimState, words: Sequence[str]) -> Answer:
    """End jobs, by number or by account and user. Jobs that are not there are no error."""
    options, numbers = _options(words)
    accounts, users = names(options.get("-A", "")), names(options.get("-u", ""))
    if not (numbers or "-A" in options or "-u" in options):
        return Answer(1, "", "scancel: error: No job identification provided\n")
    for job in list(state.jobs.values()):
        named = not numbers or str(job.id) in numbers
        of_account = not accounts or job.account in accounts
        if named and of_account and (not users or job.user in users) and not job.survives_cancel:
            del state.jobs[job.id]
            end_runs(state, job.id, "CANCELLED by 0")
    return Answer(0)


def scontrol(state: SimState, words: Sequence[str]) -> Answer:
    """Answer ``scontrol show config``."""
    _, rest = _options(words)
    if rest[:2] != ["show", "config"]:
        return Answer(1, "", f"invalid keyword: {' '.join(words)}\n")
    settings = {**state.configuration, "SLURM_VERSION": "22.05.8"}
    return Answer(0, "".join(f"{key:<23} = {value}\n" for key, value in settings.items()))


def _options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    takes_value = ("-A", "-u", "-M", "-o", "-t")
    options: dict[str, str] = {}
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word in takes_value:
            options[word] = next(remaining, "")
        elif not word.startswith("-"):
            rest.append(word)
    return options, rest


def _line(state: SimState, job: SimJob, layout: str) -> str:
    fields = {"%A": str(job.id), "%i": str(job.id), "%a": job.account, "%u": job.user}
    for code, text in {**fields, "%T": job.state, "%r": "None", **_times(state, job)}.items():
        layout = layout.replace(code, text)
    return layout


def _times(state: SimState, job: SimJob) -> dict[str, str]:
    """When a job's last run began, when it ends, and how long it has lasted."""
    run = next((run for run in reversed(state.runs) if run.job == job.id), None)
    if run is None or job.state == "PENDING":
        return {"%S": "N/A", "%e": "N/A", "%M": "0:00"}
    now = clock(state) if job.end is None else job.end
    return {
        "%S": str(run.start),
        "%e": str(job.end or "NONE"),
        "%M": _duration(used(run, now)),
    }


def _duration(seconds: int) -> str:
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{seconds % 60:02d}"
    if hours:
        return f"{hours}:{minutes:02d}:{seconds % 60:02d}"
    return f"{minutes}:{seconds % 60:02d}"
