"""Values become the JSON that Waldur reads."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from waldur_site_agent.model.errors import PermanentError

if TYPE_CHECKING:
    from waldur_site_agent.model.offerings import WaldurComponent

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


_TOO_LARGE_AN_AMOUNT = 10**18


def uuid_text(uuid: UUID | str) -> str:
    """The 32 hexadecimal digits that Waldur itself writes.

    Raises:
        PermanentError: The text is no UUID.
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
        PermanentError: It is not finite, which JSON cannot say.
    """
    if not value.is_finite():
        raise PermanentError(f"{value} is not a number that Waldur can hold")
    return int(value) if value == value.to_integral_value() else float(value)


def amount_text(value: Decimal) -> str:
    """An amount of usage as Waldur takes it: a text with two decimals.

    Raises:
        PermanentError: It is not finite, or longer than Waldur's eighteen digits.
        ValueError: It has more than two decimals: it was not rounded, and here is not the place.
    """
    if not value.is_finite() or abs(value) >= _TOO_LARGE_AN_AMOUNT:
        raise PermanentError(f"{value} is not a number that Waldur can hold")
    if value != round(value, 2):
        raise ValueError(f"{value} has more than two decimals; usage is rounded before it is sent")
    return f"{value or Decimal(0):.2f}"


def component_body(component: WaldurComponent) -> dict[str, object]:
    """A component without what is empty: Waldur then chooses, or leaves it as it is."""
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
