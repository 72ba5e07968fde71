"""What simulators of command-line tools have in common: a state, a runner, commands of their own.

A simulator answers argument vectors. It lives in one process, or in a file that separate processes
share; :func:`write_executables` makes commands of it that any program can start.
"""

from __future__ import annotations

import fcntl
import shlex
import signal
import sys
import threading
from argparse import REMAINDER, ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Generic, NamedTuple, Protocol, TypeVar

from waldur_site_agent.backends.processes import (
    CommandResult,
    CommandTimedOutError,
    Runner,
    command_line,
)

_EXECUTABLE = 0o755


class Answer(NamedTuple):
    """What a command leaves behind."""

    exit_code: int
    stdout: str = ""
    stderr: str = ""


class RefusedError(Exception):
    """The command ends here with this answer, and changes nothing."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.stderr or answer.stdout)
        self.answer = answer


class HungError(Exception):
    """The command would block until somebody kills it."""


class State(Protocol):
    """What a simulated tool keeps."""

    def to_json(self) -> bytes:
        """Write the state down."""
        ...


S = TypeVar("S", bound=State)


class SimulatedTool(Generic[S]):
    """Answers argument vectors from a state.

    With ``state_file`` every command reads and writes the file under a lock, so that separate
    processes share one state; without, it lives in this object. Safe for threads.
    """

    def __init__(self, state: S, read: Callable[[bytes], S], state_file: Path | None) -> None:
        """``read`` is the reverse of the state's ``to_json``."""
        self._file = state_file
        self._state = state
        self._from_json = read
        self._mutex = threading.RLock()
        self.commands_run: Counter[str] = Counter()
        """Commands by :meth:`label`."""
        self.history: list[tuple[str, ...]] = []

    def label(self, program: str, words: Sequence[str]) -> str:  # noqa: ARG002 - for overriding
        """The name under which a command is counted."""
        return program

    def answer(self, state: S, program: str, words: list[str]) -> Answer:
        """Carry out a command on the state.

        Raises:
            RefusedError: it ends early with the answer that this carries.
            HungError: it would give no answer.
        """
        raise NotImplementedError

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error of a command.

        Raises:
            HungError: the command would give no answer.
        """
        program, words = PurePath(argv[0]).name, list(argv[1:])
        with self.change() as state:
            self.commands_run[self.label(program, words)] += 1
            self.history.append(tuple(argv))
            try:
                return self.answer(state, program, words)
            except RefusedError as refusal:
                return refusal.answer

    def runner(self) -> Runner:
        """Return what to give to the backend as its ``runner``."""
        return SimulatedRunner(self.run)

    @contextmanager
    def change(self) -> Iterator[S]:
        """Give access to the state itself; changes are kept when the body ends."""
        with self._mutex:
            if self._file is None:
                yield self._state
                return
            with self._file.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                text = file.read()
                state = self._from_json(text) if text else self._state
                try:
                    yield state
                finally:
                    file.truncate(0)
                    file.write(state.to_json())

    @property
    def state(self) -> S:
        """The state as it is at the moment, for looking at."""
        with self.change() as state:
            return state


class SimulatedRunner:
    """A :class:`Runner` that starts nothing; a command that hangs times out at once."""

    def __init__(
        self,
        answer: Callable[[Sequence[str]], tuple[int, str, str]],
        timed_out: type[CommandTimedOutError] = CommandTimedOutError,
    ) -> None:
        """``timed_out`` is what is raised for a command that hangs."""
        self._answer = answer
        self._timed_out = timed_out

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """See :meth:`Runner.run`."""
        command = tuple(argv)
        try:
            return CommandResult(command, *self._answer(command))
        except HungError as error:
            raise self._timed_out(
                f"{command_line(command)} gave no answer within {timeout:g} seconds"
            ) from error


def write_executables(
    directory: Path, state_file: Path, module: str, programs: Sequence[str]
) -> Path:
    """Make the directory with its commands, all on the state in ``state_file``; return it.

    ``python -m module --state FILE PROGRAM ...`` answers one command; see :func:`main`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for program in programs:
        words = [sys.executable, "-m", module, "--state", str(state_file.absolute()), program]
        path = directory / program
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        path.chmod(_EXECUTABLE)
    return directory


def main(
    module: str,
    programs: Sequence[str],
    answer: Callable[[Path, list[str]], tuple[int, str, str]],
    arguments: list[str] | None = None,
    versions: Mapping[str, Callable[[Path], None]] | None = None,
) -> int:
    """Answer one command on the state in a file and return its exit code.

    Args:
        module: what ``python -m`` starts.
        programs: the commands that are simulated.
        answer: carries out a command on the state in a file.
        arguments: those of the command line, by default this process's.
        versions: what can be simulated, with what writes it into the state in a file.
    """
    parser = ArgumentParser(
        prog=f"python -m {module}", description="A simulated backend in a file."
    )
    parser.add_argument("--state", type=Path, required=True, help="the file; made when missing")
    parser.add_argument(
        "--write-executables",
        type=Path,
        metavar="DIRECTORY",
        help=f"write {', '.join(programs)} into this directory, for a backend to use",
    )
    if versions:
        parser.add_argument(
            "--version",
            choices=sorted(versions),
            help="answer as this version from now on; the file remembers it",
        )
    parser.add_argument("command", nargs=REMAINDER, help="a command and its arguments")
    options = parser.parse_args(arguments)
    if versions and options.version is not None:
        versions[options.version](options.state)
    if options.write_executables is not None:
        write_executables(options.write_executables, options.state, module, programs)
    if not options.command:
        return 0
    try:
        exit_code, stdout, stderr = answer(options.state, options.command)
    except HungError:
        signal.pause()
        return 1
    sys.stdout.write(stdout)
    sys.stderr.write(stderr)
    return exit_code
