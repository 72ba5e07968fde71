"""Says last of all which services were missing, also when several processes run the tests."""

from __future__ import annotations

from typing import Any

import pytest

MISSING = pytest.StashKey[dict[str, str]]()
_OUTPUT = "missing_services"


def note_missing(config: pytest.Config, service: str, reason: str) -> None:
    """Remember that the tests of a service do not run, and why."""
    config.stash.setdefault(MISSING, {})[service] = reason


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands what it noted to the process that reports."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = session.config.stash.get(MISSING, {})


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker noted."""
    for service, reason in getattr(node, "workeroutput", {}).get(_OUTPUT, {}).items():
        note_missing(node.config, service, reason)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Say last of all what did not run, so that nobody takes silence for success."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    for service, reason in config.stash.get(MISSING, {}).items():
        if isinstance(reporter, pytest.TerminalReporter):
            reporter.write_line(f"NOT RUN: the tests that need {service}: {reason}")
