"""Agents as processes that are forked from one that has imported everything: a tenth of a start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.patience import eventually

_PARENT = """\
import json, os, signal, sys
from pkgutil import resolve_name

import pg8000.native, pymysql
import waldur_site_agent.cli.aliases, waldur_site_agent.cli.main, waldur_site_agent.cli.run
import waldur_site_agent.events.stomp, waldur_site_agent_slurm.backend

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    wanted = json.loads(line)
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, number)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    for name, value in wanted["constants"].items():
        place, _, constant = name.rpartition(".")
        setattr(resolve_name(place), constant, value)
    sys.argv = ["waldur_site_agent", *wanted["arguments"]]
    code = 1
    try:
        waldur_site_agent.cli.aliases.agent()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.stdout.flush()
        os._exit(code)
"""


@dataclass
class Forked:
    """A process of the nursery."""

    pid: int
    log: Path

    @property
    def text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> None:
        """Wait for its end."""
        eventually(lambda: not Path(f"/proc/{self.pid}").exists(), "the end of an agent")


@dataclass
class Nursery:
    """Forks agents on demand."""

    _process: subprocess.Popen[str]
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def agent(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        constants: Mapping[str, float],
        log: Path,
    ) -> Forked:
        """Start an agent with these arguments, variables and module constants."""
        wanted = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "constants": dict(constants),
            "log": str(log),
        }
        log.touch()
        with self._mutex:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
            return Forked(int(self._process.stdout.readline()), log)


@contextmanager
def a_nursery() -> Iterator[Nursery]:
    """A process that forks agents while the body runs; who starts agents ends them."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Nursery(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
