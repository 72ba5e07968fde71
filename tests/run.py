"""Runs all tests under coverage and closes with the figures; the exit code is pytest's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Run pytest, combine what the child processes measured, print the total."""
    os.chdir(ROOT)
    python = sys.executable
    code = subprocess.run(
        [python, "-m", "coverage", "run", "-m", "pytest", "-q", *sys.argv[1:]], check=False
    ).returncode
    subprocess.run([python, "-m", "coverage", "combine", "--quiet"], check=False)
    report = subprocess.run(
        [python, "-m", "coverage", "report", "--format=total"],
        check=False,
        capture_output=True,
        text=True,
    )
    if report.returncode == 0:
        print(f"coverage: {report.stdout.strip()} % of lines and branches")
    return code


if __name__ == "__main__":
    sys.exit(main())
