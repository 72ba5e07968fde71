"""``username_management_settings`` of the template backend."""

from __future__ import annotations

from typing import Annotated, Any
from unicodedata import normalize

from pydantic import AfterValidator, BeforeValidator, Field

from waldur_site_agent.backends import BackendSettings
from waldur_site_agent_basic_username_management.pattern import parse_pattern


def _known_pattern(text: str) -> str:
    parse_pattern(text)
    return text


def _nothing_is_empty(value: Any) -> Any:
    return () if value is None else value


def _no_substitutions(value: Any) -> Any:
    return {} if value is None else value


def _one_letter_each(substitutions: dict[str, str]) -> dict[str, str]:
    composed = {normalize("NFC", key): text for key, text in substitutions.items()}
    for letter, ascii_text in composed.items():
        if len(letter) != 1:
            raise ValueError(f'"{letter}" is not one letter; write for instance ü: ue')
        if not ascii_text.isascii():
            raise ValueError(f'"{ascii_text}" is not ASCII; write for instance ü: ue')
    return {letter.lower(): text for letter, text in composed.items()}


class TemplateSettings(BackendSettings):
    """How names are made from what Waldur knows about people."""

    pattern: Annotated[str, AfterValidator(_known_pattern)]
    """Such as ``{first_name[0]}{last_name}``."""
    max_length: int = Field(default=31, ge=4, le=100)
    """Number included; 31 is what login records take."""
    reserved_names: Annotated[frozenset[str], BeforeValidator(_nothing_is_empty)] = frozenset()
    """Names that nobody gets, beside the usual ones."""
    avoid_system_users: bool = True
    """Whether a name that the operating system knows is taken."""
    substitutions: Annotated[
        dict[str, str], BeforeValidator(_no_substitutions), AfterValidator(_one_letter_each)
    ] = Field(default_factory=dict)
    """How letters are spelled where the usual way is not wanted, such as ``ü``: ``ue``."""
