"""The agent as its users start it: a process, a configuration file, commands on a path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.commands import commands_of
from harness.nursery import Forked, the_nursery
from harness.patience import patience
from harness.testbed import COMPONENTS, SETTINGS, SimulatedSite
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE
from waldur_site_agent_slurm.simulator.request import PROGRAMS

COMMANDS = Path(sys.executable).parent
_AS_AT_A_SITE = Path(__file__).parent / "as_at_a_site"

_WITH_CONSTANTS = """\
import sys
from pkgutil import resolve_name

from waldur_site_agent.cli.aliases import agent

for setting in sys.argv.pop(1).split():
    name, _, value = setting.partition("=")
    place, _, constant = name.rpartition(".")
    setattr(resolve_name(place), constant, float(value))
agent()
"""
_HANGING_COMMAND = """\
#!/bin/sh
case "$*" in
*" add "*)
    touch {directory}/hanging
    while ! [ -e {directory}/released ]; do sleep 0.05; done
    ;;
esac
exec {real} "$@"
"""


@dataclass
class Installation:
    """A configuration file that binds a house's sandbox to a cluster that processes share."""

    testbed: SimulatedSite
    directory: Path
    backend_settings: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)
    """Environment that every command of this installation gets."""
    constants: Mapping[str, float] = field(default_factory=dict)
    """Module constants by their full name, for services of tests that cannot wait so long."""
    is_forked: bool = True
    """Whether agents are forked from a process that has imported everything, as its own command
    line and environment in ``/proc`` then say."""

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.directory / "config.yaml"

    def write(self, **changes: Any) -> Path:
        """Write the configuration, with changes to its only offering."""
        return self.write_offerings(changes)

    def write_offerings(self, *changes: dict[str, Any], **top_level: Any) -> Path:
        """Write the configuration, with an offering for each mapping of changes.

        A key whose value is ``...`` is left out.
        """
        offering = {
            "name": "Test cluster",
            "waldur_api_url": self.testbed.url,
            "waldur_api_token": self.testbed.sandbox.token,
            "waldur_offering_uuid": self.testbed.sandbox.offering.uuid,
            "order_processing_backend": "slurm",
            "backend_settings": self.backend_settings,
            "backend_components": {
                name: component.model_dump(mode="json", exclude_none=True)
                for name, component in COMPONENTS.items()
            },
        }
        entries = [
            {key: value for key, value in (offering | change).items() if value is not ...}
            for change in changes
        ]
        content = {**top_level, "offerings": entries}
        self.file.write_text(yaml.safe_dump(content))
        return self.file

    def run(self, *arguments: str, command: str = "waldur_site_agent") -> Finished:
        """Run a command to its end."""
        variables = environment(**self.variables)
        words = (*arguments, "-c", str(self.file))
        if self.is_forked:
            return _forked(command, words, variables)
        done = subprocess.run(
            [str(COMMANDS / command), *words],
            capture_output=True,
            text=True,
            timeout=patience(),
            check=False,
            env=variables,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def service(self, *arguments: str, **variables: str) -> Iterator[Service]:
        """Run the agent while the body runs: as a service, or once with ``--once``."""
        log = self.directory / f"service-{time.monotonic_ns()}.log"
        words = (*arguments, "-c", str(self.file))
        process = self._begun(words, environment(**self.variables, **variables), log)
        try:
            yield Service(process, log)
        finally:
            process.kill()
            process.wait()

    def _begun(
        self, words: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes] | Forked:
        command = [str(COMMANDS / "waldur_site_agent")]
        if self.is_forked:
            nursery = the_nursery(_of_the_interpreter(variables))
            return nursery.agent(words, variables, self.constants, log, command=command[0])
        if self.constants:
            settings = " ".join(f"{name}={value}" for name, value in self.constants.items())
            command = [sys.executable, "-c", _WITH_CONSTANTS, settings]
        with log.open("w") as stream:
            return subprocess.Popen([*command, *words], stderr=stream, stdout=stream, env=variables)

    @contextmanager
    def stalled_writes(self) -> Iterator[StalledWrites]:
        """Let every ``sacctmgr add`` hang until it is released, or the body ends."""
        writes = StalledWrites(self.directory / "bin")
        try:
            yield writes
        finally:
            writes.release()


class StalledWrites:
    """Commands that hang in the middle of a write, for as long as a test wants."""

    def __init__(self, commands: Path) -> None:
        self._directory = commands
        command = commands / "sacctmgr"
        real = command.rename(commands / "sacctmgr.real")
        command.write_text(_HANGING_COMMAND.format(directory=commands, real=real))
        command.chmod(0o755)

    def begun(self) -> bool:
        """Whether a write hangs, or has hung."""
        return (self._directory / "hanging").exists()

    def release(self) -> None:
        """Let it go on, and all that come after it."""
        (self._directory / "released").touch()


@dataclass
class Finished:
    """What a command left."""

    code: int
    out: str
    err: str


@dataclass
class Service:
    """A running agent."""

    process: subprocess.Popen[bytes] | Forked
    log: Path

    @property
    def text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end."""
        return self.process.wait(patience())


_READ_AT_THE_START = ("PYTHON", "COVERAGE", "LANG", "LC_", "LD_")


def _of_the_interpreter(variables: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(v for v in variables.items() if v[0].startswith(_READ_AT_THE_START)))


def _forked(command: str, words: Sequence[str], variables: Mapping[str, str]) -> Finished:
    with tempfile.TemporaryDirectory(prefix="wsa-") as place:
        out, err = Path(place, "out"), Path(place, "err")
        nursery = the_nursery(_of_the_interpreter(variables))
        path = str(COMMANDS / command)
        process = nursery.agent(words, variables, {}, out, command=path, errors=err)
        try:
            return Finished(process.wait(), out.read_text(), err.read_text())
        finally:
            process.kill()


def environment(**variables: str) -> dict[str, str]:
    """The test's own environment without what could steer the agent, or slow its start down."""
    steering = {k for k in os.environ if k.startswith("WALDUR_")} - {DIRECTORY_VARIABLE}
    kept = {k: v for k, v in os.environ.items() if k not in steering}
    path = f"{variables.pop('PYTHONPATH', '')}:{_AS_AT_A_SITE}".lstrip(":")
    return kept | {"NO_COLOR": "1", "PYTHONPATH": path} | variables


@contextmanager
def installed(testbed: SimulatedSite, directory: Path) -> Iterator[Installation]:
    """A served site, and executables that its cluster answers."""
    settings = SETTINGS | {
        "slurm_bin_path": str(directory / "bin"),
        "lock_file": str(directory / "writer.lock"),
        "require_system_user": False,
        "retry_seconds": 0,  # an outage in a test lasts as long as the test wants
    }
    installation = Installation(testbed, directory, settings)
    with testbed.served(), commands_of(testbed.slurm, PROGRAMS, directory / "bin"):
        installation.write()
        yield installation
