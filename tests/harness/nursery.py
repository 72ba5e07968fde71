"""Agents as processes that are forked from one that has imported everything: a tenth of a start."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.patience import patience

_PARENT = """\
import gc, importlib.metadata, json, os, select, signal, sys, time
from pkgutil import resolve_name

import waldur_site_agent.cli.aliases, waldur_site_agent.cli.main, waldur_site_agent.cli.run
import waldur_site_agent.events.stomp, waldur_site_agent_slurm.backend

try:
    import pg8000.native, pymysql
except ImportError:
    pass  # no tests with a database, then

commands = importlib.metadata.distribution("waldur-site-agent").entry_points
ended, wakes = os.pipe()
os.set_blocking(wakes, False)
signal.set_wakeup_fd(wakes)
signal.signal(signal.SIGCHLD, lambda *_: None)
gc.freeze()


def tell(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")


def bury():
    os.read(ended, 1000)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        tell(ended=pid, code=os.waitstatus_to_exitcode(status))


def wanted():
    text = b""
    while True:
        if ended in select.select([0, ended], [], [])[0]:
            bury()
            continue
        read = os.read(0, 100_000)
        if not read:
            os._exit(0)
        *lines, text = (text + read).split(b"\\n")
        for line in lines:
            child = os.fork()
            if not child:
                return json.loads(line)
            tell(begun=child)


wanted = wanted()
signal.set_wakeup_fd(-1)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
os.close(ended)
os.close(wakes)
created = os.O_WRONLY | os.O_CREAT | os.O_APPEND
for number, name, flags in (
    (0, os.devnull, os.O_RDONLY), (1, wanted["out"], created), (2, wanted["err"], created)
):
    source = os.open(name, flags)
    os.dup2(source, number)
    os.close(source)
os.environ.clear()
os.environ.update(wanted["environment"])
time.tzset()
for name, value in wanted["constants"].items():
    place, _, constant = name.rpartition(".")
    setattr(resolve_name(place), constant, value)
sys.argv = [wanted["command"], *wanted["arguments"]]
sys.exit(commands[os.path.basename(wanted["command"])].load()())
"""


@dataclass
class Forked:
    """A process of the nursery."""

    pid: int
    log: Path
    _changed: threading.Condition
    code: int | None = None
    """Its exit code, as ``subprocess`` has it, once it has ended."""

    @property
    def text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with self._changed:
            if self.code is None:
                os.kill(self.pid, number)

    send_signal = send

    def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return its exit code, or ``None`` while it runs."""
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        seconds = patience() if timeout is None else timeout
        with self._changed:
            if not self._changed.wait_for(lambda: self.code is not None, seconds):
                raise subprocess.TimeoutExpired(str(self.log), seconds)
            assert self.code is not None
            return self.code

    def end(self, code: int) -> None:
        """Note that it has ended."""
        with self._changed:
            self.code = code
            self._changed.notify_all()


@dataclass
class Nursery:
    """Forks agents on demand."""

    _process: subprocess.Popen[bytes]
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _wanted: deque[Path] = field(default_factory=deque)
    _begun: deque[Forked] = field(default_factory=deque)
    _running: dict[int, Forked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()

    def agent(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        constants: Mapping[str, float],
        log: Path,
        *,
        command: str = "waldur_site_agent",
        errors: Path | None = None,
    ) -> Forked:
        """Start an agent with these arguments, variables and module constants.

        Args:
            arguments: those of the command.
            environment: all variables; none that the interpreter reads at its start has an effect.
            constants: module constants by their full name.
            log: gets what it prints.
            command: the name or path of one of the agent's commands.
            errors: gets its standard error, by default the same file.
        """
        wanted = {
            "command": command,
            "arguments": list(arguments),
            "environment": dict(environment),
            "constants": dict(constants),
            "out": str(log),
            "err": str(errors or log),
        }
        log.touch()
        with self._mutex:
            assert self._process.stdin is not None
            self._wanted.append(log)
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            self._process.stdin.flush()
            with self._changed:
                assert self._changed.wait_for(lambda: self._begun, patience()), "no agent is forked"
                return self._begun.popleft()

    def close(self) -> None:
        """Fork no more; who starts agents ends them."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                told = json.loads(line)
                if "ended" in told:
                    self._running.pop(told["ended"]).end(told["code"])
                    continue
                begun = Forked(told["begun"], self._wanted.popleft(), self._changed)
                self._running[begun.pid] = begun
                with self._changed:
                    self._begun.append(begun)
                    self._changed.notify_all()


@contextmanager
def a_nursery(environment: Mapping[str, str] | None = None) -> Iterator[Nursery]:
    """A process that forks agents while the body runs."""
    nursery = _started(environment)
    try:
        yield nursery
    finally:
        nursery.close()


@cache
def the_nursery(variables: tuple[tuple[str, str], ...]) -> Nursery:
    """The one of all tests of this process, for these variables of the interpreter."""
    nursery = _started({**os.environ, **dict(variables)})
    atexit.register(nursery.close)
    return nursery


def _started(environment: Mapping[str, str] | None) -> Nursery:
    return Nursery(
        subprocess.Popen(
            [sys.executable, "-c", _PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
    )
