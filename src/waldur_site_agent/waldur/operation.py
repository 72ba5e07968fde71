"""A declared operation of Waldur's REST API."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Generic, Literal, TypeVar, get_args, get_type_hints

from pydantic.fields import FieldInfo

Answer_co = TypeVar("Answer_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[Answer_co]):
    """One operation: what may be sent, and what the answer is."""

    id: str
    """The operation's identifier in the OpenAPI document."""
    purpose: str
    """What it is for, as error messages say it; ``{uuid}`` is the object's UUID."""
    method: Literal["GET", "POST", "PUT", "PATCH"] = "GET"
    path: str
    """Below ``/api/``; ``{uuid}`` is replaced by the object's UUID."""
    answer: type[Answer_co] | None = None
    """The model of the answer, or of each row of it; ``None`` where the answer is not read."""
    filters: tuple[str, ...] = ()
    """The query parameters that choose rows."""
    paged: bool = False
    """Whether the answer is a list that comes in pages."""
    orders: tuple[str | None, ...] = (None,)
    """The orders (values of ``o``) in which to read a list; ``None`` is the server's own.

    Without a fixed order, pages may overlap or leave rows out. Further orders are tried where
    the first leaves rows out.
    """
    chooses_fields: bool = False
    """Whether the server sends only the fields that ``field`` names."""
    extra_fields: tuple[str, ...] = ()
    """Fields of the answer that only the gateway looks at."""
    body: tuple[str, ...] | None = None
    """The keys of the JSON body; ``None`` where nothing is sent."""
    idempotent: bool = False
    """Whether sending a write twice has the same effect as sending it once."""

    @property
    def is_write(self) -> bool:
        """Whether it changes something in Waldur."""
        return self.method != "GET"

    @property
    def safe_to_repeat(self) -> bool:
        """Whether sending it twice has the same effect as once; reading always is."""
        return self.idempotent or not self.is_write

    @property
    def query(self) -> tuple[str, ...]:
        """The query parameters that the gateway may send."""
        is_ordered = any(order is not None for order in self.orders)
        return (
            *self.filters,
            *(("field",) if self.chooses_fields else ()),
            *(("o",) if is_ordered else ()),
            *(("page", "page_size") if self.paged else ()),
        )

    @property
    def answer_fields(self) -> tuple[str, ...]:
        """The fields of the answer that its model holds, by the API's names."""
        return () if self.answer is None else _api_names(self.answer)

    @property
    def asked_fields(self) -> tuple[str, ...]:
        """The values of ``field``: what the model holds and the gateway looks at."""
        return (*self.answer_fields, *self.extra_fields) if self.chooses_fields else ()


def _api_names(model: type[object]) -> tuple[str, ...]:
    hints = get_type_hints(model, include_extras=True)
    # mypy knows no dataclass bound for a type variable; every answer here is one.
    return tuple(_alias(hints[field.name]) or field.name for field in fields(model))  # type: ignore[arg-type]


def _alias(hint: object) -> str:
    """The name that ``Field(validation_alias=...)`` gives a field; empty without one."""
    aliases = (item.validation_alias for item in get_args(hint)[1:] if isinstance(item, FieldInfo))
    return next((alias for alias in aliases if isinstance(alias, str)), "")
