"""``docs/security.md`` names a test for each attack, and the tests are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"
NAMED = re.compile(r"`([\w/]+\.py): (\w+)`")


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def section(heading: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


ROWS = [line for line in section("Attacks and their tests").splitlines() if line.startswith("| ")][
    1:
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_each_attack_has_tests_that_are_there(row: str) -> None:
    named = NAMED.findall(row)
    assert named
    for place, name in named:
        path = TESTS / place if "/" in place else TESTS / "security" / place
        assert f"test_{name}" in functions_of(path), place


def test_each_file_of_attacks_is_in_the_threat_model_and_in_the_list() -> None:
    model, listed = section("Threat model"), section("Attacks and their tests")
    for path in (TESTS / "security").glob("test_*.py"):
        assert f"`{path.name}`" in model
        assert f"`{path.name}: " in listed


def test_an_answer_within_a_week_is_promised_on_both_pages() -> None:
    promise = "answer within a week"
    assert promise in (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")
    assert promise in section("Reporting a vulnerability")
