"""Text that strangers wrote, on its way to a terminal, a log or a file."""

from __future__ import annotations

_LATIN_1, _BASIC_PLANE = 0xFF, 0xFFFF


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with everything that is not printable escaped, as in ``\x1b``.

    That is control characters (they move the cursor or change the terminal), characters that
    reverse or hide text, and halves of surrogate pairs, which no encoding can hold.

    Args:
        text: Any text.
        keep: Characters that stay as they are, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code <= _LATIN_1:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _BASIC_PLANE else f"\\U{code:08x}"
