"""A hook of mkdocs: names of tests move from sentences and tables to footnotes.

Most pages have such footnotes already; the hook is for pages that name tests in their text, such as
the list of guarantees. A name of a hundred characters would make a table wider than a screen.
"""

from __future__ import annotations

import re
from typing import Any

_AS_IT_IS = re.compile(r"^( *)(```|~~~).*?^\1\2|^\[\^\d+\]: [^\n]*", re.DOTALL | re.MULTILINE)
"""Code, and footnotes that are in the page already."""
_NAME = r"`((?:[\w/]+\.py::)?test_\w+)`"
_NAMED = re.compile(
    rf"(?P<claim> \({_NAME}\)|:\s{_NAME}(?=\s*(?:\||$|\.(?:\s|$))))|(?P<start>\.\s|\n\n)?{_NAME}",
    re.MULTILINE,
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the text of each page."""
    notes: dict[str, int] = {}

    def mark(name: str) -> str:
        return f"[^{notes.setdefault(name, len(notes) + 1)}]"

    def replaced(match: re.Match[str]) -> str:
        number = mark(next(filter(None, match.groups()[1:3] + match.groups()[4:])))
        if match["claim"]:
            return number
        start = match["start"]
        return f"a test{number}" if start is None else f"{start}A test{number}"

    def rewrite(text: str) -> str:
        return _NAMED.sub(replaced, text)

    parts, end = [], 0
    for kept in _AS_IT_IS.finditer(markdown):
        parts += [rewrite(markdown[end : kept.start()]), kept[0]]
        end = kept.end()
    parts.append(rewrite(markdown[end:]))
    if not notes:
        return markdown
    listed = "\n".join(
        f"[^{number}]: `{'tests/' if '::' in name else ''}{name}`" for name, number in notes.items()
    )
    return f"{''.join(parts)}\n\n## Tests\n\n{listed}\n"
