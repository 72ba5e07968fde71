"""Converts limits between Waldur's measured units and backend units, and compares both sides.

Waldur counts a component in its ``measured_unit`` (k-Hours), the backend in its own unit (minutes);
``unit_factor`` is the number of backend units per measured unit; a component with
``target_components`` has a limit per target, each with its own factor. Conversion is exact. A
backend that keeps whole numbers rounds up, in the customer's favour, before anything is planned.
Which accounting types have limits and caps is in ``model.marketplace.ACCOUNTING_RULES``. A prepaid
component is sold by the month, and its account gets the limit for all months of the resource's
term at once; that limit follows Waldur alone, and is never reported back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal, TypeAlias

from waldur_site_agent.backends import Backend, BackendResource
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import Component, Order, Resource
from waldur_site_agent.planning.plan import amount_text

_LARGEST_LIMIT = Decimal(10) ** 24
_SMALLEST_EXPONENT = -30
"""In measured units: far beyond what backends take, and all that is computed from it is exact."""

Amounts = dict[str, Decimal]


def ordered_limits(
    limits: Mapping[str, Decimal | None], components: Mapping[str, Component]
) -> Amounts:
    """The limits of an order or a resource for limit-based components, in backend units, exactly.

    Other components are ignored; components that the order does not mention keep their limit.

    Raises:
        PermanentError: a limit is negative or not a finite number.
    """
    amounts: Amounts = {}
    for name, component in components.items():
        value = limits.get(name)
        if not component.rules.is_limited or value is None:
            continue
        amounts |= _backend_units(value, component)
    return amounts


def of_resource(
    components: Mapping[str, Component], resource: Resource, order: Order | None = None
) -> dict[str, Component]:
    """The components as a resource has them: prepaid ones with its term.

    ``order`` is a renewal that is being carried out: servers may set the new end date only later.
    """
    term = resource.term.extended(order.renewed_until if order is not None else None)
    return {name: component.for_term(term) for name, component in components.items()}


def entitlements(
    limits: Mapping[str, Decimal | None], components: Mapping[str, Component]
) -> dict[str, str]:
    """By the backend's own types, why the limits of prepaid components are what they are."""
    return {
        part.type: f"ordered: {amount_text(value)} {component.unit_text}"
        for name, component in components.items()
        if component.is_prepaid and (value := limits.get(name)) is not None
        for part in component.parts
    }


def initial_limits(
    limits: Mapping[str, Decimal | None], components: Mapping[str, Component]
) -> Amounts:
    """The limits of a new account, exactly: the ordered limits and the fixed caps."""
    caps: Amounts = {}
    for component in components.values():
        if component.cap is not None:
            caps |= _backend_units(component.cap, component)
    return {**caps, **ordered_limits(limits, components)}


def supported_limits(
    backend: Backend,
    resource: str,
    limits: Mapping[str, Decimal | None],
    components: Mapping[str, Component],
) -> dict[str, Decimal | None]:
    """The ordered limits that the backend uses; of a component with targets, it has to use all.

    Args:
        backend: asked by its own component types.
        resource: what the customer calls the resource, for messages.
        limits: by component, as ordered.
        components: the offering's components.
    """
    types = {
        name: [part.type for part in components[name].parts] if name in components else [name]
        for name in limits
    }
    asked = {each: value for name, value in limits.items() for each in types[name]}
    used = backend.limits_to_set(resource, asked)
    return {
        name: value for name, value in limits.items() if all(each in used for each in types[name])
    }


def limited_by(backend: Backend, components: Mapping[str, Component]) -> dict[str, Component]:
    """The components whose limits the backend supports."""
    return {
        name: component
        for name, component in components.items()
        if supported_limits(backend, "", {name: Decimal(0)}, components)
    }


def _exactly(_component: str, amount: Decimal) -> Decimal:
    return amount


def _equal(_component: str, wanted: Decimal, found: Decimal) -> bool:
    return wanted == found


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPrecision:
    """How exactly a backend keeps limits, by its own component types and in its units."""

    settable: Callable[[str, Decimal], Decimal] = _exactly
    """The limit that is set for an amount."""
    agree: Callable[[str, Decimal, Decimal], bool] = _equal
    """Whether a limit that was read back may be the wanted one."""

    @classmethod
    def of(cls, backend: Backend) -> LimitPrecision:
        """The precision of a backend."""
        return cls(settable=backend.settable_limit, agree=backend.limits_agree)

    def limits(self, amounts: Mapping[str, Decimal]) -> Amounts:
        """The limits that are set for exact amounts."""
        return {name: self.settable(name, amount) for name, amount in amounts.items()}


