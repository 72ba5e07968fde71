"""What the agent is built from: its licences, and its known vulnerabilities."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software|MPL|Mozilla|HPND|Zope|Public Domain|Unlicense", re.I
)


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / "tools/dependencies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool()


def bill(**versions: str) -> dict[str, Any]:
    return {
        "metadata": {"component": {"name": "synthetic"}},
        "components": [{"name": name, "version": version} for name, version in versions.items()],
    }


def needed_at_run_time() -> set[str]:
    """The names that the lock file gives to the distributions of this repository, transitively."""
    packages = {
        package["name"]: package
        for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    }
    waiting, found = [name for name in packages if name.startswith("waldur-site-agent")], set[str]()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        package = packages[name]
        needed = [*package.get("dependencies", ())]
        for extra in package.get("optional-dependencies", {}).values():
            needed += extra if name.startswith("waldur-site-agent") else ()
        waiting += [each["name"] for each in needed]
    return {name for name in found if not name.startswith("waldur-site-agent")}


@pytest.mark.guarantee("security: Dependencies")
def test_every_installed_component_has_a_licence_that_allows_its_use() -> None:
    licences = {name: tool.licence_of(name) for name in needed_at_run_time()}
    installed = {name: licence for name, licence in licences.items() if licence}
    assert len(installed) > 15
    assert {name: text for name, text in installed.items() if not PERMISSIVE.search(text)} == {}


def test_licences_are_added_to_the_bill_and_listed(tmp_path: Path) -> None:
    file, listed = tmp_path / "bill.json", tmp_path / "licences.txt"
    file.write_text(json.dumps(bill(structlog="25.1", nothing="1")))
    assert tool.main(["licences", str(file), str(listed)]) == 0
    found = json.loads(file.read_text())
    assert found["metadata"]["component"]["name"] == "waldur-site-agent"
    assert listed.read_text().splitlines() == [
        "nothing 1: not installed here, only on other systems",
        "structlog 25.1: MIT OR Apache-2.0",
    ]


ADVISORY = {
    "id": "PYSEC-2026-1",
    "summary": "bad",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "Some.Library"},
            "ranges": [
                {
                    "type": "ECOSYSTEM",
                    "events": [
                        {"introduced": "1.2"},
                        {"fixed": "1.4.1"},
                        {"introduced": "2.0"},
                        {"last_affected": "2.3"},
                    ],
                }
            ],
            "versions": ["0.9rc1"],
        }
    ],
}


@pytest.mark.parametrize(
    ("version", "code"),
    [("1.1", 0), ("1.2", 1), ("1.4", 1), ("1.4.1", 0), ("1.10", 0), ("2.3", 1), ("2.3.1", 0),
     ("0.9rc1", 1)],
)  # fmt: skip
def test_a_version_within_an_advisory_fails_the_audit(
    tmp_path: Path, version: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file, database = tmp_path / "bill.json", tmp_path / "all.zip"
    file.write_text(json.dumps(bill(**{"some-library": version})))
    with zipfile.ZipFile(database, "w") as archive:
        archive.writestr("PYSEC-2026-1.json", json.dumps(ADVISORY))
    assert tool.main(["audit", str(file), str(database)]) == code
    assert ("PYSEC-2026-1 bad" in capsys.readouterr().out) is bool(code)
    assert tool.main(["audit", str(file), str(database), "--ignore", "PYSEC-2026-1"]) == 0


def test_what_was_withdrawn_or_is_about_another_ecosystem_does_not_count(tmp_path: Path) -> None:
    elsewhere = json.loads(json.dumps(ADVISORY).replace("PyPI", "npm"))
    for number, entry in enumerate((elsewhere, ADVISORY | {"withdrawn": "2026-01-01T00:00:00Z"})):
        (tmp_path / f"{number}.json").write_text(json.dumps(entry))
    assert list(tool.vulnerable(bill(**{"some-library": "1.3"}), tool.advisories(tmp_path))) == []


def test_an_old_copy_is_an_error_and_no_clean_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bill.json").write_text(json.dumps(bill(a="1")))
    database = tmp_path / "osv"
    database.mkdir()
    entry = database / "PYSEC-2026-1.json"
    words = ["audit", str(tmp_path / "bill.json"), str(database)]
    for age, code in ((5, 0), (40, 2)):
        changed = datetime.now(UTC) - timedelta(days=age)
        entry.write_text(json.dumps(ADVISORY | {"modified": changed.isoformat()}))
        assert code_of(words) == code
    assert "40 days old" in capsys.readouterr().err
    assert code_of([*words, "--max-age", "90"]) == 0


def code_of(words: list[str]) -> object:
    try:
        return tool.main(words)
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_a_database_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "bill.json").write_text(json.dumps(bill(a="1")))
    if content is not None:
        (tmp_path / "all.zip").write_bytes(content)
    assert code_of(["audit", str(tmp_path / "bill.json"), str(tmp_path / "all.zip")]) == 2


def test_an_empty_database_is_an_error_and_no_clean_result(tmp_path: Path) -> None:
    (tmp_path / "bill.json").write_text(json.dumps(bill(a="1")))
    (tmp_path / "osv").mkdir()
    with pytest.raises(SystemExit) as ended:
        tool.main(["audit", str(tmp_path / "bill.json"), str(tmp_path / "osv")])
    assert ended.value.code == 2
