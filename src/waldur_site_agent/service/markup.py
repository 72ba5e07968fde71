"""HTML and SVG as values: text is escaped unless it is markup already, so nothing can slip in.

A template engine would be a dependency for two pages; here escaping is not a habit but the only
way: an element takes texts, numbers and other elements, and only elements are not escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from waldur_site_agent.model.text import printable

_VOID = frozenset({"meta", "link", "br", "hr", "rect", "line", "path"})


class Markup(str):
    """Text that is HTML or SVG."""

    __slots__ = ()


Content: TypeAlias = "str | int | Markup | Iterable[Content] | None"


def element(name: str, *content: Content, **attributes: str | int | float | None) -> Markup:
    """An element; ``class_`` is ``class``, ``_`` in other names is ``-``, ``None`` is left out."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            attribute = key.rstrip("_").replace("_", "-")
            parts.append(f'{attribute}="{_text(str(value))}"')
    start = f"<{' '.join(parts)}>"
    if name in _VOID:
        return Markup(f"{start[:-1]}/>" if name in ("rect", "line", "path") else start)
    return Markup(f"{start}{inside(content)}</{name}>")


def inside(content: Content) -> Markup:
    """The content of an element, escaped."""
    if content is None:
        return Markup()
    if isinstance(content, Markup):
        return content
    if isinstance(content, str | int):
        return Markup(_text(str(content)))
    return Markup("".join(inside(each) for each in content))


def _text(text: str) -> str:
    return escape(printable(text), quote=True)
