"""The documentation as web pages: everything has its place, and no table is too wide."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
