"""The offering's components: what the configuration says against what Waldur has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from waldur_site_agent.model.offerings import WaldurComponent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from waldur_site_agent.model.offerings import Component


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPlan:
    """Which components Waldur needs, and which of its own nobody configured."""

    create: tuple[WaldurComponent, ...] = ()
    update: tuple[WaldurComponent, ...] = ()
    unchanged: tuple[str, ...] = ()
    only_in_waldur: tuple[str, ...] = ()
    """Left alone: to remove a component removes its history."""


def plan_components(
    configured: Mapping[str, Component], found: Iterable[WaldurComponent]
) -> ComponentPlan:
    """Compare by component type; a component is changed only where the configuration speaks."""
    by_type = {component.type: component for component in found}
    create, update, unchanged = [], [], []
    for name, component in configured.items():
        existing = by_type.get(name)
        if existing is None:
            create.append(_wanted(component, WaldurComponent(type=name)))
            continue
        wanted = _wanted(component, existing)
        if wanted == existing:
            unchanged.append(name)
        else:
            update.append(wanted)
    return ComponentPlan(
        create=tuple(create),
        update=tuple(update),
        unchanged=tuple(unchanged),
        only_in_waldur=tuple(sorted(by_type.keys() - configured.keys())),
    )


def _wanted(component: Component, existing: WaldurComponent) -> WaldurComponent:
    """``existing`` with everything that the configuration decides."""
    wanted = replace(
        existing,
        name=component.label,
        measured_unit=component.measured_unit,
        billing_type=component.accounting_type,
        unit_factor=component.unit_factor,
    )
    if component.limit is None:
        return wanted
    return replace(wanted, limit_amount=component.limit)


def component_differences(wanted: WaldurComponent, existing: WaldurComponent) -> list[str]:
    """What differs between two versions of a component, as ``field: old -> new``."""
    fields = ("name", "measured_unit", "billing_type", "unit_factor", "limit_amount")
    return [
        f"{field}: {_shown(getattr(existing, field))} -> {_shown(getattr(wanted, field))}"
        for field in fields
        if getattr(existing, field) != getattr(wanted, field)
    ]


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
