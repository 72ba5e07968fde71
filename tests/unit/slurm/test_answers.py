"""Recorded answers of Slurm's commands mean what their files say."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent_slurm.answers import (
    FAILURES,
    Family,
    failure,
    known_failure,
    says_nothing_to_do,
)

ANSWERS = Path(__file__).parents[2] / "data" / "slurm" / "answers"
CASES = sorted(ANSWERS.glob("*/*.txt"))


def recorded(file: Path) -> tuple[str, CommandResult]:
    """What a file says that its answer means, and the answer."""
    means, command, *printed, last = file.read_text(encoding="utf-8").splitlines()
    marker = "2> "
    stderr = [line.removeprefix(marker) for line in printed if line.startswith(marker)]
    stdout = [line for line in printed if not line.startswith(marker)]
    outputs = ["".join(f"{line}\n" for line in lines) for lines in (stdout, stderr)]
    argv = tuple(shlex.split(command.removeprefix("$ ")))
    result = CommandResult(argv, int(last.removeprefix("exit code ")), *outputs)
    return means.removeprefix("means: "), result


def meaning(result: CommandResult) -> str:
    """What the agent makes of an answer, in the words of the files."""
    error = failure(result, "agent")
    if error is None:
        return "nothing to do" if result.exit_code else "success"
    if "not understood" in str(error):
        return "not understood"
    known = known_failure(result.stderr, result.stdout)
    assert known is not None
    return known.family.name


@pytest.mark.parametrize("file", CASES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_recorded_answer_means_what_its_file_says(file: Path) -> None:
    expected, result = recorded(file)
    assert expected == meaning(result)
    if expected == "nothing to do":
        assert says_nothing_to_do(result.stdout, result.stderr)


@pytest.mark.parametrize("version", FAILURES)
def test_every_version_has_recorded_answers(version: str) -> None:
    assert list((ANSWERS / version).glob("*.txt"))


def test_missing_permission_names_the_command_that_grants_it_on_both_versions() -> None:
    for file in ANSWERS.glob("*/*-no-right.txt"):
        _, result = recorded(file)
        assert "name=agent set adminlevel=operator" in str(failure(result, "agent")), file


def test_every_family_has_a_recorded_answer() -> None:
    assert {family.name for family in Family} <= {recorded(file)[0] for file in CASES}
