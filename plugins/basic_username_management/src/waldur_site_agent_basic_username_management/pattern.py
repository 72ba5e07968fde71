"""Reads patterns such as ``{first_name[0]}{last_name}``.

The parser knows fields, one index or one slice, and literal text; nothing in a pattern or in a
person's name is ever interpreted as anything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = ("first_name", "last_name", "full_name", "email_local", "waldur_username")
"""What a pattern may ask for."""

_TOKEN = re.compile(
    r"""
    \{ (?P<field>[a-z_]+)
       (?: \[ (?: (?P<index>-?\d{1,3}) | (?P<start>-?\d{1,3})? : (?P<stop>-?\d{1,3})? ) \] )? \}
    | (?P<text>[a-z0-9._-]+)
    """,
    re.VERBOSE | re.ASCII,
)
_EXPECTED = (
    "a pattern is made of fields such as {last_name}, {first_name[0]} or {last_name[:6]}, "
    "and of a-z, 0-9 and . _ -"
)


@dataclass(frozen=True, slots=True)
class Text:
    """A part that is the same for everybody."""

    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """A part that is taken from the person."""

    name: str
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was understood."""

    parts: tuple[Text | Field, ...]

    def fill(self, value_of: Callable[[str], str]) -> str:
        """The pattern with each field's value in its place; cuts count in the value's letters."""
        return "".join(
            part.text if isinstance(part, Text) else value_of(part.name)[part.start : part.stop]
            for part in self.parts
        )


def parse_pattern(pattern: str) -> Pattern:
    """Understand a pattern.

    Raises:
        ValueError: it is none; the text says what is wrong and what is accepted.
    """
    parts: list[Text | Field] = []
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            raise ValueError(f'not understood from "{pattern[position:]}" on; {_EXPECTED}')
        parts.append(_part(token))
        position = token.end()
    if not any(isinstance(part, Field) for part in parts):
        raise ValueError(f"has no field, so everybody would get the same name; {_EXPECTED}")
    return Pattern(tuple(parts))


def _part(token: re.Match[str]) -> Text | Field:
    if token["text"]:
        return Text(token["text"])
    name = token["field"]
    if name not in FIELDS:
        raise ValueError(f'there is no field "{name}"; known: {", ".join(FIELDS)}')
    if token["index"]:
        index = int(token["index"])
        return Field(name, index, index + 1 or None)
    start, stop = (int(end) if end else None for end in (token["start"], token["stop"]))
    return Field(name, start, stop)
