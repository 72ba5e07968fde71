"""Limits: from Waldur's measured units to backend units, exactly.

Waldur counts a component in its ``measured_unit`` (k-Hours), the backend in its own (minutes);
``unit_factor`` says how many of the second make one of the first. The product is exact: nothing
is rounded, and a backend that takes whole numbers only refuses what is not whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal, TypeAlias

from waldur_site_agent.backends import BackendResource
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import Component, Resource
from waldur_site_agent.planning.writes import amount_text

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
        if not component.rules.is_limited or value is None:
            continue
        amounts[name] = _backend_units(value, component)
    return amounts


def initial_limits(
    limits: Mapping[str, Decimal | None], components: Mapping[str, Component]
) -> Amounts:
    """What a new resource is given: the ordered limits, and the fixed caps of usage components."""
    caps = {
        name: _backend_units(component.cap, component)
        for name, component in components.items()
        if component.cap is not None
    }
    return {**caps, **ordered_limits(limits, components)}


LimitsEqual = Callable[[str, Decimal, Decimal], bool]
"""Whether a limit that was read back is the wanted one, as far as the backend can tell."""


def exact_equal(_component: str, wanted: Decimal, found: Decimal) -> bool:
    """The agreement of backends that print limits as they keep them."""
    return wanted == found


def limit_changes(
    wanted: Mapping[str, Decimal], found: Mapping[str, Decimal], agree: LimitsEqual = exact_equal
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


Authority: TypeAlias = Literal["backend", "waldur", "report"]
"""Whose limits count; with ``report`` nobody's."""

_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDifference:
    """One component of one resource on which the two sides do not agree."""

    component: Component
    sold: Decimal | None
    """What Waldur shows, in measured units; for a cap of the file, that cap."""
    found: Decimal | None
    """What the account has, in backend units."""
    is_cap: bool = False
    """Whether it is the fixed cap that the file gives to every account."""

    @property
    def name(self) -> str:
        """The component's type."""
        return self.component.type

    @property
    def to_set(self) -> Decimal | None:
        """What was sold in backend units; ``None`` where nothing was, or nothing that counts."""
        if self.sold is None or not self.sold.is_finite() or self.sold < 0:
            return None
        return (self.sold * self.component.unit_factor).normalize() + 0

    @property
    def to_report(self) -> Decimal | None:
        """What was found in measured units; ``None`` where two decimals cannot tell it exactly."""
        if self.found is None:
            return None
        measured = (self.found / self.component.unit_factor).quantize(_CENT)
        return measured if measured * self.component.unit_factor == self.found else None

    def __str__(self) -> str:
        return f"limit {self.name}: {self.of_waldur}, {self.of_account}"

    @property
    def entitlement(self) -> str:
        """What the account is to have, in measured units and where that is said."""
        amount = f"{amount_text(self.sold)} {self.component.measured_unit}"
        return f"cap in the file: {amount}" if self.is_cap else f"sold in Waldur: {amount}"

    @property
    def of_waldur(self) -> str:
        """Waldur's value in both units, for people."""
        owner = "the file" if self.is_cap else "Waldur"
        if self.sold is None:
            return f"{owner} has none"
        unit = self.component.measured_unit
        text = f"{owner} has {amount_text(self.sold)} {unit}"
        return text if self.to_set is None else f"{text} ({amount_text(self.to_set)})"

    @property
    def of_account(self) -> str:
        """The account's value in both units, for people."""
        if self.found is None:
            return "the account none"
        text = f"the account {amount_text(self.found)}"
        measured = self.found / self.component.unit_factor
        about = "" if self.to_report is not None else "about "
        shown = amount_text(measured.quantize(_CENT))
        return f"{text} ({about}{shown} {self.component.measured_unit})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDecision:
    """What becomes of the differences of one resource."""

    resource: Resource
    found: BackendResource
    to_set: Mapping[str, Decimal] = field(default_factory=dict)
    """Limits to set on the account, in backend units."""
    to_report: Mapping[str, Decimal] | None = None
    """All limits for Waldur, in measured units: it replaces what it has."""
    changed: tuple[LimitDifference, ...] = ()
    """The differences that are set or told."""
    left: tuple[str, ...] = ()
    """Differences that stay, each with the reason or the remedy."""

    @property
    def changes_something(self) -> bool:
        """Whether one of the sides is to be changed."""
        return bool(self.to_set) or self.to_report is not None

    def blocked(self, obstacle: str) -> LimitDecision:
        """The same with nothing changed, because of an obstacle."""
        left = [f"{difference}; left as it is: {obstacle}" for difference in self.changed]
        return replace(self, to_set={}, to_report=None, changed=(), left=(*left, *self.left))

    def without_reporting(self, components: Collection[str], reason: str) -> LimitDecision:
        """The same without telling Waldur the limits of some components."""
        kept = tuple(each for each in self.changed if each.name not in components)
        left = [f"{d}; left as it is: {reason}" for d in self.changed if d not in kept]
        if not left:
            return self
        values = {d.name: value for d in kept if (value := d.to_report) is not None}
        to_report = _everything(self.resource, values) if values else None
        return replace(self, to_report=to_report, changed=kept, left=(*left, *self.left))


