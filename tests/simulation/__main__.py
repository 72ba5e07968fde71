"""``python -m simulation``: many seeds, or one, with the way to see a failure again."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from simulation.defects import DEFECTS
from simulation.running import Result, simulate

_MOST_SHOWN = 5


def main() -> int:
    """Simulate, print what differs, and return 1 if anything does."""
    arguments = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":  # a seed decides about the order of sets, too
        os.environ["PYTHONHASHSEED"] = "0"
        command = [sys.executable, "-m", "simulation", *sys.argv[1:]]
        os.execv(sys.executable, command)  # noqa: S606 - our own program
    if arguments.seed is not None:
        return _one(arguments)
    if arguments.defect:
        return _defect(arguments)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    began, failures = time.monotonic(), 0
    for done, failure in enumerate(_all(seeds, arguments.jobs), start=1):
        if failure is not None:
            failures += 1
            if failures <= _MOST_SHOWN or arguments.brief:
                print(failure[0] if arguments.brief else failure[1], flush=True)
        if done % 500 == 0:
            print(f"{done} seeds, {failures} failed, {time.monotonic() - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    print(f"{len(seeds)} seeds from {seeds.start}: {failures} failed, {seconds:.1f} s")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="How many seeds to run.")
    parser.add_argument("--first", type=int, default=1, help="The first seed.")
    parser.add_argument("--jobs", type=int, default=1, help="Processes side by side.")
    parser.add_argument("--seed", type=int, help="Run this seed alone and print what happens.")
    parser.add_argument("--without", default="", help="Steps and faults to leave out: 3,7.2")
    parser.add_argument("--shrink", action="store_true", help="Leave out all that can be.")
    parser.add_argument("--defect", choices=DEFECTS, help="Run with a defect until it is found.")
    parser.add_argument("--brief", action="store_true", help="One line for each failing seed.")
    return parser.parse_args()


def _defect(arguments: argparse.Namespace) -> int:
    """Return 0 where a defect that was made on purpose is found."""
    with tempfile.TemporaryDirectory() as place, DEFECTS[arguments.defect]():
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            result = simulate(seed, Path(place))
            if result.failed:
                print(described(result))
                return 0
    print(f"{arguments.defect}: not found by {arguments.seeds} seeds")
    return 1


def _one(arguments: argparse.Namespace) -> int:
    without = {name for name in arguments.without.split(",") if name}
    with tempfile.TemporaryDirectory() as place:
        result = simulate(arguments.seed, Path(place), without)
        if arguments.shrink and result.failed:
            without, result = _shrunk(arguments.seed, Path(place), without, result)
    print("\n".join(result.history))
    print(described(result, without))
    return 1 if result.failed else 0


def _shrunk(seed: int, place: Path, without: set[str], result: Result) -> tuple[set[str], Result]:
    """Leave out every step and fault without which the same invariant still breaks."""
    assert result.violation is not None
    broken = result.violation.invariant
    names = [f.name for step in result.scenario.steps for f in step.faults]
    names += [str(step.number) for step in result.scenario.steps]
    for name in reversed(names):
        shorter = simulate(seed, place, {*without, name})
        if shorter.violation is not None and shorter.violation.invariant == broken:
            without, result = {*without, name}, shorter
    return without, result


def described(result: Result, without: set[str] | None = None) -> str:
    """What differs, and how to see it again."""
    seed, violation = result.scenario.seed, result.violation
    if violation is None:
        return f"seed {seed}: everything holds"
    skipped = f" --without {','.join(sorted(without))}" if without else ""
    return (
        f"seed {seed}: {violation}\n"
        f"  expected: {violation.expected}\n"
        f"  found:    {violation.found}\n"
        f"  again:    PYTHONPATH=tests python -m simulation --seed {seed}{skipped or ' --shrink'}"
    )


def _all(seeds: range, jobs: int) -> Iterator[tuple[str, str] | None]:
    with tempfile.TemporaryDirectory() as place:
        if jobs <= 1:
            yield from map(partial(_verdict, Path(place)), seeds)
            return
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            yield from pool.imap(partial(_verdict, Path(place)), seeds, chunksize=10)


def _verdict(place: Path, seed: int) -> tuple[str, str] | None:
    own = place / str(os.getpid())
    own.mkdir(exist_ok=True)
    result = simulate(seed, own)
    if result.violation is None:
        return None
    violation = result.violation
    brief = f"{seed}: {violation} | {violation.expected} | {violation.found}"[:400]
    return brief, "\n".join(["", *result.history, described(result)])


if __name__ == "__main__":
    sys.exit(main())
