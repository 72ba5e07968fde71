"""What a user of a login node sees of budgets."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from waldur_site_agent.model.budget_notices import Budget
from waldur_site_agent.service.budget_channels import file_json
from waldur_site_agent_budget import main as program
from waldur_site_agent_budget.budgets import age_of

Answers = Callable[..., None]


def budget(account: str, used: str, title: str = "Ocean", limit: str = "10") -> Budget:
    return Budget(
        resource=UUID(int=1),
        account=account,
        title=title,
        project="climate",
        ends_on=date(2027, 3, 1),
        component="cpu",
        label="CPU",
        unit="k-Hours",
        limit=Decimal(limit),
        used=Decimal(used),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as the agent writes it."""
    budgets = [budget("a_ocean", "8"), budget("a_other", "1")]
    found = tmp_path / "cluster.json"
    found.write_text(json.dumps(file_json("Cluster", budgets, datetime.now(UTC))))
    return found


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """A sacctmgr that answers so."""

    def answers(text: str, code: int = 0) -> None:
        script = tmp_path / "bin" / "sacctmgr"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:/bin:/usr/bin")

    return answers


def test_a_user_sees_the_accounts_that_slurm_shows_them(
    path: Path, slurm: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm("A_ocean\\nroot_account\\n")
    assert program.main(["--file", str(path)]) == 0
    assert capsys.readouterr().out == (
        "Cluster, 0 minutes old\n"
        "a_ocean  Ocean (project climate), until 2027-03-01\n"
        "  CPU  [################----]  80%   8 of 10 k-Hours used, 2 left\n"
        "  sbatch -A a_ocean\n\n"
    )


def test_another_account_can_be_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--file", str(path), "--account", "a_other", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["account"], found["used"], found["limit"]) == ("a_other", 1.0, 10.0)


def test_without_a_budget_that_is_said(
    path: Path, slurm: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm("elsewhere\\n")
    assert program.main(["--file", str(path)]) == 1
    assert "No budget of an account of yours" in capsys.readouterr().out


def test_files_are_found_by_the_variable(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(program.VARIABLE, f"{path}:")
    assert program.main(["--account", "a_ocean"]) == 0
    assert "sbatch -A a_ocean" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        ("{", "not a file of budgets"),
        ("[]", "not a file of budgets"),
        ('{"format": 2}', "made by a newer agent"),
        ('{"format": 1, "offering": "x", "written": "yesterday", "budgets": []}', "not a file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: str | None, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.json"
    if content is not None:
        path.write_text(content)
    assert program.main(["--file", str(path), "--account", "a"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"waldur-budget: {path}: ")
    assert problem in said


def test_when_slurm_does_not_answer_nothing_is_guessed(
    path: Path, slurm: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm("", 1)
    assert program.main(["--file", str(path)]) == 2
    assert "name one with --account" in capsys.readouterr().err


def test_names_of_customers_do_not_reach_the_terminal_as_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.json"
    title = "Ocean\x1b[2J\u202e\x9b"
    path.write_text(json.dumps(file_json("C", [budget("a", "1", title)], datetime.now(UTC))))
    program.main(["--file", str(path), "--account", "a"])
    shown = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_a_budget_that_is_overdrawn_has_nothing_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(file_json("C", [budget("a", "15")], datetime.now(UTC))))
    program.main(["--file", str(path), "--account", "a"])
    assert "[####################] 150%   15 of 10 k-Hours used, 0 left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(minutes=12), "12 minutes old"),
        (timedelta(hours=5), "5 hours old"),
        (timedelta(days=3), "3 days old: tell the site's administrators"),
    ],
)
def test_old_figures_are_pointed_out(age: timedelta, text: str) -> None:
    now = datetime(2027, 3, 1, tzinfo=UTC)
    assert age_of(now - age, now) == text