EXACT = LimitPrecision()
"""For backends that keep and print any number."""


def limit_changes(
    wanted: Mapping[str, Decimal],
    found: Mapping[str, Decimal],
    precision: LimitPrecision,
) -> Amounts:
    """The wanted limits that differ from those found; limits that are not wanted are kept."""
    return {
        name: amount
        for name, amount in precision.limits(wanted).items()
        if name not in found or not precision.agree(name, amount, found[name])
    }


def is_possible(value: Decimal) -> bool:
    """Whether a limit, in measured units, may be meant."""
    return _is_convertible(value) and value >= 0


def _is_convertible(value: Decimal) -> bool:
    """Whether a limit can be converted and compared; a backend knows what a negative one means."""
    in_range = value.is_finite() and abs(value) <= _LARGEST_LIMIT
    return in_range and (not value or value.adjusted() >= _SMALLEST_EXPONENT)


def _backend_units(value: Decimal, component: Component) -> Amounts:
    if not is_possible(value):
        raise PermanentError(
            f'limit of component "{component.type}" is {value:.10g} {component.measured_unit}; '
            "a limit must be zero or more, and something that a cluster can have; correct it in "
            "Waldur and order again"
        )
    return {part.type: part.to_backend(value) for part in component.parts}


Authority: TypeAlias = Literal["backend", "waldur", "report"]
"""The side whose limits are kept; with ``report`` neither side is changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDifference:
    """A component of a resource whose limits differ between Waldur and the account.

    A component with several targets has a difference for each target that differs.
    """

    component: Component
    """As it is sold."""
    part: Component
    """As the backend knows it; the same where the component has no targets."""
    sold: Decimal | None
    """Waldur's limit, or the configured cap, in measured units."""
    found: Decimal | None
    """The account's limit, in backend units."""
    is_cap: bool = False
    """Whether it is the fixed cap from the configuration file."""
    to_set: Decimal | None = None
    """The limit to set, in backend units; ``None`` if none is sold or it is invalid."""
    to_report: Decimal | None = None
    """The account's limit in measured units; ``None`` if it needs more than two decimals, or if
    the limits of several targets are not those of one amount."""

    @property
    def name(self) -> str:
        """The component's type in Waldur."""
        return self.component.type

    @property
    def target(self) -> str:
        """The component's type in the backend."""
        return self.part.type

    @property
    def label(self) -> str:
        """Both types, or one if they are the same."""
        return self.name if self.name == self.target else f"{self.name} ({self.target})"

    def __str__(self) -> str:
        return f"limit {self.label}: {self.of_waldur}, {self.of_account}"

    @property
    def entitlement(self) -> str:
        """The limit that the account should have, with its source, as text."""
        amount = f"{amount_text(self.sold)} {self.component.unit_text}"
        return f"cap in the file: {amount}" if self.is_cap else f"sold in Waldur: {amount}"

    @property
    def of_waldur(self) -> str:
        """Waldur's value in both units, as text."""
        owner = "the file" if self.is_cap else "Waldur"
        if self.sold is None:
            return f"{owner} has none"
        text = f"{owner} has {amount_text(self.sold)} {self.component.unit_text}"
        return text if self.to_set is None else f"{text} ({amount_text(self.to_set)})"

    @property
    def of_account(self) -> str:
        """The account's value in both units, as text."""
        if self.found is None:
            return "the account none"
        measured = self.part.to_measured(self.found)
        about = "" if measured * self.part.limit_factor == self.found else "about "
        a_month = " a month" if self.component.is_prepaid else ""
        text = f"{about}{amount_text(measured)} {self.component.measured_unit}{a_month}"
        return f"the account {amount_text(self.found)} ({text})"


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
        kept = tuple(
            each
            for each in self.changed
            if each.name not in components or each.component.is_prepaid
        )
        left = [f"{d}; left unchanged: {reason}" for d in self.changed if d not in kept]
        if not left:
            return self
        to_report = _reported(self.resource, kept)
        return replace(self, to_report=to_report, changed=kept, left=(*left, *self.left))

    def only_reporting(self) -> LimitDecision:
        """The decision without what is set on the account."""
        kept = tuple(each for each in self.changed if not each.component.is_prepaid)
        left = [f"{d}; {_PREPAID}" for d in self.changed if d not in kept]
        return replace(self, to_set={}, changed=kept, left=(*left, *self.left))


_PREPAID = "prepaid, so it follows Waldur: membership_sync sets it on the account"


