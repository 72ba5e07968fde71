"""Tells Waldur the limits that the backend has, where they differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.membership_feedback import limits_are_waldurs
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.feedback import limits_to_report
from waldur_site_agent.waldur import concurrently

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource

    Difference = tuple[Resource, Mapping[str, Decimal]]


def sync_resource_limits(site: Site, *, dry_run: bool = False) -> tuple[list[str], list[str]]:
    """Return what was told, a line per resource, and what went wrong.

    Raises:
        TemporaryError: one side could not be read.
    """
    uuid = site.offering.waldur_offering_uuid
    states = (ResourceState.OK, ResourceState.ERRED)
    resources = site.waldur.resources(uuid, states).require_complete("resources")
    state = site.backend.observe()
    differences: list[Difference] = []
    carriers = Counter(resource.account for resource in resources)
    for resource in resources:
        name = resource.account
        found = state.resources.get(name)
        if found is None or carriers[name] > 1:  # nobody knows how a shared limit is divided
            continue
        limits = limits_to_report(
            resource, found, site.offering.components, site.backend.limits_agree
        )
        if limits is not None:
            differences.append((resource, limits))
    if not differences:
        return [], []
    if limits_are_waldurs(site):
        return [], ["a periodic policy of Waldur owns the limits; nothing was told"]
    if dry_run:
        return [_line(difference) for difference in differences], []
    attempts = concurrently(lambda d: site.waldur.set_limits(d[0].uuid, d[1]), differences)
    told = [_line(attempt.item) for attempt in attempts if attempt.error is None]
    trouble = [f"{a.item[0].backend_id}: {a.error}" for a in attempts if a.error is not None]
    return told, trouble


def _line(difference: Difference) -> str:
    resource, limits = difference
    changes = [
        f"{name} {_number(resource.limits.get(name))} -> {value:f}"
        for name, value in sorted(limits.items())
        if resource.limits.get(name) != value
    ]
    return f"{resource.backend_id}  {', '.join(changes)}"


def _number(value: Decimal | None) -> str:
    return "none" if value is None else f"{value:f}"
