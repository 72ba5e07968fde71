"""Whose usage is reported: the resources of an offering, each with an account of its own."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from waldur_site_agent.backends import BackendState
from waldur_site_agent.cycles.membership_gathering import SERVED_STATES
from waldur_site_agent.cycles.offering_access import check_emptied_list
from waldur_site_agent.cycles.optional_calls import is_absent, is_unavailable, tell_optional
from waldur_site_agent.cycles.unreadable import readable, stand_ins
from waldur_site_agent.cycles.writing import send_write
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.planning.writes import ok_write
from waldur_site_agent.waldur import concurrently

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.planning.writes import Write


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """What the offering has, sorted out by what can be reported."""

    resources: Mapping[str, Resource] = field(default_factory=dict)
    """Those to report, by account."""
    missing: Mapping[str, tuple[Resource, ...]] = field(default_factory=dict)
    """Those whose account the backend does not have."""
    skipped: tuple[str, ...] = ()
    """The others, and why nothing of them is reported."""
    troubles: tuple[str, ...] = ()
    """Accounts that stand for several resources, and resources that were not understood."""
    is_whole: bool = True
    """Whether every resource was understood."""
    state: BackendState = field(default_factory=lambda: BackendState(resources={}))

    @property
    def accounts(self) -> int:
        """How many accounts were looked for."""
        return len(self.resources) + len(self.missing)


def gather_subjects(site: Site) -> Subjects:
    """Read the resources, those of the siblings, and the backend.

    Raises:
        TemporaryError: one of them could not be read.
    """
    uuid = site.offering.waldur_offering_uuid
    listing = site.waldur.resources(uuid, SERVED_STATES)
    listed = readable(site, listing, "resources")
    troubles = tuple(f"no usage is reported of a resource: {row}" for row in listing.unreadable)
    check_emptied_list(site, "resources", listed)
    groups: dict[str, list[Resource]] = defaultdict(list)
    for resource in listed:
        if resource.account:
            groups[resource.account].append(resource)
    if not groups:
        return Subjects(troubles=troubles, is_whole=not troubles)
    elsewhere = accounts_elsewhere(site)
    for each in stand_ins(listing.unreadable):
        elsewhere.setdefault(each.account, []).append(_named(each))
    found = _sort_out(groups, elsewhere, site.backend.observe())
    return replace(found, troubles=(*found.troubles, *troubles), is_whole=not troubles)


def accounts_elsewhere(site: Site) -> dict[str, list[str]]:
    """By account, the resources of sibling offerings that have it, as the log names them.

    Raises:
        TemporaryError: a sibling's resources could not be read.
    """
    elsewhere: dict[str, list[str]] = defaultdict(list)
    for sibling in site.siblings:
        name, uuid = sibling.offering.name, sibling.offering.waldur_offering_uuid
        try:
            listing = sibling.waldur.resources(uuid, SERVED_STATES)
            resources = (
                *readable(site, listing, f'resources of the offering "{name}"'),
                *stand_ins(listing.unreadable),
            )
        except PermanentError as error:
            site.conditions.note(
                "whether accounts are shared with another offering is not known",
                name,
                other=name,
                reason=str(error),
            )
            continue
        for resource in resources:
            if resource.account:
                elsewhere[resource.account].append(f'{_named(resource)} of the offering "{name}"')
    return dict(elsewhere)


def _sort_out(
    groups: Mapping[str, Sequence[Resource]],
    elsewhere: Mapping[str, Sequence[str]],
    state: BackendState,
) -> Subjects:
    resources: dict[str, Resource] = {}
    missing: dict[str, tuple[Resource, ...]] = {}
    skipped: list[str] = []
    troubles: list[str] = []
    for account, group in sorted(groups.items()):
        if len(group) > 1 or account in elsewhere:
            names = [*map(_named, group), *elsewhere.get(account, ())]
            troubles.append(shared_account(account, names))
        elif account in state.resources:
            resources[account] = group[0]
        elif group[0].state in (ResourceState.OK, ResourceState.ERRED):
            missing[account] = tuple(group)
        else:
            skipped.append(f"{account}: {group[0].state}, and the backend does not have it")
    return Subjects(
        resources=resources,
        missing=missing,
        skipped=tuple(skipped),
        troubles=tuple(troubles),
        state=state,
    )


def shared_account(account: str, names: Iterable[str]) -> str:
    """Why nothing is reported of an account that several resources have."""
    return (
        f"{account}: several resources have this account, so nobody knows whose its usage is, and "
        f"none is reported: {', '.join(names)}; correct the backend_id of all but one in Waldur"
    )


def _named(resource: Resource) -> str:
    return f'"{resource.name}" ({resource.uuid})'


def revive(site: Site, resources: Mapping[str, Resource]) -> dict[str, str]:
    """Set erred resources OK, which have their account: Waldur takes no usage of erred ones.

    Returns:
        By account, why a resource is still erred.
    """
    erred = {a: r for a, r in resources.items() if r.state == ResourceState.ERRED}
    still: dict[str, str] = {}
    for attempt in concurrently(lambda item: _set_ok(site, *item), erred.items()):
        account = attempt.item[0]
        if attempt.error is not None:
            still[account] = f"is Erred in Waldur and could not be set OK: {attempt.error}"
        elif not attempt.value:
            who = (
                "this Waldur has no call to"
                if is_absent(site, _SET_AS_OK)
                else "this token may not"
            )
            still[account] = f"is Erred in Waldur, which {who} change; set it OK there"
    return still


def foresee_revival(resources: Mapping[str, Resource]) -> list[Write]:
    """What :func:`revive` would write."""
    return [_ok(r) for r in resources.values() if r.state == ResourceState.ERRED]


def _ok(resource: Resource) -> Write:
    return ok_write(resource, "its account is there")


_SET_AS_OK = "set_as_ok"


def _set_ok(site: Site, account: str, resource: Resource) -> bool:
    """Set a resource OK that is Erred also when it is read by itself; whether it takes usage.

    Raises:
        PermanentError: the resource has another account by now, or is terminated.
    """
    if is_unavailable(site, _SET_AS_OK):
        return False
    current = site.waldur.resource(resource.uuid)
    if current.state == ResourceState.TERMINATED or current.account != account:
        raise PermanentError(f'it is {current.state} with the account "{current.account}" by now')
    if current.state != ResourceState.ERRED:
        return True
    return tell_optional(site, _SET_AS_OK, partial(send_write, site, _ok(current)), account)
