"""Where the resources of an offering belong in the backend, from what Waldur says about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from waldur_site_agent.backends import BackendState, MoveContainer
from waldur_site_agent.cycles.membership_inputs import SERVED_STATES, Gathered
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import Resource
from waldur_site_agent.planning.moves import MovePolicy, projects_in, with_moves

_STEM = "x"


def placement_of(site: Site, resource: Resource, name: str) -> Placement:
    """The place of a resource whose account has a name already.

    Raises:
        PermanentError: a slug is missing, or an account above it has its name.
    """
    slugs = {"customer": resource.customer_slug, "project": resource.project_slug}
    for kind, slug in slugs.items():
        if not slug.strip():
            raise PermanentError(f"its {kind} has no slug; set it in Waldur")
    request = ResourceRequest(
        resource_name=resource.name,
        project_slug=resource.project_slug,
        project_name=resource.project_name,
        customer_slug=resource.customer_slug,
        customer_name=resource.customer_name,
        uuid=resource.uuid,
        attributes=resource.attributes,
    )
    placement = replace(site.backend.place(request, _STEM), id=name)
    if name in {container.id for container in placement.containers}:
        raise PermanentError("it has the name of an account above it; correct its backend_id")
    return placement


def with_moved_projects(site: Site, wanted: Gathered, state: BackendState) -> Gathered:
    """The wanted memberships, with the moves of projects that belong to other organizations now."""
    placements = _placements(site, wanted.snapshot.resources.values())
    policy = MovePolicy(
        follows=site.offering.moved_projects == "follow",
        supported=MoveContainer in site.backend.supports,
        is_of_a_customer=site.backend.is_of_a_customer,
    )
    return replace(
        wanted,
        accounts=with_moves(wanted.accounts, placements, state, policy),
        projects=projects_in(placements.values(), state),
    )


def _placements(site: Site, resources: Iterable[Resource]) -> dict[UUID, Placement]:
    found = {}
    for resource in resources:
        if resource.state in SERVED_STATES and resource.account:
            try:
                found[resource.uuid] = placement_of(site, resource, resource.account)
            except PermanentError:  # its orders say so
                continue
    return found
