"""Resources whose account is gone: looked at twice, then marked in Waldur."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from waldur_site_agent.cycles.optional_calls import tell_optional
from waldur_site_agent.cycles.writing import send_write
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.writes import erred_write
from waldur_site_agent.waldur import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.writes import Write

_FEW = 1


def mark_missing(site: Site, missing: Mapping[str, Sequence[Resource]], accounts: int) -> list[str]:
    """Mark resources whose account is gone, once a second reading agrees; return the trouble.

    When very many are gone it is more likely that the agent looks at the wrong cluster, so
    nothing is marked.

    Args:
        site: the offering at work.
        missing: the resources by the account that the backend does not have.
        accounts: how many accounts were looked for, the missing ones among them.
    """
    if not missing:
        return []
    if _too_many(missing, accounts):
        share = f"{len(missing)} of {accounts}"
        remedy = "nothing was marked in Waldur: check that this is the right cluster"
        return [f"{share} accounts are missing in the backend; {remedy}"]
    try:
        again = site.backend.observe()
    except SiteAgentError as error:
        return [f"{len(missing)} accounts seem to be missing; not looked again: {error}"]
    failures = []
    for name, resources in missing.items():
        if name in again.resources:
            continue
        failures.append(f'{name}: the backend has no account "{name}"')
        for resource in resources:
            failures += _mark(site, resource, name)
    return failures


def foresee_marks(missing: Mapping[str, Sequence[Resource]], accounts: int) -> list[Write]:
    """What :func:`mark_missing` would write, if a second reading agrees."""
    if _too_many(missing, accounts):
        return []
    return [
        erred_write(resource, _message(name))
        for name, resources in missing.items()
        for resource in resources
        if resource.state == ResourceState.OK
    ]


def _too_many(missing: Mapping[str, Sequence[Resource]], accounts: int) -> bool:
    return len(missing) > _FEW and len(missing) * 2 > accounts


def _message(name: str) -> str:
    return f'The account "{name}" does not exist any more; ask the site to restore it.'


def _mark(site: Site, resource: Resource, name: str) -> list[str]:
    try:
        current = site.waldur.resource(resource.uuid)
        is_idle = current.state == ResourceState.OK and current.order_in_progress is None
        if is_idle and current.account == name:
            tell = partial(send_write, site, erred_write(current, _message(name)))
            if tell_optional(site, "set_as_erred", tell, name):
                site.log.error("resource marked Erred: its account is gone", resource=name)
    except NotFoundError as error:
        site.conditions.note("missing account not marked in Waldur", name, reason=str(error))
    except SiteAgentError as error:
        return [f"{name}: not marked in Waldur: {error}"]
    return []
