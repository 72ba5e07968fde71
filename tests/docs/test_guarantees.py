"""Every guarantee is shown by tests, and ``docs/guarantees.md`` lists them."""

from __future__ import annotations

import re

from docs import guarantees


def test_every_promise_is_shown_by_a_test() -> None:
    promises = guarantees.promises()
    assert len(promises) > 10
    shown = {guarantees.meant_by(each.guarantee) for each in guarantees.marked_tests()}
    assert [promise for promise in promises if promise not in shown] == []


def test_every_marker_names_a_promise_or_a_section_of_a_page() -> None:
    unknown = [
        f"{each.path}:{each.line}: {each.guarantee}"
        for each in guarantees.marked_tests()
        if not guarantees.meant_by(each.guarantee)
    ]
    assert unknown == [], "the first words of a promise of docs/guarantees.md, or PAGE: HEADING"


def test_the_page_lists_the_tests_that_are_marked() -> None:
    written = guarantees.PAGE.read_text(encoding="utf-8")
    assert written == guarantees.page(), "run: make guarantees"


def test_a_page_that_refers_to_the_list_is_in_it() -> None:
    referring = [
        page.stem
        for page in guarantees.DOCS.glob("*.md")
        if "guarantees.md#tests" in page.read_text(encoding="utf-8")
    ]
    assert len(referring) > 5
    named = {each.guarantee.partition(": ")[0] for each in guarantees.marked_tests()}
    assert sorted(set(referring) - named) == []


def test_no_other_page_names_tests_one_by_one() -> None:
    for page in guarantees.DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`[\w/]+\.py::\w+`|`test_\w+`", text)
        assert named == [], f"{page.name}: mark these tests with a guarantee instead"
