"""A directory of ``mam-*`` commands that are answered by the simulator, for ``mam_bin_path``."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from waldur_site_agent_moab.simulator.changing import CHANGES
from waldur_site_agent_moab.simulator.listing import LISTS

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = (*LISTS, *CHANGES)
_EXECUTABLE = 0o755


def write_executables(directory: Path, state_file: Path) -> Path:
    """Make the directory with its commands, all on the state in ``state_file``; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    module = [sys.executable, "-m", "waldur_site_agent_moab.simulator"]
    for program in PROGRAMS:
        command = shlex.join([*module, "--state", str(state_file.absolute()), program])
        path = directory / program
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        path.chmod(_EXECUTABLE)
    return directory
