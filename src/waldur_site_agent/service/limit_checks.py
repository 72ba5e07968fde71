"""Whether Waldur and the accounts have the same limits, as lines of the diagnosis."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING

from waldur_site_agent.backends import Check, Verdict
from waldur_site_agent.config import Job
from waldur_site_agent.cycles.resource_limits import by_account, unlimited_text
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.limit_sync import limit_differences, unlimited_components
from waldur_site_agent.service.diagnosis import never_raising
from waldur_site_agent.service.sessions import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from waldur_site_agent.backends import Backend
    from waldur_site_agent.backends.registry import Registry
    from waldur_site_agent.config import Offering, Source
    from waldur_site_agent.model.orders import Resource

_WITHOUT_ORDER = (ResourceState.OK, ResourceState.ERRED)
_SHOWN = 20
_NEXT = {
    "backend": "the next cycle tells Waldur what the account has (limits: backend)",
    "waldur": "the next membership_sync sets what was sold (limits: waldur)",
    "report": "neither side changes (limits: report)",
}


def diagnose_limits(offering: Offering, source: Source, registry: Registry) -> Iterator[Check]:
    """Every limit on which the two sides do not agree, with the command that mends it.

    To be asked when the other checks of Waldur and the backend went well; never raises.
    """
    yield from never_raising("limits", _checks(offering, source, registry))


def _checks(offering: Offering, source: Source, registry: Registry) -> Iterator[Check]:
    name = offering.backend_for(Job.MEMBERSHIP) or offering.backend_for(Job.ORDERS)
    if not name or not offering.components:
        return
    with connect(offering, "diagnostics") as waldur:
        listed = waldur.resources(offering.waldur_offering_uuid, _WITHOUT_ORDER).items
    groups = by_account(listed)
    if not groups:
        return
    settings = registry.settings(name, offering, source, source.offering_number(offering.name))
    backend = registry.open(name, settings, offering)
    try:
        yield from _compared(offering, groups, backend)
    finally:
        backend.close()


def _compared(
    offering: Offering, groups: Mapping[str, Sequence[Resource]], backend: Backend
) -> Iterator[Check]:
    components = {
        name: component
        for name, component in offering.components.items()
        if name in backend.limits_to_set("", {name: Decimal(0)})
    }
    state = backend.observe()
    differing: list[Check] = []
    unlimited: dict[str, list[str]] = defaultdict(list)
    agreeing = 0
    for account, resources in sorted(groups.items()):
        found = state.resources.get(account)
        if found is None or not found.is_complete or not found.limits_are_known:
            continue
        differences = limit_differences(resources[0], found, components, backend.limits_agree)
        agreeing += not differences
        for component in unlimited_components(resources[0], found, components):
            unlimited[component].append(account)
        differing += [
            Check(
                name=f"limits of {account}",
                verdict=Verdict.WARNING,
                detail=str(difference),
                remedy=_remedy(offering, len(resources), is_missing=difference.found is None),
            )
            for difference in differences
        ]
    yield from differing[:_SHOWN]
    if len(differing) > _SHOWN:
        yield Check(
            name="limits",
            verdict=Verdict.WARNING,
            detail=f"{len(differing) - _SHOWN} more differ",
            remedy="waldur-site-agent limits sync --to backend --dry-run shows them all",
        )
    for component, accounts in unlimited.items():
        yield Check(
            name="limits", verdict=Verdict.WARNING, detail=unlimited_text(component, accounts)
        )
    if agreeing:
        detail = f"{agreeing} of {len(groups)} accounts have the limits that Waldur shows"
        yield Check(name="limits", verdict=Verdict.OK, detail=detail)


def _remedy(offering: Offering, resources: int, *, is_missing: bool) -> str:
    if resources > 1:
        return f"{resources} resources share the account; correct the backend_id of all but one"
    by_hand = "waldur-site-agent limits sync --to backend"
    if is_missing and offering.limits != "waldur":
        return f"{by_hand} sets it"
    return f"{_NEXT[offering.limits]}; to decide by hand: {by_hand}, or --to waldur"
