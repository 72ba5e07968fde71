"""The demo with deposits runs and shows what it says."""

from __future__ import annotations

import subprocess

from harness.patience import patience
from harness.processes import COMMANDS, environment


def test_the_demo_ends_with_books_that_balance() -> None:
    done = subprocess.run(
        [str(COMMANDS / "waldur-site-agent"), "demo"],
        capture_output=True,
        text=True,
        env=environment(BACKEND="moab"),
        check=False,
        timeout=patience(),
    )
    assert done.returncode == 0, done.stderr
    for line in (
        "~ deposit        none -> 150.25",
        "hpc_ocean-ru-1: 649.75 left + 150.25 used = 800.00",
        "hpc_ocean-ru-1: 149.75 left + 150.25 used = 300.00",
        "└─ hpc_ocean-ru-1  members ada, emmy",
        "deposit=300 (300 EUR)",
    ):
        assert line in done.stdout
    assert done.stdout.count("No changes.") == 1
