"""Compares one account with its resource in Waldur; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from waldur_site_agent.backends import BackendResource
from waldur_site_agent.cycles.limits import limited_components
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.marketplace import Resource
from waldur_site_agent.planning.limits import LimitPrecision, limit_differences, of_resource
from waldur_site_agent.planning.membership import wanted_access
from waldur_site_agent.planning.plan import amount_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One thing that an account should have, and what it has."""

    field: str
    expected: str
    actual: str
    reason: str = ""
    """Why they differ, or whose the expected value is; empty where they agree."""
    unit_factor: str = ""
    waldur_unit: str = ""
    waldur_value: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the account has what it should have."""
        return not self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCheck:
    """An account, its resource in Waldur, and what they agree on."""

    account: str
    resource: Resource | None
    found: BackendResource | None
    comparisons: tuple[Comparison, ...] = ()

    @property
    def status(self) -> str:
        """``ok``, ``mismatch``, or ``missing`` where one of the sides has nothing."""
        if self.resource is None or self.found is None:
            return "missing"
        return "ok" if all(each.agrees for each in self.comparisons) else "mismatch"


def check_account(site: Site, account: str) -> AccountCheck:
    """Read both sides of an account and compare them.

    Raises:
        TemporaryError: Waldur or the backend could not be read.
    """
    name = account.strip().lower()
    uuid = site.offering.waldur_offering_uuid
    resources = site.waldur.resources(uuid)
    resource = next((each for each in resources.items if each.account == name), None)
    found = site.backend.observe([name]).resources.get(name)
    if resource is None:
        resources.require_complete("resources")
    comparisons: tuple[Comparison, ...] = ()
    if resource is not None and found is not None:
        comparisons = tuple(_compare(site, resource, found))
    return AccountCheck(account=name, resource=resource, found=found, comparisons=comparisons)


def _compare(site: Site, resource: Resource, found: BackendResource) -> Iterator[Comparison]:
    wanted = wanted_access(resource)
    access = found.access.value if found.access else "set by the site"
    is_wrong = found.access is not None and found.access is not wanted
    yield Comparison(
        field="access",
        expected=wanted.value,
        actual=access,
        reason="the next cycle of membership_sync changes it" if is_wrong else "",
    )
    components, precision = limited_components(site), LimitPrecision.of(site.backend)
    differences = {
        each.target: each for each in limit_differences(resource, found, components, precision)
    }
    for component in of_resource(components, resource).values():
        for part in component.parts:
            difference = differences.get(part.type)
            limit = found.limits.get(part.type)
            sold = (
                component.cap if component.cap is not None else resource.limits.get(component.type)
            )
            yield Comparison(
                field=f"limit of {part.type}",
                expected=_text(
                    None if sold is None else precision.settable(part.type, part.to_backend(sold))
                ),
                actual=_text(limit),
                reason="" if difference is None else str(difference),
                unit_factor=_text(part.limit_factor),
                waldur_unit=component.unit_text,
                waldur_value=_text(sold),
            )


def _text(amount: Decimal | None) -> str:
    return amount_text(amount) or "none"
