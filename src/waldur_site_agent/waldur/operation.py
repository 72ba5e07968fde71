"""What there is to say about one operation of the REST API."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Generic, Literal, TypeVar, get_args, get_type_hints

from pydantic.fields import FieldInfo

Answer_co = TypeVar("Answer_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[Answer_co]):
    """One operation: how it is asked, and what its answer is."""

    id: str
    """The operation's identifier in the OpenAPI document."""
    purpose: str
    """What it is for, in the words of error messages; ``{uuid}`` is the object's UUID."""
    method: Literal["GET", "POST", "PUT", "PATCH"]
    path: str
    """Below ``/api/``; ``{uuid}`` stands for the object's UUID."""
    query: tuple[str, ...] = ()
    """The query parameters that the gateway may send."""
    ordered_by: str | None = None
    """The value of ``o``: without a fixed order, pages may overlap or leave rows out."""
    other_orders: tuple[str, ...] = ()
    """Further values of ``o`` to try where rows are left out all the same."""
    body: tuple[str, ...] | None = None
    """The keys of the JSON body; ``None`` where nothing is sent."""
    answer: type[Answer_co] | None = None
    """The model of the answer, or of each row of it; ``None`` where the answer is not read."""
    extra_fields: tuple[str, ...] = ()
    """Fields of the answer that only the gateway looks at."""
    safe_to_repeat: bool = False
    """Whether sending it twice has the same effect as once; reading always is."""

    @property
    def is_write(self) -> bool:
        """Whether it changes something in Waldur."""
        return self.method != "GET"

    @property
    def orders(self) -> tuple[str | None, ...]:
        """The orders in which a list may be read; ``None`` is the server's own."""
        return (self.ordered_by, *self.other_orders)

    @property
    def asked_fields(self) -> tuple[str, ...]:
        """The values of ``field``: what the model holds and the gateway looks at."""
        return (*self.answer_fields, *self.extra_fields) if "field" in self.query else ()

    @property
    def answer_fields(self) -> tuple[str, ...]:
        """The fields of the answer that its model holds, by the API's names."""
        return () if self.answer is None else _api_names(self.answer)


def _api_names(model: type[object]) -> tuple[str, ...]:
    hints = get_type_hints(model, include_extras=True)
    # mypy knows no dataclass bound for a type variable; every answer here is one.
    return tuple(_alias(hints[field.name]) or field.name for field in fields(model))  # type: ignore[arg-type]


def _alias(hint: object) -> str:
    """The name that ``Field(validation_alias=...)`` gives a field; empty without one."""
    aliases = (item.validation_alias for item in get_args(hint)[1:] if isinstance(item, FieldInfo))
    return next((alias for alias in aliases if isinstance(alias, str)), "")


def reading(
    id_: str, purpose: str, path: str, answer: type[Answer_co], *, query: tuple[str, ...] = ()
) -> Operation[Answer_co]:
    """Declare the reading of one object, or of a list that never comes in pages."""
    return Operation(
        id=id_,
        purpose=purpose,
        method="GET",
        path=path,
        query=query,
        answer=answer,
        safe_to_repeat=True,
    )


def listing_pages(
    id_: str,
    purpose: str,
    path: str,
    answer: type[Answer_co],
    *,
    filters: tuple[str, ...],
    ordered_by: str | None = "created",
    other_orders: tuple[str, ...] = (),
    chooses_fields: bool = True,
    extra_fields: tuple[str, ...] = (),
) -> Operation[Answer_co]:
    """Declare the reading of a list that comes in pages.

    ``ordered_by`` is ``None`` and ``chooses_fields`` is false where the server offers no choice.
    Where it offers no order in which rows differ, its own comes first and ``other_orders`` follow.
    """
    ordered = ordered_by is not None or bool(other_orders)
    wishes = ("field",) * chooses_fields + ("o",) * ordered
    return Operation(
        id=id_,
        purpose=purpose,
        method="GET",
        path=path,
        query=(*filters, *wishes, "page", "page_size"),
        ordered_by=ordered_by,
        other_orders=other_orders,
        answer=answer,
        extra_fields=extra_fields,
        safe_to_repeat=True,
    )


def writing(
    id_: str,
    purpose: str,
    path: str,
    *,
    body: tuple[str, ...] | None = None,
    safe_to_repeat: bool,
) -> Operation[None]:
    """Declare a write, whose answer is looked at only for its status."""
    return Operation(
        id=id_,
        purpose=purpose,
        method="POST",
        path=path,
        body=body,
        safe_to_repeat=safe_to_repeat,
    )


def changing(
    id_: str,
    purpose: str,
    path: str,
    answer: type[Answer_co],
    *,
    body: tuple[str, ...],
    method: Literal["PUT", "PATCH"] = "PATCH",
) -> Operation[Answer_co]:
    """Declare a write that says how things are and is answered with the changed object."""
    return Operation(
        id=id_,
        purpose=purpose,
        method=method,
        path=path,
        body=body,
        answer=answer,
        safe_to_repeat=True,
    )


def making(
    id_: str,
    purpose: str,
    path: str,
    answer: type[Answer_co],
    *,
    body: tuple[str, ...],
    safe_to_repeat: bool,
) -> Operation[Answer_co]:
    """Declare a write that makes an object, or finds it, and is answered with it."""
    return Operation(
        id=id_,
        purpose=purpose,
        method="POST",
        path=path,
        body=body,
        answer=answer,
        safe_to_repeat=safe_to_repeat,
    )
