"""``python -m waldur_site_agent_slurm.simulator --state FILE sacctmgr show assoc``."""

from __future__ import annotations

import signal
import sys
from argparse import REMAINDER, ArgumentParser
from pathlib import Path

from waldur_site_agent_slurm.simulator.request import PROGRAMS, write_executables
from waldur_site_agent_slurm.simulator.showing import render_tree
from waldur_site_agent_slurm.simulator.simulated import SimulatedSlurm
from waldur_site_agent_slurm.simulator.state import HungError


def main(arguments: list[str] | None = None) -> int:
    """Answer one command on the cluster in the file and return its exit code."""
    parser = ArgumentParser(
        prog="python -m waldur_site_agent_slurm.simulator",
        description="A simulated Slurm cluster that is kept in a file.",
    )
    parser.add_argument("--state", type=Path, required=True, help="the file; made when missing")
    parser.add_argument(
        "--write-executables",
        type=Path,
        metavar="DIRECTORY",
        help=f"write {', '.join(PROGRAMS)} into this directory; use it as slurm_bin_path",
    )
    parser.add_argument("command", nargs=REMAINDER, help="'tree', or a Slurm command")
    options = parser.parse_args(arguments)
    if options.write_executables is not None:
        write_executables(options.write_executables, options.state)
    slurm = SimulatedSlurm(state_file=options.state)
    if options.command == ["tree"]:
        sys.stdout.write(render_tree(slurm.state) + "\n")
        return 0
    return _run(slurm, options.command) if options.command else 0


def _run(slurm: SimulatedSlurm, command: list[str]) -> int:
    try:
        exit_code, stdout, stderr = slurm.run(command)
    except HungError:
        signal.pause()
        return 1
    sys.stdout.write(stdout)
    sys.stderr.write(stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
