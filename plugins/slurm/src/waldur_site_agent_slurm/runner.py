"""Argument vectors become processes. The only place that starts any."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent_slurm.errors import DatabaseUnavailableError, command_line
from waldur_site_agent_slurm.streaming import OutputReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "CommandMissingError",
    "CommandResult",
    "CommandTimedOutError",
    "ProcessRunner",
    "Runner",
    "StreamingRunner",
    "inheriting",
    "stream",
]

_PASSED_ON = ("PATH", "SLURM_CONF", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME")
_SECONDS_TO_DIE = 5
_inherited: ContextVar[tuple[int, ...]] = ContextVar("inherited", default=())


class Runner(Protocol):
    """Starts commands; the simulator offers one that starts none."""

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """Run a command to its end, at most ``timeout`` seconds.

        Raises:
            CommandTimedOutError: it was still running then, and was killed.
            CommandMissingError: it cannot be started.
        """
        ...


@runtime_checkable
class StreamingRunner(Runner, Protocol):
    """Starts commands that may print more than one wants to keep."""

    def stream(
        self, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
    ) -> CommandResult:
        """Run a command and let ``read`` have its lines as they come, without their ends.

        The result's ``stdout`` is what followed the last line end: empty, unless the output was
        cut off. What was read counts only once the result is known to be good. ``timeout`` is
        in seconds and includes the time that ``read`` takes.

        Raises:
            CommandTimedOutError: it was still running then, and was killed.
            CommandMissingError: it cannot be started.
        """
        ...


def stream(
    runner: Runner, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
) -> CommandResult:
    """Run a command as :meth:`StreamingRunner.stream` does, on any runner."""
    if isinstance(runner, StreamingRunner):
        return runner.stream(argv, timeout, read)
    result = runner.run(argv, timeout)
    lines, separator, rest = result.stdout.rpartition("\n")
    read(iter(lines.split("\n") if separator else ()))
    return replace(result, stdout=rest)


@contextmanager
def inheriting(descriptor: int | None) -> Iterator[None]:
    """Let processes that this thread starts in the body inherit the descriptor of a lock.

    So the lock is held until such a process ends, even when this one is killed before.
    """
    token = _inherited.set(() if descriptor is None else (descriptor,))
    try:
        yield
    finally:
        _inherited.reset(token)


class CommandTimedOutError(DatabaseUnavailableError):
    """The command hung; a write that hung may have landed, so read before writing again."""


class CommandMissingError(DatabaseUnavailableError):
    """The command is not there, or may not be executed."""


class ProcessRunner:
    """Runs each command in a process group of its own, without a shell and without input."""

    def __init__(self, directory: Path | None = None, environment: Mapping[str, str] | None = None):
        """Commands are taken from ``directory``; without it they are looked up in PATH.

        ``environment`` replaces the agent's own as the source of what is passed on.
        """
        self._directory = directory
        source = os.environ if environment is None else environment
        self._environment = {
            **{name: source[name] for name in _PASSED_ON if name in source},
            # messages are recognised by their English words, times are read as epochs
            "LC_ALL": "C",
            "TZ": "UTC",
            "SLURM_TIME_FORMAT": "%s",
        }

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """See :class:`Runner`."""
        command = tuple(argv)
        process = self._start(command)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            setting = "command_timeout_seconds"
            raise CommandTimedOutError(_hung(command, timeout, setting)) from error
        finally:
            _end_group(process)
        return CommandResult(command, process.returncode, stdout, stderr)

    def stream(
        self, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
    ) -> CommandResult:
        """See :class:`StreamingRunner`."""
        command = tuple(argv)
        process = self._start(command)
        output = OutputReader(process, timeout)
        try:
            lines = output.lines()
            read(lines)
            for _ in lines:  # what read left, and the end of the process
                pass
        except subprocess.TimeoutExpired as error:
            setting = "usage_timeout_seconds"
            raise CommandTimedOutError(_hung(command, timeout, setting)) from error
        finally:
            _end_group(process)
        return CommandResult(command, process.returncode, output.rest, output.complaints)

    def _start(self, command: tuple[str, ...]) -> subprocess.Popen[str]:
        program = command[0] if self._directory is None else str(self._directory / command[0])
        try:
            return subprocess.Popen(
                (program, *command[1:]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
                pass_fds=_inherited.get(),
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            where = f"{self._directory}" if self._directory else "PATH"
            raise CommandMissingError(
                f"{command[0]} cannot be started from {where}: {error.strerror}; install the Slurm "
                "client commands on this machine or set slurm_bin_path to their directory"
            ) from error


def _end_group(process: subprocess.Popen[str]) -> None:
    """End what is left of a command; one that even SIGKILL does not end is left behind.

    Processes that wait for a dead file server cannot be killed: nobody waits for them here.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_SECONDS_TO_DIE)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _hung(command: tuple[str, ...], timeout: float, setting: str) -> str:
    return (
        f"{command_line(command)} gave no answer within {timeout:g} seconds and was killed; "
        "slurmdbd or slurmctld hangs or is overloaded: look at their logs; a site with a slow "
        f"database can raise {setting}"
    )
