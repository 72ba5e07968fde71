"""Any text becomes lower-case ASCII, and of that what a username may have.

The transliteration is the anyascii library's: it knows all scripts, where normalisation knows only
accents and a table of our own would know only what we thought of.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from anyascii import anyascii

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]")
_NOT_IN_AN_IDENTIFIER = re.compile(r"[^a-z0-9._-]")
_BEFORE_THE_FIRST_LETTER = re.compile(r"\A[^a-z]+")


def spell(text: str, substitutions: Mapping[str, str]) -> str:
    """The text in lower-case ASCII; the substitutions (such as ``ü``: ``ue``) come first."""
    composed = unicodedata.normalize("NFC", text).lower()
    replaced = "".join(substitutions.get(letter, letter) for letter in composed)
    return anyascii(replaced).lower()


def letters_of_name(ascii_text: str) -> str:
    """Letters and digits alone: ``anne-marie o'neill`` is ``annemarieoneill``."""
    return _NOT_IN_A_NAME.sub("", ascii_text)


def letters_of_identifier(ascii_text: str) -> str:
    """Letters, digits and ``._-``, for texts that are identifiers already."""
    return _NOT_IN_AN_IDENTIFIER.sub("", ascii_text)


def as_stem(text: str, max_length: int) -> str:
    """The text as the beginning of a username: from its first letter, cut, without loose ends."""
    return _BEFORE_THE_FIRST_LETTER.sub("", text)[:max_length].rstrip("._-")
