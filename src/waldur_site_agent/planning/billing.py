"""From exact usage in backend units to what Waldur takes: two decimals of the measured unit.

Amounts are fractions until here. Each total is rounded once, half to even. The parts of the users
are cut down to the cent, and the cents that are then missing go to those who lost most by the
cut, ties by name (the largest remainder method): the parts add up to the total to the cent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from waldur_site_agent.model.offerings import AccountingType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from waldur_site_agent.model.offerings import Component, WaldurComponent
    from waldur_site_agent.model.usage import ResourceUsage

_CENTS = 100
_COUNTED = (AccountingType.USAGE, AccountingType.LIMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What is reported of one component of one resource, in measured units."""

    total: Decimal = Decimal("0.00")
    parts: Mapping[str, Decimal] = field(default_factory=dict)
    """By username; they add up to the total. Whose part rounds to nothing is not here."""


def reportable(
    configured: Mapping[str, Component], found: Iterable[WaldurComponent]
) -> dict[str, Component]:
    """The configured components for which Waldur takes usage: it bills them by use or by limit."""
    counted = {component.type for component in found if component.billing_type in _COUNTED}
    return {name: component for name, component in configured.items() if name in counted}


def billed(usage: ResourceUsage, components: Mapping[str, Component]) -> dict[str, Bill]:
    """What to report of a resource, by component; what was not used is reported as zero."""
    return {name: _bill(usage, name, component) for name, component in components.items()}


def _bill(usage: ResourceUsage, name: str, component: Component) -> Bill:
    factor = Fraction(component.unit_factor)
    exact = {
        user: amounts[name] / factor * _CENTS
        for user, amounts in usage.by_user.items()
        if amounts.get(name)
    }
    cents = round(sum(exact.values(), Fraction(0)))
    parts = {user: amount.numerator // amount.denominator for user, amount in exact.items()}
    by_loss = sorted(exact, key=lambda user: (parts[user] - exact[user], user))
    for user in by_loss[: cents - sum(parts.values())]:
        parts[user] += 1
    return Bill(
        total=_decimal(cents),
        parts={user: _decimal(parts[user]) for user in sorted(parts) if parts[user]},
    )


def _decimal(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)
