"""JSON bodies for Waldur, and decoding of its responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import httpx
from pydantic import TypeAdapter, ValidationError

from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.model.marketplace import WaldurComponent
from waldur_site_agent.waldur.errors import shorten
from waldur_site_agent.waldur.operation import Operation

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
)

_AMOUNT_LIMIT = 10**18
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
        if key not in body and value not in (None, "", False):
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
        body: object = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        raise bad_answer(
            response, f"it is not JSON but {kind}; check waldur_api_url and the proxies"
        ) from error
    return body


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
