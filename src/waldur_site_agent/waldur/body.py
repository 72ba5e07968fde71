"""The content of a response: JSON or the text of a page, sent by whoever answered.

Nothing here trusts it: no regular expression that could backtrack, no declared character set, no
depth or size that the interpreter could not cope with.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from itertools import chain

import httpx

_DEEPEST = 64
_LONGEST_PAGE = 4096
"""Bytes at the start of a page in which its message is looked for."""
_MAX_LENGTH = 300
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_INVISIBLE = ((b"<script", b"</script"), (b"<style", b"</style"), (b"<!--", b"-->"))


def load_json(content: bytes) -> object:
    """Decode JSON; half a surrogate pair, which cannot be written anywhere, becomes U+FFFD.

    Raises:
        ValueError: It is not JSON, or nested more deeply than any response of Waldur.
    """
    try:
        value: object = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _is_deep(value):
        raise ValueError("nested too deeply")
    if _ESCAPED_SURROGATE.search(content):
        text = json.dumps(value, ensure_ascii=False)
        value = json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    return value


def is_markup(response: httpx.Response) -> bool:
    """Whether a body is a web page (HTML or XML) instead of an API response."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    begins = response.content[:_LONGEST_PAGE].lstrip()[:1]
    return kind in {"text/html", "application/xhtml+xml"} or begins == b"<"


def body_text(response: httpx.Response) -> str:
    """The beginning of the body as text, in UTF-8 whatever the response declares."""
    return response.content[:_LONGEST_PAGE].decode("utf-8", "replace")


def page_text(page: bytes) -> str:
    """The title of a web page or, without one, its visible text."""
    page = page[:_LONGEST_PAGE]
    lower = page.lower()
    start = lower.find(b"<title")
    end = lower.find(b"</title", start)
    if 0 <= start < end:
        text = page[page.find(b">", start) + 1 : end]
    else:
        text = b" ".join(_visible(page, lower))
    plain = b" ".join(_outside_tags(text))
    return html.unescape(plain.decode("utf-8", "replace"))


def shorten(text: str, max_length: int = _MAX_LENGTH) -> str:
    """The text on one line, without control characters, cut at ``max_length`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= max_length else f"{line[: max_length - 1].rstrip()}…"


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        inner = chain.from_iterable(
            outer.values() if isinstance(outer, dict) else outer
            for outer in level
            if isinstance(outer, dict | list)
        )
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _visible(page: bytes, lower: bytes) -> Iterator[bytes]:
    """The parts of a page that are neither scripts, styles nor comments."""
    position = 0
    while position < len(page):
        found = [(lower.find(opening, position), closing) for opening, closing in _INVISIBLE]
        start, closing = min(
            ((place, closing) for place, closing in found if place >= 0), default=(len(page), b"")
        )
        yield page[position:start]
        end = lower.find(closing, start) if closing else -1
        # a closing tag is left to be removed with the other tags
        position = (
            end + (0 if closing.startswith(b"<") else len(closing)) if end >= 0 else len(page)
        )


def _outside_tags(text: bytes) -> Iterator[bytes]:
    before, *tags = text.split(b"<")
    yield before
    for tag in tags:
        yield tag.partition(b">")[2]
