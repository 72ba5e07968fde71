"""An accounting manager within this process, or shared between processes by a file."""

from __future__ import annotations

import fcntl
import shlex
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path, PurePath

from waldur_site_agent.backends.processes import (
    CommandResult,
    CommandTimedOutError,
    Runner,
    command_line,
)
from waldur_site_agent_moab.simulator.commands import CHANGES, LISTS
from waldur_site_agent_moab.simulator.state import (
    Answer,
    Outage,
    RefusedError,
    SimCharge,
    SimMam,
    new_state,
    read_request,
)

VERSION = "simulated accounting manager\n"
_ANSWERS = {**LISTS, **CHANGES}


class HungError(Exception):
    """The command would block until somebody kills it."""


class SimulatedMam:
    """Answers argument vectors as the administrator's guide says, for all that the plugin sends.

    With ``state_file`` every command reads and writes the file under a lock, so that separate
    processes share one accounting manager; without, it lives in this object. Safe for threads.
    """

    def __init__(self, *, state_file: Path | None = None) -> None:
        self._file = state_file
        self._state = new_state()
        self._mutex = threading.RLock()
        self.commands_run: Counter[str] = Counter()
        """Commands by program."""
        self.history: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error of a command.

        Raises:
            HungError: the command would give no answer.
        """
        program = PurePath(argv[0]).name
        with self.change() as state:
            self.commands_run[program] += 1
            self.history.append(tuple(argv))
            outage = _outage(state)
            if outage is Outage.HUNG:
                raise HungError
            if outage is Outage.REFUSED:
                return Answer(1, "", "Failed to connect to server: Connection refused\n")
            if outage is Outage.NO_PERMISSION and program in CHANGES:
                return Answer(1, "", "User agent is not authorized to perform this action\n")
            answer = _answer(state, program, list(argv[1:]))
            if outage is Outage.LOST_ANSWER:
                raise HungError
            return answer

    def runner(self) -> Runner:
        """Return what to give to ``MoabBackend(runner=...)``."""
        return SimulatedRunner(self)

    def charge(
        self, account: str, user: str, amount: Decimal, start: datetime, end: datetime
    ) -> None:
        """Let a job end that costs this much.

        Raises:
            ValueError: the account's active allocations do not hold as much.
        """
        with self.change() as state:
            funds = {fund.id for fund in state.funds_of(account)}
            active = [a for a in state.allocations.values() if a.fund in funds and a.active]
            if sum(a.amount for a in active) < amount:
                raise ValueError(f"{account} cannot pay {amount}")
            rest = amount
            for allocation in active:
                portion = min(allocation.amount, rest)
                allocation.amount -= portion
                rest -= portion
            seconds = (int(start.timestamp()), int(end.timestamp()))
            state.charges.append(SimCharge(account, user, *seconds, amount))

    @contextmanager
    def outage(self, kind: Outage, *, after_commands: int = 0) -> Iterator[None]:
        """Have an outage while the body runs, at once or after some more commands."""
        with self.change() as state:
            state.outage, state.commands_until_outage = kind, after_commands
        try:
            yield
        finally:
            with self.change() as state:
                state.outage = None

    @contextmanager
    def change(self) -> Iterator[SimMam]:
        """Give access to the state itself; changes are kept when the body ends."""
        with self._mutex:
            if self._file is None:
                yield self._state
                return
            with self._file.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                text = file.read()
                state = SimMam.from_json(text) if text else self._state
                try:
                    yield state
                finally:
                    file.truncate(0)
                    file.write(state.to_json())

    @property
    def state(self) -> SimMam:
        """The state as it is at the moment, for looking at."""
        with self.change() as state:
            return state


class SimulatedRunner:
    """A :class:`Runner` that starts nothing; a command that hangs times out at once."""

    def __init__(self, mam: SimulatedMam) -> None:
        self._mam = mam

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """See :meth:`Runner.run`."""
        command = tuple(argv)
        try:
            return CommandResult(command, *self._mam.run(command))
        except HungError as error:
            raise CommandTimedOutError(
                f"{command_line(command)} gave no answer within {timeout:g} seconds"
            ) from error


def _outage(state: SimMam) -> Outage | None:
    if state.outage is not None and state.commands_until_outage > 0:
        state.commands_until_outage -= 1
        return None
    return state.outage


def _answer(state: SimMam, program: str, words: list[str]) -> Answer:
    if program not in _ANSWERS:
        return Answer(127, "", f"{program}: not simulated\n")
    if "--version" in words:
        return Answer(0, VERSION)
    answer, known = _ANSWERS[program]
    try:
        return answer(state, read_request(words, known))
    except RefusedError as refusal:
        return refusal.answer


PROGRAMS = (*LISTS, *CHANGES)
_EXECUTABLE = 0o755


def write_executables(directory: Path, state_file: Path) -> Path:
    """Make the directory with its commands, all on the state in ``state_file``; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    module = [sys.executable, "-m", "waldur_site_agent_moab.simulator"]
    for program in PROGRAMS:
        command = shlex.join([*module, "--state", str(state_file.absolute()), program])
        path = directory / program
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        path.chmod(_EXECUTABLE)
    return directory
