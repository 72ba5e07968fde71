"""The short names that Waldur makes of names."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 8


def new_slug(name: str, taken: Iterable[str]) -> str:
    """Make the first eight characters and a counter: ``ocean-ru-1``, ``tokamak--1``, ``-1``.

    What is no ASCII letter or digit is left out, so that a name may have nothing but the counter.
    """
    first = _ascii(name)[:_LONGEST]
    numbers = (re.fullmatch(re.escape(first) + r"-(\d+)", slug) for slug in taken)
    last = max((int(found[1]) for found in numbers if found), default=0)
    return f"{first}-{last + 1}"


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^\w\s-]", "", plain.lower())
    return re.sub(r"[-\s]+", "-", words).strip("-_")
