"""What docs/architecture.md says about places in the code is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from waldur_site_agent.backends import Action
from waldur_site_agent.backends.contract import HOOKS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CHANGES = " ".join(PAGE.partition("## Where to change what")[2].partition("\n## ")[0].split())
FILE = r"`(?P<file>[\w/-]+\.py)`"
NAMES_BEHIND = re.finditer(FILE + r" \((?P<names>(?:`\w+`(?:, | and )?)+)\)", CHANGES)
NAMES_BEFORE = re.finditer(r"(?P<names>`\w+`) in " + FILE, CHANGES)
PLACES = sorted(
    {
        (found["file"], name)
        for found in (*NAMES_BEHIND, *NAMES_BEFORE)
        for name in re.findall(r"\w+", found["names"])
    }
)
FILES = sorted({found["file"] for found in re.finditer(FILE, CHANGES) if "/" in found["file"]})


def in_the_repository(file: str) -> Path:
    is_whole = file.startswith(("plugins/", "tests/", "docs/", "examples/"))
    return ROOT / file if is_whole else ROOT / "src" / "waldur_site_agent" / file


def test_the_page_names_places() -> None:
    assert len(PLACES) > 20
    assert len(FILES) > 30


@pytest.mark.parametrize("file", FILES)
def test_every_file_exists(file: str) -> None:
    assert in_the_repository(file).is_file()


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_every_name_is_in_the_file_that_the_page_says(file: str, name: str) -> None:
    text = in_the_repository(file).read_text(encoding="utf-8")
    defined = rf"^\s*(class |def |async def )?{name}\b(\s*[:=(\[]|: )|\"{name}\"|^\s+{name}: "
    assert re.search(defined, text, re.MULTILINE), f"{name} is not defined in {file}"


def test_every_kind_of_action_has_a_hook_that_plugins_are_checked_for() -> None:
    assert {*get_args(Action)} == HOOKS.keys()


def test_every_file_of_the_cycles_is_in_the_table_of_the_page() -> None:
    table = PAGE.partition("| in `cycles/` | files |")[2].partition("\n\n")[0]
    files = {file.name for file in in_the_repository("cycles").glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`{name}`" not in table} == set()
