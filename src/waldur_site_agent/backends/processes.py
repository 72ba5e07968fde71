"""Argument vectors become processes, for plugins that work by commands."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from waldur_site_agent.model.errors import TemporaryError

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME")
_UMASK = 0o022
"""The agent's own umask closes its files to others; what a command makes for users stays open."""
_SECONDS_TO_DIE = 5
_SHOWN = 400
_inherited: ContextVar[tuple[int, ...]] = ContextVar("inherited", default=())


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a finished command left behind."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """Starts commands; a simulator offers one that starts none."""

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """Run a command to its end, at most ``timeout`` seconds.

        Raises:
            CommandTimedOutError: it was still running then, and was killed.
            CommandMissingError: it cannot be started.
        """
        ...


class CommandLog:
    """Counts the commands of a backend, and tells of each that ended. Threads may share it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._told: Callable[[str, str, float], None] | None = None

    def tell(self, told: Callable[[str, str, float], None]) -> None:
        """See :meth:`waldur_site_agent.backends.Backend.watch_commands`."""
        self._told = told

    def counts(self) -> Mapping[str, int]:
        """See :meth:`waldur_site_agent.backends.Backend.commands_run`."""
        return dict(self._counts)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Count a command that the body runs; it failed when the body raises."""
        self._counts[name] += 1
        began, result = time.monotonic(), "failure"
        try:
            yield
            result = "success"
        finally:
            if self._told is not None:
                self._told(name, result, time.monotonic() - began)


class CommandTimedOutError(TemporaryError):
    """The command hung; a write that hung may have landed, so read before writing again."""


class CommandMissingError(TemporaryError):
    """The command is not there, or may not be executed."""


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


class ProcessRunner:
    """Runs each command in a process group of its own, without a shell."""

    timed_out: ClassVar[type[CommandTimedOutError]] = CommandTimedOutError
    missing: ClassVar[type[CommandMissingError]] = CommandMissingError
    """What is raised; a plugin's own kinds of these two, where it tells failures apart further."""

    def __init__(
        self,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        passed_on: Sequence[str] = (),
        secrets: Sequence[str] = (),
        added: Mapping[str, str] | None = None,
        when_missing: str = "install it",
        when_hung: str = "look at what it waits for",
    ) -> None:
        """Remember where commands are and what they get.

        Args:
            directory: where commands are taken from; without it they are looked up in PATH.
            environment: replaces the agent's own as the source of what is passed on.
            passed_on: variables that commands need besides PATH, HOME and the user's name.
            secrets: the same for variables whose values are replaced in what commands print.
            added: variables that every command gets with these values.
            when_missing: the remedy to name when a command cannot be started.
            when_hung: the same for one that gives no answer.
        """
        self._directory = directory
        source = os.environ if environment is None else environment
        self._environment = {
            **{
                name: source[name] for name in (*_PASSED_ON, *passed_on, *secrets) if name in source
            },
            # messages are recognised by their English words, times are read as UTC
            "LC_ALL": "C",
            "TZ": "UTC",
            **(added or {}),
        }
        self._secrets = tuple(source[name] for name in secrets if source.get(name))
        self._when_missing = when_missing
        self._when_hung = when_hung

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        """See :class:`Runner`."""
        return self._run(argv, timeout, None)

    def run_with_input(self, argv: Sequence[str], text: str, timeout: float) -> CommandResult:
        """The same for a command that reads a text from its standard input."""
        return self._run(argv, timeout, text)

    def _run(self, argv: Sequence[str], timeout: float, text: str | None) -> CommandResult:
        command = tuple(argv)
        with self._running(command, timeout, self._when_hung, text is not None) as process:
            stdout, stderr = process.communicate(text, timeout=timeout)
        return CommandResult(
            command, process.returncode, self._masked(stdout), self._masked(stderr)
        )

    def _masked(self, text: str) -> str:
        """Return what a command printed without the values of secret variables."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    @contextmanager
    def _running(
        self, command: tuple[str, ...], timeout: float, when_hung: str, reads: bool = False
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a command; whatever happens in the body, nothing is left of it afterwards."""
        process = self._start(command, reads=reads)
        try:
            yield process
        except subprocess.TimeoutExpired as error:
            raise self.timed_out(
                f"{command_line(command)} gave no answer within {timeout:g} seconds and was killed",
                remedy=when_hung,
            ) from error
        finally:
            _end_group(process)

    def _start(self, command: tuple[str, ...], *, reads: bool) -> subprocess.Popen[str]:
        program = command[0] if self._directory is None else str(self._directory / command[0])
        try:
            return subprocess.Popen(
                (program, *command[1:]),
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
                umask=_UMASK,
                pass_fds=_inherited.get(),
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            where = f"{self._directory}" if self._directory else "PATH"
            raise self.missing(
                f"{command[0]} cannot be started from {where}: {error.strerror}",
                remedy=self._when_missing,
            ) from error


def described(result: CommandResult) -> str:
    """Return command, exit code and both outputs, shortened to what fits a message."""
    return (
        f"{command_line(result.argv)} -> exit code {result.exit_code}, "
        f"stderr {_short(result.stderr)}, stdout {_short(result.stdout)}"
    )


def command_line(argv: tuple[str, ...]) -> str:
    """Return an argument vector as a person would type it, shortened."""
    return _cut(shlex.join(argv))


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


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return ascii(_cut(flat)) if flat else "empty"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."
