"""``username_management_settings`` of the template backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from unicodedata import normalize

from pydantic import AfterValidator, BeforeValidator, Field

from waldur_site_agent.backends import BackendSettings

FIELDS = ("first_name", "last_name", "full_name", "email_local", "waldur_username")
"""The fields that a pattern may use."""

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
    """A part that is the same for all users."""

    text: str


@dataclass(frozen=True, slots=True)
class PatternField:
    """A part that is taken from the user's attributes."""

    name: str
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern."""

    parts: tuple[Text | PatternField, ...]

    def fill(self, value_of: Callable[[str], str]) -> str:
        """The pattern with each field replaced by its value, cut as the pattern says."""
        return "".join(
            part.text if isinstance(part, Text) else value_of(part.name)[part.start : part.stop]
            for part in self.parts
        )


def parse_pattern(pattern: str) -> Pattern:
    """Parse a pattern.

    Raises:
        ValueError: It is invalid; the text says what is wrong and what is accepted.
    """
    parts: list[Text | PatternField] = []
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            raise ValueError(f'not understood from "{pattern[position:]}" on; {_EXPECTED}')
        parts.append(_part(token))
        position = token.end()
    if not any(isinstance(part, PatternField) for part in parts):
        raise ValueError(f"has no field, so everybody would get the same name; {_EXPECTED}")
    return Pattern(tuple(parts))


def _part(token: re.Match[str]) -> Text | PatternField:
    if token["text"]:
        return Text(token["text"])
    name = token["field"]
    if name not in FIELDS:
        raise ValueError(f'there is no field "{name}"; known: {", ".join(FIELDS)}')
    if token["index"]:
        index = int(token["index"])
        return PatternField(name, index, index + 1 or None)
    start, stop = (int(end) if end else None for end in (token["start"], token["stop"]))
    return PatternField(name, start, stop)


def _check_pattern(text: str) -> str:
    parse_pattern(text)
    return text


def _none_as_empty_list(value: Any) -> Any:
    return () if value is None else value


def _none_as_empty_map(value: Any) -> Any:
    return {} if value is None else value


def _check_substitutions(substitutions: dict[str, str]) -> dict[str, str]:
    composed = {normalize("NFC", key): text for key, text in substitutions.items()}
    for letter, ascii_text in composed.items():
        if len(letter) != 1:
            raise ValueError(f'"{letter}" is not one letter; write for instance ü: ue')
        if not ascii_text.isascii():
            raise ValueError(f'"{ascii_text}" is not ASCII; write for instance ü: ue')
    return {letter.lower(): text for letter, text in composed.items()}


class TemplateSettings(BackendSettings):
    """How names are made from what Waldur knows about people."""

    pattern: Annotated[str, AfterValidator(_check_pattern)]
    """Such as ``{first_name[0]}{last_name}``."""
    max_length: int = Field(default=31, ge=4, le=100)
    """Number included; 31 is what login records take."""
    reserved_names: Annotated[frozenset[str], BeforeValidator(_none_as_empty_list)] = frozenset()
    """Names that nobody gets, beside the usual ones."""
    avoid_system_users: bool = True
    """Whether a name that the operating system knows is taken."""
    substitutions: Annotated[
        dict[str, str], BeforeValidator(_none_as_empty_map), AfterValidator(_check_substitutions)
    ] = Field(default_factory=dict)
    """How letters are spelled where the usual way is not wanted, such as ``ü``: ``ue``."""
