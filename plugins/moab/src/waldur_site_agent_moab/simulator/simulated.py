"""An accounting manager within this process, or shared between processes by a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from waldur_site_agent.backends import simulation
from waldur_site_agent.backends.simulation import (
    Answer,
    HungError,
    SimulatedTool,
)
from waldur_site_agent_moab.simulator.commands import CHANGES, LISTS
from waldur_site_agent_moab.simulator.state import (
    Outage,
    RefusedError,
    SimCharge,
    SimMam,
    new_state,
    read_request,
)

VERSION = "simulated accounting manager\n"
_ANSWERS = {**LISTS, **CHANGES}


class SimulatedMam(SimulatedTool[SimMam]):
    """Answers argument vectors as the administrator's guide says, for all that the plugin sends."""

    def __init__(self, *, state_file: Path | None = None) -> None:
        super().__init__(new_state(), SimMam.from_json, state_file)

    def answer(self, state: SimMam, program: str, words: list[str]) -> Answer:
        """See :meth:`SimulatedTool.answer`."""
        outage = _outage(state)
        if outage is Outage.HUNG:
            raise HungError
        if outage is Outage.REFUSED:
            return Answer(1, "", "Failed to connect to server: Connection refused\n")
        if outage is Outage.NO_PERMISSION and program in CHANGES:
            return Answer(1, "", "User agent is not authorized to perform this action\n")
        answer = _answer(state, program, words)
        if outage is Outage.LOST_ANSWER:
            raise HungError
        return answer

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


MODULE = "waldur_site_agent_moab.simulator"
PROGRAMS = (*LISTS, *CHANGES)


def write_executables(directory: Path, state_file: Path) -> Path:
    """Make the directory with its commands, all on the state in ``state_file``; return it."""
    return simulation.write_executables(directory, state_file, MODULE, PROGRAMS)
