"""The command ``waldur-budget``."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from waldur_site_agent_budget.budgets import (
    Budget,
    UnreadableFileError,
    age_of,
    lines_of,
    printable,
    read_budgets,
)

VARIABLE = "WALDUR_BUDGET_FILES"
DIRECTORY = Path("/var/lib/waldur-budget")
_SECONDS = 30
_NOTHING, _FAILED = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the budgets of the user; exit code 1 if there are none, 2 if that is not known."""
    options = _options(arguments)
    try:
        files = [read_budgets(path) for path in _paths(options.file)]
        accounts = options.account or _accounts_of(getpass.getuser())
    except UnreadableFileError as error:
        sys.stderr.write(f"waldur-budget: {error}\n")
        return _FAILED
    wanted = {name.lower() for name in accounts}
    count = 0
    shown: list[Budget] = []
    for found in files:
        budgets = [each for each in found.budgets if each.account.lower() in wanted]
        count += len(budgets)
        shown += budgets
        if budgets and not options.json:
            _say(printable(f"{found.offering}, {age_of(found.written)}"))
            _say("\n".join(lines_of(budgets)))
    if options.json:
        _say(json.dumps([asdict(each) for each in shown], indent=1))
    elif not count:
        _say("No budget of an account of yours is known here.")
    return 0 if count else _NOTHING


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="waldur-budget", description="Show what is left of your budgets on this cluster."
    )
    parser.add_argument(
        "--file", action="append", type=Path, default=[], help="a file of budgets; may be repeated"
    )
    parser.add_argument(
        "--account", action="append", default=[], help="only this account; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def _paths(chosen: Sequence[Path]) -> list[Path]:
    named = [Path(name) for name in os.environ.get(VARIABLE, "").split(":") if name]
    paths = [*(chosen or named)] or sorted(DIRECTORY.glob("*.json"))
    if not paths:
        raise UnreadableFileError(
            f"no file of budgets in {DIRECTORY}; name one with --file or {VARIABLE}"
        )
    return paths


def _accounts_of(user: str) -> list[str]:
    """The accounts that Slurm shows to the user as theirs."""
    command = ["sacctmgr", "-nP", "show", "association", f"user={user}", "format=account"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnreadableFileError(
            f"Slurm does not say which accounts are yours: {type(error).__name__}; "
            "name one with --account"
        ) from error
    if done.returncode != 0:
        said = printable(done.stderr.strip()[:200])
        raise UnreadableFileError(
            f"Slurm does not say which accounts are yours: {said}; name one with --account"
        )
    return done.stdout.split()


if __name__ == "__main__":
    sys.exit(main())
