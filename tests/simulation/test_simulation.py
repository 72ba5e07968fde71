"""Simulations of the first seeds; ``make simulate SEEDS=10000`` runs more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.processes import environment
from simulation.defects import DEFECTS

TESTS = Path(__file__).parents[1]
SEEDS, CHUNKS = 200, 4
FIRST = {
    "short_lists_are_believed": 18,
    "old_lists_are_believed": 18,
    "orders_are_done_unseen": 10,
    "last_usage_is_forgotten": 4,
    "strangers_are_removed": 2,
    "users_are_deleted_unseen": 2,
    "usage_is_reset_in_every_pass": 187,
}
"""The first seed, of those from 1, that finds a defect: the others would be tried for nothing."""


def simulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Simulations in a process of their own, in which the order of sets is always the same."""
    return subprocess.run(
        [sys.executable, "-m", "simulation", *arguments],
        env=environment(PYTHONPATH=str(TESTS), PYTHONHASHSEED="0"),
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
    run = simulated("--defect", defect, "--first", str(FIRST.get(defect, 1)), "--seeds", "150")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "again:" in run.stdout


def test_a_seed_always_does_the_same() -> None:
    first, second = (simulated("--seed", "5") for _ in range(2))
    assert "everything holds" in first.stdout
    assert first.stdout == second.stdout
