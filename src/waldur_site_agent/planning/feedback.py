"""What Waldur is told about a resource after the backend was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from waldur_site_agent.model.offerings import AccountingType
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.limits import to_the_last_digit
from waldur_site_agent.planning.remembering import metadata_of
from waldur_site_agent.planning.writes import limits_write, metadata_write, ok_write, sync_write

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from waldur_site_agent.backends import Access, BackendResource
    from waldur_site_agent.model.offerings import Component
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.limits import Agree
    from waldur_site_agent.planning.writes import Write

SYNC_MARK_AGE = timedelta(minutes=50)
"""Waldur sends reminders for resources that were not synchronized for an hour."""

_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """The differences between what Waldur shows of a resource and how it stands."""

    resource: Resource
    metadata: Mapping[str, object] | None = None
    limits: Mapping[str, Decimal] | None = None
    set_ok: bool = False
    refresh_sync: bool = False

    def __bool__(self) -> bool:
        return (
            self.metadata is not None or self.limits is not None or self.set_ok or self.refresh_sync
        )


def feedback_writes(feedback: Feedback, components: Mapping[str, Component]) -> tuple[Write, ...]:
    """What is written in Waldur for it, in this order."""
    resource = feedback.resource
    writes = []
    if feedback.set_ok:
        writes.append(ok_write(resource, "its account works"))
    if feedback.metadata is not None:
        writes.append(metadata_write(resource, feedback.metadata, "found in the backend"))
    if feedback.limits is not None:
        reason = "found in the backend"
        writes.append(limits_write(resource, feedback.limits, components, reason))
    if feedback.refresh_sync:
        writes.append(sync_write(resource))
    return tuple(writes)


def feedback_on(
    resource: Resource,
    found: BackendResource,
    components: Mapping[str, Component],
    now: datetime,
    *,
    works: bool,
    wanted: Access | None = None,
    limited: Collection[str] = (),
    agree: Agree = to_the_last_digit,
) -> Feedback:
    """Compare what Waldur shows with how the resource stands.

    Args:
        resource: the resource as Waldur shows it.
        found: its account.
        components: the offering's components.
        now: the time.
        works: whether everything planned for the account succeeded.
        wanted: how far the account should be usable.
        limited: the members whose limits the agent has set.
        agree: whether two limits are the same to the backend.
    """
    metadata = metadata_of(resource.backend_metadata, found, wanted, limited)
    idle = resource.state in (ResourceState.OK, ResourceState.ERRED)
    return Feedback(
        resource=resource,
        metadata=metadata if metadata != dict(resource.backend_metadata) else None,
        limits=limits_to_report(resource, found, components, agree) if idle else None,
        set_ok=works and resource.state == ResourceState.ERRED,
        refresh_sync=works
        and (resource.last_sync is None or now - resource.last_sync > SYNC_MARK_AGE),
    )


def limits_to_report(
    resource: Resource,
    found: BackendResource,
    components: Mapping[str, Component],
    agree: Agree = to_the_last_digit,
) -> dict[str, Decimal] | None:
    """All limits for Waldur, when some found in the backend differ from what it shows.

    Waldur replaces what it has by what it is sent, so limits that are not the agent's are sent
    back as they are. Only limit components are compared; a limit that the backend does not have
    is not reported, nor one that cannot be told exactly in two decimals of the measured unit.
    What is reported is what Waldur then shows, so the same limit is never reported twice.
    """
    limit_components = {
        name: component
        for name, component in components.items()
        if component.accounting_type == AccountingType.LIMIT
    }
    shown = {name: resource.limits.get(name) for name in limit_components}
    reported = dict(shown)
    for name, component in limit_components.items():
        amount = found.limits.get(name)
        value = shown[name]
        if amount is None or (
            value is not None and agree(name, value * component.unit_factor, amount)
        ):
            continue
        measured = (amount / component.unit_factor).quantize(_CENT)
        if measured * component.unit_factor == amount:
            reported[name] = measured
    if reported == shown:
        return None
    everything = {**resource.limits, **reported}
    return {name: value for name, value in everything.items() if value is not None}
