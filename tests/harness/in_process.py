"""The agent's commands inside the test's own process, and its cluster in memory."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from unittest import mock

import click
import structlog
from click.testing import CliRunner

from harness.processes import Finished, Installation, installed
from harness.testbed import SimulatedSite
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE
from waldur_site_agent.backends.processes import Runner
from waldur_site_agent_slurm import backend as slurm_backend
from waldur_site_agent_slurm.client import ProcessRunner


class InProcess(Installation):
    """An installation whose commands start no process, neither the agent's nor Slurm's."""

    def run(self, *arguments: str, command: str = "waldur_site_agent") -> Finished:
        """See :meth:`Installation.run`."""
        return run_in_process(command, *arguments, "-c", str(self.file), variables=self.variables)


@contextmanager
def installed_in_process(testbed: SimulatedSite, directory: Path) -> Iterator[Installation]:
    """As :func:`installed`, for tests that start no process.

    Backends that would start the installation's executables ask the simulator itself.
    """
    with installed(testbed, directory) as found:

        def runner(bin_path: Path | None = None) -> Runner:
            if bin_path == directory / "bin":
                return testbed.slurm.runner()
            return ProcessRunner(bin_path)

        with mock.patch.object(slurm_backend, "ProcessRunner", runner):
            yield InProcess(testbed, directory, found.backend_settings)


def run_in_process(
    command: str,
    *arguments: str,
    given: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Finished:
    """Run a command as its entry point does, with what it reads from standard input."""
    steering: dict[str, str | None] = {
        name: None
        for name in os.environ
        if name.startswith("WALDUR_") and name != DIRECTORY_VARIABLE
    }
    environment = {**steering, "NO_COLOR": "1", **(variables or {})}
    handlers, level = logging.root.handlers[:], logging.root.level
    logs = structlog.get_config()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # a process would end here
            return _invoke(_command(command), arguments, given, environment, command)
    finally:
        logging.root.handlers[:], logging.root.level = handlers, level
        structlog.configure(**logs)


def _invoke(
    command: click.Command,
    arguments: Sequence[str],
    given: str | None,
    environment: Mapping[str, str | None],
    name: str,
) -> Finished:
    result = CliRunner().invoke(command, arguments, input=given, env=environment, prog_name=name)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Finished(result.exit_code, result.stdout, result.stderr)


@cache
def _command(name: str) -> click.Command:
    (entry,) = entry_points(group="console_scripts", name=name)
    # what the entry points import, as late as they can
    module = "main" if entry.attr == "main" else "aliases"
    found = getattr(import_module(f"waldur_site_agent.cli.{module}"), entry.attr)
    assert isinstance(found, click.Command)
    return found
