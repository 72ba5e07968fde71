"""A Slurm cluster within this process, or shared between processes by a file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from waldur_site_agent.backends.processes import Runner
from waldur_site_agent.backends.simulation import Answer, SimulatedRunner, SimulatedTool
from waldur_site_agent_slurm.simulator import adding, changing, enforced, jobs, qos, showing
from waldur_site_agent_slurm.simulator.state import (
    RELEASES,
    Outage,
    SimJob,
    SimRun,
    SimState,
    Version,
    answer_during_outage,
    new_state,
)

_CHANGES: dict[tuple[str, str], Callable[[SimState, list[str]], Answer]] = {
    ("add", "account"): adding.add_account,
    ("add", "user"): adding.add_user,
    ("add", "coordinator"): changing.add_coordinator,
    ("remove", "coordinator"): changing.remove_coordinator,
    ("modify", "account"): changing.modify_account,
    ("modify", "user"): changing.modify_user,
    ("remove", "account"): changing.remove_account,
    ("remove", "user"): changing.remove_user,
    ("add", "qo"): qos.add_qos,
    ("modify", "qo"): qos.modify_qos,
    ("remove", "qo"): qos.remove_qos,
}
_ENTITIES = (
    'Input line must include "Account", "Cluster", "Coordinator", "Federation", "QOS", '
    '"Resource", or "User"\n'
)
_SYNONYMS = {"create": "add", "delete": "remove", "update": "modify", "list": "show"}
_PROGRAMS: dict[str, Callable[[SimState, list[str]], Answer]] = {
    "squeue": jobs.squeue,
    "scancel": jobs.scancel,
    "scontrol": enforced.scontrol,
    "sacct": jobs.sacct,
    "sreport": jobs.sreport,
}
_OF_SLURMDBD = {"stats": jobs.statistics, "config": jobs.configuration}


class SimulatedSlurm(SimulatedTool[SimState]):
    """Answers argument vectors as Slurm does, for everything that the plugin sends."""

    def __init__(
        self,
        *,
        cluster: str = "simulated",
        state_file: Path | None = None,
        version: Version = "22.05",
        state: SimState | None = None,
    ) -> None:
        """Make a new cluster of a version, or take the one that is in the file, or this state."""
        super().__init__(state or new_state(cluster, version), SimState.from_json, state_file)

    def copy(self) -> SimulatedSlurm:
        """Return another cluster, within this process, that begins as this one is now."""
        with self.change() as state:
            return SimulatedSlurm(state=copy.deepcopy(state))

    def runner(self) -> Runner:
        """Return what to give to the backend as its ``runner``."""
        from waldur_site_agent_slurm.client import CommandTimedOutError  # noqa: PLC0415 - its imports take longer than a command

        return SimulatedRunner(self.run, CommandTimedOutError)

    def label(self, program: str, words: Sequence[str]) -> str:
        """As :meth:`SlurmBackend.commands_run` counts."""
        if program != "sacctmgr":
            return program
        return f"{program} {'read' if _change_in(words) is None else 'write'}"

    def answer(self, state: SimState, program: str, words: list[str]) -> Answer:
        """See :meth:`SimulatedTool.answer`."""
        if program == "sacctmgr" and "-V" in words:
            return Answer(0, f"slurm-wlm {RELEASES[state.version]}\n")
        trouble = answer_during_outage(state, program, _change_in(words))
        return trouble or _answer(state, program, words)

    def submit_job(
        self,
        user: str,
        account: str,
        state: str = "RUNNING",
        *,
        recorded: bool = True,
        survives_cancel: bool = False,
    ) -> int:
        """Put a job into the queue and return its number.

        ``recorded`` says whether slurmdbd knows of it, ``survives_cancel`` whether it stays when
        it is cancelled.
        """
        with self.change() as cluster:
            number = cluster.next_job
            cluster.next_job += 1
            job = SimJob(number, account, user, state, recorded, survives_cancel)
            cluster.jobs[number] = job
            return number

    def end_job(self, number: int) -> None:
        """Let a job end by itself."""
        with self.change() as cluster:
            cluster.jobs.pop(number, None)
            jobs.end_runs(cluster, number, "COMPLETED")

    def run_job(
        self,
        user: str,
        account: str,
        tres: Mapping[str, int],
        start: datetime,
        end: datetime | None = None,
        *,
        submit: datetime | None = None,
        suspended: Sequence[tuple[datetime, datetime | None]] = (),
        state: str = "",
        job: int | None = None,
        requested: Mapping[str, int] | None = None,
    ) -> int:
        """Put a job into the accounting database and return its number.

        One without ``end`` still runs, and stands in the queue. ``tres`` is what it was given
        (mem in MiB), ``requested`` what it asked for (the same). ``job`` makes another run of a
        job: after a requeue, or after a resize, with the first start and ``submit`` at the moment
        of the resize. Each task of an array is a job.
        """
        with self.change() as cluster:
            active = "SUSPENDED" if suspended and suspended[-1][1] is None else "RUNNING"
            number = cluster.next_job if job is None else job
            cluster.next_job = max(cluster.next_job, number + 1)
            cluster.runs.append(
                SimRun(
                    number=len(cluster.runs) + 1,
                    job=number,
                    account=account,
                    user=user,
                    start=int(start.timestamp()),
                    submit=int((submit or start).timestamp()),
                    end=None if end is None else int(end.timestamp()),
                    state=state or ("COMPLETED" if end is not None else active),
                    tres=dict(tres),
                    requested=dict(tres if requested is None else requested),
                    suspensions=[
                        (int(first.timestamp()), None if last is None else int(last.timestamp()))
                        for first, last in suspended
                    ],
                )
            )
            if end is None:
                cluster.jobs[number] = SimJob(number, account, user, active)
            return number

    def start_outage(self, kind: Outage, *, after_commands: int = 0) -> None:
        """Let a part of Slurm go away, at once or after some more commands."""
        with self.change() as cluster:
            cluster.outage, cluster.commands_until_outage = kind, after_commands

    def end_outage(self) -> None:
        """Let everything work again."""
        with self.change() as cluster:
            cluster.outage = None

    @contextmanager
    def outage(self, kind: Outage, *, after_commands: int = 0) -> Iterator[None]:
        """Have an outage while the body runs."""
        self.start_outage(kind, after_commands=after_commands)
        try:
            yield
        finally:
            self.end_outage()


def _change_in(words: Sequence[str]) -> tuple[str, str] | None:
    """Verb and entity of a command that writes."""
    verb, entity = _verb_and_entity(words)
    return (verb, entity) if verb in ("add", "modify", "remove") else None


def _verb_and_entity(words: Sequence[str]) -> tuple[str, str]:
    rest = [word for word in words if not word.startswith("-")]
    verb = _SYNONYMS.get(rest[0], rest[0]) if rest else ""
    return verb, rest[1].lower() if len(rest) > 1 else ""


def _answer(state: SimState, program: str, words: list[str]) -> Answer:
    if program in _PROGRAMS:
        return _PROGRAMS[program](state, words)
    if program != "sacctmgr":
        return Answer(127, "", f"{program}: not simulated\n")
    switches = [word for word in words if word.startswith("-")]
    rest = [word for word in words if not word.startswith("-")]
    verb, entity = _verb_and_entity(words)
    if verb == "show" and entity in _OF_SLURMDBD:
        return _OF_SLURMDBD[entity](state)
    if verb == "show":
        return showing.show(state, entity, rest[2:], switches)
    change = _CHANGES.get((verb, entity.rstrip("s")))
    if change is None:
        said = f"No valid entity in {verb} command\n{_ENTITIES}" if verb == "add" else ""
        return Answer(1, "", said or f"No valid entity in {verb} command\n")
    return change(state, rest[2:])
