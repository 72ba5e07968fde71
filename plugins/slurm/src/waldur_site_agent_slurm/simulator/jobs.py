"""``sacct`` and ``sreport``: what slurmdbd knows of jobs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from waldur_site_agent.backends.simulation import Answer
from waldur_site_agent_slurm.simulator.request import names
from waldur_site_agent_slurm.simulator.state import RELEASES, SimJob, SimRun, SimState

_TAKE_VALUE = ("-S", "-E", "-j", "-M", "-s", "-A", "-t")
_STATES = {"R": "RUNNING", "S": "SUSPENDED"}
_FIRST_DB_INDEX = 7748030209112436736  # 24.11 fills 63 bits
_SHARED_BY_TIME = ("cpu",)
"""sreport takes the time of a suspension off these alone."""


@dataclass(frozen=True)
class _Window:
    start: int
    end: int


def sacct(state: SimState, words: Sequence[str]) -> Answer:
    """List runs of jobs that overlap a time, all of them with ``-D``."""
    options = _options(words)
    if options.get("-M", state.cluster) != state.cluster:
        return Answer(0)
    now = clock(state)
    window = _Window(_moment(options.get("-S", "uts0")), _moment(options.get("-E", f"uts{now}")))
    if window.start > window.end:
        return Answer(1, "", "sacct: error: Start time requested is after end time.\n")
    runs = [run for run in state.runs if _wanted(run, options, window, now)]
    if "-D" not in words:
        runs = list({run.job: run for run in runs}.values())
    cut = window if "-T" in words else None
    columns = options["--format"].split(",")
    rows = (_row(state, run, now, cut) for run in runs)
    return Answer(0, "".join("|".join(row[name] for name in columns) + "\n" for row in rows))


def sreport(state: SimState, words: Sequence[str]) -> Answer:
    """Answer ``cluster AccountUtilizationByUser`` in seconds, as slurmdbd adds up."""
    options = _options(words)
    asked = options["--tres"].split(",")
    window = _Window(_calendar(options["start"]), _calendar(options["end"]))
    used: Counter[tuple[str, str, str]] = Counter()
    for run in state.runs:
        elapsed, suspended = _seconds(run, clock(state), window)
        for tres in asked:
            seconds = elapsed if tres in _SHARED_BY_TIME else elapsed + suspended
            for user in (run.user, ""):
                used[tres, user, run.account] += run.tres.get(tres, 0) * seconds
    lines = (
        f"{tres}|{amount}|{user}|{account}\n" for (tres, user, account), amount in used.items()
    )
    return Answer(0, "".join(lines))


def statistics(state: SimState) -> Answer:
    """Answer ``sacctmgr show stats``, as far as it is about adding up usage."""
    last = clock(state) if state.added_up_until is None else state.added_up_until
    written = datetime.fromtimestamp(last, UTC).strftime("%a %b %d %H:%M:%S %Y")
    return Answer(0, f"Internal DBD rollup last ran {written} ({last})\n")


def configuration(state: SimState) -> Answer:
    """Answer ``sacctmgr show config``, as far as it is about who may see what, and how long."""
    settings = {
        "PrivateData": state.configuration.get("PrivateData", "none"),
        "Parameters": state.configuration.get("Parameters", "(null)"),
        "PurgeJobAfter": state.configuration.get("PurgeJobAfter", "NONE"),
    }
    return Answer(0, "".join(f"{key:<22} = {value}\n" for key, value in settings.items()))


def end_runs(state: SimState, job: int, how: str) -> None:
    """Let the runs of a job that still run end now."""
    for run in state.runs:
        if run.job == job and run.end is None:
            # one that stands suspended ends where it stopped
            last = run.suspensions[-1] if run.suspensions else (0, 0)
            end = last[0] if last[1] is None else clock(state)
            run.end, run.state = max(run.start, end), how


def used(run: SimRun, now: int) -> int:
    """How long a run has lasted without suspension."""
    return _seconds(run, now, None)[0]


def clock(state: SimState) -> int:
    """The time that the cluster believes in."""
    return int(time.time()) if state.now is None else state.now


def _options(words: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        if word in _TAKE_VALUE:
            options[word] = next(remaining, "")
        elif "=" in word:
            key, _, options[key] = word.partition("=")
    return options


def _wanted(run: SimRun, options: Mapping[str, str], window: _Window, now: int) -> bool:
    if "-j" in options and str(run.job) not in options["-j"].split(","):
        return False
    if "-A" in options and run.account not in names(options["-A"]):
        return False
    if "-s" in options:
        states = {_STATES.get(letter, letter) for letter in options["-s"].split(",")}
        if run.state not in states:
            return False
    eligible = min(run.submit, run.start)
    return eligible < window.end and (now if run.end is None else run.end) >= window.start


def _row(state: SimState, run: SimRun, now: int, cut: _Window | None) -> dict[str, str]:
    elapsed, suspended = _seconds(run, now, cut)
    start, end = run.start, run.end
    if cut is not None:
        start, end = max(start, cut.start), min(now if end is None else end, cut.end)
    return {
        "DBIndex": str(run.number + (_FIRST_DB_INDEX if state.is_24_11 else 0)),
        "JobIDRaw": str(run.job),
        "ElapsedRaw": str(elapsed),
        "Suspended": _duration(suspended),
        "Submit": str(run.submit),
        "Start": str(start),
        "End": "Unknown" if end is None else str(end),
        "UID": str(run.uid),
        "State": run.state,
        "User": run.user,
        "Account": run.account,
        "AllocTRES": _tres(run.tres),
        "ReqTRES": _tres(run.requested),
    }


def _seconds(run: SimRun, now: int, cut: _Window | None) -> tuple[int, int]:
    """How long a run went on and how long it stood still, in a time if one is given."""
    spans = list(_overlaps(run.start, run.end, now, cut))
    whole = sum(last - first for first, last in spans)
    still = sum(
        last - first
        for begin, finish in run.suspensions
        for first, last in _overlaps(begin, finish, now if run.end is None else run.end, cut)
    )
    return whole - still, still


def _overlaps(
    start: int, end: int | None, now: int, cut: _Window | None
) -> Iterator[tuple[int, int]]:
    first, last = start, now if end is None else end
    if cut is not None:
        first, last = max(first, cut.start), min(last, cut.end)
    if first < last:
        yield first, last


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def _tres(amounts: Mapping[str, int]) -> str:
    return ",".join(
        f"{name}={amounts[name]}{'M' if name == 'mem' else ''}" for name in sorted(amounts)
    )


def _moment(text: str) -> int:
    return int(text.removeprefix("uts"))


def _calendar(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def _unknown_cluster(state: SimState, program: str, cluster: str) -> Answer:
    advice = (
        f"'{cluster}' can't be reached now, or it is an invalid entry for --cluster.  Use "
        "'sacctmgr list clusters' to see available clusters."
    )
    lines = [
        f"{program}: error: No cluster '{cluster}' known by database.",
        f"{program}: error: {advice}",
    ]
    if state.is_24_11:
        lines.append(f"{program}: fatal: Could not get cluster information")
    return Answer(1, "", "".join(f"{line}\n" for line in lines))


_STATES_BY_LETTERS = {
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
    options, _ = _squeue_options(words)
    if options.get("-M", state.cluster) != state.cluster:
        return _unknown_cluster(state, "squeue", options["-M"])
    states = options.get("-t", "PD,R,S,CG").split(",")
    accounts, users = names(options.get("-A", "")), names(options.get("-u", ""))
    chosen = [
        job
        for job in state.jobs.values()
        if (not accounts or job.account in accounts)
        and (not users or job.user in users)
        and (not job.hidden or "-a" in words)
        and (states == ["all"] or _STATES_BY_LETTERS.get(job.state, job.state) in states)
    ]
    layout = options.get("-o", "%i|%a|%u|%T")
    header = "" if "-h" in words else "JOBID|ACCOUNT|USER|STATE\n"
    return Answer(0, header + "".join(f"{_line(state, job, layout)}\n" for job in chosen))


def scancel(state: SimState, words: Sequence[str]) -> Answer:
    """End jobs, by number or by account and user. Jobs that are not there are no error."""
    options, numbers = _squeue_options(words)
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
    """Answer ``scontrol show config`` and ``scontrol show partition``."""
    _, rest = _squeue_options(words)
    if [*words[-2:]] == ["show", "partition"]:  # where -o takes no value
        return Answer(0, "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL\n")
    if rest[:2] != ["show", "config"]:
        return Answer(1, "", f"invalid keyword: {' '.join(words)}\n")
    settings = {**state.configuration, "SLURM_VERSION": RELEASES[state.version]}
    return Answer(0, "".join(f"{key:<23} = {value}\n" for key, value in settings.items()))


def counted(
    state: SimState, accounts: Collection[str], since: int, user: str = ""
) -> dict[str, int]:
    """What counts against GrpTRESMins, in whole TRES-minutes; suspended time does, too.

    Args:
        state: of the cluster.
        accounts: those whose jobs count.
        since: when usage was reset; slurmctld may have done so later by itself.
        user: whose jobs count, if not everybody's.
    """
    now = clock(state)
    first = max(since, _last_reset(state, now))
    window = _Window(min(first, now), now)
    seconds: Counter[str] = Counter()
    for run in state.runs:
        if run.account in accounts and (not user or run.user == user):
            elapsed = sum(_seconds(run, now, window))
            for tres, amount in run.tres.items():
                seconds[tres] += amount * elapsed
    return {tres: amount // 60 for tres, amount in seconds.items()}


_RESET_MONTHS = {"MONTHLY": 1, "QUARTERLY": 3, "YEARLY": 12}


def _last_reset(state: SimState, now: int) -> int:
    """When slurmctld last reset usage by itself (PriorityUsageResetPeriod)."""
    months = _RESET_MONTHS.get(state.configuration.get("PriorityUsageResetPeriod", ""))
    if months is None:
        return 0
    today = datetime.fromtimestamp(now, UTC)
    first = (today.month - 1) // months * months + 1
    return int(datetime(today.year, first, 1, tzinfo=UTC).timestamp())


def _squeue_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
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
        "%M": _squeue_duration(used(run, now)),
    }


def _squeue_duration(seconds: int) -> str:
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{seconds % 60:02d}"
    if hours:
        return f"{hours}:{minutes:02d}:{seconds % 60:02d}"
    return f"{minutes}:{seconds % 60:02d}"
