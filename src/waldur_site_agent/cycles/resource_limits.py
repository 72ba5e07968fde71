"""Tells Waldur the limits that the backend has, where they differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.membership_feedback import limits_are_waldurs
from waldur_site_agent.cycles.optional_calls import is_unavailable, tell_optional
from waldur_site_agent.cycles.unreadable import readable, stand_ins
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.feedback import limits_to_report
from waldur_site_agent.waldur import concurrently

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

    from waldur_site_agent.backends import BackendState
    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource

    Difference = tuple[Resource, Mapping[str, Decimal]]

_WITHOUT_ORDER = (ResourceState.OK, ResourceState.ERRED)


def sync_resource_limits(site: Site, *, dry_run: bool = False) -> tuple[list[str], list[str]]:
    """Return what was told, a line per resource, and what went wrong.

    Raises:
        TemporaryError: one side could not be read.
    """
    uuid = site.offering.waldur_offering_uuid
    listing = site.waldur.resources(uuid, _WITHOUT_ORDER)
    shared = {each.account for each in stand_ins(listing.unreadable)}
    resources = [r for r in readable(site, listing, "resources") if r.account not in shared]
    differences = _differences(site, resources, site.backend.observe())
    if not differences:
        return [], []
    if limits_are_waldurs(site):
        return [], ["a periodic policy of Waldur owns the limits; nothing was told"]
    if dry_run:
        return [_line(difference) for difference in differences], []
    differences = _confirmed(site, differences)
    attempts = concurrently(lambda d: site.waldur.set_limits(d[0].uuid, d[1]), differences)
    told = [_line(attempt.item) for attempt in attempts if attempt.error is None]
    trouble = [f"{a.item[0].backend_id}: {a.error}" for a in attempts if a.error is not None]
    return told, trouble


def report_limits(site: Site, resources: Iterable[Resource], state: BackendState) -> list[str]:
    """Tell Waldur the limits found, beside other work; return what went wrong.

    What Waldur refused once, for this token or these very limits, is not said again by this
    process.

    Args:
        site: the offering at work.
        resources: those to look at; each has an account of its own.
        state: the backend as it is.
    """
    if is_unavailable(site, "set_limits"):
        return []
    told = [d for d in _differences(site, resources, state) if not site.memory.get(_key(d))]
    if not told or limits_are_waldurs(site):
        return []
    failures = []
    for attempt in concurrently(lambda d: _tell(site, d), _confirmed(site, told)):
        if attempt.error is None:
            if attempt.value:
                log = site.log.bind(resource=attempt.item[0].account)
                log.info("told Waldur", call="set_limits", limits=_line(attempt.item))
            continue
        if isinstance(attempt.error, PermanentError):
            site.memory[_key(attempt.item)] = 1
        failures.append(f"{attempt.item[0].account}: {attempt.error}")
    return failures


def _confirmed(site: Site, differences: Iterable[Difference]) -> list[Difference]:
    """The differences of resources that are, read by themselves, as the list shows them.

    Limits that are others by now were sold meanwhile, and the backend was read before that.
    """
    attempts = concurrently(lambda d: site.waldur.resource(d[0].uuid), differences)
    return [
        attempt.item
        for attempt in attempts
        if (current := attempt.value) is not None
        and current.order_in_progress is None
        and _planned_from(current) == _planned_from(attempt.item[0])
    ]


def _planned_from(resource: Resource) -> tuple[object, ...]:
    return resource.account, resource.state, dict(resource.limits)


def _tell(site: Site, difference: Difference) -> bool:
    resource, limits = difference
    return tell_optional(
        site, "set_limits", lambda: site.waldur.set_limits(resource.uuid, limits), resource.account
    )


def _differences(
    site: Site, resources: Iterable[Resource], state: BackendState
) -> list[Difference]:
    listed = [resource for resource in resources if resource.state in _WITHOUT_ORDER]
    carriers = Counter(resource.account for resource in listed)
    differences: list[Difference] = []
    for resource in listed:
        found = state.resources.get(resource.account)
        if found is None or carriers[resource.account] > 1:
            continue  # nobody knows how a shared limit is divided
        limits = limits_to_report(
            resource, found, site.offering.components, site.backend.limits_agree
        )
        if limits is not None:
            differences.append((resource, limits))
    return differences


def _key(difference: Difference) -> str:
    """By what is remembered that these very limits were refused."""
    return f"limits were refused: {difference[0].uuid} {_line(difference)}"


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
