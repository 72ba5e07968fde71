"""Simulations of the first seeds; ``make simulate SEEDS=10000`` runs more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.defects import DEFECTS

TESTS = Path(__file__).parents[1]
SEEDS, CHUNKS = 200, 4


def simulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Simulations in a process of their own, in which the order of sets is always the same."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, "-m", "simulation", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.guarantee("Nobody has access that Waldur does not grant, after one quiet cycle")
@pytest.mark.parametrize(
    "chunk", [0, *(pytest.param(chunk, marks=pytest.mark.long) for chunk in range(1, CHUNKS))]
)
def test_whatever_happens_everything_holds_in_the_end(chunk: int) -> None:
    size = SEEDS // CHUNKS
    run = simulated("--seeds", str(size), "--first", str(1 + chunk * size))
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_made_on_purpose_is_found(defect: str) -> None:
    run = simulated("--defect", defect, "--seeds", "150")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "again:" in run.stdout


def test_a_seed_always_does_the_same() -> None:
    first, second = (simulated("--seed", "5") for _ in range(2))
    assert "everything holds" in first.stdout
    assert first.stdout == second.stdout
