"""Where the resources of an offering belong in the backend, from what Waldur says about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from waldur_site_agent.backends import Backend, BackendState, MoveContainer
from waldur_site_agent.config import Offering
from waldur_site_agent.cycles.membership_inputs import Gathered
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import Resource, ResourceState
from waldur_site_agent.planning.membership import AccountWanted
from waldur_site_agent.planning.moves import MovePolicy, projects_in, with_moves

_STEM = "x"


def placement_of(backend: Backend, resource: Resource, name: str) -> Placement:
    """The place of a resource whose account has a name already.

    Raises:
        PermanentError: a slug is missing, or an account above it has its name.
    """
    request = ResourceRequest.of(resource)
    if kind := request.lacks_slug_of:
        raise PermanentError(f"its {kind} has no slug; set it in Waldur")
    placement = replace(backend.place(request, _STEM), id=name)
    if name in {container.id for container in placement.containers}:
        raise PermanentError("it has the name of an account above it; correct its backend_id")
    return placement


def with_moved_projects(site: Site, wanted: Gathered, state: BackendState) -> Gathered:
    """The wanted memberships, with the moves of projects that belong to other organizations now."""
    placements = _placements(site.backend, wanted.snapshot.resources.values())
    policy = _policy(site.offering, site.backend)
    return replace(
        wanted,
        accounts=with_moves(wanted.accounts, placements, state, policy),
        projects=projects_in(placements.values(), state),
    )


def misplaced(
    offering: Offering, groups: Mapping[str, Sequence[Resource]], backend: Backend
) -> list[tuple[str, str]]:
    """Accounts of projects that are not below their organization's, each with a remedy.

    Args:
        offering: the offering.
        groups: its resources, by account.
        backend: reads the accounts.
    """
    placements = _placements(backend, (each for group in groups.values() for each in group))
    if not any(len(place.containers) > 1 for place in placements.values()):
        return []
    accounts = (
        AccountWanted(id=name, resources=tuple(group), members=None)
        for name, group in groups.items()
    )
    state = backend.observe()
    found = []
    for each in with_moves(accounts, placements, state, _policy(offering, backend)):
        if each.not_moved:
            found.append((each.not_moved, ""))
        elif each.move is not None:
            move = each.move
            where = f'account "{move.resource}" is below "{move.previous}"'
            text = f'{where}, not below "{move.container.parent}"'
            found.append((text, "membership_sync moves it; waldur-site-agent plan shows that"))
    return found


def _policy(offering: Offering, backend: Backend) -> MovePolicy:
    return MovePolicy(
        follows=offering.moved_projects == "follow",
        supported=MoveContainer in backend.supports,
        is_of_a_customer=backend.is_of_a_customer,
    )


def _placements(backend: Backend, resources: Iterable[Resource]) -> dict[UUID, Placement]:
    found = {}
    for resource in resources:
        if resource.state in ResourceState.SERVED and resource.account:
            try:
                found[resource.uuid] = placement_of(backend, resource, resource.account)
            except PermanentError:  # its orders say so
                continue
    return found
