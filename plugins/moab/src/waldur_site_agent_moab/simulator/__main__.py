"""``python -m waldur_site_agent_moab.simulator --state FILE mam-list-accounts ...``."""

from __future__ import annotations

import sys
from pathlib import Path

from waldur_site_agent.backends import simulation
from waldur_site_agent_moab.simulator.simulated import MODULE, PROGRAMS, SimulatedMam


def main(arguments: list[str] | None = None) -> int:
    """Answer one command on the state in the file and return its exit code."""
    return simulation.main(MODULE, PROGRAMS, _answer, arguments)


def _answer(state_file: Path, command: list[str]) -> tuple[int, str, str]:
    return SimulatedMam(state_file=state_file).run(command)


if __name__ == "__main__":
    sys.exit(main())
