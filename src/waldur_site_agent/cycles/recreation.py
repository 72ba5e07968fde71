"""Plans to make accounts again, from Waldur, that the backend has lost; only when asked for."""

from __future__ import annotations

from dataclasses import replace

from waldur_site_agent.backends import BackendState, CreateResource
from waldur_site_agent.cycles.placements import placement_of
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.backend import ResourceFacts
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import ResourceState
from waldur_site_agent.planning.limits import (
    LimitPrecision,
    initial_limits,
    of_resource,
    supported_limits,
)
from waldur_site_agent.planning.membership import AccountWanted

_SERVED = (ResourceState.OK, ResourceState.ERRED, ResourceState.UPDATING)


def with_creations(
    site: Site, accounts: tuple[AccountWanted, ...], state: BackendState
) -> tuple[AccountWanted, ...]:
    """The accounts, each missing one with its creation or with why it cannot be made again.

    So is one whose making was interrupted.
    """
    if not site.recreate:
        return accounts
    return tuple(
        account if _is_whole(account.id, state) else _with_creation(site, account)
        for account in accounts
    )


def _is_whole(name: str, state: BackendState) -> bool:
    """Whether an account is there with everything that it is made with."""
    found = state.resources.get(name)
    return found is not None and found.is_complete


def _with_creation(site: Site, account: AccountWanted) -> AccountWanted:
    try:
        creation = _creation(site, account)
    except PermanentError as error:
        return replace(account, creation_problem=str(error))
    return replace(account, creation=creation)


def _creation(site: Site, account: AccountWanted) -> CreateResource:
    """What makes an account as its order did, under the name that it had.

    Raises:
        PermanentError: it cannot be known how it was, or the backend names accounts itself.
    """
    capabilities = site.backend.capabilities
    can_be_read = (
        capabilities.tells_all
        and capabilities.tells_members
        and capabilities.tells_access
        and capabilities.recognizes_unfinished
    )
    if capabilities.assigns_ids or capabilities.finishes_later or not can_be_read:
        raise PermanentError("this backend cannot make a resource again under its old name")
    first, *others = account.resources
    if others:
        raise PermanentError(
            f"it belongs to {len(others) + 1} resources, so its limits are not known; make it by "
            "hand, or correct the backend_id of one of them in Waldur"
        )
    if first.state not in _SERVED:
        raise PermanentError(f"the resource is {first.state}")
    components = site.offering.components
    sold = supported_limits(site.backend, first.name, first.limits, components)
    limits = initial_limits(sold, of_resource(components, first))
    return CreateResource(
        placement_of(site.backend, first, account.id),
        LimitPrecision.of(site.backend).limits(limits),
        facts=ResourceFacts(
            uuid=first.uuid,
            backend_id=first.backend_id,
            attributes=first.attributes,
            options=first.options,
        ),
    )
