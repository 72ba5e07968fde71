"""What may be secret in a configuration, and how the rest is shown without it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK = "********"
_WORDS = (
    "token",
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "dsn",
    "credential",
    "private_key",
    "access_key",
    "api_key",
    "apikey",
)
_USER_IN_URL = re.compile(r"(?<=://).*@", re.DOTALL)
_QUERY_OF_URL = re.compile(r"(?<=\?).+", re.DOTALL)


def sounds_secret(names: Iterable[str]) -> bool:
    """Whether any key on the way to a value says that the value is a secret.

    A key that ends in ``_file`` names the file that holds one, which may be shown.
    """
    return any(_is_secret(name.lower().replace("-", "_")) for name in names)


def without_secrets(text: str) -> str:
    """The text with the user, password and query of a URL masked; other text as it is."""
    if "://" not in text:
        return text
    return _QUERY_OF_URL.sub(MASK, _USER_IN_URL.sub(f"{MASK}@", text))


def masked(value: Any, name: str = "") -> Any:
    """The value of a key, with everything in it masked that may be a secret."""
    if value and sounds_secret([name]):
        return MASK
    if isinstance(value, dict):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """Every text in a configuration that stands under a key which sounds secret."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_in(inner, name if sounds_secret([name]) else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secrets_in(inner, name)
    elif isinstance(value, str) and value and sounds_secret([name]):
        yield value


def _is_secret(name: str) -> bool:
    # as an end, as in "db_pass": "full_pass_minutes" is about a pass over an offering
    return name.endswith("_pass") or (
        not name.endswith("_file") and any(word in name for word in _WORDS)
    )
