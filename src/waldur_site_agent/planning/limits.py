"""Limits: from Waldur's measured units to backend units, exactly.

Waldur counts a component in its ``measured_unit`` (k-Hours), the backend in its own (minutes);
``unit_factor`` says how many of the second make one of the first. The product is exact: nothing
is rounded, and a backend that takes whole numbers only refuses what is not whole.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.offerings import AccountingType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent.model.offerings import Component

Amounts = dict[str, Decimal]


def ordered_limits(
    limits: Mapping[str, Decimal | None], components: Mapping[str, Component]
) -> Amounts:
    """The limits of limit components that an order or a resource carries, in backend units.

    Components that the configuration does not count by limit are not the backend's business;
    those that the order does not mention keep whatever limit they have.

    Raises:
        PermanentError: a limit is negative or not a finite number.
    """
    amounts: Amounts = {}
    for name, component in components.items():
        value = limits.get(name)
        if component.accounting_type != AccountingType.LIMIT or value is None:
            continue
        amounts[name] = _backend_units(value, component)
    return amounts


def initial_limits(
    limits: Mapping[str, Decimal | None], components: Mapping[str, Component]
) -> Amounts:
    """What a new resource is given: the ordered limits, and the fixed caps of usage components."""
    caps = {
        name: _backend_units(component.limit, component)
        for name, component in components.items()
        if component.accounting_type == AccountingType.USAGE and component.limit is not None
    }
    return {**caps, **ordered_limits(limits, components)}


Agree = Callable[[str, Decimal, Decimal], bool]
"""Whether a limit that was read back is the wanted one, as far as the backend can tell."""


def to_the_last_digit(_component: str, wanted: Decimal, found: Decimal) -> bool:
    """The agreement of backends that print limits as they keep them."""
    return wanted == found


def limit_changes(
    wanted: Mapping[str, Decimal], found: Mapping[str, Decimal], agree: Agree = to_the_last_digit
) -> Amounts:
    """The wanted limits that are not as found; found ones that nobody mentions stay."""
    return {
        name: amount
        for name, amount in wanted.items()
        if name not in found or not agree(name, amount, found[name])
    }


def _backend_units(value: Decimal, component: Component) -> Decimal:
    if not value.is_finite() or value < 0:
        raise PermanentError(
            f'limit of component "{component.type}" is {value} {component.measured_unit}; '
            "a limit must be zero or more: correct it in Waldur and order again"
        )
    return (value * component.unit_factor).normalize() + 0
