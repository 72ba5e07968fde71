"""Writes which tests show the guarantees, from their markers, into ``docs/guarantees.md``.

``@pytest.mark.guarantee("...")`` has the first words of a promise in the page's table, or a page
and one of its headings, such as ``"orders: Names"``. Run it by ``make guarantees``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
PAGE = DOCS / "guarantees.md"
_GENERATED = """
## Tests

<!-- Written by make guarantees, from the markers of the tests. -->

Paths are below `tests/`; the name of a test is what it shows.
"""


@dataclass(frozen=True)
class Marked:
    """A test with one guarantee that it shows."""

    guarantee: str
    path: str
    line: int
    test: str

    def __str__(self) -> str:
        name = self.test.removeprefix("test_").replace("_", " ")
        return f"- {name}: `{self.path}`"


def marked_tests() -> list[Marked]:
    """Every marker of every test, in the order of files and lines."""
    found = [each for path in TESTS.rglob("test_*.py") for each in _marked_in(path)]
    return sorted(found, key=lambda each: (each.path, each.line))


def _marked_in(path: Path) -> Iterator[Marked]:
    text = path.read_text(encoding="utf-8")
    if "mark.guarantee(" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                match decorator:
                    case ast.Call(
                        func=ast.Attribute(attr="guarantee"), args=[ast.Constant(value=str(said))]
                    ):
                        where = str(path.relative_to(TESTS))
                        yield Marked(said, where, node.lineno, node.name)


@cache
def promises() -> tuple[str, ...]:
    """The first column of the page's first table."""
    table = PAGE.read_text(encoding="utf-8").split("\n\n|", 1)[1].split("\n\n", 1)[0]
    return tuple(row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:])


@cache
def sections() -> tuple[str, ...]:
    """What else a marker may name: pages, and their headings."""
    found: list[str] = []
    for page in sorted(DOCS.glob("*.md")):
        if page != PAGE:
            headings = re.findall(r"^##+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            found += [page.stem, *(f"{page.stem}: {heading}" for heading in headings)]
    return tuple(found)


def meant_by(said: str) -> str:
    """The promise or section that a marker means; empty if it is none, or not the only one."""
    if said in sections():
        return said
    found = [promise for promise in promises() if promise.startswith(said)]
    return found[0] if len(found) == 1 else ""


def page() -> str:
    """The page as it should be: what is written by hand, and the tests of each guarantee."""
    by_hand = PAGE.read_text(encoding="utf-8").partition("\n## Tests\n")[0].rstrip("\n")
    by_guarantee: dict[str, list[Marked]] = {}
    for each in marked_tests():
        by_guarantee.setdefault(meant_by(each.guarantee), []).append(each)
    parts = [by_hand, _GENERATED.strip("\n")]
    for guarantee in (*promises(), *sections()):
        tests = by_guarantee.get(guarantee)
        if tests:
            listed = "\n".join(map(str, tests))
            parts.append(f"**{_title(guarantee)}**\n\n{listed}")
    return "\n\n".join(parts) + "\n"


def _title(guarantee: str) -> str:
    if guarantee not in sections():
        return guarantee
    name, _, heading = guarantee.partition(": ")
    return f"[{name}.md]({name}.md)" + (f": {heading}" if heading else "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
