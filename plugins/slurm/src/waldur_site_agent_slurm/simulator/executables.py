"""A directory of Slurm commands that are answered by the simulator, for ``slurm_bin_path``."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("sacct", "sacctmgr", "scancel", "scontrol", "squeue", "sreport")
_EXECUTABLE = 0o755


def write_executables(directory: Path, state_file: Path) -> Path:
    """Make the directory with its commands, all on the cluster in ``state_file``; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    module = [sys.executable, "-m", "waldur_site_agent_slurm.simulator"]
    for program in PROGRAMS:
        command = shlex.join([*module, "--state", str(state_file.absolute()), program])
        path = directory / program
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        path.chmod(_EXECUTABLE)
    return directory
