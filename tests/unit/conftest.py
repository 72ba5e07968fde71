"""Unit tests start no process of the agent or of a simulator; ``tests/e2e`` has those that do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import Installation, SimulatedSite
from harness.in_process import installed_in_process

_OUR_SCRIPTS = Path(sys.executable).parent


class _Popen(subprocess.Popen[Any]):
    """Starts other programs only, such as the small scripts of the tests of runners."""

    def __init__(self, args: Any, *more: Any, **options: Any) -> None:
        program = Path(os.fsdecode(args if isinstance(args, str | bytes) else args[0]))
        if _is_ours(program):
            pytest.fail(
                f"a unit test starts {program}: use run_in_process, or move it to tests/e2e"
            )
        super().__init__(args, *more, **options)


def _is_ours(program: Path) -> bool:
    """Whether it is Python, a command of the agent, or a simulator's executable."""
    if program.parent == _OUR_SCRIPTS:
        return True
    return program.is_file() and b"-m waldur_site_agent" in program.read_bytes()[:4096]


@pytest.fixture(autouse=True)
def no_process_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", _Popen)


@pytest.fixture
def installation(testbed: SimulatedSite, tmp_path: Path) -> Iterator[Installation]:
    """The one of all tests, but within this process."""
    with installed_in_process(testbed, tmp_path) as installation:
        yield installation
