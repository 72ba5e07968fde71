"""Which resources in Waldur have the name of an account, in this offering and in others.

Two resources must never share an account by mistake: before an order takes, adopts or deletes an
account, before limits are reported, users are marked deleted or accounts are offered for import,
somebody else's claim on the name is looked for. Lists may be a moment old, so claims that decide
are read individually.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from waldur_site_agent.backends import BackendState
from waldur_site_agent.cycles.order_inputs import Resources
from waldur_site_agent.cycles.partial_answers import readable, stand_ins
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.errors import PermanentError, TemporaryError
from waldur_site_agent.model.marketplace import OrderType, Resource, ResourceState
from waldur_site_agent.planning.orders import Claims, OrderContext, claims_of
from waldur_site_agent.waldur import NotFoundError, concurrently


def claims_on(
    site: Site, contexts: Sequence[OrderContext], resources: Resources, state: BackendState
) -> Claims:
    """Which resources in Waldur have which backend_id.

    The offering's own resources are known. For existing accounts that an order might adopt or
    delete, all other offerings that the token can see are checked as well: they may share the
    backend.

    Raises:
        TemporaryError: Waldur could not be read; guessing might give one project's account to
            another project.
    """
    doubtful = {name for context in contexts for name in _doubtful_names(context, state)}
    known = [*resources.own.values(), *resources.listed]
    everywhere = [*known, *_namesakes_of(site, doubtful)]
    unnamed = {
        n for context in contexts if not context.resource.account for n in _names_of(context)
    }
    if doubtful & unnamed - {resource.account for resource in everywhere}:
        everywhere += recently_named(site, resources.listed)
    alive = _alive(everywhere)
    taken = {resource.account for resource in alive}
    return claims_of([*alive, *_used_since_the_order(site, contexts, taken)])


def defer_doubtful_names(
    contexts: Iterable[OrderContext], resources: Resources, state: BackendState
) -> Iterator[OrderContext]:
    """Defer orders that would choose or adopt an account name while the list is outdated.

    If the list of resources lacks the resource of an order, it may also lack others that already
    have the name.
    """
    for context in contexts:
        if not resources.unlisted or not (_has_a_choice(context) or _may_adopt(context, state)):
            yield context
            continue
        missing = resources.unlisted[0]
        problem = TemporaryError(
            f"{context.resource.name}: account name not chosen yet: Waldur's list of resources "
            f'does not show "{missing.name}" ({missing.uuid}) yet, so it may also lack resources '
            "that already have the name; retried in the next pass"
        )
        yield replace(context, problem=problem)


def confirmed_claims(
    site: Site, contexts: Iterable[OrderContext], resources: Resources, state: BackendState
) -> Claims:
    """As :func:`claims_on`, with every competing claimant read individually.

    Raises:
        TemporaryError: Waldur could not be read.
    """
    contexts = tuple(contexts)
    names = {
        name for context in contexts for name in (context.resource.account, *_names_of(context))
    } - {""}
    listed = {
        resource.uuid
        for resource in (*resources.listed, *_namesakes_of(site, names & state.resources.keys()))
        if resource.account in names
    }
    claimants = _read(site, listed - resources.own.keys())
    alive = _alive([*resources.own.values(), *claimants])
    taken = {resource.account for resource in alive}
    return claims_of([*alive, *_used_since_the_order(site, contexts, taken)])


def namesakes(site: Site, name: str) -> tuple[Resource, ...]:
    """Resources of any offering with this backend_id, in lower or upper case."""
    listings = [site.waldur.resources_named(spelling) for spelling in (name, name.upper())]
    return tuple(
        resource
        for listing in listings
        for resource in (
            *listing.require_every_page(f'resources named "{name}"'),
            *stand_ins(listing.unreadable, name),
        )
    )


def ended_namesakes(site: Site, name: str) -> tuple[Resource, ...]:
    """Terminated resources of any offering with exactly this backend_id."""
    listing = site.waldur.resources_named(name, (ResourceState.TERMINATED,))
    return listing.require_every_page(f'terminated resources named "{name}"')


def recently_named(site: Site, listed: Iterable[Resource]) -> list[Resource]:
    """Resources listed without a backend_id, and those that this process has named, read again.

    Lists may not show a backend_id yet that was set a moment ago.

    Raises:
        TemporaryError: Waldur could not be read.
    """
    listed = tuple(listed)
    shown = {resource.uuid for resource in listed if resource.account}
    unnamed = {resource.uuid for resource in listed if not resource.account}
    return _read(site, (unnamed | site.named) - shown)


def _read(site: Site, uuids: Iterable[UUID]) -> list[Resource]:
    """Resources as they are now, without those that do not exist or are hidden from this token.

    Raises:
        TemporaryError: Waldur could not be read.
    """
    found = []
    for attempt in concurrently(site.waldur.resource, sorted(uuids)):
        if attempt.value is not None:
            found.append(attempt.value)
        elif not isinstance(attempt.error, NotFoundError):
            raise TemporaryError(
                f"the backend_id of resource {attempt.item} could not be read: {attempt.error}"
            ) from attempt.error
    return found


def _namesakes_of(site: Site, names: Collection[str]) -> list[Resource]:
    found: list[Resource] = []
    for attempt in concurrently(lambda name: namesakes(site, name), sorted(names)):
        if attempt.error is not None:
            raise TemporaryError(
                f'the owner of account "{attempt.item}" could not be read: {attempt.error}'
            ) from attempt.error
        found += attempt.value or ()
    return found


def _used_since_the_order(
    site: Site, contexts: Iterable[OrderContext], taken: Collection[str]
) -> Iterator[Resource]:
    """Terminated resources that keep a candidate name from being given again.

    Usage is counted by account name from the order's creation on, so what the previous owner of
    the name used after it would be billed twice. Only names derived from the project slug are
    reused, and only those have alternatives. Sites may want no name to be given twice at all.

    Raises:
        TemporaryError: Waldur could not be read.
    """
    never_again = site.backend.capabilities.names_once
    choosing = [c for c in contexts if _has_a_choice(c) or (never_again and _is_nameless(c))]
    rivals = Counter(context.placements[0].id for context in choosing)
    for context in choosing:
        free = 0
        for name in (placement.id for placement in context.placements if placement.id not in taken):
            spellings = (name, name.upper()) if never_again else (name,)
            used = [
                resource
                for spelling in spellings
                for resource in ended_namesakes(site, spelling)
                if never_again or _ended_after(resource, context.resource.created)
            ]
            yield from used
            free += not used
            if free == rivals[context.placements[0].id]:
                break


def _has_a_choice(context: OrderContext) -> bool:
    """Whether the order has several account names to choose from."""
    return _is_nameless(context) and context.problem is None and len(context.placements) > 1


def _may_adopt(context: OrderContext, state: BackendState) -> bool:
    """Whether the order might adopt an existing account."""
    return _is_nameless(context) and bool(_doubtful_names(context, state))


def _is_nameless(context: OrderContext) -> bool:
    """Whether the order gives its resource a name."""
    return context.order.type in OrderType.OPENING and not context.resource.account


def _ended_after(resource: Resource, moment: datetime | None) -> bool:
    """Whether the resource may have ended after this moment; true if unknown."""
    return moment is None or resource.modified is None or resource.modified >= moment


def _alive(resources: Iterable[Resource]) -> list[Resource]:
    return [resource for resource in resources if resource.state != ResourceState.TERMINATED]


def _doubtful_names(context: OrderContext, state: BackendState) -> set[str]:
    """Existing accounts that the order might adopt, change or delete."""
    if context.problem is not None or context.order.type == OrderType.UPDATE:
        return set()
    own = context.resource.account
    return ({own} if own else _names_of(context)) & state.resources.keys()


def _names_of(context: OrderContext) -> set[str]:
    return {placement.id for placement in context.placements}


def accounts_elsewhere(site: Site) -> dict[str, list[str]]:
    """By account, the resources of sibling offerings that use it, as text.

    Raises:
        TemporaryError: a sibling's resources could not be read.
    """
    elsewhere: dict[str, list[str]] = defaultdict(list)
    for sibling in site.siblings:
        name, uuid = sibling.offering.name, sibling.offering.waldur_offering_uuid
        try:
            listing = sibling.waldur.resources(uuid, ResourceState.SERVED)
            resources = (
                *readable(site, listing, f'resources of the offering "{name}"'),
                *stand_ins(listing.unreadable),
            )
        except PermanentError as error:
            site.conditions.note(
                "cannot check for accounts shared with another offering",
                name,
                other=name,
                reason=str(error),
            )
            continue
        for resource in resources:
            if resource.account:
                elsewhere[resource.account].append(f'{named(resource)} of the offering "{name}"')
    return dict(elsewhere)


def named(resource: Resource) -> str:
    """A resource with its UUID, for messages."""
    return f'"{resource.name}" ({resource.uuid})'
