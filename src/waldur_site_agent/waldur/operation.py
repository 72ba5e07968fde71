"""A declared operation of Waldur's REST API, and decoding what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints
from uuid import UUID

import httpx
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.model.marketplace import WaldurComponent
from waldur_site_agent.waldur.body import load_json, shorten

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
    if not is_dataclass(model):  # the whole record, of fields that the operation lists
        return ()
    if model not in _names:
        _names[model] = _read_api_names(model)
    return _names[model]


def _read_api_names(model: type[Any]) -> tuple[str, ...]:
    hints = get_type_hints(model, include_extras=True)
    return tuple(_alias(hints[field.name]) or field.name for field in fields(model))


def _alias(hint: object) -> str:
    """The name that ``Field(validation_alias=...)`` gives a field; empty without one."""
    aliases = (item.validation_alias for item in get_args(hint)[1:] if isinstance(item, FieldInfo))
    return next((alias for alias in aliases if isinstance(alias, str)), "")


Answer = TypeVar("Answer")
Row = Mapping[str, object]

COMPONENT_KEYS = (
    "type",
    "name",
    "billing_type",
    "description",
    "measured_unit",
    "unit_factor",
    "limit_period",
    "limit_amount",
    "article_code",
    "max_value",
    "min_value",
    "max_available_limit",
    "default_limit",
    "is_boolean",
    "is_prepaid",
    "min_prepaid_duration",
    "max_prepaid_duration",
    "prepaid_duration_step",
    "min_renewal_duration",
    "max_renewal_duration",
    "renewal_duration_step",
)

_AMOUNT_LIMIT = 10**18
_names: dict[type[object], tuple[str, ...]] = {}
# Types cannot express that each adapter is that of its key; ``_adapter`` ensures it.
_adapters: dict[type[object], TypeAdapter[Any]] = {}


def uuid_text(uuid: UUID | str) -> str:
    """The 32 hexadecimal digits that Waldur itself writes.

    Raises:
        PermanentError: The text is not a UUID.
    """
    try:
        return (uuid if isinstance(uuid, UUID) else UUID(uuid)).hex
    except ValueError as error:
        raise PermanentError(
            f"{uuid!r} is not a UUID; copy it from the object's page in Waldur"
        ) from error


def number(value: Decimal) -> int | float:
    """A decimal as a JSON number: whole numbers exactly, others to fifteen digits.

    Raises:
        PermanentError: It is not finite, which JSON cannot express.
    """
    if not value.is_finite():
        raise PermanentError(f"{value} is not a number that Waldur can hold")
    return int(value) if value == value.to_integral_value() else float(value)


def amount_text(value: Decimal) -> str:
    """An amount of usage as Waldur accepts it: a string with two decimals.

    Raises:
        PermanentError: It is not finite, or longer than Waldur's eighteen digits.
        ValueError: It has more than two decimals; the caller rounds.
    """
    if not value.is_finite() or abs(value) >= _AMOUNT_LIMIT:
        raise PermanentError(f"{value} is not a number that Waldur can hold")
    if value != round(value, 2):
        raise ValueError(f"{value} has more than two decimals; usage is rounded before it is sent")
    return f"{value or Decimal(0):.2f}"


def component_body(component: WaldurComponent) -> dict[str, object]:
    """A component without its empty values, which Waldur then chooses or leaves unchanged."""
    held = {field.name: getattr(component, field.name) for field in fields(component)}
    body: dict[str, object] = {
        "type": component.type,
        "name": component.name or component.type,
        "billing_type": component.billing_type,
    }
    for key in COMPONENT_KEYS:
        value = held[key]
        if key not in body and value not in (None, ""):
            body[key] = number(value) if isinstance(value, Decimal) else value
    return body


def decode(
    operation: Operation[Answer], row: object, response: httpx.Response, place: str = ""
) -> Answer:
    """Decode one object of a response into the operation's model.

    A null means the same as an absent field, so the model's defaults apply.

    Raises:
        TemporaryError: A required field is missing, or a field has the wrong type.
    """
    if not isinstance(row, dict):
        raise bad_answer(response, f"it is not an object but {_kind(row)}")
    if operation.answer is None:
        raise ValueError(f"the answer of {operation.id} has no model")
    try:
        return _adapter(operation.answer).validate_python(_without_nulls(row))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(step) for step in first["loc"]) or "(all of it)"
        missing = first["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}
        why = "is missing" if missing else f"cannot be used: {first['msg']}"
        raise bad_answer(response, f"{place} field {field!r} {why}".lstrip()) from error


def read_json(response: httpx.Response) -> object:
    """The body of a response.

    Raises:
        TemporaryError: It is not JSON, but for example a login page.
    """
    try:
        return load_json(response.content)
    except ValueError as error:
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        raise bad_answer(
            response, f"it is not JSON but {kind}; check waldur_api_url and the proxies"
        ) from error


def read_rows(response: httpx.Response) -> list[Row]:
    """The rows of a list.

    Raises:
        TemporaryError: The body is not a JSON array of objects.
    """
    body = read_json(response)
    if not isinstance(body, list):
        raise bad_answer(response, f"it is not a list but {_kind(body)}")
    for position, row in enumerate(body, 1):
        if not isinstance(row, dict):
            raise bad_answer(response, f"row {position} is not an object but {_kind(row)}")
    return body


def bad_answer(response: httpx.Response, why: str) -> TemporaryError:
    """The error for a successful response whose body is not what the operation promises."""
    request, url = response.request, response.request.url
    return TemporaryError(
        f"{url.host} sent an invalid response to {request.method} {url.path}: {shorten(why)}",
        remedy="it will be retried",
    )


def _adapter(model: type[Answer]) -> TypeAdapter[Answer]:
    # Adapters take milliseconds each: they are built when first needed.
    adapter = _adapters.get(model)
    if adapter is None:
        adapter = _adapters[model] = TypeAdapter(model)
    return adapter


def _without_nulls(row: Row) -> dict[str, object]:
    """The row, and the rows in its lists, without nulls.

    Nested objects keep theirs: in limits and attributes, a null is a value.
    """
    return {
        key: [_without_nulls(v) if isinstance(v, dict) else v for v in value]
        if isinstance(value, list)
        else value
        for key, value in row.items()
        if value is not None
    }


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    return names.get(type(value), "a number or a boolean")
