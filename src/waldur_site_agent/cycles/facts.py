"""Tells backends that ask for it what Waldur says about resources and people."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from waldur_site_agent.backends import BackendState
from waldur_site_agent.cycles.partial_answers import readable
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.backend import Facts, ResourceFacts
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import (
    OfferingUser,
    Order,
    Resource,
    TeamMember,
    uuid_from_url,
)
from waldur_site_agent.waldur import concurrently


def tell_resources(site: Site) -> None:
    """Tell the backend about all live resources of the offering, if it needs that.

    Raises:
        TemporaryError: the resources could not be read.
    """
    if not site.backend.capabilities.needs_facts:
        return
    listing = site.waldur.resource_records(site.offering.waldur_offering_uuid)
    records = readable(site, listing, "resources")
    site.backend.hear(Facts(resources=tuple(map(_facts, records))))


def tell_people(
    site: Site,
    users: Iterable[OfferingUser],
    teams: Mapping[UUID, Collection[TeamMember]],
    provider: UUID | None = None,
) -> None:
    """Tell the backend about people and their roles, if it needs that."""
    if site.backend.capabilities.needs_facts:
        people = {project: tuple(team) for project, team in teams.items()}
        site.backend.hear(Facts(users=tuple(users), teams=people, provider=provider))


def facts_of_orders(
    site: Site, orders: Iterable[Order], resources: Mapping[UUID, Resource]
) -> dict[UUID, ResourceFacts]:
    """By order, the facts of its resource; read one by one for backends that need all of them.

    Raises:
        TemporaryError: a resource could not be read.
    """
    pairs = [
        (order, resource)
        for order in orders
        if (resource := order.resource_in(resources)) is not None
    ]
    if not site.backend.capabilities.needs_facts:
        return {order.uuid: _known_facts(order, resource) for order, resource in pairs}
    found: dict[UUID, ResourceFacts] = {}
    attempts = concurrently(lambda pair: site.waldur.resource_record(pair[1].uuid), pairs)
    for attempt in attempts:
        order, resource = attempt.item
        if attempt.value is None:
            raise TemporaryError(f"{resource.name}: it could not be read: {attempt.error}")
        found[order.uuid] = _ordered(_facts(attempt.value), order)
    site.backend.hear(Facts(resources=tuple(found.values())))
    return found


def with_candidates(site: Site, state: BackendState, names: Iterable[str]) -> BackendState:
    """The state with resources of these names, of backends that do not show all that exists.

    Raises:
        TemporaryError: the backend could not be read.
    """
    missing = sorted({*names} - state.resources.keys())
    if site.backend.capabilities.tells_all or not missing:
        return state
    found = site.backend.observe(missing)
    return BackendState(resources={**found.resources, **state.resources})


def _facts(record: Mapping[str, Any]) -> ResourceFacts:
    uuid = uuid_from_url(str(record.get("uuid", "")))
    if uuid is None:
        raise TemporaryError("Waldur described a resource without a UUID; it will be read again")
    return ResourceFacts(
        uuid=uuid,
        backend_id=str(record.get("backend_id") or ""),
        attributes=_mapping(record, "attributes"),
        options=_mapping(record, "options"),
        plugin_options=_mapping(record, "offering_plugin_options"),
        record=record,
    )


def _known_facts(order: Order, resource: Resource) -> ResourceFacts:
    known = ResourceFacts(
        uuid=resource.uuid,
        backend_id=resource.backend_id,
        attributes=resource.attributes,
        options=resource.options,
    )
    return _ordered(known, order)


def _ordered(facts: ResourceFacts, order: Order) -> ResourceFacts:
    """The facts with what the order asks for; Waldur's own follow once it is done."""
    return replace(
        facts,
        attributes={**facts.attributes, **order.attributes},
        options={**facts.options, **_mapping(order.attributes, "new_options")},
        renewed_until=order.renewed_until,
    )


def _mapping(record: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = record.get(field)
    return value if isinstance(value, Mapping) else {}
