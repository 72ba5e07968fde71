"""Selects backend accounts that can be offered for import, and explains why others cannot.

An account belongs to a project if it is a child of the project's account and its name has the
prefix of allocations. Other accounts are not managed by Waldur.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from waldur_site_agent.backends import BackendResource, BackendState
from waldur_site_agent.model.marketplace import (
    BackendResourceRequest,
    Component,
    ImportState,
    Project,
)
from waldur_site_agent.planning.plan import Call, Change, Write, amount_text

CLAIMED = "belong to a resource in Waldur"
OFFERED = "were offered before"
UNKNOWN_PROJECT = "are not below the account of a project that this token can see"
WRONG_PREFIX = "do not have the prefix of allocations"
HAS_CHILDREN = "have child accounts"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPlace:
    """The place of a project's accounts in the backend's account tree."""

    project: Project
    account: str
    """The account below which its allocations are: its own, or one that projects share."""
    organization: str = ""
    """What tells its allocations from those of other projects where these share the account."""
    containers: frozenset[str]
    """The project's account and those of Waldur above it, which are not allocations."""
    prefix: str
    """The prefix of its allocations' names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An account that may become a resource of a project."""

    account: str
    project: Project
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    """By component, in measured units, rounded to the two decimals that Waldur stores."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """The offers sorted by name, and the number of skipped accounts by reason."""

    offers: tuple[Offer, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


def plan_import(
    state: BackendState,
    places: Iterable[ProjectPlace],
    claimed: Collection[str],
    offered: Collection[str],
    components: Mapping[str, Component],
) -> ImportPlan:
    """Find the accounts that Waldur does not know, and the projects they belong to.

    Args:
        state: the backend.
        places: the projects that Waldur shows, with their place in the backend.
        claimed: accounts that belong to resources.
        offered: accounts that were offered before.
        components: the offering's components; other limits are omitted.
    """
    by_account = {(place.account, place.organization): place for place in places}
    containers = frozenset[str]().union(
        *({place.account, *place.containers} for place in by_account.values())
    )
    parents = {resource.parent for resource in state.resources.values()}
    offers: list[Offer] = []
    skipped: Counter[str] = Counter()
    for name in sorted(state.resources.keys() - containers):
        found = state.resources[name]
        parent = found.parent or ""
        place = by_account.get((parent, "")) or by_account.get((parent, found.organization))
        has_children = name in parents
        if place is None and has_children and name not in claimed:
            continue  # the root, a customer or a project, not an allocation
        obstacle = _obstacle(name, place, claimed, offered, has_children=has_children)
        if obstacle or place is None:
            skipped[obstacle] += 1
        else:
            offers.append(_offer(found, place.project, components))
    return ImportPlan(offers=tuple(offers), skipped=dict(sorted(skipped.items())))


def _obstacle(
    name: str,
    place: ProjectPlace | None,
    claimed: Collection[str],
    offered: Collection[str],
    *,
    has_children: bool,
) -> str:
    if name in claimed:
        return CLAIMED
    if name in offered:
        return OFFERED
    if place is None:
        return UNKNOWN_PROJECT
    if not name.startswith(place.prefix) or name == place.prefix:
        return WRONG_PREFIX
    return HAS_CHILDREN if has_children else ""


def _offer(found: BackendResource, project: Project, components: Mapping[str, Component]) -> Offer:
    return Offer(
        account=found.id,
        project=project,
        limits=_measured_limits(found.limits, components),
        metadata=dict(found.metadata),
    )


def _measured_limits(
    found: Mapping[str, Decimal], components: Mapping[str, Component]
) -> dict[str, Decimal]:
    """The limits of an account; of several targets, the one that is reached first counts."""
    limits: dict[str, Decimal] = {}
    for name, component in sorted(components.items()):
        shares = [
            part.to_measured(found[part.type]) for part in component.parts if part.type in found
        ]
        if shares:
            limits[name] = min(shares)
    return limits


def start_write(request: BackendResourceRequest) -> Write:
    """Mark a request as Processing."""
    return _state(request, Call.START_IMPORT, request.state, ImportState.PROCESSING)


def done_write(request: BackendResourceRequest) -> Write:
    """Mark a request as Done."""
    return _state(request, Call.CLOSE_IMPORT, ImportState.PROCESSING, ImportState.DONE)


def erred_import_write(request: BackendResourceRequest, message: str) -> Write:
    """Mark a request as Erred, with the reason."""
    before = ImportState.PROCESSING
    return _state(request, Call.CLOSE_IMPORT, before, ImportState.ERRED, message)


def offer_write(offer: Offer, components: Mapping[str, Component]) -> Write:
    """Offer an account for import."""
    return Write(
        call=Call.CREATE_BACKEND_RESOURCE,
        uuid=None,
        about=offer.account,
        changes=tuple(_offer_changes(offer, components)),
        reason="no resource has this account",
        value=metadata_offered(offer),
    )


def metadata_offered(offer: Offer) -> dict[str, object]:
    """The metadata of an offer: limits and the backend's own."""
    limits = {name: float(amount) for name, amount in offer.limits.items()}
    return {**offer.metadata, "limits": limits}


def _offer_changes(offer: Offer, components: Mapping[str, Component]) -> Iterator[Change]:
    yield Change("importable in project", None, offer.project.slug)
    for name, amount in sorted(offer.limits.items()):
        unit = components[name].measured_unit if name in components else ""
        yield Change(f"limit {name}", None, amount_text(amount), unit)
    for name, text in sorted(offer.metadata.items()):
        yield Change(f"metadata {name}", None, text)


def _state(
    request: BackendResourceRequest, call: Call, old: str, new: str, message: str = ""
) -> Write:
    return Write(
        call=call,
        uuid=request.uuid,
        about=f"import request {request.uuid}",
        changes=(Change("state", old, new),),
        reason=message or "asked for importable resources",
        value=message or None,
    )
