"""The documentation as web pages: everything has its place, and no table is too wide."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GROUPS = ["Start", "Set up", "Operate", "Guarantees", "Reference", "Develop"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", directory],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_every_page_stands_in_a_group_of_the_navigation_under_a_title() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert [name for group in nav for name in group] == GROUPS
    entries = [entry for group in nav for pages in group.values() for entry in pages]
    listed = [page for entry in entries for page in entry.values()]
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_names_of_tests_are_footnotes_and_not_lost(site: Path) -> None:
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`(?:tests/)?([\w/]+\.py::test_\w+)`", text))
        built = site / ("index.html" if page.stem == "index" else f"{page.stem}/index.html")
        text, _, notes = built.read_text(encoding="utf-8").partition('<div class="footnote">')
        assert not re.search(r"<code>([\w/]+\.py::)?test_\w+</code>", text), page.name
        assert {name for name in named if f"tests/{name}<" in notes} == named, page.name


def test_footnotes_are_numbered_as_they_are_read(site: Path) -> None:
    text = (site / "orders" / "index.html").read_text(encoding="utf-8")
    numbers = re.findall(r'class="footnote-ref" href="#fn:(\d+)"', text)
    assert len(numbers) > 60
    assert list(dict.fromkeys(numbers)) == [str(n) for n in range(1, len(set(numbers)) + 1)]


def test_a_name_in_the_text_of_a_page_becomes_a_footnote() -> None:
    page = """\
Nothing erred.
`faults/test_a.py::test_one` and
`faults/test_a.py::test_two` do it.

| a row: `faults/test_a.py::test_one` |

[^7]: `tests/faults/test_a.py::test_three`
"""
    expected = """\
Nothing erred.
A test[^1] and
a test[^2] do it.

| a row[^1] |

[^7]: `tests/faults/test_a.py::test_three`


## Tests

[^1]: `tests/faults/test_a.py::test_one`
[^2]: `tests/faults/test_a.py::test_two`
"""
    assert expected == _hook().on_page_markdown(page)


def _hook() -> Any:
    file = ROOT / "docs" / ".site" / "footnotes.py"
    spec = importlib.util.spec_from_file_location("footnotes", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_architecture_is_text_in_an_svg(site: Path) -> None:
    page = (site / "architecture" / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<img alt="[^"]*RabbitMQ[^"]*" src="../architecture.svg"', page)
    picture = (site / "architecture.svg").read_text(encoding="utf-8")
    for word in ("Waldur", "RabbitMQ", "cycles", "plan (pure function)", "Slurm plugin"):
        assert word in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_the_style_for_small_screens_is_served(site: Path) -> None:
    assert "css/site.css" in (site / "index.html").read_text(encoding="utf-8")
    assert "@media (max-width: 767px)" in (site / "css" / "site.css").read_text(encoding="utf-8")
