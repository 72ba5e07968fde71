"""``python -m waldur_site_agent_slurm.simulator --state FILE sacctmgr show assoc``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from waldur_site_agent.backends import simulation
from waldur_site_agent_slurm.simulator.request import MODULE, PROGRAMS
from waldur_site_agent_slurm.simulator.showing import render_tree
from waldur_site_agent_slurm.simulator.simulated import SimulatedSlurm
from waldur_site_agent_slurm.simulator.state import RELEASES, Version


def main(arguments: list[str] | None = None) -> int:
    """Answer one command, or ``tree``, on the cluster in the file and return its exit code."""
    return simulation.main(MODULE, PROGRAMS, _answer, arguments, _VERSIONS)


def _use(version: Version, state_file: Path) -> None:
    with SimulatedSlurm(state_file=state_file).change() as state:
        state.use_version(version)


_VERSIONS: Mapping[str, Callable[[Path], None]] = {
    version: partial(_use, version) for version in RELEASES
}


def _answer(state_file: Path, command: list[str]) -> tuple[int, str, str]:
    slurm = SimulatedSlurm(state_file=state_file)
    if command == ["tree"]:
        return 0, render_tree(slurm.state) + "\n", ""
    return slurm.run(command)


if __name__ == "__main__":
    sys.exit(main())
