"""Brings the offering's components in Waldur up to date with the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.planning.components import component_differences, plan_components

if TYPE_CHECKING:
    from waldur_site_agent.config import Offering
    from waldur_site_agent.planning.components import ComponentPlan
    from waldur_site_agent.waldur import Waldur


def load_components(
    offering: Offering, waldur: Waldur, *, dry_run: bool = False
) -> tuple[ComponentPlan, list[str]]:
    """Create and update components; return the plan and a line per change.

    Components that only Waldur has are reported and left alone.

    Raises:
        TemporaryError, PermanentError: Waldur could not be asked, or refused.
    """
    found = waldur.offering(offering.waldur_offering_uuid).components
    plan = plan_components(offering.components, found)
    by_type = {component.type: component for component in found}
    lines = []
    for component in plan.create:
        if not dry_run:
            waldur.create_component(offering.waldur_offering_uuid, component)
        lines.append(f"+ {component.type}  {component.name} in {component.measured_unit}")
    for component in plan.update:
        if not dry_run:
            waldur.update_component(offering.waldur_offering_uuid, component)
        differences = component_differences(component, by_type[component.type])
        lines.append(f"~ {component.type}  {'; '.join(differences)}")
    lines += [f"  {name}  unchanged" for name in plan.unchanged]
    lines += [f"? {name}  only in Waldur; left alone" for name in plan.only_in_waldur]
    return plan, lines
