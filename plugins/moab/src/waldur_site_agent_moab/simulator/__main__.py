"""``python -m waldur_site_agent_moab.simulator --state FILE mam-list-accounts ...``."""

from __future__ import annotations

import signal
import sys
from argparse import REMAINDER, ArgumentParser
from pathlib import Path

from waldur_site_agent_moab.simulator.simulated import HungError, SimulatedMam, write_executables


def main(arguments: list[str] | None = None) -> int:
    """Answer one command on the state in the file and return its exit code."""
    parser = ArgumentParser(
        prog="python -m waldur_site_agent_moab.simulator",
        description="A simulated accounting manager that is kept in a file.",
    )
    parser.add_argument("--state", type=Path, required=True, help="the file; made when missing")
    parser.add_argument(
        "--write-executables",
        type=Path,
        metavar="DIRECTORY",
        help="write the mam-* commands into this directory; use it as mam_bin_path",
    )
    parser.add_argument("command", nargs=REMAINDER, help="a mam-* command")
    options = parser.parse_args(arguments)
    if options.write_executables is not None:
        write_executables(options.write_executables, options.state)
    return _run(SimulatedMam(state_file=options.state), options.command) if options.command else 0


def _run(mam: SimulatedMam, command: list[str]) -> int:
    try:
        exit_code, stdout, stderr = mam.run(command)
    except HungError:
        signal.pause()
        return 1
    sys.stdout.write(stdout)
    sys.stderr.write(stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
