"""What the agent costs, as a table: ``python -m bench`` (or ``make bench``).

    python -m bench [--sizes 100 1000 10000] [--large] [--startup] [--real] [--plot PNG] [--save]

Each pass runs in a process of its own against a site that is generated while it is read
(:mod:`bench.generated`). The last column is the CPU time by that of ``bench/baseline.json``, which
``--save`` writes. ``--large`` adds 100,000 resources with 1,000,000 memberships. ``--startup``
installs the agent and starts it; ``--real`` starts a Slurm and a RabbitMQ and measures from an
event to its effect (root on a Debian-like machine). Other measurements: ``bench/usage.py``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.passes import MODES, Cost, events_per_second

BASELINE = Path(__file__).with_name("baseline.json")
SIZES = (100, 1_000, 10_000)
LARGE = 100_000


def main() -> None:
    """Measure as the command line says, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="RESOURCES")
    parser.add_argument("--large", action="store_true", help=f"also {LARGE:,} resources")
    parser.add_argument("--startup", action="store_true", help="also the start of the agent")
    parser.add_argument("--real", action="store_true", help="also events on a real Slurm")
    parser.add_argument("--plot", type=Path, help="draw the growth into this PNG file")
    parser.add_argument("--save", action="store_true", help="keep the figures as the baseline")
    chosen = parser.parse_args()
    sizes = [*chosen.sizes, *([LARGE] if chosen.large else [])]
    before = baseline()
    print(_line(HEADINGS))
    costs = []
    for mode in MODES:
        for size in sizes:
            costs.append(cost := measured(mode, size))
            print(_line(_row(cost, before)), flush=True)
    print(f"events through the queue: {events_per_second():,.0f} per second")
    if chosen.save:
        BASELINE.write_text(json.dumps([asdict(c) for c in costs], indent=1) + "\n", "utf-8")
    if chosen.plot:
        from bench.plot import draw  # noqa: PLC0415 - matplotlib is optional

        draw(chosen.plot, costs)
    for wanted, script in ((chosen.startup, "startup.py"), (chosen.real, "events.py")):
        if wanted:
            subprocess.run([sys.executable, str(BASELINE.with_name(script))], check=True)


def measured(mode: str, resources: int) -> Cost:
    """The cost of a pass in a process of its own, so that its peak of memory is its own."""
    command = [sys.executable, "-m", "bench.passes", mode, str(resources)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Cost(**json.loads(done.stdout))


def baseline() -> dict[tuple[str, int], Cost]:
    """The figures of the previous release, by mode and number of resources."""
    if not BASELINE.exists():
        return {}
    kept = (Cost(**entry) for entry in json.loads(BASELINE.read_text("utf-8")))
    return {(cost.mode, cost.resources): cost for cost in kept}


HEADINGS = ("mode", "resources", "requests", "commands", "CPU s", "wall s", "peak MiB", "ratio")


def _row(cost: Cost, before: dict[tuple[str, int], Cost]) -> Sequence[str]:
    known = before.get((cost.mode, cost.resources))
    return (
        cost.mode,
        f"{cost.resources:,}",
        f"{cost.requests:,}",
        f"{cost.commands:,}",
        f"{cost.cpu_seconds:.2f}",
        f"{cost.wall_seconds:.2f}",
        f"{cost.peak_mebibytes:.0f}",
        f"{cost.cpu_seconds / known.cpu_seconds:.2f}" if known is not None else "-",
    )


def _line(columns: Sequence[str]) -> str:
    first, *others = columns
    return f"{first:<16}" + "".join(f"{column:>11}" for column in others)


if __name__ == "__main__":
    main()
