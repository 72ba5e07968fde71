"""References to other objects: where Waldur's API gives a URL, the model holds the UUID in it."""

from typing import Annotated, TypeAlias
from uuid import UUID

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError


def uuid_from_url(url: str) -> UUID | None:
    """The UUID that a URL ends in, or the text itself is; ``None`` if there is none."""
    try:
        return UUID(url.partition("?")[0].rstrip("/").rpartition("/")[2])
    except ValueError:
        return None


def _read(value: object) -> UUID | None:
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    return uuid_from_url(value)


UuidFromUrl: TypeAlias = Annotated[UUID | None, BeforeValidator(_read)]
"""A UUID that the API gives as a URL or as text; ``None`` where the text holds no UUID."""
