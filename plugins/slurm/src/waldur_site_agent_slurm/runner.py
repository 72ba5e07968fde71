"""Argument vectors become processes: the shared runner with Slurm's words, and streaming."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from waldur_site_agent.backends import processes
from waldur_site_agent.backends.processes import CommandResult, Runner, inheriting
from waldur_site_agent_slurm.errors import DatabaseUnavailableError
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


class CommandTimedOutError(processes.CommandTimedOutError, DatabaseUnavailableError):
    """The command hung; a write that hung may have landed, so read before writing again."""


class CommandMissingError(processes.CommandMissingError, DatabaseUnavailableError):
    """The command is not there, or may not be executed."""


class ProcessRunner(processes.ProcessRunner):
    """Runs each command in a process group of its own, without a shell and without input."""

    timed_out = CommandTimedOutError
    missing = CommandMissingError

    def __init__(self, directory: Path | None = None, environment: Mapping[str, str] | None = None):
        """Commands are taken from ``directory``; without it they are looked up in PATH.

        ``environment`` replaces the agent's own as the source of what is passed on.
        """
        super().__init__(
            directory,
            environment,
            passed_on=("SLURM_CONF", "SLURM_CONF_SERVER"),
            secrets=("SLURM_JWT",),
            added={"SLURM_TIME_FORMAT": "%s"},  # times are read as epochs
            when_missing=(
                "install the Slurm client commands on this machine or set slurm_bin_path to "
                "their directory"
            ),
            when_hung=_when_hung("command_timeout_seconds"),
        )

    def stream(
        self, argv: Sequence[str], timeout: float, read: Callable[[Iterator[str]], None]
    ) -> CommandResult:
        """See :class:`StreamingRunner`."""
        command = tuple(argv)
        when_hung = _when_hung("usage_timeout_seconds")
        with self._running(command, timeout, when_hung) as process:
            output = OutputReader(process, timeout)
            lines = output.lines()
            read(lines)
            for _ in lines:  # what read left, and the end of the process
                pass
        return CommandResult(
            command, process.returncode, output.rest, self._masked(output.complaints)
        )


def _when_hung(setting: str) -> str:
    return (
        "slurmdbd or slurmctld hangs or is overloaded: look at their logs; a site with a slow "
        f"database can raise {setting}"
    )
