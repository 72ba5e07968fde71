"""Converts limits between Waldur's measured units and backend units, and compares both sides.

Waldur counts a component in its ``measured_unit`` (k-Hours), the backend in its own unit (minutes);
``unit_factor`` is the number of backend units per measured unit. Conversion is exact and nothing is
rounded; a backend that accepts whole numbers only rejects fractions. Which accounting types have
limits and caps is in ``model.marketplace.ACCOUNTING_RULES``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal, TypeAlias

from waldur_site_agent.backends import BackendResource
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import Component, Resource
from waldur_site_agent.planning.plan import amount_text

Amounts = dict[str, Decimal]


def ordered_limits(
    limits: Mapping[str, Decimal | None], components: Mapping[str, Component]
) -> Amounts:
    """The limits of an order or a resource for limit-based components, in backend units.

    Other components are ignored; components that the order does not mention keep their limit.

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
    """The limits of a new account: the ordered limits and the fixed caps."""
    caps = {
        name: _backend_units(component.cap, component)
        for name, component in components.items()
        if component.cap is not None
    }
    return {**caps, **ordered_limits(limits, components)}


LimitsEqual = Callable[[str, Decimal, Decimal], bool]
"""Whether a limit equals the wanted one, within the precision of the backend."""


def exact_equal(_component: str, wanted: Decimal, found: Decimal) -> bool:
    """Equality for backends that print limits exactly as they store them."""
    return wanted == found


def limit_changes(
    wanted: Mapping[str, Decimal], found: Mapping[str, Decimal], agree: LimitsEqual = exact_equal
) -> Amounts:
    """The wanted limits that differ from those found; limits that are not wanted are kept."""
    return {
        name: amount
        for name, amount in wanted.items()
        if name not in found or not agree(name, amount, found[name])
    }


def _backend_units(value: Decimal, component: Component) -> Decimal:
    if not value.is_finite() or value < 0:
        raise PermanentError(
            f'limit of component "{component.type}" is {value} {component.measured_unit}; '
            "a limit must be zero or more; correct it in Waldur and order again"
        )
    return component.to_backend(value)


Authority: TypeAlias = Literal["backend", "waldur", "report"]
"""The side whose limits are kept; with ``report`` neither side is changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDifference:
    """A component of a resource whose limits differ between Waldur and the account."""

    component: Component
    sold: Decimal | None
    """Waldur's limit, or the configured cap, in measured units."""
    found: Decimal | None
    """The account's limit, in backend units."""
    is_cap: bool = False
    """Whether it is the fixed cap from the configuration file."""

    @property
    def name(self) -> str:
        """The component's type."""
        return self.component.type

    @property
    def to_set(self) -> Decimal | None:
        """The sold limit in backend units; ``None`` if there is none or it is invalid."""
        if self.sold is None or not self.sold.is_finite() or self.sold < 0:
            return None
        return self.component.to_backend(self.sold)

    @property
    def to_report(self) -> Decimal | None:
        """The account's limit in measured units; ``None`` if it needs more than two decimals."""
        if self.found is None:
            return None
        measured = self.component.to_measured(self.found)
        return measured if measured * self.component.unit_factor == self.found else None

    def __str__(self) -> str:
        return f"limit {self.name}: {self.of_waldur}, {self.of_account}"

    @property
    def entitlement(self) -> str:
        """The limit that the account should have, with its source, as text."""
        amount = f"{amount_text(self.sold)} {self.component.measured_unit}"
        return f"cap in the file: {amount}" if self.is_cap else f"sold in Waldur: {amount}"

    @property
    def of_waldur(self) -> str:
        """Waldur's value in both units, as text."""
        owner = "the file" if self.is_cap else "Waldur"
        if self.sold is None:
            return f"{owner} has none"
        unit = self.component.measured_unit
        text = f"{owner} has {amount_text(self.sold)} {unit}"
        return text if self.to_set is None else f"{text} ({amount_text(self.to_set)})"

    @property
    def of_account(self) -> str:
        """The account's value in both units, as text."""
        if self.found is None:
            return "the account none"
        text = f"the account {amount_text(self.found)}"
        about = "" if self.to_report is not None else "about "
        shown = amount_text(self.component.to_measured(self.found))
        return f"{text} ({about}{shown} {self.component.measured_unit})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDecision:
    """What to do about the differences of one resource."""

    resource: Resource
    found: BackendResource
    to_set: Mapping[str, Decimal] = field(default_factory=dict)
    """Limits to set on the account, in backend units."""
    to_report: Mapping[str, Decimal] | None = None
    """All limits to report to Waldur, in measured units; they replace the existing ones."""
    changed: tuple[LimitDifference, ...] = ()
    """The differences that are resolved."""
    left: tuple[str, ...] = ()
    """The differences that remain, each with the reason or the remedy."""

    @property
    def changes_something(self) -> bool:
        """Whether either side is changed."""
        return bool(self.to_set) or self.to_report is not None

    def blocked(self, obstacle: str) -> LimitDecision:
        """The decision with nothing changed because of an obstacle."""
        left = [f"{difference}; left unchanged: {obstacle}" for difference in self.changed]
        return replace(self, to_set={}, to_report=None, changed=(), left=(*left, *self.left))

    def without_reporting(self, components: Collection[str], reason: str) -> LimitDecision:
        """The decision without reporting the limits of some components."""
        kept = tuple(each for each in self.changed if each.name not in components)
        left = [f"{d}; left unchanged: {reason}" for d in self.changed if d not in kept]
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
    """The differences between Waldur and the account, by component.

    A cap counts as a difference only if the account has no limit: any other value was set by the
    site. Components that are not configured are ignored.
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
    """Limit-based components without a limit on either side, so that usage is unlimited."""
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
    """Decide for each difference which side is changed, if any."""
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
    """The new value of the side that is changed; ``None`` if neither is."""
    if authority == "waldur":
        return difference.to_set
    return difference.to_report if authority == "backend" and not difference.is_cap else None


def _everything(resource: Resource, values: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """The changed limits, together with all others that the resource has."""
    everything = {**resource.limits, **values}
    return {name: value for name, value in everything.items() if value is not None}


def _why_left(difference: LimitDifference, authority: Authority) -> str:
    if difference.found is None and difference.to_set is not None:
        return '"waldur-site-agent limits sync --to backend" sets it'
    if authority == "report":
        return "left unchanged (limits: report)"
    if authority == "backend":
        return "left unchanged: it needs more than two decimals"
    if difference.sold is None:
        return "left unchanged: Waldur has none"
    return "left unchanged: Waldur's value is not a valid limit"
