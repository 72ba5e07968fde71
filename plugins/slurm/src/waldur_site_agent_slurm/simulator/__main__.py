"""``python -m waldur_site_agent_slurm.simulator --state FILE sacctmgr show assoc``."""

from __future__ import annotations

import sys
from pathlib import Path

from waldur_site_agent.backends import simulation
from waldur_site_agent_slurm.simulator.request import MODULE, PROGRAMS
from waldur_site_agent_slurm.simulator.showing import render_tree
from waldur_site_agent_slurm.simulator.simulated import SimulatedSlurm


def main(arguments: list[str] | None = None) -> int:
    """Answer one command, or ``tree``, on the cluster in the file and return its exit code."""
    return simulation.main(MODULE, PROGRAMS, _answer, arguments)


def _answer(state_file: Path, command: list[str]) -> tuple[int, str, str]:
    slurm = SimulatedSlurm(state_file=state_file)
    if command == ["tree"]:
        return 0, render_tree(slurm.state) + "\n", ""
    return slurm.run(command)


if __name__ == "__main__":
    sys.exit(main())