def limit_differences(
    resource: Resource,
    found: BackendResource,
    components: Mapping[str, Component],
    agree: LimitsEqual = exact_equal,
) -> tuple[LimitDifference, ...]:
    """Where Waldur and the account do not agree, by component.

    A cap of the file counts where the account has no limit at all: another value was set by the
    site. Limits of components that are not configured are nobody's business here.
    """
    differences = []
    for name, component in sorted(components.items()):
        amount = found.limits.get(name)
        if component.rules.is_limited:
            sold = resource.limits.get(name)
            difference = LimitDifference(component=component, sold=sold, found=amount)
            if not _agree(difference, agree):
                differences.append(difference)
        elif component.cap is not None and amount is None:
            differences.append(
                LimitDifference(component=component, sold=component.cap, found=None, is_cap=True)
            )
    return tuple(differences)


def unlimited_components(
    resource: Resource, found: BackendResource, components: Mapping[str, Component]
) -> tuple[str, ...]:
    """Components sold by limit of which neither side has one: the account may use any amount."""
    return tuple(
        name
        for name, component in sorted(components.items())
        if component.rules.is_limited
        and resource.limits.get(name) is None
        and name not in found.limits
    )


def decide_limits(
    resource: Resource,
    found: BackendResource,
    differences: tuple[LimitDifference, ...],
    authority: Authority,
) -> LimitDecision:
    """Which side follows the other, for each difference."""
    changed = tuple(d for d in differences if _value(d, authority) is not None)
    left = tuple(
        f"{difference}; {_why_left(difference, authority)}"
        for difference in differences
        if difference not in changed
    )
    values = {d.name: value for d in changed if (value := _value(d, authority)) is not None}
    return LimitDecision(
        resource=resource,
        found=found,
        to_set=values if authority == "waldur" else {},
        to_report=_everything(resource, values) if values and authority == "backend" else None,
        changed=changed,
        left=left,
    )


def _agree(difference: LimitDifference, agree: LimitsEqual) -> bool:
    sold, found = difference.sold, difference.found
    if sold is None or found is None:
        return sold is None and found is None
    return agree(difference.name, sold * difference.component.unit_factor, found)


def _value(difference: LimitDifference, authority: Authority) -> Decimal | None:
    """What the side that follows is to have; ``None`` where it does not follow."""
    if authority == "waldur":
        return difference.to_set
    return difference.to_report if authority == "backend" and not difference.is_cap else None


def _everything(resource: Resource, values: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Limits that are not the agent's are sent back as they are."""
    everything = {**resource.limits, **values}
    return {name: value for name, value in everything.items() if value is not None}


def _why_left(difference: LimitDifference, authority: Authority) -> str:
    if difference.found is None and difference.to_set is not None:
        return '"waldur-site-agent limits sync --to backend" sets it'
    if authority == "report":
        return "left as it is (limits: report)"
    if authority == "backend":
        return "left as it is: two decimals cannot tell it exactly"
    if difference.sold is None:
        return "left as it is: Waldur names none"
    return "left as it is: Waldur's is not a limit"
