"""A hook of mkdocs: names of tests leave the sentences and tables of a page for its footnotes.

In the repository a promise and its test stand together; on the web a name of a hundred characters
would make a table wider than a screen.
"""

from __future__ import annotations

import re
from typing import Any

_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.DOTALL | re.MULTILINE)
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
    for fence in _FENCE.finditer(markdown):
        parts += [rewrite(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    parts.append(rewrite(markdown[end:]))
    if not notes:
        return markdown
    listed = "\n".join(
        f"[^{number}]: `{'tests/' if '::' in name else ''}{name}`" for name, number in notes.items()
    )
    return f"{''.join(parts)}\n\n## Tests\n\n{listed}\n"
