"""The generated reference is up to date, editors get a schema that fits, and the pages build."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from harness.in_process import run_in_process
from harness.patience import patience

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def printed(*words: str) -> str:
    done = run_in_process("waldur-site-agent", *words)
    assert done.code == 0, done.err
    return done.out


@pytest.fixture(scope="module")
def schema() -> Any:
    schema = json.loads(printed("config", "schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def test_the_page_of_all_keys_is_what_the_agent_prints() -> None:
    page = ROOT / "docs" / "reference.md"
    remedy = f"run: waldur-site-agent config reference > {page.relative_to(ROOT)}"
    assert page.read_text(encoding="utf-8") == printed("config", "reference"), remedy


def test_every_key_has_a_meaning() -> None:
    rows = [line for line in printed("config", "reference").splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_editor_accepts_the_examples(schema: Any, example: Path) -> None:
    jsonschema.validate(yaml.safe_load(example.read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize(
    "place", [(), ("offerings", 0), ("offerings", 0, "backend_settings")], ids=str
)
def test_an_editor_marks_a_misspelt_key(schema: Any, place: tuple[str | int, ...]) -> None:
    content = yaml.safe_load(EXAMPLES[0].read_text(encoding="utf-8"))
    wrong = copy.deepcopy(content)
    part = wrong
    for step in place:
        part = part[step]
    part["custommer_prefix"] = "x"
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=patience(),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").exists()
