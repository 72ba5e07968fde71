"""What the agent costs, as a table: ``python -m bench`` (or ``make bench``).

    python -m bench [--sizes 100 1000 4000 10000] [--large] [--passes] [--plot PNG] [--save]

Each pass runs in a process of its own against a site that is generated while it is read
(:mod:`bench.generated`). The last column is the CPU time by that of ``bench/baseline.json``, the
figures of the previous release, which ``--save`` replaces. ``--large`` adds 100,000 resources with
1,000,000 memberships. Then the start of an installed agent is measured, and the time from an event
to its effect on a Slurm and a RabbitMQ that are started for it; ``--passes`` leaves these two out.
Other measurements: ``bench/usage.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench import startup
from bench.passes import MODES, Cost, events_per_second

HERE = Path(__file__).parent
BASELINE = HERE / "baseline.json"
SIZES = (100, 1_000, 4_000, 10_000)
LARGE = 100_000
_EVENTS, _JOIN, _START = "events through the queue", "event to effect, real Slurm", "start-up"
# Of the checkout's environment, what an installed agent does not have is not imported: httpx and
# structlog would.
_AS_INSTALLED = (
    "import sys; sys.modules.update(rich=None, pygments=None); "
    "from bench.passes import main; main()"
)


def main() -> None:
    """Measure as the command line says, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="RESOURCES")
    parser.add_argument("--large", action="store_true", help=f"also {LARGE:,} resources")
    parser.add_argument("--passes", action="store_true", help="neither start-up nor real services")
    parser.add_argument("--plot", type=Path, help="draw the growth into this PNG file")
    parser.add_argument("--save", action="store_true", help="keep the figures as the baseline")
    chosen = parser.parse_args()
    before, rates = baseline()
    print(_line(HEADINGS))
    costs = []
    for mode in MODES:
        for size in [*chosen.sizes, *([LARGE] if chosen.large else [])]:
            costs.append(cost := measured(mode, size))
            print(_line(_row(cost, before)), flush=True)
    if not chosen.passes:
        start = startup.median_cost()
        cost = Cost(_START, 0, 1, 0, start.cpu_seconds, start.wall_seconds, start.peak_mebibytes)
        costs.append(cost)
        print(_line(_row(cost, before)), flush=True)
    found = {_EVENTS: events_per_second()}
    print(_rate(_EVENTS, found, rates, "{:,.0f} per second"), flush=True)
    if not chosen.passes and (seconds := join_seconds()):
        found[_JOIN] = median(seconds)
        print(_rate(_JOIN, found, rates, f"{{:.2f}} s, median of {len(seconds)}"))
    if chosen.save:
        kept = {"passes": [asdict(cost) for cost in costs], "rates": {**rates, **found}}
        BASELINE.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    if chosen.plot:
        from bench.plot import draw  # noqa: PLC0415 - matplotlib is optional

        draw(chosen.plot, [cost for cost in costs if cost.resources])


def measured(mode: str, resources: int) -> Cost:
    """The cost of a pass in a process of its own, so that its peak of memory is its own."""
    command = [sys.executable, "-c", _AS_INSTALLED, mode, str(resources)]
    as_by_systemd = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=as_by_systemd)
    return Cost(**json.loads(done.stdout))


def join_seconds() -> list[float]:
    """How long joins took from event to effect; nothing where no Slurm can be started."""
    script = [sys.executable, str(HERE / "events.py"), "--json"]
    done = subprocess.run(script, check=False, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        print(f"{_JOIN}: NOT MEASURED, it needs root on a Debian-like machine: {why}")
        return []
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


Costs = dict[tuple[str, int], Cost]


def baseline() -> tuple[Costs, dict[str, float]]:
    """The figures of the previous release: by mode and number of resources, and by name."""
    if not BASELINE.exists():
        return {}, {}
    kept = json.loads(BASELINE.read_text("utf-8"))
    costs = (Cost(**entry) for entry in kept["passes"])
    return {(cost.mode, cost.resources): cost for cost in costs}, kept["rates"]


HEADINGS = (
    "mode",
    "resources",
    "requests",
    "commands",
    "CPU s",
    "wall s",
    "peak MiB",
    "getpwnam",
    "ratio",
)


def _row(cost: Cost, before: Costs) -> Sequence[str]:
    known = before.get((cost.mode, cost.resources))
    return (
        cost.mode,
        f"{cost.resources:,}",
        f"{cost.requests:,}",
        f"{cost.commands:,}",
        f"{cost.cpu_seconds:.2f}",
        f"{cost.wall_seconds:.2f}",
        f"{cost.peak_mebibytes:.0f}",
        f"{cost.lookups:,}",
        f"{cost.cpu_seconds / known.cpu_seconds:.2f}" if known is not None else "-",
    )


def _line(columns: Sequence[str]) -> str:
    first, *others = columns
    return f"{first:<16}" + "".join(f"{column:>11}" for column in others)


def _rate(name: str, found: dict[str, float], before: dict[str, float], text: str) -> str:
    ratio = f"{found[name] / before[name]:.2f}" if name in before else "-"
    return f"{name}: {text.format(found[name])}, ratio {ratio}"


if __name__ == "__main__":
    main()