def limit_differences(
    resource: Resource,
    found: BackendResource,
    components: Mapping[str, Component],
    precision: LimitPrecision = EXACT,
) -> tuple[LimitDifference, ...]:
    """The differences between Waldur and the account, by component.

    A cap counts as a difference only if the account has no limit: any other value was set by the
    site. Components that are not configured are ignored.
    """
    differences: list[LimitDifference] = []
    for name, component in sorted(of_resource(components, resource).items()):
        if component.rules.is_limited:
            sold = resource.limits.get(name)
            differences += _of_component(component, sold, found.limits, precision)
        elif component.cap is not None:
            differences += [
                replace(each, is_cap=True)
                for each in _of_component(component, component.cap, found.limits, precision)
                if each.found is None
            ]
    return tuple(differences)


def _of_component(
    component: Component,
    sold: Decimal | None,
    found: Mapping[str, Decimal],
    precision: LimitPrecision,
) -> Iterator[LimitDifference]:
    """The differences of one component, one per target."""
    known = sold if sold is not None and _is_convertible(sold) else None
    for part in component.parts:
        amount = found.get(part.type)
        wanted = None if known is None else part.to_backend(known)
        if sold is None and amount is None:
            continue
        if wanted is not None and amount is not None and precision.agree(part.type, wanted, amount):
            continue
        yield LimitDifference(
            component=component,
            part=part,
            sold=sold,
            found=amount,
            to_set=precision.settable(part.type, wanted)
            if wanted is not None and wanted >= 0 and not _would_guess(component, amount)
            else None,
            to_report=_measured(component, found, precision),
        )


def _would_guess(component: Component, found: Decimal | None) -> bool:
    """Whether an existing limit would be replaced without knowing for how many months."""
    return component.term is not None and not component.term.is_known and found is not None


def _measured(
    component: Component, found: Mapping[str, Decimal], precision: LimitPrecision
) -> Decimal | None:
    """The amount of measured units whose limits the account has, exactly."""
    parts = component.parts
    if any(part.type not in found for part in parts):
        return None
    for part in parts:
        amount = part.to_measured(found[part.type])
        if amount * part.limit_factor == found[part.type] and all(
            precision.agree(each.type, amount * each.limit_factor, found[each.type])
            for each in parts
            if each is not part
        ):
            return amount
    return None


def unlimited_components(
    resource: Resource, found: BackendResource, components: Mapping[str, Component]
) -> tuple[str, ...]:
    """Limit-based components without a limit on either side, so that usage is unlimited."""
    return tuple(
        name
        for name, component in sorted(components.items())
        if component.rules.is_limited
        and resource.limits.get(name) is None
        and all(part.type not in found.limits for part in component.parts)
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
    to_set = {
        d.target: value
        for d in changed
        if (value := d.to_set) is not None and _authority_over(d, authority) == "waldur"
    }
    return LimitDecision(
        resource=resource,
        found=found,
        to_set=to_set,
        to_report=_reported(resource, changed) if authority == "backend" else None,
        changed=changed,
        left=left,
    )


def _value(difference: LimitDifference, authority: Authority) -> Decimal | None:
    """The new value of the side that is changed; ``None`` if neither is."""
    authority = _authority_over(difference, authority)
    if authority == "waldur":
        return difference.to_set
    return difference.to_report if authority == "backend" and not difference.is_cap else None


def _authority_over(difference: LimitDifference, authority: Authority) -> Authority:
    """The side whose limit is kept: of prepaid components, the account is never right."""
    is_prepaid = difference.component.is_prepaid
    return "waldur" if is_prepaid and authority == "backend" else authority


def _reported(resource: Resource, changed: Iterable[LimitDifference]) -> dict[str, Decimal] | None:
    """The limits to report, together with all others that the resource has."""
    values = {
        d.name: value
        for d in changed
        if (value := d.to_report) is not None and not d.component.is_prepaid
    }
    everything = {**resource.limits, **values}
    known = {name: value for name, value in everything.items() if value is not None}
    return known if values else None


def _why_left(difference: LimitDifference, authority: Authority) -> str:
    if difference.found is None and difference.to_set is not None:
        return '"waldur-site-agent limits sync --to backend" sets it'
    if authority == "report":
        return "left unchanged (limits: report)"
    if _would_guess(difference.component, difference.found):
        return "left unchanged: the resource has no end date, so its months are not known"
    authority = _authority_over(difference, authority)
    if authority == "backend":
        has_targets = bool(difference.component.targets)
        why = "the limits of its targets are not those of one amount"
        return f"left unchanged: {why if has_targets else 'it needs more than two decimals'}"
    if difference.sold is None:
        return "left unchanged: Waldur has none"
    return "left unchanged: Waldur's value is not a valid limit"
